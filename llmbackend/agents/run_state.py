"""The state of a run on the core's loop: steps, limits, rights, events, and results that are reused on resuming."""

from __future__ import annotations

import asyncio
import copy
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from contextvars import ContextVar
from typing import Any, NoReturn

from .. import schemas, tracing
from ..access.caller import Caller, Right
from ..access.decision import AccessNeeded, Asks
from ..access.names import qualified
from ..answers.links import Inert
from ..errors import BackendError, LLMBackendError, StreamInterrupted
from ..inference import structured
from ..prompts import Prompt, prompt
from ..schemas import AgentTask, Hit, PendingCall, RunAgentRequest, Source, Step
from . import replies
from .journal import Journal
from .limits import Halt, Limits
from .services import AgentServices
from .steps import SHOWN, Node, StepTrace, shown

DEPTH = 8
"""How deep agents may call one another."""

Emit = Callable[[dict[str, Any]], None]


_node: ContextVar[Node | None] = ContextVar("llmbackend_agent_step", default=None)


class _Shared:
    """Counts shared by a run and the agents that it calls."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.model = ""
        self.steps = 0
        self.nodes = 0
        self.active = 0
        self.replayed_tokens = 0
        self.replayed_usage: Counter[str] = Counter()
        """Tokens of calls that were made in an earlier attempt."""
        self.said = False
        """Whether any of the answer has been streamed."""
        self.open: dict[int, Node] = {}
        """Running steps."""


class Running:
    """A running agent. Made and used on the core's loop; agents on other loops reach it through `Run` (handle.py)."""

    def __init__(
        self,
        services: AgentServices,
        request: RunAgentRequest,
        journal: Journal,
        emit: Emit,
        decisions: Mapping[str, Any] | None = None,
        run_id: str | None = None,
    ) -> None:
        self.services = services
        self.journal = journal
        self.decisions = dict(decisions or {})
        """Decisions on calls that waited for approval, by the calls' keys: True, or the reason against."""
        self.run_id = run_id
        self.limits = Limits.of(request, services.settings)
        self.loop = asyncio.get_running_loop()
        self.root_trace = tracing.current()
        self.caller: Caller = self.root_trace.caller
        self.request = _task(request, self.caller)
        self.began = time.monotonic()
        self.tokens_before = sum(self.root_trace.tokens.values())
        self.halted: asyncio.Future[Halt] = self.loop.create_future()
        self.pending: list[PendingCall] = []
        self.sources: dict[int, Source] = {}
        self.notes: list[str] = []
        self.so_far: Callable[[], Any] | None = None
        """Returns what the agent would return now, for a run that is stopped."""
        self.emit = emit
        self.shared = _Shared()
        for row in journal.rows.values():
            for told in row.get("sources") or ():
                source = Source.model_validate(told)
                self.sources[source.number] = source

    def calling(self, request: AgentTask) -> Running:
        """The same run, for another agent that this one calls."""
        other = copy.copy(self)
        other.request, other.so_far = request, None
        return other

    # Steps

    @asynccontextmanager
    async def step(
        self, name: str, kind: Any = "step", *, prompt: str | None = None, given: Any = None
    ) -> AsyncIterator[Node]:
        """Record a step of the run, in the trace and the events."""
        with self.stepping(name, kind, prompt=prompt, given=given) as node:
            yield node

    @contextmanager
    def stepping(self, name: str, kind: Any = "step", *, prompt: str | None = None, given: Any = None) -> Any:
        parent = _node.get()
        self.shared.nodes += 1
        told = Step.model_construct(
            name=name[:200],
            kind=kind,
            began=round(time.monotonic() - self.began, 4),
            seconds=0.0,
            tokens=0,
            model=None,
            prompt=prompt,
            input=shown(given),
            output=None,
            error=None,
            replayed=False,
            steps=[],
        )
        node = Node(self.shared.nodes, told, StepTrace(self.root_trace), parent)
        if parent is not None:
            parent.told.steps.append(told)
        elif self.shared.root is None:
            self.shared.root = node
        self.shared.open[node.number] = node
        self._tell(node, "began")
        before = _node.set(node)
        try:
            with tracing.tracing(node.trace):
                yield node
        except BaseException as error:
            told.error = told.error or self._said(error)
            if not hasattr(error, "agent_step"):
                with suppress(AttributeError):  # some exceptions take no attributes
                    error.agent_step = node.path  # type: ignore[attr-defined]
            raise
        finally:
            _node.reset(before)
            self._end(node)

    def _said(self, error: BaseException) -> str | None:
        if isinstance(error, asyncio.CancelledError):
            ended = self.halted.result() if self.halted.done() and not self.halted.cancelled() else None
            return "cancelled" if ended is None else ended.note or "waits for approval"
        if isinstance(error, LLMBackendError):
            return f"{error.code}: {error.message}"[:SHOWN]
        return f"{type(error).__name__}: {error}"[:SHOWN]

    def _end(self, node: Node) -> None:
        told = node.told
        if not told.replayed:
            told.seconds = round(time.monotonic() - node.began, 4)
        node.own_tokens += sum(node.trace.tokens.values())
        told.tokens = node.own_tokens + sum(step.tokens for step in told.steps)
        told.model = told.model or node.trace.model or None
        told.prompt = (
            ", ".join(dict.fromkeys([*filter(None, [told.prompt]), *node.trace.prompts_used])) or None
        )
        if node.parent is None:
            self.root_trace.steps = told
        self.shared.open.pop(node.number, None)
        self._tell(node, "ended")

    def _tell(self, node: Node, status: str) -> None:
        told = node.told
        event: dict[str, Any] = {
            "type": "step",
            "id": node.number,
            "parent": node.parent.number if node.parent else None,
            "name": told.name,
            "kind": told.kind,
            "status": status,
        }
        if status == "ended":
            event |= {"seconds": told.seconds, "tokens": told.tokens, "failed": told.error}
        if told.prompt:
            event["prompt"] = told.prompt
        self.tell(event)

    def shown(self, value: Any) -> str | None:
        """The beginning of a model's or tool's output for the trace and events, without live links or images."""
        return shown(value, self.services.settings.answer_links)

    def tell(self, event: dict[str, Any]) -> None:
        """Emit an event, from any thread."""
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            here = False
        if here:
            self.emit(event)
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.emit, event)

    @property
    def where(self) -> str:
        """The path of the innermost running step."""
        deepest = max(self.shared.open.values(), key=lambda node: node.number, default=None)
        return deepest.path if deepest is not None else ""

    @property
    def here(self) -> Node | None:
        return _node.get()

    # Limits

    @property
    def tokens(self) -> int:
        return sum(self.root_trace.tokens.values()) - self.tokens_before + self.shared.replayed_tokens

    @property
    def seconds_left(self) -> float:
        return self.limits.seconds - (time.monotonic() - self.began)

    async def count(self) -> None:
        """Count a call of a model or tool; beyond a limit the run halts, and this does not return."""
        if self.pending:  # nothing new begins before the pending calls are decided
            await self.halt(Halt(True, ""))
        if self.shared.steps >= self.limits.steps:
            await self.halt(
                Halt(False, f"stopped at the limit of {self.limits.steps} steps (max_steps, AGENT_STEPS)")
            )
        if self.tokens >= self.limits.tokens:
            await self.halt(
                Halt(False, f"stopped at the limit of {self.limits.tokens} tokens (max_tokens, AGENT_TOKENS)")
            )
        self.shared.steps += 1

    async def halt(self, why: Halt) -> NoReturn:
        """Halt the run; its running steps are cancelled."""
        if why.waits and self.shared.active:
            await asyncio.get_running_loop().create_future()  # the last active call halts the run
        if not self.halted.done():
            self.halted.set_result(why)
        await asyncio.get_running_loop().create_future()
        raise AssertionError("cancelled")

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        self.shared.active += 1
        try:
            yield
        finally:
            self.shared.active -= 1
            if self.pending and not self.shared.active and not self.halted.done():
                self.halted.set_result(Halt(True, ""))

    # Rights

    async def permitted(
        self,
        rights: Sequence[Right],
        collections: Sequence[str] = (),
        models: Sequence[tuple[Asks, str | None]] = (),
        *,
        owners_only: bool = False,
    ) -> AbstractContextManager[None]:
        """Return a context manager for a block that may use these collections and models, by the key's
        present rights.

        Raises Unauthorized, Forbidden, NotFound.
        """
        await self.services.register.require(self.caller)
        granted = await self.services.register.permit(
            self.caller, AccessNeeded(rights, collections, models, owners_only)
        )
        node = _node.get()
        return tracing.tracing(StepTrace(node.trace if node is not None else self.root_trace, granted))

    async def readable(self) -> list[str]:
        """The collections that the run may read: those named, or else all that the key may read."""
        if self.request.collections is not None:
            return list(self.request.collections)
        with await self.permitted(("read",)):
            found = await self.services.operations.list_collections(
                schemas.ListCollectionsRequest(counts=False)
            )
        return [one.name for one in found.collections]

    def instructed(self, text: str) -> str:
        """An agent's own prompt, followed by the caller's instructions."""
        return f"{text}\n\n{self.request.instructions}" if self.request.instructions else text

    async def prompt(self, name: str) -> Prompt:
        """The prompt of that name; a collection's own version if the run is about that collection alone."""
        named = self.request.collections or ()
        with await self.permitted(("read",), named) if named else nullcontext():
            return prompt(name)

    # Reusing results

    async def once(
        self, node: Node, kind: str, given: Any, work: Callable[[str], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        """Return the result of `work`, or its result in an earlier attempt, which also restores its sources."""
        key = self.journal.key(kind, given)
        saved = self.journal.rows.get(key)
        if saved is not None:
            self._replay(node, saved)
            node.told.replayed, node.told.seconds = True, saved.get("seconds") or 0.0
            node.told.model = saved.get("model")
            for label in saved.get("prompts") or ():
                node.trace.prompted(label)
            result: dict[str, Any] = saved["result"]
            return result
        before = set(self.sources)
        result = await work(key)
        row = self._row(key, kind, node, result)
        row["given"] = given[1] if kind == "tool" else None
        row["sources"] = [one.model_dump() for number, one in self.sources.items() if number not in before]
        await self.journal.save(row)
        return result

    def _row(self, key: str, kind: str, node: Node, result: dict[str, Any]) -> dict[str, Any]:
        """A row of the journal."""
        usage = Counter(node.trace.tokens)
        usage.subtract(node.kept_usage)
        return {
            "key": key,
            "kind": kind,
            "name": node.told.name,
            "seconds": round(time.monotonic() - node.began, 4),
            "tokens": usage.total(),
            "usage": dict(usage),
            "model": node.trace.model or None,
            "prompts": list(dict.fromkeys([*filter(None, [node.told.prompt]), *node.trace.prompts_used])),
            "result": result,
        }

    def _replay(self, node: Node, row: dict[str, Any]) -> None:
        node.own_tokens += row.get("tokens") or 0
        self.shared.replayed_tokens += row.get("tokens") or 0
        self.shared.replayed_usage.update(row.get("usage") or {})

    async def keep_try(self, node: Node, key: str, completion: dict[str, Any]) -> None:
        """Store a reply that does not fit its schema before another is asked for, in case the process is killed."""
        row = self._row(key, "model", node, {"completion": completion})
        node.kept_usage.update(row["usage"])
        await self.journal.save(row)

    def kept_try(self, node: Node, key: str) -> dict[str, Any] | None:
        """The reply that an earlier attempt stored at this place, if any."""
        row = self.journal.rows.get(key)
        if row is None:
            return None
        self._replay(node, row)
        completion: dict[str, Any] = row["result"]["completion"]
        return completion

    def cite(self, hits: Sequence[Hit]) -> list[Source]:
        """The passages as numbered sources; a passage keeps its number however often it is found."""
        known = {(one.collection, one.document_id, one.chunk): one for one in self.sources.values()}
        told = []
        for hit in hits:
            place = hit.collection, hit.document_id, hit.chunk
            if place not in known:
                number = max(self.sources, default=0) + 1
                quote = getattr(hit, "quote", None) or hit.text
                fields = {**hit.model_dump(), "number": number, "quote": quote}
                known[place] = self.sources[number] = Source.model_validate(fields)
            told.append(known[place])
        return told

    # Models

    async def chat(
        self,
        request: dict[str, Any],
        *,
        schema: dict[str, Any] | None = None,
        name: str = "model",
        prompt: str | None = None,
        says: bool = False,
    ) -> dict[str, Any]:
        """Ask the chat model; return `{message, model, usage, finish_reason}`. With `says`, its text is
        streamed, too."""
        await self.count()
        asked = {key: value for key, value in request.items() if value is not None}
        if self.request.model and "model" not in asked:
            asked["model"] = self.request.model
        last = asked["messages"][-1] if asked.get("messages") else {}
        async with (
            self._working(),
            self.step(name, "model", prompt=prompt, given=last.get("content")) as node,
        ):

            async def work(key: str) -> dict[str, Any]:
                with await self.permitted(("chat",), models=[("chat", asked.get("model"))]):
                    left = self.limits.tokens - self.tokens
                    few = left < (await self.services.chat.window()).context
                    if few and (asked.get("max_tokens") is None or asked["max_tokens"] > left):
                        asked["max_tokens"] = max(1, left)
                    return {**await self._asked(node, key, asked, schema, says=says), "says": says}

            result = await self.once(node, "model", [{**request}, schema], work)
            self.shared.model = node.told.model or result.get("model") or self.shared.model
            message = result["message"]
            node.told.output = self.shown(message.get("content") or message.get("tool_calls"))
            if (ended := replies.ended_early(result)) is not None:
                self.notes.append(f"{node.path}: {ended}")
            return result

    async def _asked(
        self, node: Node, key: str, asked: dict[str, Any], schema: dict[str, Any] | None, *, says: bool
    ) -> dict[str, Any]:
        if schema is not None:
            said = await structured.complete(_Tries(self, node, key), asked, schema)
            return replies.reply(said)
        try:
            return await replies.streamed(self.services.chat, asked, self._saying(node, says))
        except StreamInterrupted as error:  # try once more, because model servers restart
            self.notes.append(f"{node.path}: {error.message}; asked once more")
            self.tell(
                {
                    "type": "step",
                    "id": node.number,
                    "name": node.told.name,
                    "kind": "model",
                    "status": "retried",
                }
            )
            try:
                return await replies.streamed(self.services.chat, asked, self._saying(node, says))
            except StreamInterrupted as again:
                raise BackendError(again.message, details={"backend": "chat", **again.details}) from again

    def _saying(self, node: Node, says: bool) -> replies.Say:
        """A callback that streams the model's text, made inert, to the caller if `says`."""
        inert = Inert(self.services.settings.answer_links, cites=False)

        def say(piece: str, last: bool) -> None:
            if says and (told := inert.feed(piece, last)):
                self.shared.said = True
                self.tell({"type": "text", "delta": told, "step": node.number})

        return say


class _Tries:
    """The chat model as `structured` uses it: a reply that does not fit is stored before another is asked for."""

    def __init__(self, running: Running, node: Node, key: str) -> None:
        self._running, self._node, self._key = running, node, key
        self._calls = 0
        self._last: dict[str, Any] | None = None
        """The reply to the last call, if it is not in the journal."""

    @property
    def _place(self) -> str:
        return f"{self._key}.{self._calls}"

    async def deadline(self) -> float:
        return await self._running.services.chat.deadline()

    async def complete(self, request: dict[str, Any], deadline: float | None = None) -> dict[str, Any]:
        if self._last is not None:
            await self._running.keep_try(self._node, self._place, self._last)
            self._last = None
        self._calls += 1
        if (kept := self._running.kept_try(self._node, self._place)) is not None:
            return kept
        self._last = await self._running.services.chat.complete(request, deadline)
        return self._last


def _task(request: RunAgentRequest, caller: Caller) -> AgentTask:
    """The request, with each collection once, by the name that lists show."""
    given = dict(vars(request))
    if request.collections is not None:
        shown = (qualified(name, caller).shown_to(caller) for name in request.collections)
        given["collections"] = list(dict.fromkeys(shown))
    return AgentTask.model_construct(**given)
