"""Finds the facts of a contract by patterns that are certain if they match. What they do not match is not reported.

They are written for English contracts: parties are those that the opening introduces by name and role ("Acme Inc., a
Delaware corporation (the “Supplier”)").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..schemas import ContractFacts, Passage
from ..text import scanning
from .extract import Sentence

FACTS_OF_A_KIND = 10
"""Most facts of a kind that are reported."""

OPENING, INTRODUCED = 6000, 1500
"""Characters in which a contract must show that it is one, and in which it then introduces its parties."""

# fmt: off
_CONTRACT = re.compile(r"\b(?:agreement|contract|lease|licen[cs]e|amendment|addendum|memorandum of understanding)\b", re.I)
_BETWEEN = re.compile(r"\b(?:between|among)\b", re.I)
_RECITALS = re.compile(
    r"\bW\s?I\s?T\s?N\s?E\s?S|\bWHEREAS\b|\b(?:Recitals?|RECITALS?)\b|\bNOW,? THEREFORE\b|\n\s{0,40}1\.\s")
_PARTY = re.compile(
    r"(?:\b(?:between|among|and)\b|[:;]|\(\w\))[\s,*]*"
    r"(?P<name>[A-Z0-9][\w&.'’\-]*(?:,?\s(?:[A-Z0-9&][\w&.'’\-]*|of|the|for|de|von|d/b/a)){0,9}\.?)"
    r",?\s[^()“”\"]{0,300}?\(\s*(?:(?:each|collectively|together|hereinafter|referred\s+to|called|known|as|the),?\s+){0,6}"
    r"[“\"](?P<role>[A-Z][^”\"]{1,40})[”\"]")
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = re.compile(
    rf"\b(?:(?:{_MONTHS})\s+\d{{1,2}}(?:st|nd|rd|th)?,?\s+(?:19|20)\d\d|\d{{1,2}}(?:st|nd|rd|th)?\s+(?:day\s+of\s+)?"
    rf"(?:{_MONTHS}),?\s+(?:19|20)\d\d|(?:19|20)\d\d-[01]\d-[0-3]\d)\b")
_AMOUNT = re.compile(
    r"(?:(?:US|U\.S\.|CA|A)?\$|€|£|\b(?:USD|EUR|GBP|CHF)\s?)\s?\d[\d,]*(?:\.\d+)?(?:\s(?:thousand|million|billion))?"
    r"|\b\d[\d,.]{0,30}\d\s(?:USD|EUR|GBP|CHF|U\.S\. dollars|dollars|euros?)\b")
_DUTY = re.compile(
    r"^(?:(?:Each|Either|Neither|The|Both) )?(?P<who>[A-Z][\w&'’\- ]{1,40}?) (?:shall|must|agrees? to|undertakes? to|will) "
    r"(?!be (?:deemed|construed|governed)|mean\b|have the meaning)")
_ROLES = re.compile(
    r"^(?:party|parties|company|customer|client|supplier|vendor|licensor|licensee|lessor|lessee|landlord|tenant|buyer|"
    r"seller|purchaser|contractor|consultant|distributor|manufacturer|provider|borrower|lender|employee|employer|"
    r"franchisor|franchisee|agent|sponsor|recipient)$", re.I)
_NOT_A_PARTY = re.compile(r"^(?:Agreement|Effective Date|Amendment|Contract|Lease|Term|Territory|Products?|Services?|Parties|"
                          r"Securities Act|Exchange Act|Code|Act|Closing|Property|Premises|Software|Party)$", re.I)
# fmt: on


def facts(text: str, sentences: Sequence[Sentence]) -> ContractFacts | None:
    """Return parties, dates, amounts and duties, each verbatim; None if the text is not a contract or has none of these."""
    between = _BETWEEN.search(text, 0, OPENING)
    if not between or not _CONTRACT.search(text, 0, between.end()):
        return None
    end = between.start() + INTRODUCED
    if recitals := _RECITALS.search(text, between.end(), end):
        end = recitals.start()
    parties, roles = [], set()
    for match in _PARTY.finditer(text, between.start(), end):
        if not _NOT_A_PARTY.match(match["role"]) and len(match["name"]) > 2:
            parties.append((match.start("name"), match.end("name")))
            roles.add(match["role"].lower())
    if not parties:
        return None
    duties = [
        (sentence.start, sentence.end)
        for sentence in sentences
        if (duty := _DUTY.match(sentence.text))
        and (duty["who"].lower() in roles or _ROLES.match(duty["who"]))
    ]
    return ContractFacts(
        parties=_passages(text, parties),
        dates=_passages(text, (match.span() for match in scanning.matches(_DATE, text))),
        amounts=_passages(text, (match.span() for match in scanning.matches(_AMOUNT, text))),
        obligations=_passages(text, _spread(duties)),
    )


def _passages(text: str, spans: Iterable[tuple[int, int]]) -> list[Passage]:
    found: dict[str, Passage] = {}
    for start, end in spans:
        said = " ".join(text[start:end].split())
        found.setdefault(said, Passage(text=said, start=start, end=end))
        if len(found) == FACTS_OF_A_KIND:
            break
    return list(found.values())


def _spread(spans: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """Return at most FACTS_OF_A_KIND of them, taken evenly from beginning to end."""
    return (
        spans
        if len(spans) <= FACTS_OF_A_KIND
        else [spans[i * len(spans) // FACTS_OF_A_KIND] for i in range(FACTS_OF_A_KIND)]
    )
