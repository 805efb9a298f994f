"""Answering questions from passages, with citations."""
