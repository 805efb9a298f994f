"""Separates a model's reasoning from its reply, if it writes both as one text: `<think>…</think>`, then the
reply.

A reply has reasoning only if it begins with such a tag, or has a closing tag alone, as some chat templates
put the opening one into the prompt. All other replies may contain such tags as ordinary text.
"""

from __future__ import annotations

import re

_NAMES = ("think", "thinking", "thought", "reasoning")
_TAGS = [*(f"<{name}>" for name in _NAMES), "[think]"]
_OPEN = "|".join(map(re.escape, _TAGS))
_CLOSE = "|".join(re.escape(f"{tag[0]}/{tag[1:]}") for tag in _TAGS)
_ASCII = re.IGNORECASE | re.ASCII
# A quoted tag is one that the model talks about.
_OPENING = re.compile(rf"(?<![`\"'])(?:{_OPEN})", _ASCII)
CLOSING = re.compile(rf"(?<![`\"'])(?:{_CLOSE})(?![`\"'])", _ASCII)

# What may become a tag with the next piece; within reasoning, also the white space before it, which may end
# it.
_BEGUN = re.compile(r"[`\"']?(?:[<\[]/?[a-z]{0,9})?\Z", _ASCII)
_ENDING = re.compile(r"\s*(?:[<\[]/?[a-z]{0,9})?\Z", _ASCII)
_LOOKED_AT = 200  # characters at the end of the text


class Thoughts:
    """Reads a reply piece by piece; pieces may end in the middle of a tag."""

    def __init__(self) -> None:
        self.none = False
        """Whether the reply began with words, so that none of it is reasoning."""
        self._held = ""
        self._closing: re.Pattern[str] | None = None  # the tag to look for, within reasoning
        self._fresh = True  # only white space so far, or since the last tag
        self._tags = self._thought = False  # whether there were any tags, and any reasoning

    def feed(self, text: str, last: bool = False) -> tuple[str, str]:
        """Read the next piece; return the words and the reasoning that are now certain."""
        words, thoughts = [], []
        self._held += text
        while self._held:
            if self._closing is not None:
                if self._fresh:
                    self._held = self._held.lstrip()
                found = self._closing.search(self._held)
                thought = self._taken(found, last, _ENDING)
                if thought and self._fresh and self._thought:
                    thoughts.append("\n")
                self._fresh = self._fresh and not thought
                self._thought = self._thought or bool(thought)
                thoughts.append(thought.rstrip() if found or last else thought)
                if found:
                    self._closing, self._fresh = None, True
            else:
                if self._fresh and not self._settled(last):
                    break
                found = None if self.none else _OPENING.search(self._held)
                words.append(self._taken(found, last or self.none, _BEGUN))
                if found:
                    tag = f"{found[0][0]}/{found[0][1:]}"
                    self._closing, self._fresh = re.compile(re.escape(tag), _ASCII), True
                    self._tags = True
            if not found:
                break
        return "".join(words), "".join(thoughts)

    def _settled(self, last: bool) -> bool:
        """Whether it is certain by now if words or reasoning come next."""
        said = self._held.lstrip()
        if _OPENING.match(said):
            self._held = said
        elif not last and any(tag.startswith(said.lower()) for tag in _TAGS):
            return False
        elif self._tags:
            self._held, self._fresh = said, False
        else:
            self.none, self._fresh = True, False
        return True

    def _taken(self, found: re.Match[str] | None, last: bool, begun: re.Pattern[str]) -> str:
        """Take the text before a tag; without one, as much as cannot be the beginning of a tag."""
        start = end = len(self._held)
        if found:
            start, end = found.span()
        elif not last:
            incomplete = begun.search(self._held, max(0, end - _LOOKED_AT))
            assert incomplete is not None
            start = end = incomplete.start()
        taken, self._held = self._held[:start], self._held[end:]
        return taken


def told_apart(text: str) -> tuple[str, str]:
    """The words and the reasoning of a whole reply."""
    if "<" not in text and "[" not in text:
        return text, ""  # as in most replies
    reading = Thoughts()
    words, thoughts = reading.feed(text, last=True)
    # A closing tag alone: the template has opened the reasoning, or there were tags within it.
    while (found := CLOSING.search(words)) and not _OPENING.search(words, 0, found.start()):
        thoughts = "\n".join(filter(None, [thoughts, words[: found.start()].strip()]))
        words = words[found.end() :].lstrip()
    return words, thoughts
