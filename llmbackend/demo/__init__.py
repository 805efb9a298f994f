"""A demonstration of the main features: two projects' documents, questions with sources, an analysis and a
job, on both transports."""

from __future__ import annotations

import json
import os
import queue
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from .. import LLMBackendClient, LLMBackendError, settings
from ..local import LocalTransport

DOCUMENTS = Path(__file__).parent / "documents"
COLLECTIONS = {"hr_policies": "hr_handbook", "technical_docs": "router_manual"}
QUESTIONS = {
    "hr_policies": "How many days of paid vacation do I get?",
    "technical_docs": "How to reset router?",
}


def run(console: Console) -> None:
    """Run it in this process and over HTTP, in a temporary data directory. Raises what goes wrong."""
    began = time.monotonic()
    models = settings.load().models_path
    with tempfile.TemporaryDirectory(prefix="llmbackend-demo-") as scratch:
        local = settings.Settings(data_dir=Path(scratch, "local"), models_dir=models, api_key=None)
        console.rule("[bold]in this process:[/bold] LLMBackendClient()")
        with LLMBackendClient(transport=LocalTransport(local)) as client:
            here = _main_job(client, console)
        with _server(Path(scratch, "server"), models) as (url, key):
            console.rule(f"[bold]over HTTP:[/bold] LLMBackendClient({url!r}, api_key=…)")
            with LLMBackendClient(url, key) as client:
                there = _main_job(client, console)
    console.rule()
    if here != there:
        raise LLMBackendError("the two transports gave different results: please report this")
    console.print(
        f"Both transports gave the same results, in {time.monotonic() - began:.0f} s altogether.",
        highlight=False,
    )


def _main_job(client: LLMBackendClient, console: Console) -> dict[str, Any]:
    """Use each feature once; return the results that must be equal on both transports."""
    results: dict[str, Any] = {}
    for collection, folder in COLLECTIONS.items():
        with _progress(console) as step:
            report = client.rag_ingest_files(DOCUMENTS / folder, collection, progress=step)
        console.print(
            f"[green]ingested[/green] {report.added} documents into {collection}: {report.chunks} chunks"
        )
        results[collection] = report.chunks

    for collection, question in QUESTIONS.items():
        console.print(f"\n[bold]{question}[/bold]  [dim]{collection}[/dim]")
        stream = client.rag_query(question, collection, stream=True)
        for piece in stream:
            console.out(piece, end="", highlight=False)
        console.line()
        for source in stream.sources[:3]:
            console.print(
                f"  [{source.number}] {source.document_id}: {source.quote}", markup=False, style="dim"
            )
        results[question] = [source.document_id for source in stream.sources]
    scores = results["scores"] = _score(client)
    console.print(
        f"\n[green]answered[/green] the fact is in the answer to {scores.facts} questions ([dim]found[/dim] is true for "
        f"{scores.found}); {scores.refused} that the documents do not answer are told as such"
    )

    text = (DOCUMENTS / "customer_letter.txt").read_text(encoding="utf-8")
    analysis = client.analyze_document(text)
    table = Table(title="\nanalysis of customer_letter.txt", show_header=False, title_justify="left")
    table.add_row("sentiment", f"{analysis.sentiment} ({analysis.sentiment_score:+.1f})")
    table.add_row("key points", "\n".join(f"• {point}" for point in analysis.key_points))
    table.add_row("summary", analysis.summary)
    table.add_row("model", f"{analysis.model} (small: a larger one judges better)")
    console.print(table)

    texts = [f"Support ticket {number}: the router does not connect" for number in range(5000)]
    job_id = client.submit_job(job_type="batch_embed", params={"texts": texts})
    with _progress(console) as step:
        result = client.wait_for_job(job_id, progress=step)
    console.print(
        f"[green]completed[/green] job {job_id[:8]}: {result.count} vectors of {result.dimension} dimensions\n"
    )
    results["vectors"] = result.embeddings[:10]
    return results


class _Scores(NamedTuple):
    """How many of the demo's questions are answered well, and how many without an answer are refused."""

    facts: str
    found: str
    refused: str


def _score(client: LLMBackendClient) -> _Scores:
    questions = json.loads((DOCUMENTS / "questions.json").read_text(encoding="utf-8"))
    answers = [
        (item["answer_contains"], client.rag_query(item["question"], item["collection"]))
        for item in questions
    ]
    told = [(fact, answer) for fact, answer in answers if fact]
    untold = [answer for fact, answer in answers if not fact]
    facts = sum(_plain(fact) in _plain(answer) for fact, answer in told)
    found = sum(answer.found for _, answer in told)
    refused = sum(not answer.found for answer in untold)
    return _Scores(f"{facts} of {len(told)}", f"{found} of {len(told)}", f"{refused} of {len(untold)}")


def _plain(text: str) -> str:
    """The text without Markdown's marks, and with links as their hosts, as answers have them."""
    return " ".join(re.sub(r"[*_`|]+|https?://", " ", text.lower()).split())


@contextmanager
def _progress(console: Console) -> Iterator[Any]:
    with Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=None)

        def step(state: Any) -> None:
            progress.update(task, description=state.stage, completed=state.done, total=state.total or None)

        yield step


@contextmanager
def _server(data_dir: Path, models: Path) -> Iterator[tuple[str, str]]:
    """Run a server in another process; yield its URL and key."""
    key = secrets.token_urlsafe(16)
    environment = {
        **os.environ,
        "LLMBACKEND_DATA_DIR": str(data_dir),
        "LLMBACKEND_MODELS_DIR": str(models),
        "LLMBACKEND_API_KEY": key,
    }
    command = [sys.executable, "-m", "llmbackend", "serve", "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        said: queue.SimpleQueue[str | None] = queue.SimpleQueue()

        def listen() -> None:
            for line in process.stderr or ():
                said.put(line)
            said.put(None)

        threading.Thread(target=listen, daemon=True).start()
        try:
            yield _address(said), key
        finally:
            process.terminate()


def _address(said: queue.SimpleQueue[str | None]) -> str:
    lines: list[str] = []
    while (line := said.get(timeout=60)) is not None:
        lines.append(line)
        if " at http" in line:
            return line.split(" at ", 1)[1].split()[0]
    raise LLMBackendError(f"the server did not start: {''.join(lines)[-500:]}")
