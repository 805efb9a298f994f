"""`analyst`: puts the same questions to every document; each answer comes with the quote it is based on.

An answer whose quote is not in the document is dropped, and its cell stays empty. Identical parts are read
once. If no model reads, a field's quote is the sentence that fits it best, judged with the heading above it,
and its value is what that sentence literally says.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step

from .. import threads
from ..analysis.extract import Sentence, find, split, under_headings
from ..answers.links import inert
from ..chunks.sentence_splitter import split_text
from ..errors import Forbidden, InvalidRequest, LLMBackendError, Unauthorized
from ..files.documents import from_files
from ..schemas import Failure, File, ListDocumentsRequest
from ..text.delimiters import as_data
from ..text.sentences import stems
from .orchestration import finished
from .run_state import Running
from .shaped_replies import shaped_reply
from .shapes import AnalystInput, Cell, Table, TableRow
from .tools import text_of

BATCH = 16
"""Documents processed together."""

AT_ONCE = 4
"""Parts that a model reads at the same time."""

PART_TOKENS = 3000
"""Largest part of a document that the model reads at once."""

TELLS = 0.6
"""The score from which on a sentence answers a field: its cosine, plus OF_WORDS times the share of the
field's words in it."""

OF_WORDS = 0.5
"""The weight of that share."""

FIXED_PLAN = "a fixed plan, for no model reads here: each cell is the sentence that fits its field best"

_NUMBER = re.compile(r"[-+]?\d[\d,.]*")
_DATE = re.compile(
    r"\d{4}-\d{2}-\d{2}|\d{1,2}[./]\d{1,2}[./]\d{2,4}|(?:\d{1,2}(?:st|nd|rd|th)?\s+)?(?:January|February|March|April|May|June|July"
    r"|August|September|October|November|December)\s+(?:\d{1,2}(?:st|nd|rd|th)?,?\s+)?\d{4}",
    re.IGNORECASE,
)
_LINE = re.compile(r"\S[^\n]*(?<=\S)")
_LABEL = re.compile(r"[^\W\d_][\w /()-]{0,40}:\s+(?=\S)")
_NOT = re.compile(r"\b(?:no|not|never|neither|none|without|kein\w*|nicht)\b", re.IGNORECASE)


class FieldWanted(NamedTuple):
    """A field to fill in, with words that describe it."""

    name: str
    about: str
    schema: dict[str, Any]

    @property
    def kinds(self) -> set[str]:
        several = [self.schema, *self.schema.get("anyOf", ())]
        found = {kind for one in several for kind in _as_list(one.get("type"))}
        return found - {"null"}

    @property
    def choices(self) -> list[Any]:
        return [one for part in (self.schema, *self.schema.get("anyOf", ())) for one in part.get("enum", ())]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def wanted_of(given: AnalystInput) -> list[FieldWanted]:
    if given.questions:
        return [FieldWanted(one, one, {"type": "string"}) for one in given.questions]
    schema: Any = given.shape or {}
    definitions = schema.get("$defs", {})
    found = []
    for name, field in schema["properties"].items():
        plain = _resolved(field, definitions)
        words = re.sub(r"[_-]+|(?<=[a-z])(?=[A-Z])", " ", name)
        found.append(FieldWanted(name, f"{words}: {plain.get('description', '')}".strip(": "), plain))
    return found


