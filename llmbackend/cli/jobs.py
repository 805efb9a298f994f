"""`llmbackend jobs`: list, show, watch, cancel, retry and delete jobs."""

from __future__ import annotations

from typing import Annotated

import typer

from llm_client import progress_text

from .. import Job
from .shared import (
    AsJson,
    Key,
    Url,
    bar,
    connected,
    errors,
    print_json,
    print_record,
    print_table,
    print_waiting,
)

app = typer.Typer(help="List the newest jobs, or show, watch, cancel, retry or delete one.")

JobId = Annotated[str, typer.Argument(help="Its id, as `llmbackend jobs` shows it.")]


def add_to(command: typer.Typer) -> None:
    command.add_typer(app, name="jobs")


@app.callback(invoke_without_command=True)
def listed(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="queued, running, completed, failed, cancelled")] = None,
    limit: int = 20,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    if context.invoked_subcommand is not None:
        return None
    with connected(url, key) as client:
        found = client.list_jobs(status=status, limit=limit)
    if as_json:
        return print_json(found)
    rows = [(job.id, job.type, job.status, _progress(job), job.created_at) for job in found]
    return print_table(("id", "type", "status", "progress", "created"), rows, "there are no jobs")


@app.command()
def show(job_id: JobId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show a job's state and its result or error; exit code 1 if it failed."""
    with connected(url, key) as client:
        job = client.get_job_status(job_id)
    _print_job(job, as_json)
    if job.status == "failed":
        raise typer.Exit(1)


@app.command()
def watch(job_id: JobId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Wait for a job to end; exit code 1 if it did not complete. Ctrl-C stops waiting, not the job."""
    try:
        with connected(url, key) as client:
            with bar() as progress:
                for event in client.job_events(job_id):
                    progress(event.job.progress)
                    if event.job.pending:
                        print_waiting(event.job.pending)
                        told = f"`llmbackend agent approve {job_id}`, or reject, continues it"
                        errors.print(told, highlight=False, soft_wrap=True)
            job = client.get_job_status(job_id)
    except typer.Exit:
        errors.print("the job continues if a server or worker is running for it", style="dim")
        raise
    _print_job(job, as_json)
    if job.status != "completed":
        raise typer.Exit(1)


@app.command()
def cancel(job_id: JobId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Cancel a job; what it has done is kept."""
    with connected(url, key) as client:
        job = client.cancel_job(job_id)
    _print_job(job, as_json)


@app.command()
def delete(job_id: JobId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Delete a job that has ended, with its params and result."""
    with connected(url, key) as client:
        deleted = client.delete_job(job_id)
    print_json(deleted) if as_json else print(f"{deleted.deleted} is deleted")


@app.command()
def retry(job_id: JobId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Resume a failed or cancelled job where it stopped."""
    with connected(url, key) as client:
        job = client.retry_job(job_id)
    _print_job(job, as_json)


def _print_job(job: Job, as_json: bool) -> None:
    if as_json:
        return print_json(dict(job))
    told = {name: value for name, value in job.items() if value not in (None, [], {}, "")}
    if told.get("progress"):
        told["progress"] = _progress(job)
    if isinstance(error := told.get("error"), dict):
        told["error"] = f"{error.get('code')}: {error.get('message')}"
    return print_record(told)


def _progress(job: Job) -> str:
    """As in notebooks; empty if there is nothing beyond the status."""
    progress = job["progress"]
    began = progress.get("done") or progress.get("total") or progress.get("stage")
    return progress_text(progress, job["type"]) if began else ""
