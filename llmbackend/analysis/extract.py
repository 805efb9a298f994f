"""Summarizes a document in its own sentences: finds those worth reading, and picks the most telling of them.

A sentence is a stretch of the text with its white space reduced to single spaces. The most telling are near the centroid
of the document and of their part of it (Radev et al., 2004), and unlike each other (maximal marginal relevance; Carbonell
and Goldstein, SIGIR 1998).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import slices
from ..chunks.windows import windows
from ..text import scanning
from ..text.sentences import is_heading, sentences

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEY_POINTS = 7
"""Most key points."""

SUMMARY_WORDS = 110
"""Most words of a summary, unless its first sentence is longer."""

SUMMARY_SENTENCES = 5

FEWEST, MOST = 6, 70
"""Words of a sentence worth reading: shorter ones are headings and fragments, longer ones nobody reads to the end."""

HEADING_WORDS = 8
"""Most words of an unmarked heading."""

SHORT_TEXT = 12
"""In a text of at most so many sentences and lines, FEWEST is halved."""

SENTENCE_LENGTH = 700
"""Most characters of a sentence worth reading."""

ALIKE = 0.85
"""The cosine from which two sentences count as saying the same."""

DIVERSITY = 0.3
"""Weight of a sentence's likeness to those already picked, which counts against it."""

DOUBT = 0.12
"""Subtracted from the cosine of a sentence that hardly stands alone; twice for a definition or a question."""

OPENS = 0.1
"""Added to the cosine of a sentence in the first twentieth of a document, which tells what the document is."""


class Sentence(NamedTuple):
    start: int
    end: int
    text: str
    """The document's text from `start` to `end`, with white space reduced to single spaces."""


# fmt: off
_ABBREVIATED = re.compile(
    r"(?:\b(?:No|Nos|Sec|Art|Mr|Mrs|Ms|Dr|Prof|St|v|vs|e\.g|i\.e|cf|U\.S|U\.K|"
    r"Fig|Vol|para|bzw|z\.B|d\.h|ca|Nr|Abs)|\b[A-Z])\.$")
_MARKER = re.compile(
    r"(?:\s|[-*•·▪◦–—>#]+\s|\(?(?:[A-Za-z]|[ivxIVX]{1,5}|\d{1,3})[.)]\s|\d{1,3}(?:\.\d{1,3})+\.?\s|"
    r"(?:Section|Article|SECTION|ARTICLE)\s+[\dIVX.]+[.:]?\s)*")
_BEGINS = re.compile(r"[\w\"'“„«‘¿¡*`]")
_ENDS = re.compile(r"[.!?。！？][\"'”’»)\]]*$")
_BROKEN = re.compile(r"\[\s*[*•●_.]+\s*\]|_{3,}|\.{4,}|…{2,}|X{4,}|█|\*{3,}|\[?redacted|omitted\]|\[\s+\]|\|", re.I)
_UNDERLINED = re.compile(r"[ \t]*\n[ \t]*([=~^\"*+-])\1{2,}[ \t]*(?:\n|\Z)")
_RULE = re.compile(r"[=~^\"*+_-]*")
_BLANK = re.compile(r"[ \t]*\n[ \t]*\n")
_NOISE = re.compile(
    r"\b(?:all rights reserved|copyright|©|page \d+|in witness whereof|/s/|signature page|intentionally left blank|"
    r"table of contents|^(?:appendix|exhibit|schedule|annex)\b|confidential treatment|incorporated (?:herein )?by reference|exhibit \d|https?://\S+|"
    r"permission is hereby granted|duly executed|undersigned)|\b\d+\.\d+\.(?:\s|$)", re.I)
_TARGET = re.compile(r"\]\([^()\s]*\)")  # the target of a link or an image, which is not part of the sentence
_SIGNED = re.compile(r"(?:^|\s)(?:By|Name|Title|Date|Its|Witness|Attest|Address|Fax|Phone|Tel|E-?mail)\s*:")
_COMMONPLACE = re.compile(
    r"\bheadings\b.*\b(?:convenience|reference)|\bcounterparts?\b|\bseverab|\binvalid(?:ity)?\b.*\benforceab|"
    r"\bunenforceab|\bentire (?:agreement|understanding)|\bno (?:waiver|failure)\b|\bsuccessors and (?:permitted )?assigns|"
    r"\bfurther assurances|\bcomplete agreement concerning|\bwords? (?:in the singular|importing)|"
    r"\bnotices?\b.*\bdeemed\b", re.I)
