"""The SQL database with its migrations, and the lock on the data directory."""
