"""The encoder of collections made before text/words.py: it splits words at signs, and keeps only codes in one piece."""

from __future__ import annotations

import re
import unicodedata
from itertools import filterfalse, pairwise

from .bm25 import EITHER, GERMAN, STOP_WORDS, Multilingual, grams, hashed, stems

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
_RUN = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+")
_ASCII_GAPS = str.maketrans({letter: " " for letter in map(chr, range(128)) if not letter.isalnum()})
_ARABIC_MARKS = re.compile("[\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed]")
_ARABIC_LETTERS = str.maketrans("أإآٱىة", "اااايه")
_UMLAUTS = str.maketrans("äöü", "aou")

# Digits and letters with signs between them, but no white space.
_CODE = re.compile(r"[^\W_]+(?:[-_./:,+#'’][^\W_]+)+")
_SIGNS = re.compile(r"[\W_]+")
_DIGIT = re.compile(r"\d")
LONGEST_CODE = 40


def _words(text: str) -> list[str]:
    if text.isascii():
        found = text.lower().translate(_ASCII_GAPS).split()
    else:
        found = _WORD.findall(_ARABIC_MARKS.sub("", unicodedata.normalize("NFKC", text)).casefold())
    if all(map(str.isalpha, found)):
        return found
    parts = filter(_DIGIT.search, filterfalse(str.isalnum, text.split()))
    codes = (_SIGNS.sub("", code.casefold()) for part in parts for code in _CODE.findall(part))
    return found + [code for code in codes if len(code) <= LONGEST_CODE and not code.isalpha()]


class FirstMultilingual(Multilingual):
    """The encoder of collections whose sparse model is "bm25-multilingual"."""

    NAME = "bm25-multilingual"

    words = staticmethod(_words)

    @staticmethod
    def asked(word: str) -> dict[int, float]:
        if _RUN.match(word):
            return dict.fromkeys(map(hashed, map("".join, pairwise(word)) if len(word) > 1 else word), 1.0)
        return dict.fromkeys(stems(word.translate(_ARABIC_LETTERS), EITHER), 1.0)

    @staticmethod
    def terms(word: str, languages: tuple[str, ...]) -> tuple[int, ...]:
        if word in STOP_WORDS:
            return ()
        if _RUN.match(word):
            return tuple(set(map(hashed, [*map("".join, pairwise(word)), *word])))
        found = stems(word.translate(_ARABIC_LETTERS), languages)
        return found + (grams(word.translate(_UMLAUTS)) if GERMAN in languages else ())
