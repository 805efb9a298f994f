"""OpenAI's Agents SDK: functions, a handoff, shapes, and conversations that go on by their id.

What a tiny model writes is bounded, by a schema where it has to come to an end: it may not find one itself.
"""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from tests.live.responses.conftest import Served

agents: Any = pytest.importorskip("agents")
pytestmark = [pytest.mark.live, pytest.mark.timeout(3000)]


class Town(BaseModel):
    name: Literal["Paris", "Rome"]


class Tide(BaseModel):
    when: Literal["at nine", "at ten"]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    agents.set_tracing_disabled(True)


@pytest.fixture
def crew(served: Served) -> dict[str, Any]:
    import openai

    @agents.function_tool
    def high_tide(harbour: Annotated[str, Field(max_length=40)]) -> str:
        """When the tide is high"""
        return f"At nine in {harbour}."

    model = agents.OpenAIResponsesModel(
        served.model, openai.AsyncOpenAI(base_url=served.url, max_retries=0, timeout=600)
    )
    settings = agents.ModelSettings(temperature=0, max_tokens=100)
    pilot = agents.Agent(name="Pilot", model=model, model_settings=settings, tools=[high_tide])
    must = agents.ModelSettings(temperature=0, max_tokens=100, tool_choice="required")
    must_pilot = pilot.clone(model_settings=must)
    desk = agents.Agent(
        name="Desk",
        model=model,
        model_settings=must,
        handoffs=[agents.handoff(pilot.clone(handoff_description="Knows when the tide is high"))],
    )
    return {"pilot": must_pilot, "desk": desk, "model": model, "settings": settings}


def test_a_function(crew: dict[str, Any], served: Served) -> None:
    run = agents.Runner.run_sync(crew["pilot"], "When is high tide in Aldersea?")
    kinds = [item.type for item in run.new_items]
    assert kinds[:2] == ["tool_call_item", "tool_call_output_item"]
    assert run.final_output
    if served.embedded:
        assert run.final_output == "At nine in Aldersea."


def test_a_handoff(crew: dict[str, Any], served: Served) -> None:
    run = agents.Runner.run_sync(crew["desk"], "When is high tide in Aldersea?")
    assert run.last_agent.name == "Pilot"
    kinds = [item.type for item in run.new_items]
    assert kinds[:2] == ["handoff_call_item", "handoff_output_item"]
    if served.embedded:
        assert kinds[2:4] == ["tool_call_item", "tool_call_output_item"]
        assert "At nine in Aldersea." in run.final_output


async def _streamed(agent: Any) -> tuple[list[str], Any]:
    run = agents.Runner.run_streamed(agent, "When is high tide in Aldersea?")
    kinds = [event.data.type async for event in run.stream_events() if event.type == "raw_response_event"]
    return kinds, run


def test_a_function_streamed(crew: dict[str, Any]) -> None:
    import asyncio

    kinds, run = asyncio.run(_streamed(crew["pilot"].clone(output_type=Tide)))
    assert "response.function_call_arguments.done" in kinds
    assert kinds.count("response.completed") == 2
    assert isinstance(run.final_output, Tide)


def test_a_shape_and_a_conversation(crew: dict[str, Any]) -> None:
    agent = agents.Agent(name="Atlas", model=crew["model"], model_settings=crew["settings"], output_type=Town)
    first = agents.Runner.run_sync(agent, "What is the capital of France?")
    assert isinstance(first.final_output, Town)
    second = agents.Runner.run_sync(agent, "And again?", previous_response_id=first.last_response_id)
    assert isinstance(second.final_output, Town)