_DEFINES = re.compile(r"^[\"“][^\"”]+[\"”].*\b(?:means?|refers? to|is defined)\b|\b(?:shall mean|(?:shall )?ha(?:s|ve) the meanings?)\b", re.I)
_LEANS = re.compile(
    r"(?:This|These|That|Those|It|Its|He|She|They|Their|Such|Here|There|However|Therefore|Thus|Hence|But|And|Or|Also|So|"
    r"Then|Nor|Note|Having|Previously|Seriously|Moreover|Furthermore|In addition|Otherwise|Instead|Finally|For example|For instance|As such|Nevertheless|"
    r"Notwithstanding|Accordingly|The (?:following|foregoing|above|latter|former|same))\b(?! (?:Agreement|Contract|Policy|"
    r"Report|document|report|manual|guide|specification|License|Licence))")
# fmt: on


def split(text: str) -> list[Sentence]:
    """Return all sentences and lines in order. Those divided at an abbreviation or a line's end are joined again."""
    spans: list[tuple[int, int]] = []
    below_heading = False
    for start, end in sentences(text):
        slices.give_way()
        piece = text[start:end]
        heading = is_heading(piece)
        if spans:
            before = text[max(spans[-1][0], spans[-1][1] - 20) : spans[-1][1]].rstrip()
            blank = text[spans[-1][1] : start].count("\n") > 1
            apart = blank or heading or below_heading
            if not apart and (
                _ABBREVIATED.search(before) or (piece.lstrip()[:1].islower() and before[-1:] in ".!?")
            ):
                spans[-1] = (spans[-1][0], end)
                continue
        spans.append((start, end))
        below_heading = heading
    found = []
    for start, end in spans:
        slices.give_way()
        marker = _MARKER.match(text, start, end)
        start = marker.end() if marker else start
        end -= len(text[start:end]) - len(text[start:end].rstrip())
        if start < end:
            found.append(Sentence(start, end, scanning.single_spaced(text[start:end])))
    return found


def under_headings(text: str, found: Sequence[Sentence]) -> list[tuple[Sentence, str]]:
    """Return the sentences that are not headings, each with the heading above it (empty if there is none)."""
    told: list[tuple[Sentence, str]] = []
    above = ""
    for number, sentence in enumerate(found):
        if _is_heading(text, sentence, last=number == len(found) - 1):
            above = sentence.text
        elif not _RULE.fullmatch(sentence.text):
            told.append((sentence, above))
    return told


def _is_heading(text: str, sentence: Sentence, *, last: bool) -> bool:
    """Return whether it is marked or underlined as a heading, or is a few words on their own line, above other text."""
    line = text.rfind("\n", 0, sentence.start) + 1
    if text[line : sentence.start].lstrip().startswith("#"):
        return True
    said = text[sentence.start : sentence.end]
    if last or "\n" in said or _ENDS.search(said):
        return False
    if _UNDERLINED.match(text, sentence.end):
        return True
    alone = not text[line : sentence.start].strip() and _BLANK.match(text, sentence.end)
    above = not text[:line].strip() or text[:line].rstrip(" \t").endswith("\n\n")
    few = len(said.split()) <= HEADING_WORDS and not re.search(r"[\d:|=@]", said)
    return bool(alone and above and few)


def worth_reading(found: Sequence[Sentence], text: str) -> list[Sentence]:
    """Return the whole sentences that say something: no headings, page numbers, tables, signatures, redactions, tables of
    contents or code.
    """
    times = Counter(sentence.text for sentence in found)
    fewest = FEWEST if len(found) > SHORT_TEXT else FEWEST // 2
    kept, seen = [], set()
    for sentence in found:
        slices.give_way()
        if times[sentence.text] > 2 or sentence.text in seen or not _says_something(sentence, text, fewest):
            continue
        seen.add(sentence.text)
        kept.append(sentence)
    return kept


def _says_something(sentence: Sentence, text: str, fewest: int) -> bool:
    if len(sentence.text) > 20 * SENTENCE_LENGTH:  # too long even without the targets of its links
        return False
    said = _TARGET.sub("]", sentence.text)
    words = said.split()
    letters = [letter for letter in said if letter.isalpha()]
    unspaced = len(letters) > 12 * len(words)  # a script without spaces between words
    if not unspaced and not fewest <= len(words) <= MOST:
        return False
    if not _ENDS.search(said) or not _BEGINS.match(said) or said[:1].islower() or len(said) > SENTENCE_LENGTH:
        return False
    if len(letters) < 0.7 * len(said.replace(" ", "")):
        return False
    if sum(letter.isupper() for letter in letters) > 0.4 * len(letters):
        return False
    lines = text[sentence.start : sentence.end].split("\n")
    columns = sum(bool(re.search(r"\S(?: {3,}|\t)\S", line)) for line in lines)
    if columns > 1 or (columns and len(lines) == 1) or any(not line.strip() for line in lines):
        return False
    return not any(pattern.search(said) for pattern in (_BROKEN, _NOISE, _SIGNED, _COMMONPLACE))


