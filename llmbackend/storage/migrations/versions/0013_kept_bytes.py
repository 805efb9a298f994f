"""How many bytes each job and each stored response takes, which projects may be limited in."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column

from llmbackend.storage.migrations import add_missing

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    if add_missing("jobs", Column("kept_bytes", BigInteger, nullable=False, server_default="0")):
        # What has expired has no params any more.
        op.execute(
            "UPDATE jobs SET kept_bytes = COALESCE((SELECT LENGTH(params) + row_bytes + LENGTH(COALESCE(result, '')) "
            "FROM job_params WHERE job = jobs.number), 0)"
        )
    op.create_index("jobs_by_bytes", "jobs", ["owner", "kept_bytes"], if_not_exists=True)
    if add_missing("responses", Column("kept_bytes", BigInteger, nullable=False, server_default="0")):
        op.execute("UPDATE responses SET kept_bytes = LENGTH(input) + LENGTH(response)")
    op.create_index("responses_by_bytes", "responses", ["project", "kept_bytes"], if_not_exists=True)
