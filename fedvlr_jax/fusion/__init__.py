"""Pure functions that fuse what is known of items; server and clients import them."""
