"""`researcher`: answers a question from several collections, with a source for each sentence.

A capable model is given the tools. Without one, or if it cannot say which tool it wants, a fixed plan is followed, and a
note says so: the question is split, each part is asked of each collection, the neighbours of the closest passages are
read if those do not answer it, and without a model the answer quotes the documents.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step

from .. import threads
from ..errors import BackendError, InvalidRequest
from ..schemas import Hit
from ..text import scanning
from ..text.sentences import sentences, stems
from .citing import cited
from .orchestration import by_tools, finished
from .result import AgentResult
from .run_state import Running
from .tooling import find, offered, use
from .tools import chunks_of

FIXED_PLAN = (
    "a fixed plan, for no model phrases answers here: the question is split, each part is asked of each collection, and the "
    "answer is in the documents' words"
)

_ASKS = (
    r"(?:how|what|when|where|which|who|whom|whose|why|does|do|did|is|are|was|were|can|may|must|should|will)"
)
# White space is matched from its beginning only, else each of its characters would be tried.
_PARTS = re.compile(rf"(?<=[?;])\s++|(?:,|(?<!\s)(?=\s))\s++and\s++(?={_ASKS}\b)", re.IGNORECASE)
_NUMBER = re.compile(r"(\d[\d.,]{0,30})\s{0,9}([^\W\d_]{3,})")
_MARK = re.compile(r"\[\d+\]")

MOST_PARTS = 8
"""The most sub-questions of a question."""

LEFT_OUT = 50
"""The most sentences without a source that the notes list one by one."""

ALIKE = 0.6
"""Two sentences are about the same thing if they share this part of the shorter one's words."""


async def research(run: Running, tools: tuple[str, ...]) -> AgentResult:
    """Answer the run's task. Raises InvalidRequest if it is empty."""
    task = run.request.task
    if not task.strip():
        raise InvalidRequest("task: the researcher answers a question, and there is none")
    parts = offered(run, tools)
    if run.services.chat.abstracts:
        may = await run.readable()
        asked = f"Question: {task}\n\nCollections: {', '.join(may) or 'none'}"
        try:
            return await sourced(run, await by_tools(run, parts, await run.prompt("researcher"), asked))
        except BackendError as error:
            if "problem" not in error.details:
                raise
            run.notes.append(f"{error.message}: the question was put to each collection instead")
    else:
        run.notes.append(FIXED_PLAN)
        if run.request.instructions:
            run.notes.append("instructions are not followed by a fixed plan")
    text, found = await finished(FixedPlan(run).run(task=task))
    return AgentResult(text, found=found)


async def sourced(run: Running, text: str) -> AgentResult:
    """The answer with a source for each sentence; sentences without one are removed and listed in the notes."""
    checked = await threads.by_length(len(text), cited, text, run.sources)
    run.notes.extend(f"left out, for no source has it: {one}" for one in checked.left_out[:LEFT_OUT])
    if (more := len(checked.left_out) - LEFT_OUT) > 0:
        run.notes.append(f"left out, for no source has them: {more} more sentences")
    return AgentResult(checked.text, found=bool(checked.citations))


class PartEvent(Event):
    number: int
    question: str
    collection: str


class AnswerEvent(Event):
    number: int
    question: str
    collection: str
    answer: str
    found: bool


