"""Analyzes a document: by the chat model, which reads it part by part (workflow.py), or in the document's own sentences."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from anyio import CancelScope

from .. import llamaindex_import, slices, threads, tracing
from ..answers.links import Links, inert
from ..errors import InvalidRequest
from ..inference.chat import ChatModel
from ..inference.embeddings import Embedder
from ..inference.judge import Judge
from ..schemas import Analysis, Coverage, Span
from . import contracts, extract
from .extract import Sentence
from .sentiment import NOT_ENGLISH, Feeling, feeling, is_english

if TYPE_CHECKING:
    from numpy.typing import NDArray

PART_WORDS = 600
"""Words of a part if no model reads it; parts are only counted then."""

FEW_SENTENCES = 200
"""In a text of at most so many sentences, all of them count for the sentiment, however short; else those worth reading."""

MOST_JUDGED = 5000
"""Most sentences that the judge reads, some 100,000 words in 25 seconds; of a text with more, the embedder reads all."""

OWN_WORDS = "summary and key_points are the text's own sentences; a larger chat model would phrase them"


async def analyze(
    chat: ChatModel, embedder: Embedder, judge: Judge, text: str, links: Links = "host"
) -> Analysis:
    """Return the sentiment, key points and a summary of a text, which is read to the end.

    If the chat model is too small to write them in its own words, they are made of the text's own sentences. Raises
    InvalidRequest for a blank text, BackendError if the model's replies do not fit the schema, and what the models raise.
    """
    if not text.strip():
        raise InvalidRequest("text: a blank text has nothing to analyze")
    own = partial(extracted, embedder, judge, text, links, chat.name or "")
    if not chat.abstracts:
        return await own()
    await threads.files(llamaindex_import.load)
    from .workflow import AnalysisWorkflow

    running = AnalysisWorkflow(chat, own).run(text=text)
    result: asyncio.Future[Analysis] = asyncio.ensure_future(running)
    try:
        # Awaiting the workflow itself would cancel it directly, and it would leave steps running.
        await asyncio.wait([result])
    except asyncio.CancelledError:
        with CancelScope(shield=True):
            await running.cancel_run()
            await asyncio.gather(result, return_exceptions=True)
        raise
    analysis = result.result()
    analysis.prompts = list(tracing.current().prompts_used)
    analysis.summary = inert(analysis.summary, links)
    points = [inert(point, links) for point in analysis.key_points]
    kept = [number for number, point in enumerate(points) if point.strip()]
    analysis.key_points = [points[number] for number in kept]
    analysis.positions = [analysis.positions[number] for number in kept]
    return analysis


async def extracted(embedder: Embedder, judge: Judge, text: str, links: Links, model: str) -> Analysis:
    """Return an analysis made of the text's own sentences."""
    found = await threads.splitting(extract.split, text)
    worth = await threads.processor(_worth_reading, found, text, links)
    notes = [OWN_WORDS]
    if not worth:
        worth = await threads.processor(_first_lines, found)
        notes.append("summary and key_points: no sentence stands out, so they are the text's first lines")
    felt = found if len(found) <= FEW_SENTENCES else worth
    english = is_english(text)
    judges = english and judge.here and max(len(felt), len(worth)) <= MOST_JUDGED
    if english and judge.here and not judges:
        notes.append(f"sentiment: by words alone, because the text has more than {MOST_JUDGED:,} sentences")
    vectors = await _vectors(embedder, judge, judges, [sentence.text for sentence in worth])
    picked = await threads.processor(extract.pick, worth, vectors, len(text))
    if english:
        said = [sentence.text for sentence in felt]
        opinion = await feeling(said, await judge.embed(said) if judges else None)
    else:
        opinion = Feeling("neutral", 0.0)
        notes.append(NOT_ENGLISH)
    words = await threads.by_length(len(text), extract.word_count, text)
    parts = max(1, -(-words // PART_WORDS))
    return Analysis(
        sentiment=opinion.sentiment,
        sentiment_score=opinion.score,
        key_points=[inert(sentence.text, links) for sentence in picked.key_points],
        positions=[Span(start=sentence.start, end=sentence.end) for sentence in picked.key_points],
        summary=inert(" ".join(sentence.text for sentence in picked.summary), links),
        coverage=Coverage(parts=parts, read=parts, words=words),
        facts=await threads.processor(contracts.facts, text, worth) if english else None,
        notes=notes,
        model=model,
    )


def _worth_reading(found: Sequence[Sentence], text: str, links: Links) -> list[Sentence]:
    worth = []
    for sentence in extract.worth_reading(found, text):
        slices.give_way()
        if (
            inert(sentence.text, links) == sentence.text
        ):  # else it would have to be changed, and so not be quoted
            worth.append(sentence)
    return worth


def _first_lines(found: Sequence[Sentence]) -> list[Sentence]:
    lines = (s for s in found if len(s.text) <= extract.SENTENCE_LENGTH and any(map(str.isalpha, s.text)))
    return list(islice(lines, extract.KEY_POINTS))


async def _vectors(embedder: Embedder, judge: Judge, judges: bool, texts: list[str]) -> NDArray[Any]:
    if judges:
        return await judge.embed(texts)
    if not texts:  # a text whose only sentence is very long has none worth reading
        import numpy as np

        return np.empty((0, 0), np.float32)
    return (await embedder.embed(texts, too_long="truncate")).values
