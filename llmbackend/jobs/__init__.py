"""Background jobs. The ledger (SQL) is the truth about jobs; the queue (huey) only wakes workers."""

from .context import BlockingContext, Context
from .registry import job_type

__all__ = ["BlockingContext", "Context", "job_type"]
