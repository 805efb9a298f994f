"""Analyzes a document by a LlamaIndex workflow, in which the chat model reads it part by part."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal, TypeVar

from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step
from pydantic import BaseModel, Field

from .. import threads
from ..chunks.sentence_splitter import split_text
from ..inference import structured
from ..inference.chat import ChatModel
from ..prompts import prompt
from ..schemas import Analysis, ContractFacts, Coverage, Sentiment, Span
from ..text.delimiters import as_data
from . import contracts, extract
from .check import Checked
from .sentiment import is_english

PART_TOKENS = 900
"""Tokens of a part that the model reads at once."""

MAX_KEY_POINTS = extract.KEY_POINTS

MOST_POINTS = 16
"""Most key points, of all parts, from which the model concludes: so many fit into a context of 2,048 tokens."""

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
        parts = await threads.splitting(split_text, start.text, PART_TOKENS, 0)
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


def _facts(text: str) -> ContractFacts | None:
    if not is_english(text):
        return None
    return contracts.facts(text, extract.worth_reading(extract.split(text), text))


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
