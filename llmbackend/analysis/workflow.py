"""Analyzes a document: by a LlamaIndex workflow that reads it part by part, or in the document's own sentences."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from anyio import CancelScope
from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step
from pydantic import BaseModel, Field

from .. import slices, threads, tracing
from ..answers.links import Links, inert
from ..chunks.sentence_splitter import splitter
from ..errors import InvalidRequest
from ..inference import structured
from ..inference.chat import ChatModel
from ..inference.embeddings import Embedder
from ..inference.judge import Judge
from ..prompts import prompt
from ..schemas import Analysis, ContractFacts, Coverage, Sentiment, Span
from ..text.delimiters import as_data
from . import contracts, extract
from .check import Checked
from .extract import Sentence
from .sentiment import NOT_ENGLISH, Feeling, feeling, is_english

if TYPE_CHECKING:
    from numpy.typing import NDArray

PART_TOKENS = 900
"""Tokens of a part that the model reads at once."""

PART_WORDS = 600
"""Words of a part if no model reads it; parts are only counted then."""

MAX_KEY_POINTS = extract.KEY_POINTS

MOST_POINTS = 16
"""Most key points, of all parts, from which the model concludes: so many fit into a context of 2,048 tokens."""

FEW_SENTENCES = 200
"""In a text of at most so many sentences, all of them count for the sentiment, however short; else those worth reading."""

MOST_JUDGED = 5000
"""Most sentences that the judge reads, some 100,000 words in 25 seconds; of a text with more, the embedder reads all."""

OWN_WORDS = "summary and key_points are the text's own sentences; a larger chat model would phrase them"

_Shape = TypeVar("_Shape", bound=BaseModel)


class Notes(BaseModel):
    """What the model notes about one part."""

    key_points: list[Annotated[str, Field(min_length=10, max_length=240)]] = Field(min_length=1, max_length=4)


class Conclusion(BaseModel):
    """What the model says about the whole. It has a strength instead of a score: small models choose better than they count."""

    summary: str = Field(min_length=10, max_length=400)
    sentiment: Sentiment
    strength: Literal["slight", "clear", "strong"]


_STRENGTH = {"slight": 0.3, "clear": 0.6, "strong": 0.9}
_SIGN = {"positive": 1, "negative": -1, "neutral": 0, "mixed": 0}

_EXAMPLES = [
    (
        ["The staff was friendly.", "The parcel came a day early."],
        Conclusion(
            summary="The writer praises the friendly staff and the early parcel.",
            sentiment="positive",
            strength="strong",
        ),
    ),
    (
        ["The device broke after two days.", "Nobody answered the calls."],
        Conclusion(
            summary="The device broke soon, and support did not react.",
            sentiment="negative",
            strength="strong",
        ),
    ),
    (
        ["The office opens at nine.", "Parking is behind the building."],
        Conclusion(
            summary="The text gives opening hours and tells where to park.",
            sentiment="neutral",
            strength="slight",
        ),
    ),
]


class PartEvent(Event):
    number: int
    text: str


class NotesEvent(Event):
    number: int
    key_points: list[str]


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
    return list(islice(lines, MAX_KEY_POINTS))


def _facts(text: str) -> ContractFacts | None:
    if not is_english(text):
        return None
    return contracts.facts(text, extract.worth_reading(extract.split(text), text))


async def _vectors(embedder: Embedder, judge: Judge, judges: bool, texts: list[str]) -> NDArray[Any]:
    if judges:
        return await judge.embed(texts)
    if not texts:  # a text whose only sentence is very long has none worth reading
        import numpy as np

        return np.empty((0, 0), np.float32)
    return (await embedder.embed(texts, too_long="truncate")).values


class AnalysisWorkflow(Workflow):
    """A workflow: split, read each part (two at a time), and conclude. Each result is checked against the text."""

    def __init__(self, chat: ChatModel, own: Callable[[], Awaitable[Analysis]]) -> None:
        """`own` returns an analysis in the text's own sentences, for the case that no sentence of the summary holds."""
        super().__init__(timeout=None)
        self._chat = chat
        self._own = own
        self._model = ""

    @step
    async def split(self, context: Context, start: StartEvent) -> PartEvent | None:
        parts = await threads.splitting(splitter(PART_TOKENS, 0).split_text, start.text)
        await context.store.set("parts", len(parts))
        await context.store.set("text", start.text)
        for number, part in enumerate(parts):
            context.send_event(PartEvent(number=number, text=part))
        return None

    @step(num_workers=2)
    async def read(self, part: PartEvent) -> NotesEvent:
        task = f"Text:\n\n{as_data(part.text)}\n\nWrite down its 2 to 4 most important points."
        points = (
            await self._ask(Notes, _said("system", prompt("key_points").text), _said("user", task))
        ).key_points
        return NotesEvent(number=part.number, key_points=points)

    @step
    async def conclude(self, context: Context, notes: NotesEvent) -> StopEvent | None:
        parts = await context.store.get("parts")
        collected = context.collect_events(notes, [NotesEvent] * parts)
        if collected is None:
            return None
        text = await context.store.get("text")
        ordered = sorted(collected, key=lambda event: event.number)
        written = list(dict.fromkeys(point.strip() for event in ordered for point in event.key_points))
        claims = await threads.processor(_Claims, text)
        points = await threads.processor(claims.held, "a key point", written)
        messages = [_said("system", prompt("sentiment").text)]
        for example, judged in _EXAMPLES:
            messages += [_said("user", _task(example)), _said("assistant", judged.model_dump_json())]
        conclusion = await self._ask(
            Conclusion, *messages, _said("user", _task(_spread(points or written, MOST_POINTS)))
        )
        sentences = [s.text for s in extract.split(_whole_sentences(conclusion.summary))]
        held = await threads.processor(claims.held, "a sentence of the summary", sentences)
        summary = " ".join(held)
        if not summary:
            summary = (await self._own()).summary
            claims.left_out.append(
                "summary: no sentence of the model's was correct, so it consists of the text's own sentences"
            )
        points = _spread(points, MAX_KEY_POINTS)
        places = await threads.by_length(len(text), extract.find_each, points, text)
        words = await threads.by_length(len(text), extract.word_count, text)
        return StopEvent(
            result=Analysis(
                sentiment=conclusion.sentiment,
                sentiment_score=_SIGN[conclusion.sentiment] * _STRENGTH[conclusion.strength],
                key_points=points,
                positions=[Span(start=place[0], end=place[1]) if place else None for place in places],
                summary=summary,
                coverage=Coverage(parts=parts, read=len(collected), words=words),
                facts=await threads.processor(_facts, text),
                notes=claims.left_out,
                model=self._model,
            )
        )

    async def _ask(self, shape: type[_Shape], *messages: dict[str, str]) -> _Shape:
        """Ask the model for a reply in a given shape."""
        request = {"messages": list(messages), "max_tokens": 400, "temperature": 0.0, "seed": 1}
        completion = await structured.complete(self._chat, request, shape.model_json_schema())
        self._model = completion.get("model") or ""
        return shape.model_validate_json(completion["choices"][0]["message"]["content"])


