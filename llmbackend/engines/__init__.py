"""Vector engines: the interface, Qdrant Edge and Qdrant servers behind it, and search by words."""
