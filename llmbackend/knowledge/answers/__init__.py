"""Passages into answers that cite them."""
