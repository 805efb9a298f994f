"""A project's own kinds of job, as an installed package offers them; tests use them to see jobs at work."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from pydantic import BaseModel, Field

from llmbackend import InvalidRequest
from llmbackend.jobs import BlockingContext, Context, job_type


class CountWords(BaseModel):
    texts: list[str] = Field(min_length=1)
    batch: int = 10
    pause: float = 0
    """Seconds between batches."""
    stumble: str | None = None
    """A file without which the job fails half way."""


@job_type("count_words", CountWords, rows="words")
async def count_words(context: Context, params: CountWords) -> dict[str, Any]:
    results, total = context.results, len(params.texts)
    while results.count < total:
        context.progress(results.count, total, "count")
        if results.count >= total // 2 and not _there(params.stumble):
            raise InvalidRequest(f"there is no {params.stumble}")
        batch = params.texts[results.count : results.count + params.batch]
        results.append([{"text": text, "words": len(text.split())} for text in batch])
        await context.checkpoint(results.count)
        await anyio.sleep(params.pause)
    return {"resumed_from": context.resume, "attempt": context.attempt, "owner": context.owner}


def _there(file: str | None) -> bool:
    return file is None or Path(file).exists()


class Vectors(BaseModel):
    count: int
    dimension: int


@job_type("vectors", Vectors)
async def vectors(context: Context, params: Vectors) -> dict[str, Any]:
    context.results.append_vectors(
        np.arange(params.count * params.dimension, dtype=np.float32).reshape(params.count, params.dimension)
    )
    return {}


@job_type("product", Vectors)
async def product(context: Context, params: Vectors) -> dict[str, Any]:
    return {"product": params.count * params.dimension}


class Note(BaseModel):
    file: str
    text: str = ""
    seconds: float = 0
    steps: int = 0
    """Of progress, told at once."""


@job_type("note", Note)
async def note(context: Context, params: Note) -> None:
    """Writes when it began, tells progress, sleeps, and writes when it ended, or that it was cancelled."""
    _write(params.file, f"began {params.text} {time.time()}")
    for done in range(params.steps):
        context.progress(done + 1, params.steps, "note")
    try:
        await anyio.sleep(params.seconds)
    except BaseException:
        _write(params.file, f"cancelled {params.text} {time.time()}")
        raise
    _write(params.file, f"ended {params.text} {time.time()}")


def _write(file: str, line: str) -> None:
    with open(file, "a") as out:
        out.write(line + "\n")


class Kill(BaseModel):
    pass


@job_type("kill", Kill)
async def kill(context: Context, params: Kill) -> None:
    """Kills its process, whenever it is tried."""
    os.kill(os.getpid(), signal.SIGKILL)


def panic() -> None:
    """A real one, of a library in Rust."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.encode("a a").pad(2**62)


class Panic(BaseModel):
    pass


@job_type("panic", Panic)
async def panics(context: Context, params: Panic) -> None:
    panic()


class Work(BaseModel):
    texts: list[str] = []
    seconds: float = 0
    """For which it blocks, before each batch."""
    fails_at: int | None = None


@job_type("shout", Work, rows="shouted")
async def shout(context: Context, params: Work) -> dict[str, Any]:
    """As docs/jobs.md has it."""
    while (done := context.results.count) < len(params.texts):
        context.progress(done, len(params.texts), "shout")
        if done == params.fails_at:
            raise ValueError(f"{params.texts[done]!r} cannot be shouted")
        context.results.append([text.upper() for text in params.texts[done : done + 100]])
        await context.checkpoint(done)
    return {"loud": True}


@job_type("shout_blocking", Work, rows="shouted")
def shout_blocking(context: BlockingContext, params: Work) -> dict[str, Any]:
    """The same as a plain function, which blocks."""
    while (done := context.results.count) < len(params.texts):
        context.progress(done, len(params.texts), "shout")
        time.sleep(params.seconds)
        if done == params.fails_at and context.resume is None:
            raise ValueError(f"{params.texts[done]!r} cannot be shouted")
        context.results.append([text.upper() for text in params.texts[done : done + 100]])
        context.checkpoint(done)
    return {"loud": True, "resumed_from": context.resume, "earlier": len(context.saved_rows())}


@job_type("a_list", Work)
def a_list(context: BlockingContext, params: Work) -> Any:
    return ["no dict"]


@job_type("no_json", Work)
async def no_json(context: Context, params: Work) -> dict[str, Any]:
    return {"seen": {"a", "set"}}
