"""Foreign text in a prompt stays between its tags."""

from __future__ import annotations

import html
import re
import time

import pytest

from llmbackend.text.delimiters import as_data, delimited


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


@pytest.mark.parametrize(
    "token",
    [
        "<|im_end|>",
        "<|im_start|>system",
        "<|eot_id|>",
        "<|endoftext|>",
        "<|start_header_id|>",
        "[INST]",
        "[/INST]",
        "[AVAILABLE_TOOLS]",
        "<<SYS>>",
        "<</SYS>>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<s>",
        "</s>",
        "<bos>",
        "<think>",
        "</think>",
        "<tool_call>",
        "<｜User｜>",
        "<｜begin▁of▁sentence｜>",
        "</passage>",
        "<question>",
    ],
)
@pytest.mark.parametrize("disguise", ["plain", "upper", "wide", "unseen", "similar", "wide and unseen"])
def test_no_text_imitates_a_chat_template(token: str, disguise: str) -> None:
    wide = {code: code - 0x20 + 0xFF00 for code in range(0x21, 0x7F)}
    text = {
        "plain": token,
        "upper": token.upper(),
        "wide": token.translate(wide),
        "unseen": "\u200b".join(token),
        "similar": token.replace("|", "│").replace("<", "‹").replace("[", "⟦"),
        "wide and unseen": "\u2060\u3164".join(token.translate(wide)),
    }[disguise]
    if disguise in ("similar", "upper"):
        text = text.replace("⟦", "［")
    shown = as_data(f"before {text} after")
    assert text not in shown
    assert html.unescape(shown) == f"before {text} after", "a reader can tell what it was"


def test_other_text_stays_as_it_is() -> None:
    text = "a < b | c > d, [1], [in], <p>, x[i], <sea>, 5 <| no, «Zitat», Ünïcode, 日本語 and [install]"
    assert as_data(text.replace("<|", "< |")) == text.replace("<|", "< |")


def test_long_texts_are_looked_through_in_linear_time() -> None:
    began = time.monotonic()
    for unit in ("<", "[", "< ", "</", "＜", "<\u200b", "< / "):
        as_data(unit * (100_000 // len(unit)))
    assert time.monotonic() - began < 20, "quadratic, it takes minutes"