class FixedPlan(Workflow):
    """split -> ask (each part of each collection) -> compare."""

    def __init__(self, run: Running) -> None:
        super().__init__(timeout=None)
        self._run = run
        self._tools = {"query": find("query")}

    @step
    async def split(self, context: Context, start: StartEvent) -> PartEvent | StopEvent | None:
        async with self._run.step("split", given=start.task) as node:
            questions = parts_of(start.task)
            node.told.output = " | ".join(questions)[:500]
        may = (await self._run.readable())[:32]
        if not may:
            return StopEvent(result=("There is no collection to read.", False))
        await context.store.set("parts", len(questions) * len(may))
        for number, question in enumerate(questions):
            for collection in may:
                context.send_event(PartEvent(number=number, question=question, collection=collection))
        return None

    @step(num_workers=2)
    async def ask(self, part: PartEvent) -> AnswerEvent:
        arguments: dict[str, Any] = {"question": part.question, "collections": [part.collection]}
        outcome = await use(self._run, self._tools, "query", arguments)
        answer, found = "", False
        if outcome.error is None:
            answer, found = outcome.value["answer"], outcome.value["found"]
            if not self._run.services.chat.abstracts:
                answer = _without_heading(answer)
            if not found and (around := await self._around(part, answer)):
                answer, found = around, True
        else:
            self._run.notes.append(f"{part.collection}: {outcome.error}")
        return AnswerEvent(**part.model_dump(), answer=answer, found=found)

    async def _around(self, part: PartEvent, closest: str) -> str:
        """A sentence in a neighbour of the closest passage that answers the question; empty if there is none."""
        first = re.search(r"\(source (\d+)\)|\[(\d+)\]", closest)
        number = int(first[1] or first[2]) if first else 0
        source = self._run.sources.get(number)
        if source is None or source.collection != part.collection:
            return ""
        async with self._run.step("read around", given=source.document_id) as node:
            chunks = await chunks_of(self._run, part.collection, source.document_id)
            asked = stems(part.question)
            for one in chunks:
                if not 0 < abs(one.chunk - source.chunk) <= 1 or not asked:
                    continue
                for start, end in sentences(one.text):
                    said = " ".join(one.text[start:end].split())
                    if len(asked & stems(said)) >= 0.7 * len(asked) and len(asked) > 2:
                        hit = Hit(
                            text=one.text,
                            score=0.0,
                            document_id=one.document_id,
                            chunk=one.chunk,
                            collection=part.collection,
                            metadata=one.metadata,
                        )
                        (told,) = self._run.cite([hit])
                        node.told.output = said[:500]
                        return f"{said} [{told.number}]"
        return ""

    @step
    async def compare(self, context: Context, answer: AnswerEvent) -> StopEvent | None:
        collected: Any = context.collect_events(answer, [AnswerEvent] * await context.store.get("parts"))
        if collected is None:
            return None
        async with self._run.step("compare"):
            several = len({one.collection for one in collected}) > 1
            order = [
                *(await self._run.readable()),
                *(one.collection for one in collected),
            ]  # deleted meanwhile
            collected = sorted(collected, key=lambda one: (one.number, order.index(one.collection)))
            numbers = sorted({one.number for one in collected})
            told: list[str] = []
            for number in numbers:
                group = [one for one in collected if one.number == number]
                told += _compared(group, several=several, heads=len(numbers) > 1)
            found = any(one.found for one in collected)
        return StopEvent(result=("\n\n".join(told), found))


def parts_of(question: str) -> list[str]:
    """A question's sub-questions, by its wording."""
    parts: dict[str, None] = {}
    begin = 0
    for found in scanning.matches(_PARTS, question):
        _add(parts, question[begin : found.start()])
        if len(parts) == MOST_PARTS:
            break
        begin = found.end()
    else:
        _add(parts, question[begin:])
    return list(parts) or [question]


def _add(parts: dict[str, None], part: str) -> None:
    if part.strip(" ?;"):
        parts[part.strip()] = None


def _without_heading(answer: str) -> str:
    _, _, said = answer.partition("\n\n")
    return said or answer


def _compared(group: list[AnswerEvent], *, several: bool, heads: bool) -> list[str]:
    told = [f"{group[0].question}"] if heads else []
    found = [one for one in group if one.found]
    for one in found:
        told.append(f"{one.collection}: {one.answer}" if several else one.answer)
    if not found:
        told.append("The documents do not tell for certain.")
    elif several and (missing := [one.collection for one in group if not one.found]):
        told.append(f"Nothing certain on this in {', '.join(missing)}.")
    told += contradictions(found)
    return told


def contradictions(found: list[AnswerEvent]) -> list[str]:
    """Notes on sentences of two collections that differ in a number of the same unit."""
    told: list[str] = []
    for one, other in combinations(found, 2):
        for mine, theirs in product(_claims(one.answer), _claims(other.answer)):
            units = mine.amounts.keys() & theirs.amounts.keys()
            if any(mine.amounts[unit].isdisjoint(theirs.amounts[unit]) for unit in units) and mine.like(
                theirs
            ):
                told.append(
                    f"Contradiction: {one.collection} says “{mine.sentence}”{mine.mark}, "
                    f"{other.collection} says “{theirs.sentence}”{theirs.mark}."
                )
    return told


@dataclass(frozen=True, slots=True)
class _Claim:
    """A sentence that names amounts."""

    sentence: str
    mark: str
    amounts: dict[str, set[str]]
    """The numbers, by unit."""
    words: set[str]

    def like(self, other: _Claim) -> bool:
        """Whether both are about the same thing; sharing a unit alone is not enough."""
        shared = len(self.words & other.words)
        return shared >= 3 and shared >= ALIKE * min(len(self.words), len(other.words))


def _claims(answer: str) -> list[_Claim]:
    claims = []
    for start, end in sentences(answer):
        sentence = " ".join(_MARK.sub("", answer[start:end]).split())
        amounts: dict[str, set[str]] = {}
        for number, unit in _NUMBER.findall(sentence):
            amounts.setdefault(unit.lower(), set()).add(number.strip(".,"))
        if amounts:
            mark = _MARK.search(answer, start)
            claims.append(_Claim(sentence, f" {mark[0]}" if mark else "", amounts, stems(sentence)))
    return claims
