"""Pipelines of several model calls."""
