"""Texts longer than an embedding model takes: cut into parts, whose vectors are then averaged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

from .. import slices
from .context_limits import Length
from .embeddings import TextRefused, TooLong, unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILL = 0.95
"""How full parts are made, as estimated by characters; tokens are spread unevenly over a text."""

PIECE = 2**13
"""The most characters given to a tokenizer as one text: while it works, each token takes 100 bytes."""

PIECES_AT_ONCE, MOST_AT_ONCE, LETTERS_AT_ONCE = 64, 512, 2**15
"""Pieces that are tokenized together, on all cores: 64, or up to 512 short ones that have 2**15 letters in all."""

MOST_LETTERS_AT_ONCE = 2**18
"""The most letters of long pieces that are tokenized together before other work gets its turn."""

_LAST_SPACE = re.compile(r"\s+\S*$")


def shorter(text: str, length: Length, too_long: TooLong) -> list[str]:
    """What to send instead of a long text: its parts, or its beginning.

    The parts are estimated, and may still be too long for the server. Raises TextRefused if `too_long` is
    "error", or if there is nothing left to cut.
    """
    if too_long == "error" or len(text) < 2:
        raise TextRefused(
            text,
            f"the text has {length.tokens or 'more'} tokens and the model takes {length.limit}: shorten it, "
            'or have it cut with too_long="split" or "truncate"',
            {"tokens": length.tokens, "limit": length.limit},
        )
    times = (length.tokens or 2 * length.limit) / length.limit / FILL
    if too_long == "truncate":
        return [text[: _between_words(text, min(int(len(text) / times), len(text) - 1))]]
    number = min(max(2, ceil(times)), len(text))
    places = [_between_words(text, len(text) * part // number) for part in range(1, number)]
    parts = [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]
    return [part for part in parts if part.strip()] or parts[:1]


def _between_words(text: str, place: int) -> int:
    """The place of the last white space shortly before `place`, or `place` itself if there is none."""
    near = max(1, place - 50)
    space = _LAST_SPACE.search(text, near, place)
    return space.start() if space else max(1, place)


def in_pieces(text: str, most: int = PIECE) -> list[str]:
    """Cut a text into pieces of at most `most` characters, which together have the same tokens as the whole.

    Pieces end at the end of a word; a longer run without spaces is cut anywhere. The space after a piece is
    left out, because tokenizers either put one before each text, or ignore spaces.
    """
    pieces, start = [], 0
    while len(text) - start > most:
        space = text.rfind(" ", start, min(start + most + 1, len(text) - 1))
        word_end = start + len(text[start : max(space, start)].rstrip(" "))
        between_words = word_end > start
        end = word_end if between_words else start + most
        pieces.append(text[start:end])
        start = end + between_words
    return [*pieces, text[start:]]


def token_ids(tokenizer: Any, pieces: Sequence[str]) -> Iterator[list[list[int]]]:
    """Yield the token ids of the pieces, as many pieces at a time as keep all cores busy."""
    start = 0
    while start < len(pieces):
        slices.give_way()
        some: list[str] = []
        letters = 0
        for piece in pieces[start : start + MOST_AT_ONCE]:
            letters += len(piece)
            if letters > (LETTERS_AT_ONCE if len(some) >= PIECES_AT_ONCE else MOST_LETTERS_AT_ONCE):
                break
            some.append(piece)
        start += len(some)
        yield [encoding.ids for encoding in tokenizer.encode_batch_fast(some, add_special_tokens=False)]


def mean(vectors: NDArray[np.float32], weights: Sequence[int]) -> NDArray[np.float32]:
    """The weighted mean of the vectors, scaled to unit length."""
    import numpy as np

    whole: NDArray[np.float32] = np.average(vectors, axis=0, weights=weights).astype(np.float32)
    return unit(whole.reshape(1, -1)).reshape(-1)


def of_similar_length(ids: Sequence[Sequence[int]], most: int) -> Iterator[list[int]]:
    """Group the texts' indexes, shortest first, so that a padded group has at most `most` tokens, or a single
    text."""
    group: list[int] = []
    for index in sorted(range(len(ids)), key=lambda index: len(ids[index])):
        if group and (len(group) + 1) * len(ids[index]) > most:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
