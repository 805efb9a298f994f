"""Jobs and their progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_client import Job, Record, progress_text

from ..parts import Bar, Drawing, Fold, Line, Paragraph, Span, Table, muted, strong
from ..wording import duration, moment, parsed, shortened
from .values import ROWS, and_more, drawing, in_words, of_lists_with, of_records_with

_TONES = {"completed": "good", "failed": "bad", "cancelled": "warn"}


def _status(job: Mapping[str, Any]) -> Line:
    tone: Any = _TONES.get(job["status"], "pill")
    return Span(tone, str(job["status"]))


def _progress(progress: Mapping[str, Any], job_type: str = "") -> Line:
    done, total = progress.get("done") or 0, progress.get("total") or 0
    words = progress_text(progress, job_type)
    return [Bar(done / total), words] if total else words


def _took(job: Mapping[str, Any]) -> str:
    """How long a job took, or since when it runs or waits."""
    started, finished = parsed(job.get("started_at")), parsed(job.get("finished_at"))
    if started and finished:
        return f"took {duration((finished - started).total_seconds())}"
    if started:
        return f"since {moment(job['started_at'])}"
    if job.get("run_at"):
        return f"not before {moment(job['run_at'])}"
    return f"since {moment(job.get('created_at'))}"


def _error(job: Mapping[str, Any]) -> str:
    return str((job.get("error") or {}).get("message") or "")


@drawing.register
def _job(job: Job) -> Drawing:
    error = _error(job)
    result = job.get("result")
    return [
        Paragraph([strong(str(job["type"])), "  ", _status(job), "  ", Span("id", str(job["id"]))]),
        Paragraph([_progress(job["progress"], str(job["type"])), muted(f"  {_took(job)}")]),
        *([Paragraph(Span("bad", error))] if error else []),
        *(
            [Fold("result", drawing(result) if isinstance(result, Record) else [Paragraph(in_words(result))])]
            if result is not None
            else []
        ),
    ]


@of_lists_with("id", "type", "status", "progress")
def _jobs(jobs: Sequence[Mapping[str, Any]]) -> Drawing:
    rows: list[list[Line]] = [
        [
            strong(str(job["type"])),
            _status(job),
            _progress(job["progress"], str(job["type"])),
            _took(job),
            Span("bad", shortened(_error(job), 200)) if _error(job) else "",
            Span("id", str(job["id"])),
        ]
        for job in jobs[:ROWS]
    ]
    return [Table(["job", "status", "progress", "time", "error", "id"], rows), *and_more(jobs, ROWS, "jobs")]


@of_records_with("done", "total", "stage")
def _of_progress(progress: Record) -> Drawing:
    return [Paragraph(_progress(progress, progress.get("type", "")))]
