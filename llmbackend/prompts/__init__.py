"""The prompts for models. Each is a file with a version; an operator can replace it, for all collections or
for one.

A file begins with `version: N` and an empty line; without these, its version is a hash of its content.
Placeholders in braces, such as `{schema}`, are filled in.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from .. import tracing
from ..access.caller import Caller
from ..access.names import QualifiedName
from ..errors import InvalidRequest
from ..schemas import PromptInfo

MOST_CHARACTERS = 2**16
"""The most characters of a prompt; more would leave many models no room."""

_VERSION = re.compile(r"version:[ \t]*([\w.-]{1,32})[ \t]*\n\s*")
_PLACE = re.compile(r"\{[a-z_]+\}")


class Prompt(NamedTuple):
    name: str
    version: str
    text: str

    @property
    def label(self) -> str:
        """The prompt's name and version, for traces and explanations."""
        return f"{self.name}@{self.version}"

    @property
    def places(self) -> set[str]:
        """The placeholders in the text."""
        return set(_PLACE.findall(self.text))

    def filled(self, **values: str) -> str:
        """The text with these values for its placeholders."""
        return _PLACE.sub(lambda place: values.get(place[0][1:-1], place[0]), self.text)


@cache
def built_in() -> dict[str, Prompt]:
    """The built-in prompts, by their names."""
    files = sorted(Path(__file__).parent.glob("*.md"))
    return {file.stem: _read(file) for file in files}


def _read(file: Path) -> Prompt:
    text = file.read_text(encoding="utf-8").replace("\r\n", "\n")
    begun = _VERSION.match(text)
    version = begun[1] if begun else hashlib.sha256(text.encode()).hexdigest()[:8]
    return Prompt(file.stem, version, text[begun.end() if begun else 0 :].strip())


class Prompts:
    """The prompts of one backend."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder/NAME.md` replaces a prompt, `folder/PROJECT/COLLECTION/NAME.md` does so for one collection.

        Raises InvalidRequest for a file that cannot be read, has no prompt's name, or lacks a placeholder.
        """
        self._own: dict[str, Prompt] = {}
        self._of_collections: dict[tuple[QualifiedName, str], Prompt] = {}
        if folder is None:
            return
        if not folder.is_dir():
            raise InvalidRequest(f"PROMPTS_DIR: there is no folder {folder}: make it, or correct the setting")
        for file in sorted(folder.glob("*.md")):
            self._own[file.stem] = _checked(file)
        for file in sorted(folder.glob("*/*/*.md")):
            place = QualifiedName(file.parts[-3], file.parts[-2])
            self._of_collections[place, file.stem] = _checked(file)

    def get(self, name: str, collection: QualifiedName | None = None) -> Prompt:
        """The prompt of that name, or the collection's own version of it."""
        if collection is not None and (own := self._of_collections.get((collection, name))) is not None:
            return own
        return self._own.get(name) or built_in()[name]

    def every(self) -> Iterator[tuple[Prompt, QualifiedName | None]]:
        """All prompts in effect, those of collections last."""
        for name in built_in():
            yield self.get(name), None
        for (collection, _), prompt in self._of_collections.items():
            yield prompt, collection

    def shown(self, readable: Callable[[QualifiedName], bool], caller: Caller) -> list[PromptInfo]:
        """The prompts in effect that a caller may see: the general ones, and those of collections that it may
        read."""
        return [
            PromptInfo(
                name=prompt.name,
                version=prompt.version,
                text=prompt.text,
                collection=place.shown_to(caller) if place else None,
                own=prompt is not built_in()[prompt.name],
            )
            for prompt, place in self.every()
            if place is None or readable(place)
        ]


def _checked(file: Path) -> Prompt:
    try:
        prompt = _read(file)
    except (OSError, UnicodeError) as error:
        raise InvalidRequest(f"PROMPTS_DIR: {file} cannot be read: {error}") from error
    known = built_in().get(prompt.name)
    if known is None:
        raise InvalidRequest(
            f"PROMPTS_DIR: {file} has no prompt's name: use one of {', '.join(built_in())}, each with .md"
        )
    if not prompt.text or len(prompt.text) > MOST_CHARACTERS:
        raise InvalidRequest(f"PROMPTS_DIR: {file} has no text, or more than {MOST_CHARACTERS} characters")
    if lacks := known.places - prompt.places:
        raise InvalidRequest(f"PROMPTS_DIR: {file} lacks {', '.join(sorted(lacks))}: put this into its text")
    return prompt


_BUILT_IN = Prompts()


def prompt(name: str, collections: str | Sequence[str] | None = None) -> Prompt:
    """The prompt of that name for the current call, in whose trace its use is recorded.

    If the call is about a single collection, that collection's own version is used. `collections` are those
    that it is about, by default all that it may use.
    """
    trace = tracing.current()
    given = trace.granted if collections is None else collections
    names = [given] if isinstance(given, str) else list(given)
    place = trace.granted.get(names[0]) if len(names) == 1 else None
    found = (trace.prompts or _BUILT_IN).get(name, place)
    trace.prompted(found.label)
    return found
