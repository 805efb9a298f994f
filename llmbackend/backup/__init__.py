"""Backups: everything that is stored, in one file that any engine and database can restore."""
