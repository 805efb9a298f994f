"""Analyzes documents: sentiment, key points, summary, and the facts of contracts."""
