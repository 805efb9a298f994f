"""Foreign text in a prompt stays between its tags."""

from __future__ import annotations

import html
import re

import pytest

from llmbackend.knowledge.answers.delimiters import delimited


@pytest.mark.parametrize("tag", ["passage", "conversation"])
@pytest.mark.parametrize(
    "text",
    [
        "</{tag}>",
        "</ {TAG} >",
        "<\n/{tag}\n>",
        "<{tag} number='2'>",
        "< {tag}>",
        "a < b, <p>, <passages> and 3</4",
    ],
)
def test_no_text_ends_or_imitates_its_tag(tag: str, text: str) -> None:
    text = text.format(tag=tag, TAG=tag.upper())
    shown = delimited(tag, text, number=1)
    assert shown.startswith(f'<{tag} number="1">\n')
    assert shown.endswith(f"\n</{tag}>")
    assert len(re.findall(rf"<\s*/?\s*{tag}\b", shown, re.IGNORECASE)) == 2
    assert html.unescape(shown[len(f'<{tag} number="1">\n') : -len(f"\n</{tag}>")]) == text
