"""Chats of several projects before one slow server, and before the embedded model: they take turns."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from llmbackend.access.caller import of_project
from llmbackend.agents import Run, agent
from llmbackend.backend import Backend
from llmbackend.operations import answer
from llmbackend.settings import Settings
from llmbackend.tracing import Trace
from tests.upstream.counting import counting

FLOOD = 12


async def _ask(backend: Backend, project: str, order: list[str], message: str, **fields: object) -> None:
    body = {"messages": [{"role": "user", "content": message}], **fields}
    await answer(backend, Trace("chat", caller=of_project(project)), body)
    order.append(project)


async def _flooded(backend: Backend, message: str, **fields: object) -> list[str]:
    """The projects of calls in the order in which they ended: one project floods, then another asks twice."""
    order: list[str] = []
    flood = [asyncio.create_task(_ask(backend, "loud", order, message, **fields)) for _ in range(FLOOD)]
    await asyncio.sleep(0.05)
    for _ in range(2):
        await _ask(backend, "quiet", order, message, **fields)
    await asyncio.gather(*flood)
    return order


@pytest.mark.anyio
async def test_a_flood_before_a_slow_server_holds_up_its_own_project_alone(tmp_path: Path) -> None:
    with counting("slow") as server:
        options = {"openai_base_url": server.url, "chat_model": "m", "upstream_concurrency": 2}
        backend = await Backend.open(Settings(data_dir=tmp_path, **options))
        try:
            order = await _flooded(backend, "slow one")
        finally:
            await backend.close()
    first, second = (place for place, project in enumerate(order) if project == "quiet")
    assert first <= 4
    assert second <= first + 4


@pytest.mark.anyio
async def test_a_flood_before_the_embedded_model_holds_up_its_own_project_alone(
    tmp_path: Path, models_dir: Path
) -> None:
    backend = await Backend.open(Settings(data_dir=tmp_path, models_dir=models_dir))
    try:
        order = await _flooded(backend, "Say hello.", max_tokens=2)
    finally:
        await backend.close()
    first, second = (place for place, project in enumerate(order) if project == "quiet")
    assert first <= 6
    assert second <= first + 6


@agent("asking-on")
async def _asking_on(run: Run, task: str) -> str:
    """Asks its model twice."""
    for _ in range(2):
        await run.chat(task)
        ORDER.append("run")
    return "done"


ORDER: list[str] = []


@pytest.mark.anyio
async def test_chats_take_turns_with_runs_of_agents_of_their_own_project_too(tmp_path: Path) -> None:
    async def run() -> None:
        body = {"agent": "asking-on", "task": "slow one"}
        await answer(backend, Trace("run_agent", caller=of_project("loud")), body)

    ORDER.clear()
    with counting("slow") as server:
        options = {"openai_base_url": server.url, "chat_model": "m", "upstream_concurrency": 2}
        backend = await Backend.open(Settings(data_dir=tmp_path, **options))
        try:
            runs = [asyncio.create_task(run()) for _ in range(FLOOD)]
            async with asyncio.timeout(60):
                while not ORDER:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            before = len(ORDER)
            for project in ("loud", "quiet"):
                await _ask(backend, project, ORDER, "slow one")
            assert len(ORDER) - before <= 12, "for each chat what was under way, and as much again"
            await asyncio.gather(*runs)
        finally:
            await backend.close()
    assert ORDER.count("run") == 2 * FLOOD


@pytest.mark.anyio
async def test_a_project_s_job_does_not_wait_for_the_end_of_another_s_long_ones(tmp_path: Path) -> None:
    async def submit(project: str, prompts: int) -> str:
        params = {"prompts": [f"slow one, {number}" for number in range(prompts)]}
        body = {"job_type": "batch_chat", "params": params}
        said = await answer(backend, Trace("submit_job", caller=of_project(project)), body)
        return str(json.loads(said)["id"])  # type: ignore[arg-type]

    async def status(project: str, job: str) -> str:
        body = {"job_id": job}
        trace = Trace("get_job_status", caller=of_project(project))
        return str(json.loads(await answer(backend, trace, body))["status"])  # type: ignore[arg-type]

    with counting("slow") as server:
        options = {"openai_base_url": server.url, "chat_model": "m", "upstream_concurrency": 2}
        backend = await Backend.open(Settings(data_dir=tmp_path, workers=2, **options))
        try:
            long = [await submit("loud", 500) for _ in range(3)]
            short = await submit("quiet", 1)
            async with asyncio.timeout(20):
                while await status("quiet", short) != "completed":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert sorted([await status("loud", job) for job in long]) == ["queued", "running", "running"]
        finally:
            await backend.close()
