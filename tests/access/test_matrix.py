"""Every operation, called with every kind of key, on what is one's own, another project's, and not there.

What is expected is told here a second time, by hand: a new operation without an entry fails.
"""

from __future__ import annotations

import json
import re
import statistics
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal
from urllib.parse import quote, urlencode

import pytest

from llmbackend.errors import BackendError
from llmbackend.operations import OPERATIONS
from tests.access.door import ADMIN, Door

TEXT = "Every employee has 28 days of paid vacation a year."
MANIFEST = {"embedding_model": "m", "dimension": 2, "chunk_size": 512, "chunk_overlap": 64}

Of = Literal["nothing", "collection", "new", "job", "run", "schedule", "key", "model", "response"]


@dataclass(frozen=True)
class Row:
    """How a test calls an operation."""

    right: str | None
    """Which the key needs; None for any at all."""
    of: Of = "nothing"
    """What it is about: `new` is a collection that is made if it is not there."""
    body: dict[str, Any] | None = None
    """Besides the name of that."""
    writes: bool = False
    """To a collection: those with whom it is shared for reading may not."""
    owners: bool = False
    """Nothing for those with whom a collection is shared."""
    also: str | None = None
    """A second right that the key needs."""
    spends: bool = False
    """It leaves nothing for the next call: each gets one of its own."""


DIMENSION = 256
QUESTION = {"query": "vacation", "mode": "sparse"}

ROWS: dict[str, Row] = {
    "chat": Row("chat", body={"messages": [{"role": "user", "content": "hello"}]}),
    "embed": Row("chat", body={"input": "a text"}),
    "rerank": Row("chat", body={"query": "a", "documents": ["b"]}),
    "respond": Row("chat", body={"input": "hello"}),
    "get_response": Row("chat", "response"),
    "delete_response": Row("chat", "response", spends=True),
    "cancel_response": Row("chat", "response", {}),
    "list_input_items": Row("chat", "response"),
    "models": Row(None),
    "get_model": Row(None, "model"),
    "rag_ingest": Row("write", "new", {"documents": [TEXT]}, writes=True),
    "rag_ingest_files": Row("write", "new", {"files": [{"name": "a.txt", "content": "YQ=="}]}, writes=True),
    "rag_search": Row("read", "collection", QUESTION),
    "rag_query": Row("read", "collection", {"question": "How much vacation?"}),
    "evaluate": Row("read", "collection", {"questions": [{"question": "vacation?", "gold": "one"}]}),
    "list_collections": Row("read"),
    "create_collection": Row("write", "new", {}, writes=True, spends=True),
    "get_collection": Row("read", "collection"),
    "set_indexes": Row("write", "collection", {"indexes": {"team": "keyword"}}, writes=True),
    "delete_collection": Row("write", "collection", writes=True, owners=True, spends=True),
    "reindex_collection": Row("write", "collection", {}, writes=True),
    "export_collection": Row("read", "collection"),
    "import_collection": Row("write", "new", {"manifest": MANIFEST}, writes=True),
    "list_documents": Row("read", "collection"),
    "list_chunks": Row("read", "collection", {}),
    "get_document": Row("read", "collection", {"id": "one"}),
    "delete_documents": Row("write", "collection", {"ids": ["nobody"]}, writes=True),
    "analyze_document": Row("chat", body={"text": TEXT}),
    "submit_job": Row("jobs", body={"job_type": "count_words", "params": {"texts": ["a"]}}),
    "batch_chat": Row("jobs", body={"prompts": ["a"], "plan": True}, also="chat"),
    "get_job_status": Row("jobs", "job"),
    "list_jobs": Row("jobs"),
    "get_job_result": Row("jobs", "job"),
    "job_events": Row("jobs", "job"),
    "retry_job": Row("jobs", "job", {}),
    "cancel_job": Row("jobs", "job", {}),
    "delete_job": Row("jobs", "job", spends=True),
    "list_agents": Row(None),
    "run_agent": Row("chat", body={"agent": "halving", "task": "4"}),
    "approve": Row("jobs", "run", {}),
    "reject": Row("jobs", "run", {}),
    "set_schedule": Row(
        "jobs",
        body={"name": "a", "cron": "0 2 1 1 *", "job_type": "count_words", "params": {"texts": ["a"]}},
    ),
    "list_schedules": Row("jobs"),
    "delete_schedule": Row("jobs", "schedule", spends=True),
    "audit": Row("admin"),
    "share_collection": Row("admin", "collection", {"with_project": "elsewhere"}, owners=True),
    "unshare_collection": Row("admin", "collection", {"with_project": "nobody"}, owners=True),
    "list_shares": Row("admin"),
    "create_key": Row("admin", body={"can": ["read"]}),
    "list_keys": Row("admin"),
    "rotate_key": Row("admin", "key", {}),
    "revoke_key": Row("admin", "key", spends=True),
    "prompts": Row(None),
    "usage": Row(None),
    "health": Row(None),
    "doctor": Row("admin"),
}

