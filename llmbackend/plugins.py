"""Registers a project's own parts by name: job types, node parsers, readers, postprocessors, retrievers, agents, tools.

A part is registered by a decorator, in a module that the process imports, or that an installed package names as an entry
point of the group `llmbackend.plugins`. All packages look parts up here, so this module imports none of them.

    @postprocessor("recency")
    def recency(nodes, query):                      # LlamaIndex's NodeWithScore, best first; returns those to keep
        return sorted(nodes, key=lambda one: one.metadata["year"], reverse=True)

    @retriever("graph")
    async def graph(query, search):                 # our own search (retrieval/own_retriever.py)
        return await search.asearch(query) + await search.asearch(related(query))

    @node_parser("clauses")
    def clauses(document):                          # LlamaIndex's Document; returns nodes, or texts
        return document.text.split("§")

    @reader(".xyz")
    def xyz(data):                                  # bytes; returns the file's text, as Markdown
        return data.decode("utf-16")

    @tool("tide")
    async def tide(harbour: str) -> str:            # models see its annotations and docstring
        'When high tide is.'

    @agent("contracts")
    async def contracts(run, input: Question) -> Finding:   # pydantic classes; `run` has models, tools, other agents
        return Finding(months=await run.tool("search", query=input.text))

Instead of a function, a LlamaIndex class can be registered: a BaseNodePostprocessor, a BaseRetriever (created with
`search`) or a NodeParser; as an agent, a Workflow, or a function that returns a Workflow or a FunctionAgent.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from . import threads
from .alike import alike, did_you_mean
from .errors import BackendError, BackendTimeout, InvalidRequest, LLMBackendError

log = logging.getLogger(__name__)

ENTRY_POINTS = ("llmbackend.plugins", "llmbackend.jobs")

SECONDS = 30.0
"""Default limit for one call of a part, in seconds."""

_Registered = TypeVar("_Registered")
_Made = TypeVar("_Made", bound=Callable[..., Any])


class Registry(Mapping[str, _Registered], Generic[_Registered]):
    """The parts of one kind, by name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._parts: dict[str, _Registered] = {}
        self._by: dict[str, str] = {}
        self._acts: list[Callable[[str, _Registered], None]] = []

    def add(self, name: str, part: _Registered, by: Callable[..., Any]) -> None:
        """Register a part. Raises ValueError if there is another of that name."""
        where = target(by)
        if self._by.setdefault(name, where) != where:
            raise ValueError(f"there is a {self.kind} {name!r} already, by {self._by[name]}")
        self._parts[name] = part
        for act in self._acts:
            act(name, part)

    def each(self, act: Callable[[str, _Registered], None]) -> None:
        """Call `act` with each registered part, and with each part registered later."""
        self._acts.append(act)
        for name, part in self._parts.items():
            act(name, part)

    def named(self, name: str) -> _Registered:
        """Return the part of that name. Raises InvalidRequest, which lists the registered names."""
        if name not in self._parts:
            there = ", ".join(self._parts) or "none"
            near = alike(name, self._parts)
            meant = f"{did_you_mean(near)} There" if near else "there"
            raise InvalidRequest(
                f"no {self.kind} {name!r}: {meant} are {there}. {HOW}",
                details={self.kind.replace(" ", "_"): name},
            )
        return self._parts[name]

    def __getitem__(self, name: str) -> _Registered:
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


HOW = (
    "A package brings one by an entry point of the group llmbackend.plugins: install it where llmbackend runs "
    "(pip install …), and start that again"
)


def target(part: Callable[..., Any]) -> str:
    """Return where a part is defined, as `module:name`."""
    return f"{part.__module__}:{part.__qualname__}"


