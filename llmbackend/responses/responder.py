"""Makes responses: by a chat model, from a collection, after a file search or by an agent; stores them if asked to."""

from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import ValidationError

from .. import json_writing, threads, tracing
from ..access.room import Rooms
from ..answers import rag_model
from ..answers.answers import Answering
from ..answers.conversation import standalone
from ..answers.passages import number
from ..disk import SMALL, Disk
from ..errors import BackendError, InvalidRequest, LLMBackendError, NotFound, StreamInterrupted, as_json
from ..inference import structured
from ..inference.chat import ChatModel, total
from ..inference.wire import takes_no_images, takes_no_tools
from ..knowledge.retrieval.scope import scope
from ..plugins import AGENT
from ..prompts import prompt
from ..schemas import AgentTask, RagQueryRequest, RespondRequest, ResponseTool, RunAgentRequest, input_in
from ..schemas.chat import PART
from ..storage.database import Database
from ..text.delimiters import delimited
from . import images, store, tool_emulation, translation
from .building import Building, Event, search_results
from .grounding import Cited, grounded
from .openai_filters import ours
from .response_object import FOUND, begun, new_id
from .steps import Step, answering, citing, completing, feeding, ran, thinking
from .store import Stored
from .translation import Item

_DAY = 86400
_PRUNING = 3600.0
"""Seconds between removals of old responses."""


