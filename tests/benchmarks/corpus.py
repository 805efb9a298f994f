"""Texts to measure with: sentences of made-up words, common ones more often, as in a language."""

from __future__ import annotations

import random

WORDS = 75


def passages(count: int, seed: int = 0) -> list[str]:
    """Texts of 75 words, a chunk each."""
    chance = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
    words = ["".join(chance.choices(syllables, k=chance.randint(1, 3))) for _ in range(4000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]

    def passage() -> str:
        drawn = chance.choices(words, weights, k=WORDS)
        sentences = [drawn[start : start + 15] for start in range(0, WORDS, 15)]
        return " ".join(" ".join(sentence).capitalize() + "." for sentence in sentences)

    return [passage() for _ in range(count)]
