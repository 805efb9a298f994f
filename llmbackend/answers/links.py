"""Makes answers inert: nothing in them loads, links or runs where they are shown, so no document can send data out.

A Markdown image is a request to a host that the document chooses, and its URL contains whatever the document made the
model put there (EchoLeak, CVE-2025-32711). Text streams through three stages. The first two keep it readable: images and
HTML tags are removed, and links become their text and host. The last makes it safe, whatever the others missed: it
separates any two characters that could begin a link, an image, a reference or a tag.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from .citations import LIKE_ONE, LIKE_ONE_BEGUN, MARKED

Links = Literal["host", "remove", "keep"]
"""Show links as text and host ("host"), as text only ("remove"), or leave everything as it is ("keep")."""

# Bounds on what is held back because it may be the beginning of a link; anything longer is left to the last stage.
_TEXT = r"(?:\\.|[^\[\]\\]|\[(?:\\.|[^\[\]\\]){0,200}+\]){0,300}+"
_TITLE = r"\s{1,20}(?:\"[^\"]{0,300}\"|'[^']{0,300}'|\([^()]{0,300}\))"
_TARGET = (
    r"\(\s{0,20}(?:<[^<>\n]{0,1000}>|[^\s()<>]{0,1000}(?:\([^\s()]{0,200}\)[^\s()<>]{0,1000}){0,4})"
    rf"(?:{_TITLE})?\s{{0,20}}\)"
)
# fmt: off
_TAGS = "|".join((
    "a", "abbr", "acronym", "address", "animate", "applet", "area", "article", "aside", "audio", "b", "base", "bdi", "bdo",
    "bgsound", "big", "blink", "blockquote", "body", "br", "button", "canvas", "caption", "center", "circle", "cite",
    "code", "col", "colgroup", "data", "datalist", "dd", "defs", "del", "details", "dfn", "dialog", "dir", "div", "dl",
    "dt", "ellipse", "em", "embed", "fieldset", "figcaption", "figure", "font", "footer", "foreignobject", "form", "frame",
    "frameset", "g", "h[1-6]", "head", "header", "hr", "html", "i", "iframe", "image", "img", "input", "ins", "kbd",
    "keygen", "label", "legend", "li", "line", "link", "main", "map", "mark", "marquee", "math", "menu", "meta", "meter",
    "nav", "nobr", "noscript", "object", "ol", "optgroup", "option", "output", "p", "param", "path", "picture",
    "plaintext", "portal", "pre", "progress", "q", "rect", "ruby", "s", "samp", "script", "section", "select", "set",
    "slot", "small", "source", "span", "strike", "strong", "style", "sub", "summary", "sup", "svg", "table", "tbody", "td",
    "template", "textarea", "tfoot", "th", "thead", "time", "title", "tr", "track", "tt", "u", "ul", "use", "var", "video",
    "wbr", "xmp",
))
# fmt: on
_APART = {  # replaces a tag so that the numbers beside it do not run together; other tags are replaced by nothing
    "sup": "^",
    **dict.fromkeys(("br", "dd", "div", "dt", "li", "p", "td", "th", "tr"), " "),
}
_FLAGS = re.DOTALL | re.IGNORECASE
_FORMATTED = re.compile(
    rf"!\[{_TEXT}\](?:{_TARGET}|\[[^\[\]]{{0,200}}\])"
    rf"|\[(?P<text>{_TEXT})\](?P<target>{_TARGET})"
    rf"|<(?P<end>/?)(?P<tag>{_TAGS})(?P<rest>(?:[\s/][^<>]{{0,1000}})?)>"
    r"|<(?P<auto>[a-z][a-z0-9+.-]{1,31}:[^\s<>]{0,1000})>",
    _FLAGS,
)
_FORMATTED_BEGUN = re.compile(
    rf"(?:!|!?\[{_TEXT}(?:\[[^\[\]]{{0,200}}|\\|\](?:\((?:[^()]|\([^()]{{0,200}}\)){{0,1500}}(?:\([^()]{{0,200}})?)?)?"
    rf"|!\[{_TEXT}\]\[[^\[\]]{{0,200}}"
    rf"|<(?:/|/?[a-z][a-z0-9+.-]{{0,31}}|/?(?:{_TAGS})[\s/][^<>]{{0,1000}}|[a-z][a-z0-9+.-]{{1,31}}:[^\s<>]{{0,1000}})?)\Z",
    _FLAGS,
)
_ADDRESS = r"[^\s<>\"'`()\[\]{}|\\^\ufdd0\ufdd1]"
_BARE = re.compile(
    rf"(?:(?:https?|ftps?)://(?:\[[^\[\]\s]{{0,60}}\])?|www\.(?={_ADDRESS})|//(?=[\w-]{{1,63}}\.)){_ADDRESS}{{0,2000}}+",
    _FLAGS,
)
_BARE_BEGUN = re.compile(
    r"(?:h(?:t(?:t(?:ps?(?::/?)?)?)?)?|f(?:t(?:ps?(?::/?)?)?)?|:/?|/|w{1,3}"
    rf"|(?:(?:https?|ftps?)://(?:\[[^\[\]\s]{{0,60}}\])?|www\.|//[\w-]{{1,63}}\.){_ADDRESS}{{0,2000}}+"
    r"|(?:https?|ftps?)://\[[^\[\]\s]{0,60}|//[\w-]{0,63})\Z",
    _FLAGS,
)
_AFTER_ADDRESS = re.compile(r"(?<![.,;:!?*_~])[.,;:!?*_~]+\Z")
_HREF = re.compile(r"\bhref\s*=\s*[\"']?([^\s\"'>]+)", re.IGNORECASE)

_LIVE = re.compile(rf"(?P<mark>{MARKED})|{LIKE_ONE}|\](?=[(:])|!(?=\[)|<(?=[a-z/!?])", _FLAGS)
_LIVE_BEGUN = re.compile(rf"(?:{MARKED[0]}[0-9]*{MARKED[-1]}?|{LIKE_ONE_BEGUN}|[\]!<])\Z", _FLAGS)
_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r"}


LINE = 200
"""Characters of a line in which to look for words."""


class _Stage:
    """A streaming re.sub: text that may still become a match (`begun`) is held back."""

    def __init__(
        self, pattern: re.Pattern[str], begun: re.Pattern[str], replace: Callable[[re.Match[str]], str]
    ) -> None:
        self._pattern = pattern
        self._begun = begun
        self._replace = replace
        self._held = ""

    def feed(self, piece: str, last: bool) -> str:
        text = self._held + piece
        done = 0
        told: list[str] = []
        begun = None if last else self._begun.search(text)
        found = self._pattern.search(text)
        while found and (begun is None or found.start() < begun.start()):
            told += text[done : found.start()], self._replace(found)
            done = found.end()
            if begun is not None and begun.start() < done:
                begun = self._begun.search(text, done)
            found = self._pattern.search(text, done)
        end = len(text) if begun is None else begun.start()
        self._held = text[end:]
        return "".join([*told, text[done:end]])


class Inert:
    """Removes live links, images and HTML from streamed text, and shows marked citations as "[1]"."""

    def __init__(self, links: Links, *, cites: bool = True) -> None:
        """With `cites`, anything that looks like a citation, but is not marked as one, gets a space: "[ 7]"."""
        self.cited: list[int] = []
        """The numbers cited, in order of first mention."""
        self._links = links
        self._cites = cites
        self._anchor = ""
        self._shown = ""
        live = _Stage(_LIVE, _LIVE_BEGUN, self._apart)
        self._stages = [live]
        if links != "keep":
            formatted = _Stage(_FORMATTED, _FORMATTED_BEGUN, self._plain)
            bare = _Stage(_BARE, _BARE_BEGUN, self._host_only)
            self._stages = [formatted, bare, live]

    def feed(self, piece: str, last: bool = False) -> str:
        """Return the next part that is safe to show, perhaps empty; with `last`, also everything held back."""
        if self._links != "keep":
            piece = piece.translate(_CONTROLS)
        for stage in self._stages:
            piece = stage.feed(piece, last)
        self._shown = (self._shown + piece)[-LINE:]
        return piece

    def _plain(self, found: re.Match[str]) -> str:
        if found["auto"]:
            return found["auto"] if _host(found["auto"]) else found["auto"].partition(":")[2]
        if found["target"]:
            text = found["text"]
            if "[" in text:  # an image in a link
                text = _FORMATTED.sub(self._plain, text)
            return text + self._beside(found["target"][1:].lstrip(" \n\t<"))
        if (tag := (found["tag"] or "").lower()) != "a":
            return "" if found["end"] else _APART.get(tag, "")
        if found["end"]:
            anchor, self._anchor = self._anchor, ""
            return anchor
        target = _HREF.search(found["rest"])
        self._anchor = self._beside(target[1]) if target else ""
        return ""

    def _beside(self, url: str) -> str:
        host = _host(url)
        return f" ({host})" if host and self._links == "host" else ""

    def _host_only(self, found: re.Match[str]) -> str:
        after = _AFTER_ADDRESS.search(found[0])
        url = found[0][: after.start()] if after else found[0]
        return (_host(url) if self._links == "host" else "") + (after[0] if after else "")

    def _apart(self, found: re.Match[str]) -> str:
        if found["mark"]:
            if int(found[2]) not in self.cited:
                self.cited.append(int(found[2]))
            apart = self._links != "keep" and self._goes_on(found)
            return f"[{found[2]}]" + " " * apart
        apart = self._cites if found[0] == "[" else self._links != "keep" and self._goes_on(found)
        return found[0] + " " * apart

    def _goes_on(self, found: re.Match[str]) -> bool:
        """Return whether what follows makes it a link, or a link definition, before which its line has no words."""
        after = found.string[found.end() : found.end() + 1]
        if after != ":":
            return after == "(" or found[0] in "!<"
        before = self._shown + found.string[max(0, found.start() - LINE) : found.start()]
        words = re.split(rf"\[|{MARKED[0]}", re.split("[\r\n]", before)[-1])[0]
        return not re.search(r"[^\W\d_]{2}", words)


def inert(text: str, links: Links) -> str:
    """Return the text without live links, images and HTML."""
    return Inert(links, cites=False).feed(text, last=True)


def _host(url: str) -> str:
    """Return a URL's host as a browser reads it, reduced to the characters of host names; empty if it has none."""
    start = re.match(
        r"(?:(?:https?|ftps?):[/\\]*|[/\\]{2,}|[a-z][a-z0-9+.-]*://|(?=www\.))", url, re.IGNORECASE
    )
    if start is None:
        return ""
    host = re.split(r"[/\\?#\s<>\"')]", url[start.end() :], maxsplit=1)[0].rpartition("@")[2]
    host = re.sub(r"[^\w.:-]", "", host).lower()
    return re.sub(r"(?:www\.+)+", "", host).strip(".").rstrip(":")[:253]
