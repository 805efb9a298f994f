"""Splits texts into chunks: the passages that are embedded and found."""
