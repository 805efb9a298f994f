"""Prepares texts for search: removes hyphens at line ends, ligatures and invisible characters, which stored and quoted
texts keep.
"""

from __future__ import annotations

import re
import unicodedata

# A hyphen at a line's end, which may be a soft one (U+00AD) or part of the word, as in "well-known".
_AT_LINE_END = re.compile(r"(?<=[^\W\d_])(\u00ad|[-\u2010])\r?\n[ \t]*(?=([^\W\d_]))")
_BROKEN = re.compile(r"([^\W\d_]+)[-\u2010]\r?\n[ \t]*([^\W\d_]+)")
# Soft hyphens and marks without width, except those that join and separate letters in Persian and Indian scripts.
_UNSEEN = "\u00ad\u200b\u2060\ufeff\u200e\u200f\u202a-\u202e\u2066-\u2069"
_LIGATURES = "\ufb00-\ufb06"
# Raised, lowered and circled digits and fractions, which would become part of the number before.
_SMALL = "\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2089\u2150-\u2189\u2460-\u249b"
_ODD = re.compile(f"[{_UNSEEN}{_LIGATURES}{_SMALL}]")
_REPLACED = re.compile(f"(?P<unseen>[{_UNSEEN}])|(?P<ligature>[{_LIGATURES}])|(?<=[0-9])(?=[{_SMALL}])")


def legible(text: str) -> str:
    """Join a text's divided words: remove soft hyphens, and hyphens at line ends."""
    return _without_odd(_AT_LINE_END.sub(_joined, text) if _has_broken(text) else text)


def with_parts(text: str) -> str:
    """Do the same for a search by words, and append the parts of words that were divided: the hyphen may be part of them."""
    if not _has_broken(text):
        return _without_odd(text)
    return " ".join([legible(text), *(part for parts in _BROKEN.findall(text) for part in parts)])


def _without_odd(text: str) -> str:
    return text if text.isascii() or not _ODD.search(text) else _REPLACED.sub(_replaced, text)


def _has_broken(text: str) -> bool:
    if "-\n" in text or "-\r\n" in text:
        return True
    return not text.isascii() and ("\u00ad" in text or "\u2010" in text)


def _joined(found: re.Match[str]) -> str:
    # Before a capital letter, the hyphen belongs to the word: E-Mail, Anglo-American.
    return "-" if found[2].isupper() and found[1] != "\u00ad" else ""


def _replaced(found: re.Match[str]) -> str:
    if found["unseen"]:
        return ""
    return unicodedata.normalize("NFKC", found["ligature"]) if found["ligature"] else " "