class _Claims:
    """Checks a model's claims against a text. Making it and each call read the whole text, so run them in a thread."""

    def __init__(self, text: str) -> None:
        self.left_out: list[str] = []
        self._text = text
        self._checked = Checked(text)

    def held(self, kind: str, claims: list[str]) -> list[str]:
        """Return the claims of which the text has all numbers and quotations; note the others in `left_out`."""
        return [claim for claim in claims if self._holds(kind, claim)]

    def _holds(self, kind: str, claim: str) -> bool:
        missing = self._checked.missing(claim)
        if missing:
            self.left_out.append(
                f"{kind} is left out, because the text does not have {', '.join(missing)}: {claim}"
            )
        return not missing


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _task(points: list[str]) -> str:
    listed = "\n".join(f"- {as_data(point)}" for point in points)
    return f"Main points:\n{listed}\n\nSummarise them in one or two sentences and judge the sentiment."


def _whole_sentences(text: str) -> str:
    """Return the text without its last sentence if that was cut off by the length limit."""
    head, stop, _ = text.strip().rpartition(". ")
    return text.strip() if not stop or text.strip().endswith((".", "!", "?")) else head + "."


def _spread(items: list[str], most: int) -> list[str]:
    """Return at most `most` items, taken evenly from beginning to end."""
    if len(items) <= most:
        return items
    return [items[i * (len(items) - 1) // (most - 1)] for i in range(most)]
