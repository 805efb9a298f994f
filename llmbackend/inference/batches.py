"""Sends many texts to one server: in requests as large as it takes, several at a time."""

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

BYTES_A_TOKEN = 3  # a token has more bytes in most languages, so tokens are overestimated


class Limits(NamedTuple):
    """What one request may hold. A single text beyond these limits is sent alone."""

    texts: int
    # As UTF-8. In JSON they may become three times as many, and TEI takes requests of 2,000,000 bytes by
    # default.
    bytes: int = 500_000
    tokens: float = inf
    tokens_a_text: float = inf
    """The server reads at most this many tokens of each text."""
    at_once: int = AT_ONCE
    """How many requests may be under way at a time."""


async def ask_in_batches(
    texts: Iterable[_Text],
    limits: Callable[[], Limits],
    ask: Callable[[list[_Text]], Awaitable[list[_Row]]],
) -> dict[_Text, _Row | Length]:
    """Call `ask` with batches of the texts, within the limits of the moment; return a row for each text.

    A text that the model refuses as too long gets its Length instead of a row. A batch that is refused as too
    large (413, or one of its texts is too long), or that has more texts than a busy server is sent at a time,
    is sent again in halves. A single text that is refused with 413 raises TextRefused. The first other error
    is raised as `ask` raised it, and the other requests are cancelled.
    """
    fresh = _batches(dict.fromkeys(texts), limits)
    waiting: deque[list[_Text]] = deque()  # batches to be sent again
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
        first = failures.exceptions[0]  # they are in the order in which they happened
        raise first from first.__cause__
    return rows


def size(text: str | TokenIds) -> int:
    """The bytes of a text as UTF-8; for token ids, the most that JSON may make of them."""
    # A str may hold a lone surrogate, which UTF-8 has no form for. Refusing it is left to the server.
    return len(text.encode(errors="surrogatepass")) if isinstance(text, str) else 7 * len(text)


def _even(limits: Limits, texts: int) -> Limits:
    """Limits for the next batch, so that all batches have about the same size.

    A small last batch would take as long on its way as a large one, and would take up one of the places for
    requests.
    """
    batches = max(1, ceil(texts / limits.texts))
    return limits._replace(texts=ceil(texts / batches))


def _batches(texts: Iterable[_Text], told: Callable[[], Limits]) -> Iterator[list[_Text]]:
    """Yield batches, each as large as the limits allow when it is asked for."""
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
