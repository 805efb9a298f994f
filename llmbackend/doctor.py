"""Checks whether what the settings name is there and works: all parts at the same time, each asked once and
for a short time.

Chat servers are asked for their list of models, which costs nothing, and not for a reply. Embedding and rerank servers
are sent one word, and a Qdrant server is asked for its version. Embedded models must be installed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from . import plugins, schemas, threads
from .access.caller import Caller, Limits
from .access.limits import Whose
from .access.room import Size
from .disk import Disk
from .engines.qdrant_server import QdrantServer
from .errors import BackendError, LLMBackendError, NotFound
from .files import landlock
from .inference import catalogue, factory
from .inference.chat import ChatModel
from .inference.cross_encoder import CrossEncoder
from .inference.embeddings import Embedder, EmbeddingBatch
from .inference.fallback import offered
from .inference.judge import Judge
from .inference.local_chat import LocalChat
from .inference.replicas import Replicas
from .inference.rerank import Reranker
from .inference.tei import Info, read_info
from .inference.upstream import Upstream
from .settings import Settings

PROBE_SECONDS = 5.0  # for a server to answer


class _Found(NamedTuple):
    models: list[str]
    limits: dict[str, int]
    version: str | None = None


SOON = 14 * 86400
"""Keys that expire within this many seconds are reported."""


def access(callers: Sequence[Caller], reached: Mapping[tuple[str, str], int]) -> schemas.Check:
    """The check of projects, keys that expire soon, and limits that were reached; for the administrator."""
    last = time.time() + SOON
    ending = [
        str(caller)
        for caller in callers
        if caller.standing.expires is not None and caller.standing.expires < last
    ]
    advice = []
    if ending:
        advice.append(
            f"{', '.join(ending[:10])} expire within 14 days: make new ones with `llmbackend keys create`"
        )
    for (caller, what), times in sorted(reached.items(), key=lambda one: -one[1])[:5]:
        advice.append(f"{caller} reached its limit on {what} {times} times since the start")
    return schemas.Check(
        name="access",
        server="embedded",
        ok=True,
        url=None,
        models=[],
        version=None,
        limits={
            "projects": len({caller.project for caller in callers}),
            "keys": len(callers),
            "expiring": len(ending),
            "reached": sum(reached.values()),
        },
        latency_ms=0,
        fix="; ".join(advice) or None,
    )


REPORTED_PERCENT = 90
"""From this percentage of a storage limit on, it is reported."""


def storage(project: str, whose: Whose, most: Limits, used: Size) -> schemas.Check:
    """The check of how much a project has stored, against its own limits or those of the caller's key."""
    limits: dict[str, int] = {}
    for name, now, limit in (("chunks", used.chunks, most.chunks), ("bytes", used.bytes, most.bytes)):
        if limit is not None:
            limits |= {name: now, f"most_{name}": limit}
    check = schemas.Check(
        name="storage",
        server=f"{whose.kind} {whose.name}",
        ok=True,
        url=None,
        models=[],
        version=None,
        limits=limits,
        latency_ms=0,
        fix=None,
    )
    if (full := share(check)) >= REPORTED_PERCENT / 100:
        check.fix = (
            f"project {project!r} uses {full:.0%} of its storage limit: delete documents, collections, jobs or stored "
            "responses, or raise the limit"
        )
    return check


def share(check: schemas.Check) -> float:
    """The largest share of a limit that a check of storage shows."""
    limits = check.limits
    return max(limits[name] / limits[f"most_{name}"] for name in ("chunks", "bytes") if name in limits)