EVERYTHING = {"read", "write", "jobs", "chat", "admin"}

Whose = Literal["own", "other's", "missing"]
numbers = count(1)


@dataclass(frozen=True)
class Kind:
    """Who calls."""

    key: str | None
    project: str
    rights: set[str]


class World:
    """What there is: of each thing one of hr's, and one of support's."""

    def __init__(self, door: Door) -> None:
        self.door = door
        for project in ("hr", "support"):
            self.collection(project, "policies")
        door.ask("POST", "/v1/collections/hr%2Fpolicies/shares", body={"with_project": "partner"})
        revoked = door.key(project="hr", can=sorted(EVERYTHING))
        door.ask("DELETE", f"/v1/keys/{revoked['id']}")
        expired = door.key(project="hr", can=sorted(EVERYTHING), expires="1s")
        time.sleep(1.1)
        made = {right: door.key(project="hr", can=[right])["key"] for right in ("read", "chat")}
        self.kinds = {
            "no key": Kind(None, "", set()),
            "wrong": Kind("llmb_hr_abcdefgh_" + "x" * 43, "", set()),
            "expired": Kind(expired["key"], "", set()),
            "revoked": Kind(revoked["key"], "", set()),
            "read-only": Kind(made["read"], "hr", {"read"}),
            "chat-only": Kind(made["chat"], "hr", {"chat"}),
            "other project's": Kind("key-of-support", "support", EVERYTHING),
            "shared-with": Kind("key-of-partner", "partner", EVERYTHING),
            "own": Kind("key-of-hr", "hr", EVERYTHING),
            "admin": Kind(ADMIN, "default", EVERYTHING),
        }
        self.things = {
            (of, project): self.thing(of, project)
            for of in ("job", "key", "response")
            for project in ("hr", "support")
        }

    def collection(self, project: str, name: str) -> str:
        documents = [{"id": "one", "text": TEXT}]
        body = {"collection": name, "documents": documents}
        key = ADMIN if project == "default" else f"key-of-{project}"
        made = self.door.ask("POST", "/v1/rag/ingest", key, body)
        assert made.status_code == 200, made.text
        return name

    def thing(self, of: Of, project: str) -> str:
        """A new one of the project's, by the name that the project has for it."""
        key, ask = f"key-of-{project}", self.door.ask
        if of in ("collection", "new"):
            return self.collection(project, f"made-{next(numbers)}")
        if of == "job":
            body: dict[str, Any] = {"job_type": "count_words", "params": {"texts": ["a"]}}
            job_id: str = ask("POST", "/v1/jobs", key, body).json()["id"]
            self.door.wait(job_id)
            return job_id
        if of == "schedule":
            body = {**(ROWS["set_schedule"].body or {}), "name": f"made-{next(numbers)}"}
            return str(ask("POST", "/v1/schedules", key, body).json()["name"])
        if of == "response":
            body = {"input": "vacation?", "model": "rag/policies"}
            return str(ask("POST", "/v1/responses", key, body).json()["id"])
        assert of == "key"
        return str(ask("POST", "/v1/keys", key, {"can": ["read"]}).json()["id"])

    def name(self, row: Row, kind: Kind, whose: Whose, *, spend: bool) -> str:
        """What this caller would call it; `spend` tells whether it may be gone after that."""
        of: Of = {"model": "collection", "run": "job"}.get(row.of, row.of)  # type: ignore[assignment]
        if of == "nothing":
            return "-"
        if whose == "missing":
            nothing = f"new-{next(numbers)}" if of == "new" else "nothing"
            if of == "collection":  # where the other's is, since the error also tells who could make it
                return f"{'support' if kind.project == 'hr' else 'hr'}/{nothing}"
            return {
                "job": "00000000-0000-0000-0000-000000000000",
                "key": "llmb_hr_abcdefgh",
                "response": "resp_nothing",
            }.get(of, nothing if kind.project == "hr" else f"hr/{nothing}")
        # Those who have no project of their own here ask for hr's, as it does.
        mine = kind.project if kind.project in ("hr", "support") else "hr"
        project = mine if whose == "own" else "support" if mine == "hr" else "hr"
        if of in ("collection", "new", "schedule"):
            name = self.thing(of, project) if spend or of == "schedule" else "policies"
            return name if project == kind.project else f"{project}/{name}"
        return self.thing(of, project) if spend else self.things[of, project]


@pytest.fixture(scope="module")
def world(door: Door) -> World:
    return World(door)


