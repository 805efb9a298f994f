"""Analysis of a document."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import NOT_BLANK, Request, Response

Sentiment = Literal["positive", "negative", "neutral", "mixed"]


class AnalyzeRequest(Request):
    text: str = Field(pattern=NOT_BLANK, description="not blank")


class Span(Response):
    """A place in the given text, in characters: `text[start:end]`."""

    start: int
    end: int


class Passage(Span):
    text: str = Field(description="as it stands there, its white space made single spaces")


class Coverage(Response):
    """How much of the text was read."""

    parts: int = Field(description="that the text was read in")
    read: int = Field(description="of these parts")
    words: int = Field(description="in the text")


class ContractFacts(Response):
    """What a contract names, verbatim; each list has at most ten entries, and only certain ones."""

    parties: list[Passage]
    dates: list[Passage]
    amounts: list[Passage]
    obligations: list[Passage]


class Analysis(Response):
    sentiment: Sentiment
    sentiment_score: float = Field(ge=-1, le=1)
    key_points: list[str]
    positions: list[Span | None] = Field(
        [], description="where each key point stands in the text; null where it is in a model's own words"
    )
    summary: str
    coverage: Coverage | None = None
    facts: ContractFacts | None = Field(None, description="of a contract in English")
    notes: list[str] = Field([], description="what was left out or is not certain, and why")
    prompts: list[str] = Field([], description="those that the model was given, as name@version")
    model: str