@dataclass(frozen=True)
class Part:
    """A project's own function or class."""

    kind: str
    name: str
    made: Callable[..., Any] = field(repr=False)
    version: int = 1
    """Incremented when its output for the same input changes, so that earlier output does not count as unchanged."""

    @property
    def by(self) -> str:
        return target(self.made)

    @property
    def is_class(self) -> bool:
        return inspect.isclass(self.made)

    async def call(self, seconds: float, work: Callable[..., Any], *args: Any) -> Any:
        """Return `work(*args)`, run in a thread; a coroutine runs on a loop in that thread, so that it cannot block ours.

        Raises a BackendError with the part's name for any exception, and BackendTimeout after so many seconds.
        """
        about = {"backend": "plugin", self.kind.replace(" ", "_"): self.name}
        try:
            async with asyncio.timeout(seconds) as limit:
                return await threads.plugins(_finished, work, *args)
        except TimeoutError as error:
            if not limit.expired():
                raise self._failed(error, about) from error
            raise BackendTimeout(
                f"the {self.kind} {self.name!r} ({self.by}) took more than {seconds:g} s: fix it, or raise PLUGIN_SECONDS",
                details=about,
            ) from None
        except Exception as error:
            raise self._failed(error, about) from error

    def wrong(self, reason: str) -> BackendError:
        """Return the error for a wrong return value."""
        return BackendError(
            f"the {self.kind} {self.name!r} ({self.by}) {reason}: fix it",
            details={"backend": "plugin", self.kind.replace(" ", "_"): self.name},
        )

    def _failed(self, error: Exception, about: dict[str, Any]) -> BackendError:
        log.warning("the %s %r (%s) failed", self.kind, self.name, self.by, exc_info=error)
        said = error.message if isinstance(error, LLMBackendError) else f"{type(error).__name__}: {error}"
        return BackendError(f"the {self.kind} {self.name!r} ({self.by}) failed: {said}", details=about)


def _finished(work: Callable[..., Any], *args: Any) -> Any:
    result = work(*args)
    return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(result: Any) -> Any:
    return await result


@dataclass(frozen=True)
class ToolPart(Part):
    """A tool that agents may call."""

    writes: bool = False
    """Whether the tool changes something: then a run must name it, and its calls may need approval."""
    parameters: Mapping[str, Any] | None = None
    """A JSON Schema of its parameters, if the function has no annotations."""


@dataclass(frozen=True)
class AgentPart(Part):
    """An agent, which works on a task in steps."""

    description: str = ""
    tools: tuple[str, ...] | None = None
    """Its tools, unless a run names others; None means all that do not write."""
    bounded: bool = True
    """Whether a run has default limits; otherwise its input bounds its work."""


NODE_PARSERS: Registry[Part] = Registry("node parser")
READERS: Registry[Part] = Registry("reader")
POSTPROCESSORS: Registry[Part] = Registry("postprocessor")
RETRIEVERS: Registry[Part] = Registry("retriever")
AGENT = "agent/"
"""Prefix of an agent's name as a model."""
AGENTS: Registry[AgentPart] = Registry("agent")
TOOLS: Registry[ToolPart] = Registry("tool")
OWN: tuple[Registry[Part], ...] = (NODE_PARSERS, READERS, POSTPROCESSORS, RETRIEVERS)


def _registering(registry: Registry[Part], name: str, version: int = 1) -> Callable[[_Made], _Made]:
    def register(made: _Made) -> _Made:
        registry.add(name, Part(registry.kind, name, made, version), made)
        return made

    return register


def node_parser(name: str, *, version: int = 1) -> Callable[[_Made], _Made]:
    """Register a node parser, which splits documents: `create_collection(…, parser=name)`.

    It is a function of LlamaIndex's Document that returns nodes or texts, or a NodeParser class. Increase `version` if it
    splits differently, so that documents that are ingested again are split again. Raises ValueError if there is another of
    that name.
    """
    return _registering(NODE_PARSERS, name, version)


def reader(suffix: str) -> Callable[[_Made], _Made]:
    """Register a reader of files whose names end in `suffix`, such as ".xyz": a function of bytes that returns text.

    It runs in the process of our own parsers, which has no access to the network, or to files except those of packages. It
    is imported there, so it must be defined in a module, not in a script or notebook. Raises ValueError otherwise, and if
    there is another reader for that suffix.
    """

    def register(made: _Made) -> _Made:
        if made.__module__ == "__main__" or "<" in made.__qualname__:
            raise ValueError(f"the reader of {suffix} runs in a process of its own: define it in a module")
        return _registering(READERS, _suffix(suffix))(made)

    return register