def _ask(world: World, name: str, row: Row, key: str | None, what: str) -> Any:
    operation = OPERATIONS[name]
    fields = dict(row.body or {})
    if row.of in ("collection", "new"):
        fields["collection"] = what
    if row.of in ("job", "run", "key", "model", "schedule", "response"):
        named = {"job": "job_id", "run": "run_id", "schedule": "name", "response": "response_id"}
        field = named.get(row.of, row.of)
        fields[field] = f"rag/{what}" if row.of == "model" else what
    path = operation.path
    for field in re.findall(r"\{(\w+)\}", path):
        path = path.replace(f"{{{field}}}", fields.pop(field).replace("/", "%2F"))
    if operation.method == "POST":
        return world.door.ask("POST", path, key, fields)
    return world.door.ask(operation.method, f"{path}?{urlencode(fields)}" if fields else path, key)


def _expected(row: Row, kind: Kind, whose: Whose, label: str) -> set[str]:
    """Which kinds of answer are right."""
    if not kind.rights:
        return {"unauthorized"}
    if row.right is not None and row.right not in kind.rights:
        return {"forbidden"}
    if row.also is not None and row.also not in kind.rights:
        return {"forbidden"}
    if row.of == "nothing":
        return {"done"}
    if row.of == "model":
        seen = "read" in kind.rights and (whose == "own" or label == "admin") and whose != "missing"
        return {"done"} if seen else {"not_found"}
    if row.of in ("collection", "new"):
        if whose == "missing":
            own = kind.project in ("hr", "default")
            return {"done"} if row.of == "new" and own else {"not_found"}
        if label == "shared-with" and whose == "own":
            return {"forbidden"} if row.writes or row.owners else {"done"}
        return {"done"} if whose == "own" or label == "admin" else {"not_found"}
    if label == "admin" and row.of in ("job", "run", "key", "response", "schedule") and whose != "missing":
        return {"done"}
    own = whose == "own" and kind.project in ("hr", "support")
    return {"done"} if own else {"not_found"}


def _answer(reply: Any) -> str:
    """`done` is whatever is said by what lies behind the decision."""
    if reply.status_code == 200:
        return "done"
    code = reply.json()["error"]["code"]
    return code if code in ("unauthorized", "forbidden", "not_found") else "done"


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_key_may_what_it_may_and_no_more(world: World, name: str) -> None:
    assert name in ROWS, "a new operation needs an entry here: who may call it?"
    row = ROWS[name]
    wrong = []
    for label, kind in world.kinds.items():
        bodies = {}
        for whose in ("own", "other's", "missing") if row.of != "nothing" else ("own",):
            expected = _expected(row, kind, whose, label)
            if name == "health":
                expected = {"done"}
            what = world.name(row, kind, whose, spend=row.spends and expected == {"done"})
            reply = _ask(world, name, row, kind.key, what)
            answer = _answer(reply)
            if name == "unshare_collection" and expected == {"done"}:
                # It is not shared with nobody: so far it comes only with the right to know that.
                assert "is not shared with" in reply.text
                answer = "done"
            if answer not in expected:
                wrong.append((label, whose, what, sorted(expected), reply.status_code, reply.text[:200]))
            bodies[whose] = _alike(reply, what)
        refused = (
            row.of != "nothing" and label != "admin" and _expected(row, kind, "missing", label) != {"done"}
        )
        if refused and bodies["other's"] != bodies["missing"]:
            wrong.append((label, "not alike", bodies["other's"], bodies["missing"]))
    assert wrong == []


def _alike(reply: Any, what: str) -> tuple[int, list[tuple[str, str]], str]:
    """A reply without the name and the id of the request."""
    ids = {reply.headers["x-request-id"]}
    body = reply.text.replace(what, "<name>")
    headers = [
        (name, value)
        for name, value in reply.headers.items()
        if name not in ("x-request-id", "x-llmbackend-overhead-ms", "content-length")
    ]
    for one in ids:
        body = body.replace(one, "<id>")
    return reply.status_code, headers, body


# Other ways in


def _messages(text: str = "How much vacation?") -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


Way = Callable[[Door, str, str], str]


def _chat(door: Door, key: str, name: str) -> str:
    body = {"model": f"rag/{name}", "messages": _messages()}
    return _answer(door.ask("POST", "/v1/chat/completions", key, body))


def _response(door: Door, key: str, name: str) -> str:
    body = {"model": f"rag/{name}", "input": "How much vacation?"}
    return _answer(door.ask("POST", "/v1/responses", key, body))


def _file_search(door: Door, key: str, name: str) -> str:
    tools = [{"type": "file_search", "vector_store_ids": [name]}]
    return _answer(door.ask("POST", "/v1/responses", key, {"input": "vacation?", "tools": tools}))


def _background(door: Door, key: str, name: str) -> str:
    tools = [{"type": "file_search", "vector_store_ids": [name]}]
    body = {"input": "vacation?", "tools": tools, "background": True}
    return _answer(door.ask("POST", "/v1/responses", key, body))


def _streamed_chat(door: Door, key: str, name: str) -> str:
    body = {"model": f"rag/{name}", "messages": _messages(), "stream": True}
    return _answer_of_stream(door.ask("POST", "/v1/chat/completions", key, body))


