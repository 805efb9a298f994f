"""Many texts to one server: in requests as large as it takes, several of them at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from math import ceil, inf
from typing import NamedTuple, TypeVar

from ..errors import InvalidRequest
from .context_limits import Length, told
from .embeddings import TextRefused, TokenIds
from .upstream import AT_ONCE, TooMany

_Text = TypeVar("_Text", str, TokenIds)
_Row = TypeVar("_Row")

BYTES_A_TOKEN = 3  # most languages have more a token, so tokens are overestimated


class Limits(NamedTuple):
    """What one request may hold. A text that is beyond them by itself is sent alone."""

    texts: int
    # As UTF-8. JSON may make three times as many of them, and TEI's default for a request is 2,000,000.
    bytes: int = 500_000
    tokens: float = inf
    tokens_a_text: float = inf
    """More than that the server does not read of a text."""
    at_once: int = AT_ONCE
    """Requests under way."""


async def ask_in_batches(
    texts: Iterable[_Text],
    limits: Callable[[], Limits],
    ask: Callable[[list[_Text]], Awaitable[list[_Row]]],
) -> dict[_Text, _Row | Length]:
    """What `ask` answers for these texts, in requests within the limits of the moment: a row for each; for one that the model refuses as too long, its length.

    A batch refused as too large (413, or a text in it too long), or of more texts than a busy server gets at a time, is
    sent again in halves; a text too large by itself
    (413) is TextRefused. Any other error is raised as `ask` raised it: the first, upon which the other requests are
    cancelled.
    """
    fresh = _batches(dict.fromkeys(texts), limits)
    waiting: deque[list[_Text]] = deque()  # that are sent again
    rows: dict[_Text, _Row | Length] = {}

    async def work() -> None:
        while batch := waiting.popleft() if waiting else next(fresh, None):
            try:
                answer = await ask(batch)
            except TooMany:
                middle = len(batch) // 2
                waiting.extendleft([batch[middle:], batch[:middle]])
            except InvalidRequest as error:
                length = told(error.message)
                if length is None and error.details.get("status") != 413:
                    raise
                if len(batch) > 1:
                    middle = len(batch) // 2
                    waiting.extendleft([batch[middle:], batch[:middle]])
                elif length is not None:
                    rows[batch[0]] = length
                else:
                    raise TextRefused(batch[0], f"the text is too long: {error}", error.details) from error
            else:
                rows.update(zip(batch, answer, strict=True))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(limits().at_once):
                group.create_task(work())
    except ExceptionGroup as failures:
        first = failures.exceptions[0]  # results come as they are ready
        raise first from first.__cause__
    return rows


def size(text: str | TokenIds) -> int:
    """Bytes of UTF-8; those of an id are what JSON may make of it."""
    # A lone surrogate, which a str may hold and UTF-8 may not, is the server's to refuse.
    return len(text.encode(errors="surrogatepass")) if isinstance(text, str) else 7 * len(text)


def _even(limits: Limits, texts: int) -> Limits:
    """For the next of batches of the same size, lest the last be small: it takes as long on its way, and room beside large ones."""
    batches = max(1, ceil(texts / limits.texts))
    return limits._replace(texts=ceil(texts / batches))


def _batches(texts: Iterable[_Text], told: Callable[[], Limits]) -> Iterator[list[_Text]]:
    """Each as large as may be when it is asked for."""
    left = list(texts)
    batch: list[_Text] = []
    limits = _even(told(), len(left))
    length, tokens = 0, 0.0
    for index, text in enumerate(left):
        more = size(text)
        to_read = min(more / BYTES_A_TOKEN, limits.tokens_a_text)
        if batch and (
            len(batch) >= limits.texts or length + more > limits.bytes or tokens + to_read > limits.tokens
        ):
            yield batch
            batch, length, tokens, limits = [], 0, 0.0, _even(told(), len(left) - index)
        batch.append(text)
        length += more
        tokens += to_read
    if batch:
        yield batch
