"""Splits texts into words, so that what one person types matches what another wrote.

A word is a run of letters, digits and their marks, without case, in Unicode's compatible form (NFKC). A run with signs or
capitals inside is found by its parts and as a whole: `e-mail`, `parse_json2`, `XMLHttpRequest`, `node.js`, `E-4711`,
`1,000`. Text in scripts without spaces stays in one run, which `pairs` splits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, pairwise

import regex

REMEMBERED_LENGTH = 64
"""Most characters of a piece between spaces whose words are remembered: longer pieces seldom recur."""

PIECES_REMEMBERED = 2**16
"""Most pieces that are remembered, in some 20 MB."""

LONGEST_WHOLE = 40
"""Most characters of a run with signs that is found as a whole; a long URL is found by its parts only."""

# Scripts without spaces between words: Thai and Lao, Burmese, Khmer, kana (without their middle dot), Han, Hangul.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua9e0-\ua9fe\uaa60-\uaa7f\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
)
_FIRST, _ANY = rf"[[\p{{L}}\p{{N}}]--[{UNSPACED}]]", rf"[[\p{{L}}\p{{N}}\p{{M}}]--[{UNSPACED}]]"
# One of these between letters or digits holds them together, the strong ones less than the others.
_WEAK = r"\-_.:,+#'’&\"·‐‑−־׳״"
_STRONG = "/@"
_RUN = regex.compile(
    # `.NET` and `@user`, but not the dot of `end.Start`; `C++` and `C#`.
    rf"(?:(?<![^\s(\[{{<\"'`])([.@#])(?=\p{{L}}))?({_FIRST}{_ANY}*(?:[{_WEAK}{_STRONG}]{_ANY}+)*)(\+\+|[#+](?!{_FIRST}))?"
    rf"|([{UNSPACED}]+)|(\p{{Extended_Pictographic}})",
    regex.V1,
)
_ASCII_RUN = re.compile(
    r"(?:(?<![^\s(\[{<\"'`])([.@#])(?=[A-Za-z]))?([A-Za-z0-9]+(?:[-_.:,+#'&\"/@][A-Za-z0-9]+)*)(\+\+|[#+](?![A-Za-z0-9]))?"
)
# Most pieces are a plain word or a number, which need none of this.
_SIMPLE = re.compile(
    r"[(\[\"'„“‚‘»«*]*+([A-ZÀ-ÖØ-öø-ÿ]?[a-zß-öø-ÿ]+|[\u0400-\u042f]?[\u0430-\u045f]+|[0-9]+|[A-Z]+)(?:['’]s)?[)\]\"'“”’«».,;:!?…*]*+"
)
_STRONG_SIGNS, _SIGNS = re.compile(f"[{_STRONG}]"), re.compile(f"[{_WEAK}{_STRONG}]")
_BORDER = regex.compile(
    r"(?<=[\p{Ll}\p{N}])(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}\p{Ll}{2})", regex.V1
)  # of camelCase
_TWO = regex.compile(r"([\p{L}\p{M}]+)([0-9]+)|([0-9]+)([\p{L}\p{M}]+)")  # json2, 10kg

_APOSTROPHES = ("'", "’")

# Numbers
_THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:([.,'’])[0-9]{3})(?:\1[0-9]{3})*(?![0-9])")
_SPACED_THOUSANDS = re.compile(
    "(?<![0-9.,])[1-9][0-9]{0,2}(?:[ \u00a0\u2009\u202f][0-9]{3})+(?![0-9])(?:[.,][0-9]+(?![0-9]))?"
)
_THREE_DIGITS = frozenset(f"{number:03}" for number in range(1000))
_NUMBER = re.compile(r"[0-9]+(?:[.,'’][0-9]+)+")
_NUMBERED = re.compile(r"[0-9][.,'’][0-9]")
_POINT = re.compile(r"(?<=[0-9])[.,](?=[0-9])")

# Marks and letters
_RAISED = regex.compile(r"(?<=\p{Nd})(?=\p{No})")  # 10⁶ is not 106, and 2½ not 21/2
_DIGITS = regex.compile(r"[\p{Nd}--[0-9]]", regex.V1)
_NON_JOINER = regex.compile("(?<=\\p{Arabic})\u200c(?=\\p{Arabic})")
_UNSEEN = regex.compile(  # format characters, keycaps and variants, points and tatweel
    "[\\p{Cf}\ufe00-\ufe0f\u20e3\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed\u093c]"
)
_NASAL = regex.compile("[\u0919\u091e\u0923\u0928\u092e]\u094d|\u0901")  # हिन्दी is हिंदी, मुँह is मुंह
_LETTERS = str.maketrans(
    # Of Arabic script, and as Persian and Urdu write them; of Malayalam, two ways to write the same.
    dict(zip("أإآٱىةکیہھ", "اااايهكيهه", strict=True))
    | {"ൺ": "ണ്", "ൻ": "ന്", "ർ": "ര്", "ൽ": "ല്", "ൾ": "ള്", "ൿ": "ക്", "ৎ": "ত্"}
)
_PLAIN_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th"}
)
_GREEK = regex.compile(r"\p{Greek}")
_ACCENTED = regex.compile(r"[\p{Latin}\p{Greek}\p{Cyrillic}]")
_MARKS = regex.compile(r"\p{Mn}+")
# A letter with its vowel signs and tones, and what is stacked below it.
_CLUSTER = regex.compile("\\X(?:(?<=[\u17d2\u1039])\\X)*")


def words(text: str) -> list[str]:
    """Return a text's words in order."""
    found = [*chain.from_iterable(map(_pieces.__getitem__, text.split()))]
    if not _THREE_DIGITS.isdisjoint(found):
        found += (_number("".join(one[0].split())) for one in _SPACED_THOUSANDS.finditer(text))
    return found