def _streamed_query(door: Door, key: str, name: str) -> str:
    body = {"collection": name, "question": "vacation?", "stream": True}
    return _answer_of_stream(door.ask("POST", "/v1/rag/query", key, body))


def _agent(door: Door, key: str, name: str) -> str:
    body = {"task": "How much vacation?", "collections": [name]}
    return _answer(door.ask("POST", "/v1/agents/run", key, body))


def _streamed_agent(door: Door, key: str, name: str) -> str:
    body = {"task": "How much vacation?", "collections": [name], "stream": True}
    reply = door.ask("POST", "/v1/agents/run", key, body)
    assert '"error":{' not in reply.text or reply.status_code != 200
    return _answer(reply)


def _among_several(door: Door, key: str, name: str) -> str:
    body = {**QUESTION, "collection": ["its-own", name]}
    return _answer(door.ask("POST", "/v1/rag/search", key, body))


def _by_vector(door: Door, key: str, name: str) -> str:
    body = {"collection": name, "vector": [0.5] * DIMENSION, "mode": "dense"}
    return _answer(door.ask("POST", "/v1/rag/search", key, body))


def _evaluation_streamed(door: Door, key: str, name: str) -> str:
    body = {"collection": name, "questions": [{"question": "vacation?", "gold": "one"}], "stream": True}
    return _answer_of_stream(door.ask("POST", "/v1/rag/evaluate", key, body))


def _exported(door: Door, key: str, name: str) -> str:
    return _answer(door.ask("GET", f"/v1/collections/{quote(name, safe='')}/export", key))


def _delete_by_filter(door: Door, key: str, name: str) -> str:
    body = {"where": {"nothing": "is so"}}
    path = f"/v1/collections/{quote(name, safe='')}/documents/delete"
    return _answer(door.ask("POST", path, key, body))


def _plan(door: Door, key: str, name: str) -> str:
    body = {"collection": name, "documents": [TEXT], "plan": True}
    return _answer(door.ask("POST", "/v1/rag/ingest", key, body))


def _response_as_job(door: Door, key: str, name: str) -> str:
    params = {"model": f"rag/{name}", "input": "vacation?"}
    submitted = door.ask("POST", "/v1/jobs", key, {"job_type": "respond", "params": params})
    return _answer(submitted) if submitted.status_code != 200 else _ended(door, submitted.json()["id"])


def _agent_as_job(door: Door, key: str, name: str) -> str:
    params = {"task": "How much vacation?", "collections": [name]}
    submitted = door.ask("POST", "/v1/jobs", key, {"job_type": "run_agent", "params": params})
    return _answer(submitted) if submitted.status_code != 200 else _ended(door, submitted.json()["id"])


def _agent_by_responses(door: Door, key: str, name: str) -> str:
    tools = [{"type": "file_search", "vector_store_ids": [name]}]
    body = {"model": "agent/researcher", "input": "How much vacation?", "tools": tools}
    return _answer(door.ask("POST", "/v1/responses", key, body))


def _query_of_several(door: Door, key: str, name: str) -> str:
    return _answer(
        door.ask("POST", "/v1/rag/query", key, {"question": "vacation?", "collection": [name, "its-own"]})
    )


def _job(door: Door, key: str, name: str) -> str:
    params = {"collection": name, "documents": ["A text by a job."]}
    submitted = door.ask("POST", "/v1/jobs", key, {"job_type": "rag_ingest", "params": params})
    return _answer(submitted) if submitted.status_code != 200 else _ended(door, submitted.json()["id"])


def _schedule(door: Door, key: str, name: str) -> str:
    body = {"name": "one", "cron": "0 2 1 1 *", "job_type": "reindex", "params": {"collection": name}}
    return _answer(door.ask("POST", "/v1/schedules", key, body))


def _ended(door: Door, job_id: str) -> str:
    job = door.wait(job_id)
    return "done" if job["error"] is None else str(job["error"]["code"])


def _answer_of_stream(reply: Any) -> str:
    if reply.status_code == 200:
        assert "error" not in reply.text
        return "done"
    return _answer(reply)


READING = {
    "rag/ model": _chat,
    "rag/ model, streamed": _streamed_chat,
    "response by rag/ model": _response,
    "file search": _file_search,
    "file search in the background": _background,
    "query, streamed": _streamed_query,
    "search of several": _among_several,
    "query of several": _query_of_several,
    "an agent": _agent,
    "an agent, streamed": _streamed_agent,
    "an agent, by responses": _agent_by_responses,
    "an agent's job": _agent_as_job,
    "a response's job": _response_as_job,
    "search by vector": _by_vector,
    "evaluation, streamed": _evaluation_streamed,
    "export": _exported,
}
WRITING = {"job": _job, "schedule": _schedule, "deletion by filter": _delete_by_filter, "plan": _plan}


@pytest.fixture(scope="module")
def several(world: World) -> World:
    for project in ("hr", "support", "partner", "default"):
        world.collection(project, "its-own")
    return world


