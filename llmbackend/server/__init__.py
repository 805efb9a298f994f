"""The operations over HTTP: a Starlette application on port 8888."""