class Extract(NamedTuple):
    summary: list[Sentence]
    key_points: list[Sentence]


def pick(candidates: Sequence[Sentence], vectors: NDArray[Any], length: int) -> Extract:
    """Pick the sentences of the summary, and the key points, each in text order.

    `vectors` are the candidates' unit vectors; `length` is that of the text in characters.
    """
    import numpy as np

    if not candidates:
        return Extract([], [])
    places = np.array([sentence.start / max(1, length) for sentence in candidates])
    parts = np.minimum((places * KEY_POINTS).astype(int), KEY_POINTS - 1)
    whole = _unit(vectors.mean(axis=0))
    relevance = vectors @ whole
    for part in range(KEY_POINTS):
        inside = parts == part
        if inside.sum() > 2:
            relevance[inside] = 0.6 * relevance[inside] + 0.4 * (
                vectors[inside] @ _unit(vectors[inside].mean(axis=0))
            )
    doubts = np.array([_doubts(sentence.text) for sentence in candidates])
    words = np.array([len(sentence.text.split()) for sentence in candidates])
    length_doubts = np.maximum(0, words - 40) / 30 + np.maximum(0, 10 - words) / 10
    relevance = relevance - DOUBT * (doubts + length_doubts) + OPENS * (places < 0.05)
    summary: list[int] = []
    taken = 0
    for index in _unlike(relevance, vectors, SUMMARY_SENTENCES * 3):
        full = len(summary) == min(SUMMARY_SENTENCES, len(candidates) // 2)
        if summary and (full or taken + words[index] > SUMMARY_WORDS):
            continue
        summary.append(index)
        taken += int(words[index])
    # Key points: first the best of each part of the document, without those in the summary if there are enough others.
    left = [index for index in range(len(candidates)) if index not in summary]
    if len(left) < 3:
        left = list(range(len(candidates)))
    best = sorted(left, key=lambda index: -relevance[index])
    first = [next((index for index in best if parts[index] == part), None) for part in range(KEY_POINTS)]
    order = sorted((index for index in first if index is not None), key=lambda index: -relevance[index])
    order += [index for index in best if index not in order]
    points: list[int] = []
    for index in order:
        if len(points) < KEY_POINTS and all(vectors[index] @ vectors[other] < ALIKE for other in points):
            points.append(index)
    return Extract(
        [candidates[index] for index in sorted(summary)], [candidates[index] for index in sorted(points)]
    )


def _doubts(said: str) -> int:
    """Count what speaks against a sentence: 1 if it depends on the one before it, 2 if it is a definition or a question."""
    return bool(_LEANS.match(said)) + 2 * bool(_DEFINES.search(said) or "?" in said[-3:])


def _unlike(relevance: NDArray[Any], vectors: NDArray[Any], count: int) -> list[int]:
    """Return the indices of the most relevant sentences that are unlike the ones before them, best first."""
    import numpy as np

    picked: list[int] = []
    repeats = np.full(len(relevance), -1.0)
    while len(picked) < min(count, len(relevance)):
        scores = relevance - DIVERSITY * np.maximum(repeats, 0)
        scores[repeats >= ALIKE] = -np.inf  # this includes sentences that are picked already
        best = int(np.argmax(scores))
        if not np.isfinite(scores[best]):
            break
        picked.append(best)
        repeats = np.maximum(repeats, vectors @ vectors[best])
        repeats[best] = 1.0
    return picked


def _unit(vector: NDArray[Any]) -> NDArray[Any]:
    return vector / max(float((vector @ vector) ** 0.5), 1e-9)


def find(quote: str, text: str) -> tuple[int, int] | None:
    """Return start and end of a quote in a text, whatever the white space between its words; None if it is not there."""
    words = quote.split()
    if not words:
        return None
    pattern = re.compile(r"\s+".join(map(re.escape, words)))
    place = text.find(words[0])
    while place >= 0:
        slices.give_way()
        if match := pattern.match(text, place):
            return match.span()
        place = text.find(words[0], place + 1)
    return None


def find_each(quotes: Sequence[str], text: str) -> list[tuple[int, int] | None]:
    places = []
    for quote in quotes:
        slices.give_way()
        places.append(find(quote, text))
    return places


def word_count(text: str) -> int:
    """Count words, part by part, because `split` holds the interpreter's lock."""
    count, before = 0, " "
    for part in windows(text):
        slices.give_way()
        cut_within = not before.isspace() and not part[:1].isspace()
        count += len(part.split()) - cut_within
        before = part[-1:]
    return count