@pytest.mark.parametrize("way", [*READING, *WRITING])
def test_no_way_in_leads_around_the_decision(several: World, way: str) -> None:
    door, call = several.door, {**READING, **WRITING}[way]
    reads = way in READING
    assert call(door, "key-of-hr", "policies") == "done"
    assert call(door, "key-of-support", "hr/policies") == "not_found"
    assert call(door, "key-of-support", "hr/nothing") == "not_found"
    assert call(door, "key-of-partner", "hr/policies") == ("done" if reads else "forbidden")
    assert call(door, ADMIN, "hr/policies") == "done"
    narrow = door.key(project="hr", collections=["its-*"])["key"]
    assert call(door, narrow, "policies") == "forbidden"
    assert call(door, narrow, "nothing") == "forbidden"


@pytest.mark.parametrize(
    ("rights", "agents"),
    [({"can": ["chat"]}, True), ({"can": ["read"]}, False), ({"can": ["chat"], "models": ["other"]}, False)],
    ids=["chat", "read", "another model"],
)
def test_agents_are_models_of_keys_that_may_ask_the_model(
    door: Door, rights: dict[str, Any], agents: bool
) -> None:
    key = door.key(project="hr", **rights)["key"]
    listed = [one["id"] for one in door.ask("GET", "/v1/models", key).json()["data"]]
    assert ("agent/researcher" in listed) == agents
    body = {"model": "agent/halving", "input": "40"}
    assert (door.ask("POST", "/v1/responses", key, body).status_code == 200) == agents


def test_an_agent_writes_where_its_key_may_and_sees_nobody_else_s(several: World) -> None:
    door = several.door

    def written(key: str, name: str) -> str:
        body = {"agent": "writing", "task": name, "tools": ["ingest_document"]}
        reply = door.ask("POST", "/v1/agents/run", key, body)
        return "done" if reply.status_code == 200 else str(reply.json()["error"]["message"])

    assert written("key-of-hr", "policies") == "done"
    for name in ("hr/policies", "hr/nothing"):
        assert f"no collection '{name}'" in written("key-of-support", name)
    assert "is shared for reading only" in written("key-of-partner", "hr/policies")
    reader = door.key(project="hr", can=["chat", "read"])["key"]
    assert "may not change collections" in written(reader, "policies")
    # What it is told makes no difference to what it reads.
    asked = {"task": "What do hr/policies and hr's other collections say? List them.", "stream": True}
    said = door.ask("POST", "/v1/agents/run", "key-of-support", asked).text
    assert "hr/" not in said.replace(asked["task"], "")
    job = {"job_type": "run_agent", "params": {"agent": "halving", "task": "4"}}
    run_id = door.ask("POST", "/v1/jobs", "key-of-hr", job).json()["id"]
    for what in ("", "/result", "/events"):
        assert door.ask("GET", f"/v1/jobs/{run_id}{what}", "key-of-support").status_code == 404


def test_a_reader_asks_the_rag_model_and_a_chatter_does_not(several: World) -> None:
    door = several.door
    assert _chat(door, several.kinds["read-only"].key or "", "policies") == "done"
    assert _chat(door, several.kinds["chat-only"].key or "", "policies") == "forbidden"


def test_lists_show_what_the_caller_may_use_and_nothing_else(several: World) -> None:
    door = several.door

    def names(key: str) -> tuple[set[str], set[str]]:
        listed = door.ask("GET", "/v1/collections", key).json()["collections"]
        models = door.ask("GET", "/v1/models", key).json()["data"]
        rag = {one["id"].removeprefix("rag/") for one in models if one["type"] == "rag"}
        return {one["name"] for one in listed}, rag

    for key, has, has_not in (
        ("key-of-hr", {"policies"}, {"hr/policies", "support/policies"}),
        ("key-of-support", {"policies"}, {"hr/policies", "support/policies"}),
        ("key-of-partner", {"hr/policies", "its-own"}, {"policies", "support/policies", "hr/its-own"}),
        (ADMIN, {"hr/policies", "support/policies"}, {"policies"}),
    ):
        for found in names(key):
            assert has <= found
            assert not has_not & found
    narrow = door.key(project="hr", can=["read"], collections=["its-*"])["key"]
    assert names(narrow) == ({"its-own"}, {"its-own"})
    mute = door.key(project="hr", can=["write"])["key"]
    assert door.ask("GET", "/v1/models", mute).json()["data"] == []