class _Pieces(dict[str, tuple[str, ...]]):
    """Remembers the words of pieces between spaces, most of which recur."""

    def __missing__(self, piece: str) -> tuple[str, ...]:
        found = tuple(_words(piece))
        if len(piece) <= REMEMBERED_LENGTH:
            if len(self) >= PIECES_REMEMBERED:
                self.clear()
            self[piece] = found
        return found


_pieces = _Pieces()


WRITTEN = regex.compile(r"[\p{L}\p{N}_](?:[\p{L}\p{M}\p{N}_.'-]*[\p{L}\p{M}\p{N}_])?")
"""Matches a word as it is written, with signs inside: e-mail, 1.5."""


def is_run(word: str) -> bool:
    """Return whether a word is a run in a script without spaces."""
    return word[0] >= "\u0e00" and _UNSPACED_LETTER.match(word) is not None


_UNSPACED_LETTER = regex.compile(f"[{UNSPACED}]")


def letters(run: str) -> list[str]:
    """Return the letters of a run in a script without spaces, each with its marks."""
    return list(run) if _MARKED.search(run) is None else _CLUSTER.findall(run)


_MARKED = regex.compile(r"\p{M}")


def pairs(run: str) -> list[str]:
    """Return each two neighbouring letters of a run, with their marks; words of such scripts have about that length."""
    return list(map("".join, pairwise(letters(run))))


@lru_cache(maxsize=2**14)
def plain(word: str) -> str:
    """Return a word without accents, as many people type it."""
    if word.isascii() or not _ACCENTED.search(word):
        return word
    without: str = _MARKS.sub("", unicodedata.normalize("NFD", word))
    return without.translate(_PLAIN_LETTERS)