def _resolved(field: Any, definitions: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    if not isinstance(field, dict) or depth > 5:
        return {}
    if isinstance(reference := field.get("$ref"), str):
        beside = {name: value for name, value in field.items() if name != "$ref"}
        return {**_resolved(definitions.get(reference.rpartition("/")[2]), definitions, depth + 1), **beside}
    if isinstance(several := field.get("anyOf"), list):
        return {**field, "anyOf": [_resolved(one, definitions, depth + 1) for one in several]}
    return field


async def analyse(run: Running, given: AnalystInput) -> Table:
    """Fill in the table: one row per document, in order."""
    if not run.services.chat.abstracts:
        run.notes.append(FIXED_PLAN)
    work = Analysing(run, given)
    run.so_far = work.so_far
    try:
        table: Table = await finished(work.run())
    finally:
        await work.end()
    return table


class Place(NamedTuple):
    collection: str
    document: str
    text: str | None
    """None for a document in a collection, which is read later."""
    failed: str | None = None
    """Why it cannot be read; None if it can."""


class BatchEvent(Event):
    number: int
    places: list[Any]


class RowsEvent(Event):
    number: int
    rows: list[Any]


class Analysing(Workflow):
    """list -> read (a batch of documents at a time) -> put together. Call `end` when done."""

    def __init__(self, run: Running, given: AnalystInput) -> None:
        super().__init__(timeout=None)
        self._run = run
        self._given = given
        self._wanted = wanted_of(given)
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._under_way: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._parts = self._read = 0
        self._documents = 0
        self._rows: dict[int, TableRow] = {}
        """The finished rows, by the places of their documents."""

    @step
    async def begin(self, context: Context, start: StartEvent) -> BatchEvent | StopEvent | None:
        async with self._run.step("list") as node:
            places = await self._places()
            node.told.output = _plural(len(places), "document")
        self._documents = len(places)
        if not places:
            return StopEvent(result=self._table([]))
        batches = [places[start : start + BATCH] for start in range(0, len(places), BATCH)]
        await context.store.set("batches", len(batches))
        await context.store.set("documents", len(places))
        self._run.journal.progress(0, len(places), "read")
        for number, batch in enumerate(batches):
            context.send_event(BatchEvent(number=number, places=batch))
        return None

    async def _places(self) -> list[Place]:
        given = self._given
        if given.documents or given.files:
            return [Place("", one.id, one.text) for one in given.documents or ()] + await self._files()
        found: list[Place] = []
        for name in await self._run.readable():
            cursor: str | None = None
            while len(found) < given.max_documents:
                with await self._run.permitted(("read",), (name,)):
                    page = await self._run.services.operations.list_documents(
                        ListDocumentsRequest(collection=name, limit=1000, cursor=cursor)
                    )
                found += [
                    Place(name, one.id, None)
                    for one in page.documents
                    if given.ids is None or one.id in given.ids
                ]
                if (cursor := page.cursor) is None:
                    break
        there = {one.document for one in found}
        found += [
            Place("", one, "", "no document of these collections has this id: list_documents lists them")
            for one in dict.fromkeys(given.ids or ())
            if one not in there
        ]
        if len(found) > given.max_documents:
            self._run.notes.append(f"the first {given.max_documents} documents only (max_documents)")
        return sorted(found[: given.max_documents])

    async def _files(self) -> list[Place]:
        """The files given; one that cannot be read becomes a row with the reason."""
        files = [File(name=one.name, content=one.content) for one in self._given.files or ()]
        found: list[Place] = []
        async for _, some in from_files(self._run.services.parsers, files):
            for one in some:
                failed = one.error if isinstance(one, Failure) else None
                found.append(Place("", one.id, "" if isinstance(one, Failure) else one.text, failed))
        return found

    @step(num_workers=2)
    async def read(self, context: Context, batch: BatchEvent) -> RowsEvent:
        total = await context.store.get("documents")
        first = batch.number * BATCH + 1
        async with self._run.step(f"documents {first} to {first + len(batch.places) - 1}"):
            rows = await asyncio.gather(
                *(
                    self._row(batch.number * BATCH + number, Place(*place), total)
                    for number, place in enumerate(batch.places)
                )
            )
        return RowsEvent(number=batch.number, rows=list(rows))

    @step
    async def put_together(self, context: Context, rows: RowsEvent) -> StopEvent | None:
        collected: Any = context.collect_events(rows, [RowsEvent] * await context.store.get("batches"))
        if collected is None:
            return None
        ordered = sorted(collected, key=lambda one: one.number)
        return StopEvent(result=self._table([row for one in ordered for row in one.rows]))

    def so_far(self) -> Table:
        """The table of the documents read so far."""
        table = self._table([row for _, row in sorted(self._rows.items())])
        table.answer += f" {_plural(self._documents - len(self._rows), 'document')} not read."
        return table

    def _table(self, rows: list[TableRow]) -> Table:
        names = [one.name for one in self._wanted]
        told = sum(cell.value is not None for row in rows for cell in row.cells.values())
        failed = sum(row.error is not None for row in rows)
        cells, documents = len(rows) * len(names), _plural(len(rows), "document")
        answer = f"{told} of {_plural(cells, 'cell')} of {documents} {'is' if told == 1 else 'are'} told"
        return Table(
            answer=answer + (f"; {_plural(failed, 'document')} failed." if failed else "."),
            fields=names,
            rows=rows,
            parts=self._parts,
            parts_read=self._read,
        )

    async def _row(self, number: int, place: Place, total: int) -> TableRow:
        row = TableRow(document=place.document, collection=place.collection or None)
        try:
            text = place.text
            if text is None:
                text = await text_of(self._run, place.collection, place.document)
            if place.failed is not None:
                raise InvalidRequest(place.failed)
            row.cells = await self._cells(text)
        except Exception as error:
            if isinstance(error, Unauthorized | Forbidden) or not isinstance(error, LLMBackendError):
                raise
            row.error = f"{error.code}: {error.message}"
            row.cells = {one.name: Cell() for one in self._wanted}
        self._rows[number] = row
        self._run.journal.progress(len(self._rows), total, "read")
        return row

    async def _cells(self, text: str) -> dict[str, Cell]:
        cells = {one.name: Cell() for one in self._wanted}
        abstracts = self._run.services.chat.abstracts
        window = (await self._run.services.chat.window()).passages if abstracts else PART_TOKENS
        parts = await threads.splitting(split_text, text, min(PART_TOKENS, max(window, 256)), 0)
        self._parts += len(parts)
        for part in parts:
            missing = [one for one in self._wanted if cells[one.name].value is None]
            if not missing:
                break
            # All fields are asked for each time, so that identical parts of different documents make the same
            # question.
            for name, told in (await self._once(part)).items():
                if cells[name].value is None and told.get("value") is not None:
                    place = find(told["quote"] or "", text)
                    if place is not None:
                        quote = text[place[0] : place[1]]
                        cells[name] = Cell(value=self._shown(told["value"], quote), quote=quote)
        return cells

    def _shown(self, value: Any, quote: str) -> Any:
        """A model's own words are made inert, as in answers; words of the document stay as they are."""
        if not isinstance(value, str) or value in quote:
            return value
        return inert(value, self._run.services.settings.answer_links)

    async def _once(self, part: str) -> dict[str, Any]:
        if part not in self._under_way:
            self._under_way[part] = asyncio.ensure_future(self._told(part))
        return await asyncio.shield(self._under_way[part])

    async def end(self) -> None:
        """Cancel reading that nobody waits for."""
        for reading in self._under_way.values():
            reading.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def _told(self, part: str) -> dict[str, Any]:
        async with self._limit:
            self._read += 1
            if self._run.services.chat.abstracts:
                return await self._by_model(part)
            return await self._by_sentences(part)

    async def _by_model(self, part: str) -> dict[str, Any]:
        asked = "\n".join(f"- {one.name}: {one.about}" for one in self._wanted)
        system = await self._run.prompt("analyst")
        text = f"<document>\n{as_data(part)}\n</document>\n\nFields:\n{as_data(asked)}"
        return await shaped_reply(self._run, system, text, _shape(self._wanted), "read")

    async def _by_sentences(self, part: str) -> dict[str, Any]:
        told: dict[str, Any] = {one.name: {"value": None, "quote": None} for one in self._wanted}
        found = await threads.processor(_said, part)
        said = [(one, heading) for one, heading in found if len(one.text) <= 1000]
        if not said:
            return told
        asked = [one.about for one in self._wanted]
        texts = [f"{heading}: {one.text}" if heading else one.text for one, heading in said]
        with await self._run.permitted(("chat",), models=[("embedding", None)]):
            vectors = (await self._run.services.embedder.embed([*asked, *texts], too_long="truncate")).values
        words = [stems(text) for text in texts]
        for number, wanted in enumerate(self._wanted):
            own = stems(wanted.about)
            best: tuple[float, Any, str] | None = None
            for place, (sentence, _) in enumerate(said):
                share = len(own & words[place]) / max(1, len(own))
                score = float(vectors[len(asked) + place] @ vectors[number]) + OF_WORDS * share
                if score < TELLS or (best is not None and score <= best[0]):
                    continue
                if (value := valued(wanted, sentence.text)) is not None:
                    best = score, value, part[sentence.start : sentence.end]
            if best is not None:
                told[wanted.name] = {"value": best[1], "quote": best[2]}
        return told


def _said(part: str) -> list[tuple[Sentence, str]]:
    """The sentences of a part, each with the heading above it; if the part has only headings, these. Lines of
    a form are separate."""
    found = [line for sentence in split(part) for line in _lines(part, sentence)]
    return under_headings(part, found) or [(one, "") for one in found]


def _lines(part: str, sentence: Sentence) -> list[Sentence]:
    """The lines of a sentence that is a form, in which each line has a label and a colon; otherwise the
    sentence itself."""
    lines = [found.span() for found in _LINE.finditer(part, sentence.start, sentence.end)]
    if len(lines) < 2 or not all(_LABEL.match(part, start, end) for start, end in lines):
        return [sentence]
    return [Sentence(start, end, " ".join(part[start:end].split())) for start, end in lines]


def _shape(wanted: Sequence[FieldWanted]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            one.name: {
                "type": "object",
                "properties": {
                    "value": {"anyOf": [_plain(one.schema), {"type": "null"}]},
                    "quote": {"type": ["string", "null"]},
                },
                "required": ["value", "quote"],
                "additionalProperties": False,
            }
            for one in wanted
        },
        "required": [one.name for one in wanted],
        "additionalProperties": False,
    }