def test_only_names_that_the_caller_may_list_are_suggested(several: World) -> None:
    door = several.door

    def suggested(key: str, name: str) -> list[str]:
        error = door.ask("GET", f"/v1/collections/{name.replace('/', '%2F')}", key).json()["error"]
        assert error["code"] == "not_found"
        assert ("did you mean" in error["message"]) == ("near" in error["details"])
        return list(error["details"].get("near", []))

    assert "policies" in suggested("key-of-hr", "polices")
    assert "hr/policies" in suggested("key-of-partner", "hr/polices")
    assert "hr/policies" not in suggested("key-of-support", "hr/polices")
    assert "hr/policies" in suggested(ADMIN, "hr/polices")
    narrow = door.key(project="hr", can=["read"], collections=["its-*", "polices"])["key"]
    assert "policies" not in suggested(narrow, "polices")
    mute = door.key(project="hr", can=["write"])["key"]
    body = {"collection": "polices", "ids": ["a"]}
    refused = door.ask("POST", "/v1/collections/polices/documents/delete", mute, body).json()["error"]
    assert (refused["code"], refused["details"].get("near")) == ("not_found", None)


def test_the_administrator_lists_and_ends_schedules_of_all_projects(several: World) -> None:
    door, names = several.door, {}
    for project in ("hr", "support", "default"):
        key = ADMIN if project == "default" else f"key-of-{project}"
        body = {**(ROWS["set_schedule"].body or {}), "name": "of-each"}
        assert door.ask("POST", "/v1/schedules", key, body).status_code == 200
        names[key] = "of-each"

    def listed(key: str) -> list[str]:
        found = door.ask("GET", "/v1/schedules", key).json()["schedules"]
        return [one["name"] for one in found if one["name"].endswith("of-each")]

    assert listed("key-of-hr") == listed("key-of-support") == ["of-each"]
    assert listed(ADMIN) == ["of-each", "hr/of-each", "support/of-each"]
    for slash in ("/", "%2F"):
        refused = door.ask("DELETE", f"/v1/schedules/hr{slash}of-each", "key-of-support")
        assert refused.status_code == 404, refused.text
    ended = door.ask("DELETE", "/v1/schedules/hr/of-each")
    assert (ended.status_code, ended.json()) == (200, {"deleted": "hr/of-each"})
    assert listed(ADMIN) == ["of-each", "support/of-each"]
    assert listed("key-of-hr") == []
    for key in ("key-of-support", ADMIN):
        assert door.ask("DELETE", "/v1/schedules/of-each", key).status_code == 200


@pytest.mark.parametrize("what", ["documents", "export"])
def test_a_cursor_of_another_project_leads_to_nothing_of_its(several: World, what: str) -> None:
    """It counts where it is used: in the caller's own collection, of which it tells where to go on."""
    door = several.door
    for project in ("hr", "support"):
        body = {
            "collection": "paged",
            "documents": [{"id": f"{project}-{n}", "text": f"{project} {n}"} for n in range(4)],
        }
        assert door.ask("POST", "/v1/rag/ingest", f"key-of-{project}", body).status_code == 200
    path = f"/v1/collections/paged/{what}?limit=2"
    cursor = door.ask("GET", path, "key-of-hr").json()["cursor"]
    assert cursor
    reply = door.ask("GET", f"{path}&cursor={quote(cursor)}", "key-of-support")
    assert not re.search("hr[- ]", reply.text.replace(cursor, "")), reply.text
    for place in ("hr/paged", "hr/nothing"):
        refused = door.ask("GET", f"/v1/collections/{place}/{what}?cursor={quote(cursor)}", "key-of-support")
        assert refused.status_code == 404, refused.text


