"""Collections: what each is made of, and how it is exchanged as a whole."""
