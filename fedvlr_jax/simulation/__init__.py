"""All clients at once: the only folder that knows the client axis."""
