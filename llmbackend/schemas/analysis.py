"""Analysis of a document."""

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
    text: str = Field(description="the text there, with each run of white space as one space")


class Coverage(Response):
    """How much of the text was read."""

    parts: int = Field(description="how many parts the text was divided into")
    read: int = Field(description="how many of them were read")
    words: int = Field(description="how many words the text has")


class ContractFacts(Response):
    """What a contract names, verbatim. Each list has at most ten entries, and only those that are certain."""

    parties: list[Passage]
    dates: list[Passage]
    amounts: list[Passage]
    obligations: list[Passage]


class Analysis(Response):
    sentiment: Sentiment
    sentiment_score: float = Field(ge=-1, le=1)
    key_points: list[str]
    positions: list[Span | None] = Field(
        [], description="where each key point is in the text; null if it is in a model's own words"
    )
    summary: str
    coverage: Coverage | None = None
    facts: ContractFacts | None = Field(None, description="only for a contract in English")
    notes: list[str] = Field([], description="what was left out or is not certain, and why")
    prompts: list[str] = Field([], description="the prompts that the model was given, as name@version")
    model: str
