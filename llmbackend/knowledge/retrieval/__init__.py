"""Finds the passages for a question, and measures how well that works."""
