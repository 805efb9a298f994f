"""Keys are nowhere but in the reply that makes them: not in logs, databases, reprs, tracebacks, metrics, the OpenAPI
document or notebooks."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from llmbackend import CreatedKey
from llmbackend.access import keys as rows
from llmbackend.access.caller import Caller, Patterns, Standing
from llmbackend.server.openapi import document
from tests.access.door import ADMIN, Door


def forms(key: str) -> set[str]:
    """As it is, and as it could be written elsewhere; of a secret, eight letters are enough to be found by."""
    secret = key.rpartition("_")[2]
    found = {key, quote(key, safe=""), secret, secret[:8], secret[-8:]}
    for before in range(3):  # of base64, what does not depend on its neighbours
        coded = base64.b64encode(b"x" * before + secret.encode()).decode()
        middle = coded[4 if before else 0 : -4]
        found |= {middle, middle.translate(str.maketrans("+/", "-_"))}
    return found


_HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module", autouse=True)
def _at_debug() -> Iterator[None]:
    logging.getLogger("llmbackend").setLevel(logging.DEBUG)
    yield
    logging.getLogger("llmbackend").setLevel(logging.NOTSET)


def test_no_key_is_left_anywhere(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        can = ["read", "jobs", "chat", "admin"]
        made = [door.key(project="hr", can=can, note="HR app") for _ in range(3)]
        rotated = door.ask("POST", f"/v1/keys/{made[0]['id']}/rotate", body={}).json()
        told = [one["key"] for one in made] + [rotated["key"]]
        shown = [door.ask("GET", "/v1/keys").text, door.ask("DELETE", f"/v1/keys/{made[1]['id']}").text]
        for key in told:
            for path in ("/v1/collections", "/v1/doctor", "/metrics", "/nowhere", f"/v1/jobs/{'x' * 70}"):
                door.ask("GET", path, key)
            door.ask("GET", "/v1/models", key + "x")
            door.ask("GET", f"/v1/collections/{key}")
            door.ask("DELETE", f"/v1/keys/{key}")
            door.ask("POST", "/v1/keys", key, {"can": ["write"]})
            for model in (key, f"rag/{key}"):  # what a caller names is a label of some measures
                door.ask("POST", "/v1/chat/completions", key, {"model": model, "messages": _HELLO})
            door.ask("POST", "/v1/embeddings", key, {"model": key, "input": "a"})
            for body in (
                {"input": "hello"},
                {"input": "hello", "stream": True},
                {"input": "a", "model": key, "store": False},
            ):
                door.ask("POST", "/v1/responses", key, body)
            door.ask("GET", f"/v1/responses/{key}", key)
            door.ask("POST", f"/v1/agents/runs/{key}/approve", key, {})
            for agent in (key, "halving"):
                asked = {"agent": agent, "task": "4"}
                door.ask("POST", "/v1/agents/run", key, asked)
                door.ask("POST", "/v1/jobs", key, {"job_type": "run_agent", "params": asked})
            for path in ("/v1/prompts", "/v1/agents", "/v1/usage", "/v1/audit"):
                shown.append(door.ask("GET", path, key).text)
        door.portal.call(door.backend.register.look)
        measures = door.ask("GET", "/metrics")
        assert measures.status_code == 200, measures.text
        assert "llmbackend_requests_total" in measures.text
        shown.append(measures.text)
        shown.append(repr(door.backend.register.__dict__))
        shown += [repr(key.__dict__) for key in door.backend.register._keys.values()]
        shown += [repr(key.caller) + str(key.caller) for key in door.backend.register._keys.values()]
    logged = "".join(f"{one.getMessage()}\n" for one in caplog.records if not one.name.startswith("http"))
    shown += [logged, json.dumps(document()), repr(door.backend.settings)]
    files = b"".join(
        file.read_bytes() for file in Path(door.backend.settings.data_dir).rglob("*") if file.is_file()
    )
    for key in [*told, ADMIN, "key-of-hr"]:
        # Of keys of the environment there is no public part, but the words of these are elsewhere, too.
        found = forms(key) if key in told else {key, base64.b64encode(key.encode()).decode()[:-4]}
        for form in found:
            assert not [text for text in shown if form in text], form
            assert form.encode() not in files, form
    assert "llmb_hr_" in logged  # the public id is what the log calls it by
    assert made[0]["id"].encode() in files


def test_a_made_key_is_not_shown_by_its_object() -> None:
    made = CreatedKey({"id": "llmb_hr_abcdefgh", "key": "llmb_hr_abcdefgh_" + "s" * 43, "project": "hr"})
    try:
        raise ValueError(f"{made!r}", made)
    except ValueError:
        shown = traceback.format_exc()
    assert "s" * 8 not in shown + repr(made) + str(made) + made._repr_html_() + repr([made])
    assert made.key == made["key"] == "llmb_hr_abcdefgh_" + "s" * 43


def test_a_traceback_of_a_refused_key_has_no_key(door: Door) -> None:
    key = door.key(project="hr")["key"]
    for given in (key[:-1], key + "x", key[:-1] + ("a" if key[-1] != "a" else "b")):
        assert door.ask("GET", "/v1/models", given).status_code == 401
    assert key.rpartition("_")[2][:8] not in door.ask("GET", "/v1/models", key[:-1]).text


# What patterns and rights mean


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("*", "a*b", True),
        ("policies_*", "policies_2026", True),
        ("policies_*", "policies_*_old", True),
        ("policies_*", "policies*", False),
        ("policies_*", "*", False),
        ("a*", "b*", False),
        ("a*c", "a*b", False),
        ("a*c", "abbc", True),
        ("a.c", "abc", False),
        ("(a|b)", "a", False),
    ],
)
def test_a_pattern_covers_what_can_fit_nothing_else(wide: str, narrow: str, covers: bool) -> None:
    assert Patterns([wide]).cover(Patterns([narrow])) is covers


@pytest.mark.parametrize(
    "more",
    [
        {"can": ["read", "write", "admin"]},
        {"collections": ["*"]},
        {"collections": ["policies_*", "salaries"]},
        {"models": ["*"]},
        {"models": ["llama*", "gpt*"]},
        {"expires": "60d"},
        {"rate": "61/min"},
        {"rate": "4000/h"},
        {"concurrent": 9},
        {"tokens": "2M/day"},
        {"tokens": "20M/month"},
        {"project": "support"},
        {"project": "default"},
    ],
)
def test_a_key_makes_narrower_keys_only(door: Door, more: dict[str, object]) -> None:
    limits = {"expires": "30d", "rate": "60/min", "concurrent": 8, "tokens": "1M/day"}
    rights = {"can": ["read", "admin"], "collections": ["policies_*"], "models": ["llama*"]}
    key = door.key(project="hr", **rights, **limits)["key"]
    less = {"can": ["read"], "collections": ["policies_a*"], "models": ["llama3"], "rate": "5/min"}
    made = door.ask("POST", "/v1/keys", key, less)
    assert made.status_code == 200, made.text
    assert made.json()["tokens"] == "1M/day"
    assert made.json()["concurrent"] == 8
    assert made.json()["expires_at"]
    refused = door.ask("POST", "/v1/keys", key, more)
    assert refused.status_code == 403, refused.text
    assert refused.json()["error"]["details"] is not None


def test_a_narrow_key_gets_no_other_secret_of_a_wider_one(door: Door) -> None:
    wide = door.key(project="hr", can=["read", "write", "admin"])
    narrow = door.key(project="hr", can=["read", "admin"])
    refused = door.ask("POST", f"/v1/keys/{wide['id']}/rotate", narrow["key"], {})
    assert refused.status_code == 403, refused.text
    assert door.ask("POST", f"/v1/keys/{narrow['id']}/rotate", narrow["key"], {}).status_code == 200


def test_models_are_asked_as_the_key_may(door: Door) -> None:
    """The fake's models are called as it behaves; `ok` is set as CHAT_MODEL."""
    messages = [{"role": "user", "content": "hello"}]
    key = door.key(project="hr", can=["chat", "jobs"], models=["fit*"])["key"]
    named = {"messages": messages, "model": "ok"}
    for body in ({"messages": messages}, named, {**named, "stream": True}):
        refused = door.ask("POST", "/v1/chat/completions", key, body)
        assert refused.status_code == 403, refused.text
    jobs = [
        {"job_type": "batch_chat", "params": {"prompts": ["a"]}},
        {"job_type": "batch_chat", "params": {"prompts": ["a"], "model": "ok"}},
        {"job_type": "batch_embed", "params": {"texts": ["a"]}},
        {"job_type": "analyze_documents", "params": {"documents": ["a"]}},
    ]
    for body in jobs:
        assert door.ask("POST", "/v1/jobs", key, body).status_code == 403, body
    assert door.ask("POST", "/v1/analyze", key, {"text": "a text"}).status_code == 403
    assert door.ask("POST", "/v1/embeddings", key, {"input": "a"}).status_code == 403
    fitting = door.key(project="hr", can=["chat"], models=["ok"])["key"]
    assert door.ask("POST", "/v1/chat/completions", fitting, {"messages": messages}).status_code == 200


def test_a_key_compares_in_the_same_way_whatever_is_wrong_with_it() -> None:
    """Both digests are compared, whatever the first says, and by hmac: no letter's place can be told from the time."""

    row = SimpleNamespace(
        id="llmb_a_b",
        project="a",
        can=["read"],
        collections=["*"],
        models=["*"],
        limits={"rate": None, "concurrent": None, "tokens": None},
        expires_at=None,
        revoked_at=None,
        hash=rows.digest("new"),
        old_hash=rows.digest("old"),
        old_until=10.0,
    )
    key = rows.Key(row, Standing())  # type: ignore[arg-type]
    assert key.opens_with(rows.digest("new"), 11)
    assert key.opens_with(rows.digest("old"), 9)
    assert not key.opens_with(rows.digest("old"), 11)
    assert not key.opens_with(rows.digest("other"), 9)
    assert Caller("a").can == frozenset()
