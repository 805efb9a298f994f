"""The log of a server or worker on stderr: one line per event, as text or JSON."""

from __future__ import annotations

import json
import logging
import traceback
from typing import Literal

from . import tracing
from .clock import stamp


class _OneLine(logging.Formatter):
    """Keeps each message on one line, even if it contains text of a caller or a model server; a traceback follows unchanged."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        return line if line.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class _JSON(logging.Formatter):
    """Formats a record as `{time, level, logger, message}`, plus `error` with a traceback, and a call's numbers as fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": stamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "call", {}),
        }
        if record.exc_info:
            line["error"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, default=str)


def write(level: str, form: Literal["text", "json"]) -> None:
    """Configure this process's log: ours from the given level, warnings of other packages."""
    handler = logging.StreamHandler()
    text = _OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s")
    tracing.AS_JSON = form == "json"
    handler.setFormatter(_JSON() if form == "json" else text)
    logging.basicConfig(handlers=[handler])
    logging.getLogger("llmbackend").setLevel(level.upper())
