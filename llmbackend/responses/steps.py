"""Steps of a response: each turns something that came from a model, an agent or a search into events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .building import Building, Event, search_results

Step = Callable[[Building], Iterator[Event]]


def completing(completion: dict[str, Any]) -> Step:
    return lambda building: building.complete(completion)


def feeding(chunk: dict[str, Any]) -> Step:
    return lambda building: building.feed(chunk)


def thinking(thoughts: str) -> Step:
    return feeding({"choices": [{"delta": {"reasoning_content": thoughts}}]})


def ran(run: dict[str, Any]) -> Step:
    """An agent's finished run, as text; a structured output as JSON. A run stopped at a limit counts as cut off."""

    def tell(building: Building) -> Iterator[Event]:
        if run["status"] == "needs_approval":
            yield from building.asks(run["run_id"], run["pending"])
            yield from building.feed({"usage": run["usage"]})
            return
        text = run["answer"]
        if run["output"] is not None:  # in JSON, brackets are not citations
            text = json.dumps(run["output"], ensure_ascii=False)
        else:
            building.sources, building.cited = run["sources"], run["citations"]
        reason = "length" if run["status"] == "stopped" else "stop"
        yield from building.feed(
            {"choices": [{"delta": {"content": text}, "finish_reason": reason}], "usage": run["usage"]}
        )

    return tell


def citing(cited: Sequence[int]) -> Step:
    def tell(building: Building) -> Iterator[Event]:
        building.cited = cited
        return iter(())

    return tell


def answering(item: dict[str, Any], question: str, results: bool | None) -> Step:
    """One event of `Answering.piecewise`."""

    def tell(building: Building) -> Iterator[Event]:
        if "sources" in item:
            building.sources = item["sources"]
            if results is not None:
                yield from building.searched([question], search_results(item["sources"]) if results else None)
        elif "delta" in item:
            yield from building.feed({"choices": [{"delta": {"content": item["delta"]}}]})
        else:
            building.cited = item["answer"]["citations"]
            yield from building.feed({"usage": item["answer"]["usage"]})

    return tell
