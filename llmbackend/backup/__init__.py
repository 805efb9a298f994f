"""Backups: everything that is kept, in one file that any engine and database can take in again."""
