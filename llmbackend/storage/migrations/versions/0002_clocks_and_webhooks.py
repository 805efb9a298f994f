"""When moments to come were worked out, for clocks that are set; hosts of webhooks; errors of schedules."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Float, String, Text, text

from llmbackend.outbound.addresses import origin
from llmbackend.storage.migrations import add_missing

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    add_missing("jobs", Column("reckoned_at", Float))
    add_missing("job_schedules", Column("reckoned_at", Float), Column("error", Text))
    if "host" in add_missing("job_webhooks", Column("host", String(300)), Column("reckoned_at", Float)):
        connection = op.get_bind()
        undelivered = connection.execute(
            text("SELECT job, url FROM job_webhooks WHERE delivered_at IS NULL")
        ).all()
        for job, url in undelivered:
            connection.execute(
                text("UPDATE job_webhooks SET host = :host WHERE job = :job"),
                {"host": origin(url), "job": job},
            )