async def examine(
    settings: Settings,
    chat: ChatModel,
    embedder: Embedder,
    judge: Judge,
    reranker: Reranker,
    qdrant: QdrantServer | None,
    disk: Disk,
    lacking: Callable[[], Awaitable[list[str]]],
) -> list[schemas.Check]:
    """Make a check of each part. It never raises: what is wrong is in the checks. `lacking` returns what
    could not be loaded."""
    import aiohttp  # noqa: F401  # imported now, so that a server does not seem slow because of it

    parts = [_chat_server(server, settings.chat_model) for server in factory.servers(settings)]
    if isinstance(chat, LocalChat):
        parts.append(_embedded_check(chat))
        parts.append(_checked("judge", "embedded", None, lambda: _judge(judge)))
    parts += _embeddings(settings, embedder)
    if (rerank_server := factory.rerank_server(settings)) is not None:
        parts.append(_rerank(settings, rerank_server, reranker))
    elif isinstance(reranker, CrossEncoder):
        parts.append(_checked("rerank", "embedded", None, lambda: _cross_encoder(reranker)))
    if qdrant is not None:
        parts.append(_vectors(qdrant))
    parts.append(_data(disk))
    parts.append(_files())
    parts.append(_own_parts(lacking))
    checks = await asyncio.gather(*parts)
    _judge_chat_model(settings.chat_model, [check for check in checks if check.name == "chat"])
    return checks


async def _checked(
    name: schemas.CheckName,
    server: str,
    url: str | None,
    probe: Callable[[], Awaitable[_Found]],
    patience: float | None = None,
) -> schemas.Check:
    """Return what a probe finds, or why it fails, as a check."""
    found, fix = _Found([], {}), None
    began = time.perf_counter()
    try:
        async with asyncio.timeout(patience):
            found = await probe()
    except TimeoutError:
        fix = f"{server} at {url} did not answer in {patience:g} s: is it starting, or busy?"
    except LLMBackendError as error:
        fix = error.message
    return schemas.Check(
        name=name,
        server=server,
        ok=fix is None,
        url=url,
        models=found.models,
        version=found.version,
        limits=found.limits,
        latency_ms=round((time.perf_counter() - began) * 1000, 1),
        fix=fix,
    )


async def _asked(
    name: schemas.CheckName, upstream: Upstream, probe: Callable[[], Awaitable[_Found]]
) -> schemas.Check:
    try:
        return await _checked(name, upstream.name, upstream.url, probe, PROBE_SECONDS)
    finally:
        await upstream.close()


async def _chat_server(upstream: Upstream, model: str | None) -> schemas.Check:
    async def probe() -> _Found:
        try:
            models = await offered(upstream)
        except NotFound as error:
            raise BackendError(
                f"{upstream.name} at {upstream.url} has no list of models: is this the right URL?"
            ) from error
        if not models:
            raise BackendError(f"{upstream.name} at {upstream.url} offers no model: start it with one")
        context = models.get(model or next(iter(models)))
        return _Found(list(models), {"context": context} if context else {}, await _version(upstream))

    return await _asked("chat", upstream, probe)


async def _version(upstream: Upstream) -> str | None:
    """The version that vLLM reports at /version."""
    root = upstream.root(upstream.timeout)
    try:
        with suppress(LLMBackendError), root.errors.translated():
            return str((await root.get("/version", retries=0))["version"])
        return None
    finally:
        await root.close()


def _judge_chat_model(model: str | None, checks: list[schemas.Check]) -> None:
    """Mark the checks as failed if no server offers CHAT_MODEL."""
    if model is None or any(model in check.models for check in checks):
        return
    for check in checks:
        if check.ok:
            check.ok = False
            check.fix = f"CHAT_MODEL {model!r} is not offered: it has {', '.join(check.models[:10])}"


async def _embedded_check(chat: LocalChat) -> schemas.Check:
    check = await _checked("chat", "embedded", None, lambda: _embedded_chat(chat))
    if check.ok:
        check.fix = larger(chat, _memory())
    return check


async def _embedded_chat(chat: LocalChat) -> _Found:
    await threads.files(chat.require)
    return _Found(await chat.models(), {"context": (await chat.window()).context})


async def _cross_encoder(reranker: CrossEncoder) -> _Found:
    return _Found([(await reranker.rerank("word", ["word"])).model], {})


def larger(chat: LocalChat, memory: int | None) -> str | None:
    """Advice to use a larger model of the catalogue that fits into this machine's memory, while SmolLM2 chats."""
    if chat.abstracts or memory is None:
        return None
    fitting = [
        entry for entry in catalogue.ENTRIES if entry.task == "chat" and 3 * entry.memory_mb * 10**6 < memory
    ]
    if not fitting:
        return None
    best = max(fitting, key=lambda entry: entry.memory_mb).name
    return f"larger models answer far better, and this machine has memory for {best}: `llmbackend models pull {best}`"