def _suffix(suffix: str) -> str:
    if not suffix.startswith(".") or len(suffix) < 2 or "/" in suffix:
        raise ValueError(f"a reader is for the end of files' names, such as '.xyz', not for {suffix!r}")
    return suffix.lower()


def postprocessor(name: str) -> Callable[[_Made], _Made]:
    """Register a postprocessor, which reorders or drops hits: `rag_search(…, postprocessors=[name])`.

    It is a function of nodes (LlamaIndex's NodeWithScore, best first) and the query that returns the nodes to keep, in
    their new order, or a subclass of BaseNodePostprocessor. Raises ValueError if there is another of that name.
    """
    return _registering(POSTPROCESSORS, name)


def retriever(name: str) -> Callable[[_Made], _Made]:
    """Register a retriever, which finds passages in its own way: `rag_search(…, retriever=name)`.

    It is a function of the query and `search` (our own search of the request's collections) that returns nodes, best first,
    or a subclass of BaseRetriever, which is created with `search`. Raises ValueError if there is another of that name.
    """
    return _registering(RETRIEVERS, name)


_NAME = re.compile(r"[A-Za-z0-9_-]{1,50}")
"""Names of tools as OpenAI's servers accept them; an agent's name is part of a job type's."""


def tool(
    name: str, *, writes: bool = False, parameters: Mapping[str, Any] | None = None
) -> Callable[[_Made], _Made]:
    """Register a tool for agents: `run_agent(…, tools=[name])`.

    It is a function, asynchronous or not, whose annotations and docstring are shown to models. A tool that `writes` is
    available only in runs that name it, and waits for approval if the run asks for that. If its first argument is named
    `run`, that is the current run. Raises ValueError if there is another of that name.
    """

    def register(made: _Made) -> _Made:
        TOOLS.add(
            _checked_name(name, "tool"),
            ToolPart("tool", name, made, writes=writes, parameters=parameters),
            made,
        )
        return made

    return register


def agent(
    name: str,
    *,
    description: str | None = None,
    tools: Sequence[str] | None = None,
    bounded: bool = True,
) -> Callable[[_Made], _Made]:
    """Register an agent, which does a task in steps: `run_agent(task, agent=name)`, and as a job type and a command.

    It is an async function, a subclass of LlamaIndex's Workflow, or a function that returns a Workflow or a FunctionAgent.
    Its arguments may be `run` (the current run), `task` (the text given), and another one with a pydantic class as its type,
    which is the `input`. It returns the answer as text, or the `output` as a pydantic object. Without `bounded`, a run has
    no default limits, because its input limits its work. Raises ValueError if there is another of that name.
    """

    def register(made: _Made) -> _Made:
        said = description or (inspect.getdoc(made) or "").partition("\n\n")[0]
        part = AgentPart(
            "agent",
            name,
            made,
            description=" ".join(said.split()),
            tools=None if tools is None else tuple(tools),
            bounded=bounded,
        )
        AGENTS.add(_checked_name(name, "agent"), part, made)
        return made

    return register


def _checked_name(name: str, kind: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"the {kind} {name!r}: a name has 1 to 50 letters, digits, '_' and '-'")
    return name


FAILED: dict[str, str] = {}
"""Entry points that could not be loaded, with the reasons."""


def load() -> None:
    """Import the entry points of installed packages. One that fails is logged; the others are still loaded."""
    found = entry_points()  # once, because it reads a file of each installed package
    for group in ENTRY_POINTS:
        for entry in found.select(group=group):
            try:
                entry.load()
                FAILED.pop(entry.value, None)
            except Exception as error:
                FAILED[entry.value] = f"{type(error).__name__}: {error}"
                log.exception("the parts of %s (%s) could not be loaded", entry.name, entry.value)
