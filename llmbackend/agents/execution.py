"""Executing an agent: start it, watch its limits, and assemble the result."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import re
import types
import typing
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext, suppress
from functools import cache
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from .. import llamaindex_import, threads
from ..access.names import missing
from ..answers.links import Inert
from ..errors import (
    BackendError,
    BackendTimeout,
    Forbidden,
    InvalidRequest,
    LLMBackendError,
    Overloaded,
    Unauthorized,
    invalid,
    names_in,
)
from ..inference.chat import total
from ..plugins import AGENTS, AgentPart
from ..schemas import AgentInfo, AgentRun, ListCollectionsRequest, RunAgentRequest, Step, input_in
from .handle import Run
from .limits import Halt
from .result import AgentResult
from .run_state import DEPTH, Running
from .tooling import find

_OURS = "llmbackend."


class Shape(NamedTuple):
    """An agent's arguments and result, by its annotations."""

    names: tuple[str, ...]
    """The names of its arguments."""
    input: tuple[str, Any] | None
    """Name and type of the input: the argument that is neither `run` nor `task`, if any."""
    output: type[BaseModel] | None


@cache
def shape_of(part: AgentPart) -> Shape:
    made: Any = part.made
    if part.is_class:
        start = getattr(made, "_start_event_class", None)
        return Shape((), ("input", start) if _has_fields(start) else None, None)
    with suppress(NameError, TypeError):
        hints = typing.get_type_hints(made)
        names = tuple(inspect.signature(made).parameters)
        own = [name for name in names if name not in ("run", "task")]
        if len(own) > 1:
            raise InvalidRequest(
                f"the agent {part.name!r} ({part.by}) takes {', '.join(own)}: it may take `run`, `task` and one more"
            )
        output = hints.get("return")
        return Shape(
            names,
            (own[0], hints.get(own[0], Any)) if own else None,
            output if _is_model(output) else None,
        )
    return Shape(tuple(inspect.signature(made).parameters), None, None)


def _is_model(kind: Any) -> bool:
    """Whether it is a pydantic class, but not one of LlamaIndex's agents, which are pydantic classes too."""
    return inspect.isclass(kind) and issubclass(kind, BaseModel) and not hasattr(kind, "run")


def _has_fields(kind: Any) -> bool:
    return _is_model(kind) and bool(kind.model_fields)


def input_class(part: AgentPart) -> type[BaseModel] | None:
    found = shape_of(part).input
    return found[1] if found is not None and _is_model(found[1]) else None


def described(part: AgentPart) -> AgentInfo:
    given, output = input_class(part), shape_of(part).output
    tools = part.tools if part.tools is not None else ()
    return AgentInfo(
        name=part.name,
        description=part.description,
        own=is_own(part.name),
        tools=list(tools),
        input=given.model_json_schema() if given is not None else None,
        output=output.model_json_schema(mode="serialization") if output is not None else None,
    )


def is_own(agent: str) -> bool:
    """Whether it is a project's own agent; False if there is no such agent."""
    part = AGENTS.get(agent)
    return part is not None and not part.made.__module__.startswith(_OURS)


def check(request: RunAgentRequest) -> AgentPart:
    """The agent asked for. Raises InvalidRequest for an unknown agent or tool, or an input that does not fit."""
    part = AGENTS.named(request.agent)
    for name in request.tools or ():
        find(name)
    _given(part, request)
    return part


def _given(part: AgentPart, request: RunAgentRequest) -> Any:
    """The input, validated by the agent's type for it. Raises InvalidRequest."""
    shape = shape_of(part)
    if shape.input is None:
        if request.input and not part.is_class and not _takes_any(part):
            raise InvalidRequest(f"input: the agent {part.name!r} takes none")
        return request.input
    kind = shape.input[1]
    if not _is_model(kind):
        return request.task if kind is str else request.input if request.input is not None else request.task
    given = request.input if request.input is not None else _written_as_task(kind, request.task)
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        there = "" if request.input is not None else " (the task may be it, as JSON)"
        raise invalid(error, f"input of the agent {part.name}{there}", names_in(kind)) from error


