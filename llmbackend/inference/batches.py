"""Many texts to one server: in requests as large as it takes, several of them at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from math import inf
from typing import Any, NamedTuple

from ..errors import InvalidRequest

IN_FLIGHT = 4
BYTES_A_TOKEN = 3  # in most languages a token has more, so that tokens are rather overestimated


class Limits(NamedTuple):
    """What one request may hold. A text that is beyond them by itself is sent alone."""

    texts: int
    # As UTF-8. JSON may make three times as many of them, and TEI's default for a request is 2,000,000.
    bytes: int = 500_000
    tokens: float = inf
    tokens_a_text: float = inf
    """What the server cuts a longer text down to."""


class Answer(NamedTuple):
    rows: list[Any]
    tokens: int


async def ask_in_batches(
    texts: Sequence[str], limits: Limits, ask: Callable[[list[str]], Awaitable[Answer]]
) -> Answer:
    """What `ask` answers for these texts: a row a text, in their order, and the tokens of all requests.

    A text that is there several times is sent once. A batch refused as too large (413) is sent again in halves; a
    text refused by itself is an InvalidRequest that tells its place, from 0. Any other error is raised as `ask`
    raised it: the first, upon which the other requests are cancelled.
    """
    waiting = deque(_batches(dict.fromkeys(texts), limits))
    rows: dict[str, Any] = {}
    tokens = 0

    async def work() -> None:
        nonlocal tokens
        while waiting:
            batch = waiting.popleft()
            try:
                answer = await ask(batch)
            except InvalidRequest as error:
                if error.details.get("status") != 413:
                    raise
                if len(batch) == 1:
                    place = texts.index(batch[0])
                    raise InvalidRequest(
                        f"text {place} (counted from 0) is too long: {error}",
                        details={**error.details, "text": place},
                    ) from error
                middle = len(batch) // 2
                waiting.extendleft([batch[middle:], batch[:middle]])
            else:
                rows.update(zip(batch, answer.rows, strict=True))
                tokens += answer.tokens

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(IN_FLIGHT, len(waiting))):
                group.create_task(work())
    except ExceptionGroup as failures:
        first = failures.exceptions[0]  # they come in the order of their time
        raise first from first.__cause__
    return Answer([rows[text] for text in texts], tokens)


def _batches(texts: Iterable[str], limits: Limits) -> Iterator[list[str]]:
    batch: list[str] = []
    size, tokens = 0, 0.0
    for text in texts:
        # A lone surrogate, which a str may hold and UTF-8 may not, is the server's to refuse.
        length = len(text.encode(errors="surrogatepass"))
        to_read = min(length / BYTES_A_TOKEN, limits.tokens_a_text)
        if batch and (
            len(batch) >= limits.texts or size + length > limits.bytes or tokens + to_read > limits.tokens
        ):
            yield batch
            batch, size, tokens = [], 0, 0.0
        batch.append(text)
        size += length
        tokens += to_read
    if batch:
        yield batch
