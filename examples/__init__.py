"""Programs to read: each needs nothing of this project's packages."""
