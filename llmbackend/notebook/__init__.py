"""How results are shown: HTML in notebooks, text in terminals, pictures by matplotlib."""

from __future__ import annotations

from typing import Any

from .as_html import page
from .as_text import text
from .drawings import drawing
from .plots import plot_collection, plot_evaluation, plot_usage, plot_vectors

__all__ = ["html_of", "plot_collection", "plot_evaluation", "plot_usage", "plot_vectors", "text_of"]


def html_of(value: Any) -> str:
    """A result as HTML. Everything in it is shown as text, and nothing is run."""
    return page(drawing(value))


def text_of(value: Any) -> str:
    """A result as plain text."""
    return text(drawing(value))