def _words(piece: str) -> Sequence[str]:
    """Return the words of a piece between two spaces."""
    if simple := _SIMPLE.fullmatch(piece):
        return (simple[1].casefold(),)
    found: list[str] = []
    # For ASCII, this finds the same words several times as fast.
    runs = _ASCII_RUN.finditer(piece) if piece.isascii() else _RUN.finditer(_compatible(piece))
    for match in runs:
        before, run, behind, *others = match.groups()
        if run is None:
            found += filter(None, others)
        elif run.isalnum() and not before and not behind:
            found += _parts(run)
        else:
            found += _written_in_one(run, before, behind)
    return found


def _compatible(piece: str) -> str:
    """Replace characters by those that Unicode or usage considers the same."""
    piece = unicodedata.normalize("NFKC", _RAISED.sub("^", piece))
    piece = _UNSEEN.sub("", _NON_JOINER.sub("-", piece))
    piece = _DIGITS.sub(lambda digit: str(unicodedata.decimal(digit[0])), piece)
    piece = _NASAL.sub("\u0902", piece).translate(_LETTERS).replace("٫", ".").replace("٬", ",")
    return plain(piece) if _GREEK.search(piece) else piece


def _written_in_one(run: str, before: str | None, behind: str | None) -> list[str]:
    """Return the words of a run, then what else it is found by: numbers, the whole, and the whole with its sign."""
    if run[-2:-1] in _APOSTROPHES and run[-1] in "sS":
        run = run[:-2]  # a possessive
    parts = _SIGNS.split(run)
    found = [word for part in parts for word in _parts(part)]
    if behind:
        if len(parts[-1]) == 1:
            found.pop()  # a search for C must not find C++
        found.append(_caseless(parts[-1]) + behind)
    wholes: list[str] = []
    if len(parts) > 1:
        numbered = _NUMBERED.search(run)
        if numbered:
            wholes += (_number(one[0]) for one in _NUMBER.finditer(run))
        if "/" in run or "@" in run:
            wholes += map(_whole, _STRONG_SIGNS.split(run))
        wholes.append(_whole(run) if numbered else _caseless("".join(parts)))
    if before:
        wholes.append(before + _whole(_STRONG_SIGNS.split(run)[0]))
    found += (one for one in dict.fromkeys(wholes) if len(one) <= LONGEST_WHOLE and one not in found)
    return found


@lru_cache(maxsize=2**14)
def _parts(part: str) -> Sequence[str]:
    """Return a run without signs, and its parts if it has letters and digits, or capitals inside."""
    whole = _caseless(part)
    if part[1:] == whole[1:]:  # no capitals inside
        return (whole,) if part.isalpha() or part.isdecimal() else (whole, *_letters_and_digits(whole))
    if part.isalpha():
        borders = _BORDER.split(part)
        return (whole,) if len(borders) == 1 else (whole, *map(_caseless, borders))
    found = [whole]
    for group in _letters_and_digits(part) or (part,):
        borders = _BORDER.split(group)
        found += map(_caseless, [group, *borders] if len(borders) > 1 else borders)
    return tuple(dict.fromkeys(found))


def _letters_and_digits(part: str) -> Sequence[str]:
    """Return `json` and `2` for json2; nothing for a run with more than two such parts."""
    two = _TWO.fullmatch(part)
    return list(filter(None, two.groups())) if two else ()


def _whole(run: str) -> str:
    """Remove the signs of a run, except the points of numbers: E-4711 becomes E4711, but 1.5 does not become 15."""
    if _NUMBERED.search(run):
        run = _POINT.sub("\0", _without_thousands(run))
    return _caseless(_SIGNS.sub("", run).replace("\0", "."))


def _number(written: str) -> str:
    """Return a number in plain form: 1,000, 1.000 and 1'000 become 1000, and 1,5 becomes 1.5."""
    return _POINT.sub(".", _without_thousands(written))


def _without_thousands(text: str) -> str:
    return _THOUSANDS.sub(lambda number: number[0].replace(number[1], ""), text)


def _caseless(word: str) -> str:
    return word.lower() if word.isascii() else unicodedata.normalize("NFC", word.casefold())
