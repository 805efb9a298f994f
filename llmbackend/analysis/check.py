"""Checks a model's claims about a text: their numbers and quotations must be in the text."""

from __future__ import annotations

import re

from .. import slices
from ..text import scanning
from .extract import find

_NUMBER = re.compile(r"\d[\d.,]*\d|\d")
_QUOTED = re.compile(r"[\"“„«]([^\"“”„«»]{3,})[\"”“»]")
_SPELLED = {
    word: str(number)
    for number, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
        ]
    )
}


class Checked:
    """A text that claims are checked against."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._numbers: set[str] = set()
        for part in scanning.parts(text):
            slices.give_way()
            self._numbers |= {_plain(number) for number in _NUMBER.findall(part)}
            self._numbers |= {
                _SPELLED[word] for word in re.findall(r"[a-z]+", part.lower()) if word in _SPELLED
            }

    def missing(self, claim: str) -> list[str]:
        """Return the claim's numbers and quotations that the text does not have."""
        numbers = [number for number in _NUMBER.findall(claim) if _plain(number) not in self._numbers]
        return numbers + [quote for quote in _QUOTED.findall(claim) if find(quote, self._text) is None]


def _plain(number: str) -> str:
    """Return a number in plain form: 1,000.50 and 1.000,50 are the same, and so are 07 and 7."""
    digits = re.sub(r"[.,]", "", number)
    return digits.lstrip("0") or "0"
