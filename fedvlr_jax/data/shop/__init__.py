"""A generated shop whose items can be looked at: drawn pictures, written titles."""