def _memory() -> int | None:
    """This machine's memory in bytes; None if the system does not tell."""
    if sys.platform == "win32":
        return None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


async def _judge(judge: Judge) -> _Found:
    return _Found([judge.name], {"dimension": (await judge.embed(["word"])).shape[1]})


def _embeddings(settings: Settings, embedder: Embedder) -> list[Coroutine[Any, Any, schemas.Check]]:
    async def probe(ask: Callable[[], Awaitable[EmbeddingBatch]], tei: Upstream | None = None) -> _Found:
        vectors = await ask()
        info = await read_info(tei) if tei else Info()
        limits = {"dimension": vectors.values.shape[1], **_limits(info)}
        return _Found([info.model or embedder.name], limits, info.version)

    upstreams = factory.embedding_servers(settings)
    if not upstreams:
        return [_checked("embeddings", "embedded", None, partial(probe, partial(embedder.embed, ["word"])))]
    asking: list[Callable[[], Awaitable[EmbeddingBatch]]] = [partial(embedder.embed, ["word"])]
    if isinstance(embedder, Replicas):
        asking = [partial(embedder.asked, server, _embed_word) for server in embedder.servers]
    return [
        _asked("embeddings", upstream, partial(probe, ask, upstream if settings.tei_url else None))
        for upstream, ask in zip(upstreams, asking, strict=True)
    ]


def _embed_word(embedder: Embedder) -> Awaitable[EmbeddingBatch]:
    return embedder.embed(["word"])


async def _rerank(settings: Settings, upstream: Upstream, reranker: Reranker) -> schemas.Check:
    async def probe() -> _Found:
        ranks = await reranker.rerank("word", ["word"])
        info = await read_info(upstream) if settings.tei_rerank_url else Info()
        return _Found([info.model or ranks.model], _limits(info), info.version)

    return await _asked("rerank", upstream, probe)


def _limits(info: Info) -> dict[str, int]:
    """The limits that TEI tells."""
    if info.model is None:
        return {}
    return {"input": int(info.limits.tokens_a_text), "batch": info.limits.texts}


async def _vectors(server: QdrantServer) -> schemas.Check:
    async def probe() -> _Found:
        about = await threads.network(server.about, abandon_on_cancel=True)
        return _Found([], {"collections": about.collections}, about.version)

    return await _checked("vectors", "Qdrant", server.url, probe, PROBE_SECONDS)


async def _data(disk: Disk) -> schemas.Check:
    async def probe() -> _Found:
        return _Found([], {"free_mb": await threads.files(_free, disk) // 2**20})

    return await _checked("data", "embedded", disk.folder.as_uri(), probe)


async def _own_parts(lacking: Callable[[], Awaitable[list[str]]]) -> schemas.Check:
    """The check of a project's own parts, agents and tools, with the reasons why some could not be loaded."""
    wrong = [f"{entry} could not be loaded: {reason}" for entry, reason in plugins.FAILED.items()]

    async def probe() -> _Found:
        wrong.extend(await lacking())
        registries: tuple[plugins.Registry[Any], ...] = (*plugins.OWN, plugins.AGENTS, plugins.TOOLS)
        return _Found([f"{registry.kind} {name}" for registry in registries for name in registry], {})

    check = await _checked("plugins", "embedded", None, probe)
    if wrong:
        check.ok, check.fix = False, "; ".join(wrong)
    return check


async def _files() -> schemas.Check:
    async def probe() -> _Found:
        return _Found([], {"landlock": landlock.version()})

    check = await _checked("files", "embedded", None, probe)
    if not check.limits["landlock"]:
        check.fix = (
            "files are parsed by processes without secrets, which could still read this user's other files: keeping them from that "
            "takes Linux 5.13 or later with Landlock, which a container's seccomp profile may have to allow"
        )
    return check


def _free(disk: Disk) -> int:
    """The free bytes, if the folder can be written to."""
    folder = disk.folder
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
        if disk.problem is not None:
            raise BackendError(disk.problem, details={"data_dir": str(folder)})
        return disk.free
    except OSError as error:
        raise BackendError(
            f"DATA_DIR {folder} cannot be written to: {error.strerror}", details={"data_dir": str(folder)}
        ) from error
