"""Fit the weights of analysis/sentiment.py: `python -m tests.benchmarks.fit_sentiment FOLDER [--write]`.

FOLDER is hutto_ICWSM_2014, an archive inside vaderSentiment's source distribution (MIT licence). Printed is how well the
sentences of each kind of text are judged by weights that were fitted on the others.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

from llmbackend.analysis.sentiment import FELT_WORDS, MOVEMENT, WEIGHTS, Ratings, lexicon, movement, signs
from llmbackend.inference.minilm import MiniLM
from llmbackend.settings import Settings

KINDS = ("amazonReviewSnippets", "movieReviewSnippets", "nytEditorialSnippets")
MOST = 5190
"""Of each kind that are taken."""

RIDGE = 10.0
NEUTRAL = 0.5
"""Below which the mean rating of a sentence is taken for none."""


def ridge(x: Any, y: Any, weights: Any) -> Any:
    x = np.c_[x, np.ones(len(x))]
    penalty = np.eye(x.shape[1]) * RIDGE
    penalty[-1, -1] = 0
    return np.linalg.solve((x * weights[:, None]).T @ x + penalty, (x * weights[:, None]).T @ y)


def classes(ratings: Any, least: float) -> Any:
    return np.where(ratings >= least, 1, np.where(ratings <= -least, -1, 0))


def read(folder: Path, kind: str) -> tuple[list[str], Any]:
    lines = (folder / f"{kind}_GroundTruth.txt").read_text("utf-8", "replace").splitlines()
    rows = [line.split("\t", 2) for line in lines if line.count("\t") >= 2]
    random.Random(7).shuffle(rows)
    rows = rows[:MOST]
    return [row[2] for row in rows], np.array([float(row[1]) for row in rows])


async def main() -> None:
    folder = Path(sys.argv[1])
    model = MiniLM(Settings().models_path)
    x, y, moved, weights = {}, {}, {}, {}
    for kind in KINDS:
        texts, y[kind] = read(folder, kind)
        vectors = (await model.embed(texts, too_long="truncate")).values
        x[kind] = np.c_[vectors, [lexicon(text) for text in texts]]
        moved[kind] = MOVEMENT * np.array([movement(text) for text in texts])
        weights[kind] = np.full(len(texts), 2000 / len(texts))
    for kind in KINDS:
        others = [other for other in KINDS if other != kind]
        fitted = ridge(*(np.concatenate([part[other] for other in others]) for part in (x, y, weights)))
        truth = classes(y[kind], NEUTRAL)
        words = classes(x[kind][:, -1], FELT_WORDS)
        scores = x[kind] @ fitted[:-1] + fitted[-1] + moved[kind]
        ours = signs(Ratings(scores, words, np.sign(moved[kind])))
        for name, judged in (("VADER", words), ("ours", ours)):
            right, reversed_ = (judged == truth).mean(), (judged * truth == -1).mean()
            print(f"{kind}: {name} right {right:.3f}, the wrong way round {reversed_:.3f}")
    if "--write" in sys.argv:
        fitted = ridge(*(np.concatenate([part[kind] for kind in KINDS]) for part in (x, y, weights)))
        np.save(WEIGHTS, fitted.astype(np.float32))


if __name__ == "__main__":
    asyncio.run(main())