def _written_as_task(kind: type[BaseModel], task: str) -> dict[str, Any]:
    """The input written as the task: a JSON object or, if only one text is required, that text."""
    if (told := input_in(task)) is not None:
        return told
    needed = [(name, field) for name, field in kind.model_fields.items() if field.is_required()]
    if task.strip() and len(needed) == 1 and needed[0][1].annotation is str:
        return {needed[0][1].alias or needed[0][0]: task}
    return {}


def _takes_any(part: AgentPart) -> bool:
    return any(one.kind is one.VAR_KEYWORD for one in inspect.signature(part.made).parameters.values())


async def execute(running: Running) -> AgentRun:
    """Run an agent until it ends, reaches a limit or waits for approval.

    Raises what the agent fails with; the error's `details` have the step and the trace.
    """
    await threads.files(llamaindex_import.load)
    part = check(running.request)
    await _require_collections(running)
    own = is_own(part.name)
    main = asyncio.create_task(_whole(running, part))
    try:
        both: set[asyncio.Future[Any]] = {main, running.halted}
        await asyncio.wait(both, timeout=running.limits.seconds, return_when=asyncio.FIRST_COMPLETED)
        if main.done():
            return _said(running, await _told(running, part, main.result()))
        halt = running.halted.result() if running.halted.done() else None
        where = running.where
    except Exception as error:
        raise _failure(running, part, error) from error
    finally:
        if not main.done():
            main.cancel()
            await asyncio.wait([main], timeout=6)
    if halt is None:
        seconds = running.limits.seconds
        if own:
            late = BackendTimeout(
                f"the agent {part.name!r} ({part.by}) took more than {seconds:g} s, in {where!r}: fix it, or raise "
                "max_seconds and AGENT_SECONDS"
            )
            raise _failure(running, part, late, where)
        halt = Halt(False, f"stopped at the limit of {seconds:g} s (max_seconds, AGENT_SECONDS)")
    return _said(running, _halted(running, part, halt))


def _said(running: Running, run: AgentRun) -> AgentRun:
    """The run; its answer is sent as an event first, if no part of it was."""
    if run.answer and not running.shared.said:
        running.tell({"type": "text", "delta": run.answer, "step": 1})
    return run


async def _require_collections(running: Running) -> None:
    """Raise Forbidden or NotFound for named collections that cannot be read. If a tool may write, they need
    not exist."""
    named = running.request.collections or ()
    with await running.permitted(("read",), named) if named else nullcontext():
        if named and not any(find(name).writes for name in running.request.tools or ()):
            found = await running.services.operations.list_collections(ListCollectionsRequest(counts=False))
            there = {one.name for one in found.collections}
            for name in named:
                if name not in there:
                    raise missing(name)


async def _whole(running: Running, part: AgentPart) -> AgentResult:
    async with running.step(part.name, "agent", given=running.request.task or running.request.input) as node:
        made = await perform(running, part)
        node.told.output = made.answer[:500] or None
        return made


async def part_of(running: Running, name: str, task: str, given: Any) -> AgentRun:
    """Run another agent as a part of this run; returns its run."""
    here = running.here
    if here is not None and here.depth + 1 >= DEPTH:
        raise InvalidRequest(f"agents call one another more than {DEPTH} deep: {here.path} calls {name!r}")
    if isinstance(given, BaseModel):
        given = given.model_dump(mode="json")
    request = running.request.model_copy(
        update={"agent": name, "task": task, "input": given, "tools": None, "functions": None, "images": None}
    )
    other = running.calling(request)
    part = check(request)
    async with other.step(part.name, "agent", given=task or given) as node:
        made = await perform(other, part)
        node.told.output = made.answer[:500] or None
    told = await _told(other, part, made)
    told.trace = node.told
    return told


