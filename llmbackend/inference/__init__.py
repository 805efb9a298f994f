"""Chat models, embedding models and rerankers: embedded in this process, or behind a URL.

This package knows nothing of collections or jobs.
"""
