"""Authentication and authorization: projects, their API keys, limits and shares, and the one function that decides."""