async def perform(running: Running, part: AgentPart) -> AgentResult:
    given = _given(part, running.request)
    if not is_own(part.name):
        arguments = {"run": running, "task": running.request.task}
        return _made(await part.made(**_wanted(part, arguments, given)))

    async def work() -> Any:
        return _made(await _own(running, part, given))

    return await in_thread(work)


def _wanted(part: AgentPart, arguments: Mapping[str, Any], given: Any) -> dict[str, Any]:
    shape = shape_of(part)
    wanted = {name: value for name, value in arguments.items() if name in shape.names}
    if shape.input is not None:
        wanted[shape.input[0]] = given
    return wanted


async def in_thread(work: Callable[[], Awaitable[AgentResult]]) -> AgentResult:
    """Run work on its own event loop in a thread, because a project's code may block or hang."""
    begun: dict[str, Any] = {}

    async def main() -> AgentResult:
        begun["task"], begun["loop"] = asyncio.current_task(), asyncio.get_running_loop()
        return await work()

    def run() -> AgentResult:
        return asyncio.run(main())

    try:
        return await threads.agents(run)
    except asyncio.CancelledError:
        if "loop" in begun:
            with suppress(RuntimeError):  # it has ended
                begun["loop"].call_soon_threadsafe(begun["task"].cancel)
        raise


async def _own(running: Running, part: AgentPart, given: Any) -> Any:
    from llama_index.core.workflow import Workflow

    made: Any = part.made
    run = Run(running)
    if part.is_class:
        result: Any = made()
    else:
        result = made(**_wanted(part, {"run": run, "task": running.request.task}, given))
    if not isinstance(result, Workflow):
        result = await result if inspect.isawaitable(result) else result
    return await _workflow(running, run, result, given) if isinstance(result, Workflow) else result


async def _workflow(running: Running, run: Run, workflow: Any, given: Any) -> Any:
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.core.agent.workflow.base_agent import BaseWorkflowAgent

    from .orchestration import ENDLESS, asked, finished, watched

    request = running.request
    if isinstance(workflow, BaseWorkflowAgent):
        if not running.services.chat.abstracts:
            raise InvalidRequest(
                "it needs a chat model that calls tools: set VLLM_URL, LITELLM_URL or OPENAI_BASE_URL"
            )
        if type(workflow) is FunctionAgent:
            workflow = watched(running, workflow)
        said = asked(running, request.task or json.dumps(request.input or {}))
        return await finished(workflow.run(user_msg=said, max_iterations=ENDLESS))
    for name, work in workflow._get_steps().items():
        if inspect.ismethod(work):
            stepping = _stepping(running, name, work.__func__)
            setattr(workflow, name, types.MethodType(stepping, workflow))
    start = {"task": request.task, "run": run}
    if isinstance(given, BaseModel):
        start |= {name: getattr(given, name) for name in type(given).model_fields}
    elif request.input:
        start |= request.input
    return await finished(workflow.run(**start))


def _stepping(running: Running, name: str, work: Any) -> Any:
    """A workflow's step, recorded as a step of the run."""
    if inspect.iscoroutinefunction(work):

        @functools.wraps(work)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with running.stepping(name):
                return await work(*args, **kwargs)

        return awaited

    @functools.wraps(work)
    def called(*args: Any, **kwargs: Any) -> Any:
        with running.stepping(name):
            return work(*args, **kwargs)

    return called


def _made(result: Any) -> AgentResult:
    """Whatever an agent returned, as an AgentResult."""
    if isinstance(result, AgentResult):
        return result
    if isinstance(result, AgentRun):
        return AgentResult(result.answer, result.output, result.found)
    if isinstance(result, BaseModel) and not hasattr(result, "response"):
        output = result.model_dump(mode="json")
        answer = output.get("answer") if isinstance(output, dict) else None
        return AgentResult(
            answer if isinstance(answer, str) else json.dumps(output, ensure_ascii=False), output
        )
    if isinstance(result, str) or result is None:
        return AgentResult(result or "")
    if hasattr(result, "response") and hasattr(result, "tool_calls"):  # LlamaIndex's AgentOutput
        return AgentResult(str(result.response.content or ""), result.structured_response)
    try:
        output = json.loads(json.dumps(result))
    except (TypeError, ValueError):
        return AgentResult(str(result))
    return AgentResult(json.dumps(output, ensure_ascii=False), output)


