"""What a document says."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Request, Response

Sentiment = Literal["positive", "negative", "neutral", "mixed"]


class AnalyzeRequest(Request):
    text: str = Field(pattern=r"\S", description="not blank")


class Analysis(Response):
    sentiment: Sentiment
    sentiment_score: float = Field(ge=-1, le=1)
    key_points: list[str]
    summary: str
    model: str
