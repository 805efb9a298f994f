"""Documents into collections."""
