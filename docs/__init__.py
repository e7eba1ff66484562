"""The documentation, and in `docs.tools` what makes parts of it."""
