"""Counts the tokens of a process's first texts as tiktoken's cl100k does, which takes .2 s to load."""

from __future__ import annotations

import re
from binascii import b2a_base64
from itertools import pairwise

import regex

from .. import llamaindex_import

FEW = 2**18
"""So many characters are counted here. Beyond, loading tiktoken pays: it needs a fifth of the time for each."""

LONG = 128
"""Most bytes of a piece that is not a token: the time to merge them grows with the square of their number."""

# Latin letters, signs and symbols: of these, all versions of Unicode say the same.
_PLAIN = re.compile("[\t\n\r -~\u00a0-\u017e\u2010-\u2bff]*+")
_SPECIAL = re.compile(r"<\|(?:endof|fim_)")

_PIECES = regex.compile(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
"""Divides a text into pieces, of which tokens are parts: tiktoken's pattern."""


class FewTokens:
    """Counts by the file of tokens that LlamaIndex ships. Raises OSError if it does not."""

    def __init__(self) -> None:
        self._left = FEW
        self._of_piece: dict[str, int] = _Pieces()

    def count(self, text: str) -> int | None:
        """Return the number of a text's tokens; None if it takes tiktoken, or has taken enough time here."""
        of_piece = self._of_piece
        self._left -= len(text)
        if self._left < 0:
            self._of_piece = {}  # frees some 10 MB
            return None
        if not _PLAIN.fullmatch(text) or _SPECIAL.search(text):
            return None
        counts = list(map(of_piece.__getitem__, _PIECES.findall(text)))
        return None if 0 in counts else sum(counts)


class _Pieces(dict[str, int]):
    """The number of tokens that byte pair encoding makes of a piece; 0 for a long one, which is not counted."""

    def __init__(self) -> None:
        lines = llamaindex_import.shipped_ranks().read_bytes()
        encoded = lines.split()[::2]  # each is a token and its rank, which is its number
        self._ranks = dict(zip(encoded, range(len(encoded)), strict=True))
        self._never = len(encoded)
        """The rank of what is no token, and so is never merged."""

    def __missing__(self, piece: str) -> int:
        count = self[piece] = self._merged(piece.encode())
        return count

    def _merged(self, piece: bytes) -> int:
        if self._rank(piece) < self._never:
            return 1
        if len(piece) > LONG:
            return 0
        parts = [piece[place : place + 1] for place in range(len(piece))]
        ranks = [self._rank(one + other) for one, other in pairwise(parts)]
        while ranks and (best := min(ranks)) < self._never:
            place = ranks.index(best)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
            del ranks[place]
            for changed in range(max(place - 1, 0), min(place + 1, len(ranks))):
                ranks[changed] = self._rank(parts[changed] + parts[changed + 1])
        return len(parts)

    def _rank(self, token: bytes) -> int:
        return self._ranks.get(b2a_base64(token, newline=False), self._never)
