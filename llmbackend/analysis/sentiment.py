"""How the writer of a text feels, for chat models too small to judge: by its sentences' likeness to examples.

Each kind of feeling is the middle of its examples' vectors (a nearest-centroid classifier; Rocchio, 1971).
"""

from __future__ import annotations

from typing import NamedTuple

from ..inference.embeddings import Embedder
from ..inference.sentences import whole
from ..schemas import Sentiment

EXAMPLES = {
    "positive": (
        "I am very happy with it.",
        "It works perfectly and I love it.",
        "The staff was friendly and helpful.",
        "Thank you, that was excellent service.",
        "It is beautiful, fast and easy to use.",
        "I recommend it to everyone.",
        "We enjoyed it very much and will come back.",
        "It was delivered early and everything was fine.",
        "A great and pleasant experience.",
        "The problem was solved quickly and well.",
        "The food was delicious and the room was clean.",
        "It is good value and worth its price.",
    ),
    "negative": (
        "I am very disappointed and angry.",
        "It is broken and does not work.",
        "The staff was rude and nobody helped.",
        "I want my money back, this is terrible service.",
        "It is ugly, slow and hard to use.",
        "I advise everyone against it.",
        "We were annoyed and frustrated and will not come back.",
        "It was delivered too late and parts were missing.",
        "A bad and unpleasant experience.",
        "The problem was never solved and I had to complain.",
        "The food was awful and the room was dirty.",
        "It is a waste of money and I regret it.",
    ),
    "neutral": (
        "The office opens at nine.",
        "The form is sent to the department.",
        "It weighs 300 grams and has two buttons.",
        "The meeting is on Monday in room 12.",
        "Parking is behind the building.",
        "The town lies on a river in the north of the country.",
        "Press the button and wait ten seconds.",
        "The report describes the budget of the year.",
        "The word comes from Latin and means a place.",
        "Employees have 28 days of leave a year.",
        "Open the menu and choose the settings.",
        "The company was founded in the nineteenth century.",
    ),
}

LEAST = 0.05
"""By which likeness must differ, in the mean of all sentences, to tell a feeling."""

CLEAR = 0.15
"""By which it differs in a sentence that tells one by itself."""

FULL = 0.3
"""By which it differs where a feeling could not be stronger."""


class Feeling(NamedTuple):
    sentiment: Sentiment
    score: float
    """From -1, negative, to 1, positive."""


async def feeling(embedder: Embedder, text: str) -> Feeling:
    """What the text's sentences are like in the mean; `mixed` where some clearly say one thing, and some the other."""
    import numpy as np

    found = whole(text) or [text]
    examples = [example for kind in EXAMPLES.values() for example in kind]
    values = (await embedder.embed([*examples, *found])).values
    middles = np.stack([part.mean(axis=0) for part in np.split(values[: len(examples)], len(EXAMPLES))])
    middles /= np.maximum(np.linalg.norm(middles, axis=1, keepdims=True), 1e-9)
    likeness = values[len(examples) :] @ middles.T
    positive, negative, neutral = likeness.mean(axis=0)
    leaning = likeness[:, 0] - likeness[:, 1]
    felt = likeness[:, :2].max(axis=1) > likeness[:, 2]
    glad, sad = int((felt & (leaning > CLEAR)).sum()), int((felt & (leaning < -CLEAR)).sum())
    score = round(float(np.clip((positive - negative) / FULL, -1, 1)), 2)
    if min(glad, sad) > (glad + sad) / 4:
        return Feeling("mixed", score)
    if max(positive, negative) < neutral or abs(positive - negative) < LEAST:
        return Feeling("neutral", 0.0)
    return Feeling("positive" if score > 0 else "negative", score)
