"""Long work that is handed over. The ledger (SQL) is the truth about jobs; the queue (huey) only wakes workers."""