# Results


async def _told(running: Running, part: AgentPart, made: AgentResult) -> AgentRun:
    inert = Inert(running.services.settings.answer_links, cites=False)
    answer = await threads.by_length(len(made.answer), inert.feed, made.answer, True)
    cited = dict.fromkeys(int(one) for one in re.findall(r"\[(\d{1,9})\]", answer))
    citations = [number for number in cited if number in running.sources]
    return _run(
        running,
        part,
        status="completed",
        answer=answer,
        found=bool(citations) if made.found is None else made.found,
        citations=citations,
        output=made.output,
    )


def _halted(running: Running, part: AgentPart, halt: Halt) -> AgentRun:
    if halt.waits:
        return _run(running, part, status="needs_approval", pending=running.pending)
    running.notes.append(halt.note)
    stopped = f"{halt.note[0].upper()}{halt.note[1:]}."
    if running.so_far is not None:
        made = _made(running.so_far())
        return _run(
            running, part, status="stopped", answer=f"{stopped} {made.answer}".strip(), output=made.output
        )
    best = list(running.sources.values())[:3]
    links = running.services.settings.answer_links
    said = "\n\n".join(
        f"{Inert(links, cites=False).feed(one.quote[:500], last=True)} [{one.number}]" for one in best
    )
    answer = f"{stopped} Found until then:\n\n{said}" if said else ""
    return _run(
        running,
        part,
        status="stopped",
        answer=answer,
        found=False,
        citations=[one.number for one in best],
    )


def _run(running: Running, part: AgentPart, **fields: Any) -> AgentRun:
    tokens = total(running.root_trace.tokens, running.shared.replayed_usage)
    return AgentRun.model_construct(
        **{
            "agent": part.name,
            "run_id": running.run_id,
            "answer": "",
            "found": False,
            "citations": [],
            "output": None,
            "pending": [],
            "sources": [running.sources[number] for number in sorted(running.sources)],
            "notes": list(dict.fromkeys(running.notes)),
            "trace": running.shared.root.told if running.shared.root else _no_step(part),
            "model": running.shared.model,
            "usage": total({**tokens, "total_tokens": sum(tokens.values()), "steps": running.shared.steps}),
            **fields,
        }
    )


def _no_step(part: AgentPart) -> Step:
    return Step(name=part.name, kind="agent")


def _failure(running: Running, part: AgentPart, error: Exception, where: str = "") -> LLMBackendError:
    """The error that a run fails with: it names a project's own agent, and has the step and the trace."""
    where = where or getattr(error, "agent_step", "") or part.name
    own = is_own(part.name)
    about = {"step": where, "agent": part.name, "trace": _trace(running)}
    ours = error
    if own and not isinstance(error, BackendTimeout | Unauthorized | Forbidden | Overloaded):
        said = error.message if isinstance(error, LLMBackendError) else f"{type(error).__name__}: {error}"
        ours = BackendError(
            f"the agent {part.name!r} ({part.by}) failed in {where!r}: {said}", details={"backend": "agent"}
        )
    elif not isinstance(error, LLMBackendError):
        ours = BackendError(
            f"the agent {part.name!r} failed in {where!r}: {type(error).__name__}: {error}",
            details={"backend": "agent"},
        )
    assert isinstance(ours, LLMBackendError)
    ours.details = {**ours.details, **about}
    return ours


def _trace(running: Running) -> dict[str, Any] | None:
    return running.shared.root.told.model_dump() if running.shared.root else None
