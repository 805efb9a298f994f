"""Collections of documents: putting documents into them, and finding passages."""