def _plain(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name not in ("default", "title", "description")}


def valued(wanted: FieldWanted, said: str) -> Any:
    """A sentence's value for a field, in the field's type; None if it has none of that type."""
    if wanted.choices:
        lower = said.lower()
        return next((one for one in wanted.choices if str(one).lower() in lower), None)
    kinds = wanted.kinds
    if kinds & {"integer", "number"}:
        for found in _NUMBER.findall(said):
            number = _number(found)
            if number is not None and (kinds & {"number"} or number == int(number)):
                return int(number) if number == int(number) else number
        return None
    if "boolean" in kinds:
        return _NOT.search(said) is None
    if any(
        one.get("format") in ("date", "date-time") for one in (wanted.schema, *wanted.schema.get("anyOf", ()))
    ):
        date = _DATE.search(said)
        return date[0] if date else None
    if kinds & {"array", "object"}:
        return None
    label = _LABEL.match(said)
    return said[label.end() :] if label and stems(label[0]) & stems(wanted.about) else said


def _number(text: str) -> float | None:
    plain = text.rstrip(".,")
    if re.fullmatch(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", plain):
        plain = plain.replace(",", "")
    elif re.fullmatch(r"[-+]?\d{1,3}(?:\.\d{3})+(?:,\d+)?", plain) or re.fullmatch(r"[-+]?\d+,\d+", plain):
        plain = plain.replace(".", "").replace(",", ".")
    try:
        return float(plain)
    except ValueError:
        return None


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
