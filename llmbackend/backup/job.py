"""A backup as a job, started directly or by a schedule; it runs where the collections are open."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .. import tracing
from ..errors import Forbidden
from ..jobs.context import Context, JobServices
from ..jobs.registry import job_type
from ..schemas import Request


class BackupParams(Request):
    keep: int | None = Field(
        None, ge=1, le=1000, description="how many backups stay in BACKUP_DIR, this one included"
    )


def _check(_: JobServices, __: BackupParams) -> None:
    if not tracing.current().caller.everywhere:
        raise Forbidden(
            "a backup contains the data of all projects: only the server's own key (API_KEY) may make one"
        )


@job_type("backup", BackupParams, where="collections", check=_check)
async def backup(context: Context, params: BackupParams) -> dict[str, Any]:
    """`{file, bytes, rows, collections, chunks, left_out: [{collection, error}]}`; the file is in BACKUP_DIR."""
    return await context.services.backups.make(context.job_id, params.keep, context.progress)
