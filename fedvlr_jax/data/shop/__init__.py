"""A generated shop with drawn pictures and written titles."""
