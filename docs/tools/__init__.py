"""What makes pages of the documentation; none of it is needed to read them."""
