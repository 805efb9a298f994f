"""Replies that go round in circles."""

from __future__ import annotations

LOOP_LENGTH = 200
"""A reply is a loop if its last letters, at least this many, say the same thing three times or more. Twenty
hellos are none."""

LOOP_WINDOW = 2000
"""How many letters at the end of a reply are searched for loops."""


def is_loop(text: str) -> bool:
    """Whether a text ends with the same thing three times or more, at least LOOP_LENGTH letters in all."""
    backwards = text[::-1]
    # Knuth, Morris and Pratt's prefix function: how much of the beginning is repeated right before each
    # place.
    again = [0] * len(backwards)
    for place in range(1, len(backwards)):
        length = again[place - 1]
        while length and backwards[place] != backwards[length]:
            length = again[length - 1]
        again[place] = length + (backwards[place] == backwards[length])
        whole, period = place + 1, place + 1 - again[place]
        if whole >= max(LOOP_LENGTH, 3 * period):
            return True
    return False