class Runs(Protocol):
    """Runs agents and yields their events; the last, "done", has the result."""

    def events(self, request: RunAgentRequest) -> AsyncGenerator[dict[str, Any], None]: ...

    def resumed(self, agent: str, run_id: str, words: dict[int, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Continue a run that waits; `words` has for each waiting call True, the reason against it, or a
        function's output."""
        ...


@dataclass
class Call:
    """A response that is being made."""

    request: RespondRequest
    building: Building
    input: list[Item]
    turns: list[dict[str, Any]]
    before: Sequence[str]
    """The ids of the responses that it continues."""
    told: bool = field(default=False)
    """Whether any event has been sent."""


class Responder:
    """Makes responses. Used on the core's event loop."""

    def __init__(
        self,
        chat: ChatModel,
        answering: Answering,
        database: Database,
        keep_days: float,
        disk: Disk | None,
        rooms: Rooms,
    ) -> None:
        """`disk` is the database's, if it is a file on this machine."""
        self._chat = chat
        self._answering = answering
        self.database = database
        self._keep = keep_days * _DAY
        self._disk = disk
        self._rooms = rooms
        self._pruned = -math.inf
        self.agents: Runs

    async def begin(self, request: RespondRequest, response_id: str | None = None) -> Call:
        """Prepare a response, and look up the responses that it continues.

        Raises NotFound, InvalidRequest, Conflict, and Overloaded if storing it would exceed the project's
        limit.
        """
        project = tracing.current().caller.reach
        new = response_id or new_id()
        before: list[Stored] = []
        if request.previous_response_id is not None:
            before = await self.database.read(store.chain, project, request.previous_response_id)
        given = await threads.by_length(request.length, translation.given, request, new)
        given = await self._resolved(project, given)
        items = [*(item for one in before for item in [*one.input, *one.response["output"]]), *given]
        length = max(request.length, PART * len(items))
        turns = await threads.by_length(length, translation.messages, items, request.instructions)
        # Checked now, because a response that is made is always stored: its tokens are spent.
        if request.store and response_id is None:
            await self._rooms.require(tracing.current().caller, len(await json_writing.dumps(given)))
        model = request.model or self._chat.name or ""
        building = Building(begun(request, new, model))
        return Call(request, building, given, turns, [one.id for one in before])

    async def _resolved(self, project: str | None, items: list[Item]) -> list[Item]:
        """The items with references replaced by what they refer to. Raises NotFound."""
        told: list[Item] = []
        for item in items:
            if item["type"] == "item_reference":
                response_id = translation.response_of(item["id"])
                if response_id is None:
                    raise _no_item(item["id"])
                of = await self.database.read(store.find, project, response_id)
                item = next(
                    (one for one in [*of.input, *of.response["output"]] if one.get("id") == item["id"]), {}
                )
                if not item:
                    raise _no_item(item["id"])
            told.append(item)
        return told

    async def respond(self, call: Call) -> dict[str, Any]:
        """Make the whole response, and return it. Raises whatever goes wrong."""
        try:
            async with aclosing(self._events(call, stream=False)) as events:
                async for _ in events:
                    pass
        except StreamInterrupted as error:  # the caller did not ask for a stream
            raise BackendError(error.message, details=error.details) from error
        return call.building.response

    async def stream(self, call: Call) -> AsyncGenerator[Event, None]:
        """Yield the response's events. An error before the first is raised; a later one is sent as the last
        events."""
        try:
            async with aclosing(self._events(call, stream=True)) as events:
                async for event in events:
                    yield event
        except LLMBackendError as error:
            if not call.told:
                raise
            trace = tracing.current()
            trace.failure = error.code
            error.request_id = trace.request_id
            failed = list(call.building.fail(error))
            await self._keep_it(call)
            for event in failed:
                yield event
            yield call.building.error(as_json(error))

    async def _events(self, call: Call, *, stream: bool) -> AsyncGenerator[Event, None]:
        building = call.building
        async with aclosing(self._steps(call, stream)) as steps:
            step = await anext(steps, None)  # before the first event, so that a refusal can still be raised
            call.told = True
            for event in building.begin():
                yield event
            while step is not None:
                for event in step(building):
                    yield event
                step = await anext(steps, None)
        *ending, last = building.finish()
        for event in ending:
            yield event
        await self._keep_it(call)  # before the last event: a client may continue from it at once
        yield last

    # Where the response's content comes from

    def _steps(self, call: Call, stream: bool) -> AsyncGenerator[Step, None]:
        request = call.request
        if (request.model or "").startswith(AGENT):
            return self._run(call)
        if any(item["type"] == "mcp_approval_response" for item in call.input) or any(
            tool.type == "mcp" for tool in request.tools or ()
        ):
            raise InvalidRequest("tools: type mcp is for agents: use a model agent/<name>")
        if (request.model or "").startswith(rag_model.PREFIX):
            asked = rag_model.query(translation.as_chat(request, call.turns))
            return self._answered(asked)
        searches = translation.searches(request)
        if searches:
            return self._searched(call, searches, stream)
        return self._chatted(call, call.turns, stream)

    def _chatted(self, call: Call, turns: list[dict[str, Any]], stream: bool) -> AsyncGenerator[Step, None]:
        if any(images.of(turn) for turn in turns):
            return self._with_images(call, turns, stream)
        return self._completed(call, turns, stream)

    async def _with_images(
        self, call: Call, turns: list[dict[str, Any]], stream: bool
    ) -> AsyncGenerator[Step, None]:
        """Complete a chat with images. A model that reads text only gets them in words, or a fixed answer if
        they are new."""
        if self._chat.sees:
            begun = False
            try:
                async with aclosing(self._completed(call, turns, stream)) as steps:
                    async for step in steps:
                        begun = True
                        yield step
                return
            except LLMBackendError as error:
                if begun or not takes_no_images(error):
                    raise
        told, said_of_images = images.in_words(turns, call.building.response["model"] or "the chat model")
        if said_of_images is not None:
            yield completing(tool_emulation.saying(said_of_images))
            return
        async with aclosing(self._completed(call, told, stream)) as steps:
            async for step in steps:
                yield step

    async def _completed(
        self, call: Call, turns: list[dict[str, Any]], stream: bool
    ) -> AsyncGenerator[Step, None]:
        if turns is call.turns:
            passed = False
            async with aclosing(self._passed(call, stream)) as steps:
                async for step in steps:
                    passed = True
                    yield step
            if passed:
                return
        asked = translation.chat(call.request, turns)
        takes_tools = self._chat.abstracts
        while True:
            if "tools" in asked and not takes_tools:
                asked, said = await tool_emulation.emulated(self._chat, self._answering.judge, asked)
                if said is not None:
                    yield completing(said)
                    return
            try:
                if not stream:
                    yield completing(await self._chat.complete(asked))
                    return
                async with aclosing(self._chunks(asked)) as chunks:
                    async for chunk in chunks:
                        yield feeding(chunk)
                return
            except InvalidRequest as error:
                if "tools" in asked and takes_no_tools(error):
                    takes_tools = False
                    continue
                shorter = _shortened(asked["messages"])
                if call.request.truncation != "auto" or "context" not in error.details or shorter is None:
                    raise
                asked["messages"] = shorter

    async def _passed(self, call: Call, stream: bool) -> AsyncGenerator[Step, None]:
        """Pass the request on to a model server with a Responses API.

        Yields nothing if there is none, or if the request continues a response stored here.
        """
        if call.before:
            return
        route = await self._chat.by_responses(
            call.request.model, call.turns, calls=translation.may_call(call.request)
        )
        if route is None:
            return
        asked = translation.passed_on(call.request, call.input)
        if not stream:
            if (completion := await route.complete(asked)) is not None:
                yield completing(completion)
            return
        async with aclosing(route.stream(asked)) as chunks:
            async for chunk in chunks:
                yield feeding(chunk)

    async def _read(self, asked: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Stream a chat about passages. If the model takes no images, they are put in words: the passages
        still answer."""
        begun = False
        try:
            async with aclosing(self._chunks(asked)) as chunks:
                async for chunk in chunks:
                    begun = True
                    yield chunk
            return
        except LLMBackendError as error:
            if begun or not takes_no_images(error) or not any(map(images.of, asked["messages"])):
                raise
        told, _ = images.in_words(asked["messages"], "")
        async with aclosing(self._chunks({**asked, "messages": told})) as chunks:
            async for chunk in chunks:
                yield chunk

    def _chunks(self, asked: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        return self._chat.stream({**asked, "stream_options": {"include_usage": True}})

    async def _answered(
        self, asked: RagQueryRequest, results: bool | None = None
    ) -> AsyncGenerator[Step, None]:
        """Answer as rag_query does. If `results` is not None, the search is shown as a tool call; if True,
        with its results."""
        async for item in self._answering.piecewise(asked):
            yield answering(item, asked.question, results)

    async def _run(self, call: Call) -> AsyncGenerator[Step, None]:
        """Run an agent; its tool calls are shown as reasoning."""
        request = call.request
        name = (request.model or "").removeprefix(AGENT)
        words = translation.words(call.input)
        functions = translation.functions(request)
        if words is not None:
            events = self.agents.resumed(name, *words)
        else:
            task = await self._task(call, name)
            if functions and self._chat.abstracts:
                task.functions = functions
                _require_foreground(request)
            elif functions:
                chat = translation.chat(request.model_copy(update={"model": None}), call.turns)
                if said := (await tool_emulation.emulated(self._chat, self._answering.judge, chat))[1]:
                    yield completing(said)
                    return
            events = self.agents.events(task)
        async with aclosing(events):
            async for event in events:
                if event["type"] == "tool_call":
                    yield thinking(f"{event['tool']}({json.dumps(event['arguments'], ensure_ascii=False)})\n")
                elif event["type"] == "done":
                    yield ran(await self._shaped(request, event["run"]))

    async def _shaped(self, request: RespondRequest, run: dict[str, Any]) -> dict[str, Any]:
        """The run with its answer as JSON, if the request asks for JSON and the agent has no output of its own."""
        form = translation.chat(request, []).get("response_format")
        if form is None or run["status"] != "completed" or run["output"] is not None:
            return run
        if not self._chat.abstracts:
            raise InvalidRequest(
                f"text.format: the agent {run['agent']!r} returns text, and the embedded model cannot turn it into JSON: "
                "leave it out"
            )
        schema = form.get("json_schema", {}).get("schema") or {"type": "object"}
        turns = [
            {"role": "system", "content": prompt("shaped").text},
            {"role": "user", "content": delimited("text", run["answer"])},
        ]
        said = await structured.complete(self._chat, {"messages": turns, "temperature": 0.0}, schema)
        usage = total(run["usage"], said.get("usage"))
        text = said["choices"][0]["message"]["content"]
        return {**run, "answer": text, "citations": [], "usage": usage}

    async def _task(self, call: Call, name: str) -> AgentTask:
        """The agent's task, with the tools that it may call."""
        request = call.request
        task, history = translation.conversation(call.turns, f"the agent {name!r}", sees=self._chat.sees)
        if history and self._chat.abstracts and input_in(task) is None:
            task, _ = await standalone(self._chat, task, history)
        collections = [one for tool in request.file_searches for one in tool.vector_store_ids or ()]
        fields: dict[str, Any] = {"task": task, "agent": name, "collections": collections or None}
        fields["instructions"] = translation.system(call.turns)
        if self._chat.sees:
            if any(_has_files(turn) for turn in call.turns):
                raise InvalidRequest(f"input: the agent {name!r} reads text and images: leave files out")
            fields["images"] = [url for turn in call.turns for url in images.of(turn)] or None
        own = [tool for tool in request.tools or () if tool.type == "mcp"]
        if len(own) > 1:
            raise InvalidRequest("tools: give one of type mcp, and name all tools in its allowed_tools")
        for tool in own:
            fields["tools"] = tool.names
            if tool.require_approval == "always":
                fields["approve"] = "writes"
                _require_foreground(request)
        try:
            return AgentTask(**fields)
        except ValidationError:
            raise NotFound(f"no model {request.model!r}: see the list of agents") from None

    async def _searched(
        self, call: Call, searches: Sequence[ResponseTool], stream: bool
    ) -> AsyncGenerator[Step, None]:
        """Search for the user's last question, then chat with the passages found."""
        request = call.request
        question, history = translation.conversation(call.turns, "file_search", sees=self._chat.sees)
        asked = _query(searches[0], question, history)
        with_results = "file_search_call.results" in (request.include or ())
        if not self._chat.abstracts:
            chat = translation.chat(request, call.turns)
            if "tools" in chat and (
                said := (await tool_emulation.emulated(self._chat, self._answering.judge, chat))[1]
            ):
                yield completing(said)
                return
            async for step in self._answered(asked, results=with_results):
                yield step
            return
        if history:
            question, _ = await standalone(self._chat, question, history)
        retriever = self._answering.retriever
        candidates = await retriever.candidates(await scope(asked, retriever.collections), question)
        passages = await number(question, candidates)
        sources = [source.model_dump() for source in passages.sources]
        results = search_results(sources) if with_results else None
        turns, count = await grounded(
            self._chat, call.turns, passages, prompt("file_search", asked.collection)
        )

        def tell(building: Building) -> Iterator[Event]:
            building.sources = sources[:count]
            yield from building.searched([question], results)

        yield tell
        text = request.text is None or request.text.format is None or request.text.format.type == "text"
        if not text:  # in JSON, brackets are not citations
            async for step in self._chatted(call, turns, stream):
                yield step
            return
        async with aclosing(self._read(translation.chat(request, turns))) as chunks:
            cited = Cited(chunks, count, self._answering.links)
            async with aclosing(cited.chunks()) as checked:
                async for chunk in checked:
                    yield feeding(chunk)
        yield citing(cited.cited)

    # Storing

    async def _keep_it(self, call: Call) -> None:
        if not call.request.store or call.request.background:
            return  # a background response is stored by its job: see `job_types/responses.py`
        await self.add(call, None)

    async def add(self, call: Call, job: str | None) -> None:
        """Store a response as it is now, in the caller's project."""
        response, project = call.building.response, tracing.current().caller.project
        if self._disk is not None:
            self._disk.require(SMALL)
        stored = Stored(
            response["id"],
            project,
            call.request.previous_response_id,
            job,
            response["status"],
            call.input,
            response,
        )
        await self.database.write(store.add, stored, call.before)
        if time.monotonic() - self._pruned > _PRUNING:
            self._pruned = time.monotonic()
            self.database.write(store.prune, time.time() - self._keep, durable=False)


def _has_files(turn: dict[str, Any]) -> bool:
    content = turn["content"]
    return isinstance(content, list) and any(part["type"] == "file" for part in content)


def _require_foreground(request: RespondRequest) -> None:
    if request.background:
        raise InvalidRequest("background: a run that may wait for its caller is a job anyway: leave it out")


def _no_item(item_id: str) -> NotFound:
    return NotFound(
        f"input: there is no item {item_id!r}: its response was not stored; send the item itself",
        details={"item": item_id},
    )


def _query(tool: ResponseTool, question: str, history: Sequence[Any]) -> RagQueryRequest:
    ranking = tool.ranking_options
    return RagQueryRequest(
        question=question,
        collection=list(tool.vector_store_ids or ()),
        top_k=tool.max_num_results or FOUND,
        filters=ours(tool.filters) if tool.filters else None,
        min_score=ranking.score_threshold if ranking else None,
        history=list(history),
    )


def _shortened(turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The messages without their older half, cut at a user's message; None if nothing can be left out."""
    first = 1 if turns and turns[0]["role"] == "system" else 0
    starts = [place for place, turn in enumerate(turns) if turn["role"] == "user" and place > first]
    if not starts:
        return None
    middle = (first + len(turns)) // 2
    start = next((place for place in starts if place >= middle), starts[-1])
    return [*turns[:first], *turns[start:]]
