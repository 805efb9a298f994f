"""Functions for any text: its words and sentences, and making it harmless in prompts and replies."""
