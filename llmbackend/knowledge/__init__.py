"""Collections of documents: chunking, storing, finding, and answering from what was found."""