def test_nothing_is_imported_into_what_is_shared_for_reading_only(several: World) -> None:
    """Neither a new import nor one that the owner has begun, nor its end."""
    door = several.door
    place = "/v1/collections/hr/policies/import"
    begun = door.ask("POST", "/v1/collections/begun/import", "key-of-hr", {"manifest": MANIFEST}).json()[
        "token"
    ]
    door.ask("POST", "/v1/collections/begun/shares", "key-of-hr", {"with_project": "partner", "can": "read"})
    before = door.ask("GET", "/v1/collections/policies", "key-of-hr").json()
    for body in ({"manifest": MANIFEST}, {"token": begun}, {"token": begun, "abort": True}):
        refused = door.ask("POST", place, "key-of-partner", body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden"), refused.text
    assert door.ask("GET", "/v1/collections/policies", "key-of-hr").json() == before
    ended = door.ask("POST", "/v1/collections/begun/import", "key-of-hr", {"token": begun, "abort": True})
    assert ended.status_code == 200, ended.text


def test_another_projects_run_is_answered_as_one_that_is_missing(several: World) -> None:
    """Though it waits for somebody's word, it goes on waiting for its own project's."""
    door = several.door
    asked = {"agent": "writing", "task": "policies", "tools": ["ingest_document"], "approve": "writes"}
    job = {"job_type": "run_agent", "params": asked}
    run_id = door.ask("POST", "/v1/jobs", "key-of-hr", job).json()["id"]
    deadline = time.monotonic() + 60
    while not (run := door.ask("GET", f"/v1/jobs/{run_id}", "key-of-hr").json())["pending"]:
        assert run["status"] in ("queued", "running"), run
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for verb in ("approve", "reject"):
        bodies = {
            door.ask("POST", f"/v1/agents/runs/{one}/{verb}", "key-of-support", {})
            .text.split('"request_id"')[0]
            .replace(one, "<id>")
            for one in (run_id, "00000000-0000-0000-0000-000000000000")
        }
        assert len(bodies) == 1, bodies
        assert '"code":"not_found"' in bodies.pop()
    assert door.ask("GET", f"/v1/jobs/{run_id}", "key-of-hr").json()["pending"] == run["pending"]
    rejected = door.ask("POST", f"/v1/agents/runs/{run_id}/reject", "key-of-hr", {})
    assert rejected.status_code == 200, rejected.text
    door.wait(run_id)


def _said(reply: Any, name: str) -> tuple[int, str]:
    """A reply without the name and the id of the request."""
    error = {**reply.json()["error"], "request_id": None}
    return reply.status_code, json.dumps(error).replace(name, "<name>")


def test_a_conversation_of_another_project_cannot_be_gone_on_with(several: World) -> None:
    """At once, streamed, in the background and by a job of one's own, also one that says which response it makes."""
    door, theirs = several.door, several.thing("response", "hr")
    kept = door.ask("GET", f"/v1/responses/{theirs}", "key-of-hr").json()
    nothing = "resp_" + "0" * (len(theirs) - 5)
    for more in ({}, {"stream": True}, {"background": True}):
        told = {
            _said(
                door.ask(
                    "POST",
                    "/v1/responses",
                    "key-of-support",
                    {"input": "What was said?", "previous_response_id": name, **more},
                ),
                name,
            )
            for name in (theirs, nothing)
        }
        assert len(told) == 1, told
        assert told.pop()[0] == 404
    for field in ("previous_response_id", "response_id"):
        job = {"job_type": "respond", "params": {"input": "What was said?", field: theirs}}
        submitted = door.ask("POST", "/v1/jobs", "key-of-support", job)
        if submitted.status_code == 200:
            assert _ended(door, submitted.json()["id"]) == "not_found"
        else:
            assert submitted.status_code in (404, 422), submitted.text
    assert door.ask("GET", f"/v1/responses/{theirs}", "key-of-hr").json() == kept


def test_a_run_of_another_project_is_told_nothing_by_a_response(several: World) -> None:
    """Neither what a function gave, nor that a call is approved; and of one's own, with the right `jobs` alone."""
    door, theirs = several.door, several.thing("job", "hr")
    nothing = str(uuid.uuid4())
    chats = door.key(project="support", can=["chat"])["key"]

    def told(key: str, run_id: str, *, function: bool) -> tuple[int, str]:
        call = {"call_id": f"call_{run_id}_0"}
        output = {"type": "function_call_output", "output": "x", **call}
        items: list[dict[str, Any]] = [
            {"type": "function_call", "name": "f", "arguments": "{}", **call},
            output,
        ]
        if not function:
            approval = f"mcpr_{run_id}_0"
            items = [{"type": "mcp_approval_response", "approval_request_id": approval, "approve": True}]
        asked = {"model": "agent/researcher", "input": items}
        return _said(door.ask("POST", "/v1/responses", key, asked), run_id)

    for function in (True, False):
        of_theirs = told("key-of-support", theirs, function=function)
        assert of_theirs == told("key-of-support", nothing, function=function)
        assert of_theirs[0] == 404
        assert told(chats, theirs, function=function)[0] == 403


def test_prompts_of_a_collection_are_for_those_who_may_read_it(several: World) -> None:
    def told(key: str) -> dict[str, str]:
        prompts = several.door.ask("GET", "/v1/prompts", key).json()["prompts"]
        return {one["collection"]: one["text"] for one in prompts if one["collection"]}

    for key, names in (
        ("key-of-hr", {"policies": "hr"}),
        ("key-of-support", {"policies": "support"}),
        ("key-of-partner", {"hr/policies": "hr"}),
        (ADMIN, {"hr/policies": "hr", "support/policies": "support"}),
    ):
        found = told(key)
        assert found.keys() == names.keys()
        for name, project in names.items():
            assert f"The secret of {project}." in found[name]
    assert told(several.door.key(project="hr", can=["chat"])["key"]) == {}
    assert told(several.door.key(project="hr", can=["read"], collections=["its-*"])["key"]) == {}


def test_rows_and_files_of_a_batch_are_its_project_s(several: World) -> None:
    door = several.door
    made = door.ask("POST", "/v1/jobs/batch_chat", "key-of-hr", {"prompts": ["what is hr's alone"]}).json()
    job_id = made["id"]
    door.wait(job_id)
    for path in ("", "/result", "/result?partial=true", "/events"):
        asked = {
            door.ask("GET", f"/v1/jobs/{name}{path}", "key-of-support")
            .text.split('"request_id"')[0]
            .replace(name, "<id>")
            for name in (job_id, "00000000-0000-0000-0000-000000000000")
        }
        assert len(asked) == 1, asked
        assert '"code":"not_found"' in asked.pop()
    listed = door.ask("GET", "/v1/jobs?limit=1000", "key-of-support").text
    assert job_id not in listed


def test_a_run_that_waits_does_nothing_once_its_key_is_revoked_whoever_approves_it(several: World) -> None:
    door = several.door
    made = door.key(project="hr", can=["chat", "write", "read", "jobs"])
    asked = {"agent": "writing", "task": "policies", "tools": ["ingest_document"], "approve": "writes"}
    run_id = door.ask("POST", "/v1/jobs", made["key"], {"job_type": "run_agent", "params": asked}).json()[
        "id"
    ]
    deadline = time.monotonic() + 60
    while not door.ask("GET", f"/v1/jobs/{run_id}", "key-of-hr").json()["pending"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    before = door.ask("GET", "/v1/collections/policies/documents", "key-of-hr").json()
    door.ask("DELETE", f"/v1/keys/{made['id']}")
    approved = door.ask("POST", f"/v1/agents/runs/{run_id}/approve", "key-of-hr", {})
    assert approved.status_code == 200, approved.text
    assert _ended(door, run_id) == "unauthorized"
    assert door.ask("GET", "/v1/collections/policies/documents", "key-of-hr").json() == before


def test_hits_of_two_collections_of_one_name_tell_whose_they_are(several: World) -> None:
    body = {**QUESTION, "collection": ["hr/policies", "support/policies"]}
    hits = several.door.ask("POST", "/v1/rag/search", ADMIN, body).json()["hits"]
    assert {hit["collection"] for hit in hits} <= {"hr/policies", "support/policies"}
    assert hits
    shared = several.door.ask(
        "POST", "/v1/rag/search", "key-of-partner", {**QUESTION, "collection": "hr/policies"}
    )
    assert {hit["collection"] for hit in shared.json()["hits"]} == {"hr/policies"}


def test_a_cached_vector_of_another_project_is_not_known(several: World) -> None:
    door, text = several.door, f"a text of hr's alone, {time.time()}"
    body = {"collection": "cached", "documents": [text]}
    first = door.ask("POST", "/v1/rag/ingest", "key-of-hr", body).json()
    other = door.ask("POST", "/v1/rag/ingest", "key-of-support", body).json()
    assert {name: first[name] for name in first if name != "seconds"} == {
        name: other[name] for name in other if name != "seconds"
    }


def test_an_import_cannot_be_gone_on_with_by_another_project(several: World) -> None:
    door = several.door
    begun = door.ask("POST", "/v1/collections/taken/import", "key-of-hr", {"manifest": MANIFEST})
    assert begun.status_code == 200, begun.text
    for token in (begun.json()["token"], "no-such-token"):
        reply = door.ask("POST", "/v1/collections/taken/import", "key-of-support", {"token": token})
        assert reply.status_code == 404
        assert json.loads(reply.text)["error"]["message"].startswith("no such import into")
    door.ask(
        "POST", "/v1/collections/taken/import", "key-of-hr", {"token": begun.json()["token"], "abort": True}
    )


TRIES = 200


@pytest.mark.long
@pytest.mark.parametrize(
    "name", [name for name, row in ROWS.items() if row.of not in ("nothing", "schedule")]
)
def test_the_time_tells_nothing(several: World, name: str) -> None:
    """So many tries each, in turns: what is another's takes as long as what is not there.

    Whichever of two is drawn, the other's is the slower one about as often as not.
    """
    row, kind = ROWS[name], several.kinds["other project's"]
    names = {whose: several.name(row, kind, whose, spend=False) for whose in ("other's", "missing")}
    times: dict[str, list[float]] = {whose: [] for whose in names}
    for number in range(TRIES):
        for whose in sorted(names, reverse=bool(number % 2)):
            began = time.perf_counter()
            reply = _ask(several, name, row, kind.key, names[whose])
            times[whose].append(time.perf_counter() - began)
            assert reply.status_code == 404, reply.text
    slower = sum(
        (one > other) + 0.5 * (one == other) for one in times["other's"] for other in times["missing"]
    )
    chance = slower / TRIES**2
    theirs, nothing = (statistics.median(some) * 1000 for some in times.values())
    print(f"\n{name}: other's {theirs:.2f} ms, missing {nothing:.2f} ms, slower in {chance:.0%} of pairs")
    assert 0.35 < chance < 0.65


def test_what_fails_before_an_operation_is_told_as_its_own_error(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = door.key(project="hr", can=["read"])["key"]

    async def unreadable() -> None:
        raise BackendError("the database cannot be read")

    register = door.backend.register
    monkeypatch.setattr(register, "_look", unreadable)
    monkeypatch.setattr(register, "_looked", float("-inf"))
    reply = door.ask("GET", "/v1/models", made)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "backend")
    assert reply.json()["error"]["request_id"] == reply.headers["x-request-id"]
