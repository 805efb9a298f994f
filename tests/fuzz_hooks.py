"""What schemathesis cannot know of this server, as hooks of its own (`tests/fuzz.py` names them to it)."""

from __future__ import annotations

import re
from typing import Any

import schemathesis


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """JSON Schema calls 32.0 an integer. Here it is none, as the document's description says."""
    if isinstance(body, float) and body.is_integer():
        return int(body)
    if isinstance(body, dict):
        return {name: map_body(context, value) for name, value in body.items()}
    if isinstance(body, list):
        return [map_body(context, value) for value in body]
    return body


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """As many questions as may be are minutes of work, each being searched for in four modes."""
    questions = case.body.get("questions") if isinstance(case.body, dict) else None
    return not isinstance(questions, list) or len(questions) <= 1000


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """A stream of a job's events goes on until the job has ended, which may be never."""
    if case.operation.definition.raw["operationId"] == "job_events":
        query = case.query or {}
        if str(query.get("stream", True)).lower() in ("true", "1", "t", "y", "yes", "on"):
            case.query = {**query, "stream": "false"}


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Valid data may be refused for the reasons that an operation's description tells.

    Such an error comes from the operation, or from a check of several fields together. What a single field does not
    take is for the schema to tell.
    """
    if failure.code != "ST202" or response.status_code != 422:
        return True
    if _against_pattern(case):
        return False
    operation, error = case.operation.definition.raw, response.json()["error"]
    reasons = operation.get("description")
    if reasons and not error["message"].startswith(f"{operation['operationId']}: "):
        return False  # of what the fields are for, such as an agent's input
    found = error["details"].get("errors", [])
    told = [one["loc"] for one in found if one["type"] in ("value_error", "json_schema")]
    # Where one of several kinds of value fails so, the others are in the list, too.
    return not reasons or any(one["loc"] not in told for one in found)


def _against_pattern(case: Any) -> bool:
    """What an earlier reply had may be handed on under the same name, such as a whole key, whatever the pattern says."""
    told = {
        one["name"]: one["schema"].get("pattern", "")
        for one in case.operation.definition.raw.get("parameters", [])
    }
    return any(
        not re.search(told.get(name, ""), str(value)) for name, value in (case.path_parameters or {}).items()
    )
