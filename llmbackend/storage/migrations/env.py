"""Run by Alembic: works on the connection that it is given, in that connection's transaction."""

from __future__ import annotations

from alembic import context

from llmbackend.storage.schema import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
