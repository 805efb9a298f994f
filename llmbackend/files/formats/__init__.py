"""One module for each family of file formats: bytes in, text out."""
