"""`python -m llmbackend` is the command `llmbackend`."""

from .cli import main

main()
