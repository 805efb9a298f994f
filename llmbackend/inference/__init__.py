"""Models: chat and embeddings, embedded in this process or behind a URL. Knows nothing of collections or jobs."""
