"""Texts by sentences, in parts of so many tokens: by LlamaIndex's splitter, in linear time whatever a text says."""

from __future__ import annotations

import re
from functools import lru_cache, partial
from typing import Any

from .tokens import tokens_of
from .windows import windows

LONGEST = 200
"""Characters of a word in which sentences may end. In a longer one, the splitter would cut off one after another."""


@lru_cache(maxsize=16)
def splitter(size: int, overlap: int) -> Any:
    """LlamaIndex's SentenceSplitter, for parts of at most `size` tokens."""
    from llama_index.core.node_parser import SentenceSplitter

    return SentenceSplitter(
        chunk_size=size,
        chunk_overlap=overlap,
        paragraph_separator="\n\n",
        chunking_tokenizer_fn=partial(_units, longest=min(LONGEST, size)),
        secondary_chunking_regex=_PHRASES,
        tokenizer=tokens_of,
    )


# Up to a mark that ends a phrase, but not the mark within a number.
_PHRASES = r"(?:[^,.;。？！]|(?<=\d)[.,](?=\d))+[,.;。？！]?|[,.;。？！]"

_ITEM = re.compile(r"^[ \t]*(?:[-*+•–]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])[ \t]+(?=\S)", re.MULTILINE)


def _units(text: str, longest: int) -> list[str]:
    """A list's items, or a text's sentences."""
    starts = [item.start() for item in _ITEM.finditer(text)]
    if len(starts) > 1 or (starts and starts[0]):
        starts = [0, *(start for start in starts if start)]
        return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    return _sentences(text, longest)


def _sentences(text: str, longest: int) -> list[str]:
    """As LlamaIndex's own function for this, but for what is longer than any sentence or word."""
    from llama_index.core.utils import globals_helper

    hide = partial(re.compile(rf"\S{{{longest},}}").sub, _hidden)
    plain = "".join(map(hide, windows(text)))
    starts = [start for start, _ in globals_helper.punkt_tokenizer.span_tokenize(plain)]
    ends = [*starts[1:], len(text)]
    return [part for start, end in zip(starts, ends, strict=True) for part in windows(text[start:end])]


def _hidden(found: re.Match[str]) -> str:
    """A word of the same length in which no sentence ends, though one may at its end."""
    word = found[0]
    bare = word.rstrip("\"')]}")
    first = word[0] if word[0].isalnum() else "x"
    last = bare[-1] if bare[-1:] in (".", "!", "?") and len(bare) > 1 else "x" * min(1, len(bare) - 1)
    return first + "x" * (len(bare) - 1 - len(last)) + last + word[max(1, len(bare)) :]
