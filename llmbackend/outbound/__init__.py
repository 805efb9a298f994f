"""Requests to addresses that callers name: which are allowed, how they are sent, and signed."""
