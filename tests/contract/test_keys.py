"""API keys: made, listed, given another secret, revoked; narrower than whoever makes them."""

from __future__ import annotations

import json

import pytest

from llmbackend import InvalidRequest, LLMBackendClient, NotFound, Unauthorized
from tests.server import KEY


def test_a_key_is_told_once_and_listed_without_its_secret(client: LLMBackendClient) -> None:
    made = client.create_key(
        project="hr",
        can=["read", "chat"],
        collections=["policies_*"],
        models=["llama*"],
        expires="90d",
        rate="60/min",
        concurrent=8,
        tokens="1M/day,20M/month",
        note="HR app",
    )
    assert made.key.startswith(f"{made.id}_")
    assert made.id.startswith("llmb_hr_")
    secret = made.key.removeprefix(made.id)
    assert secret not in repr(made) + made._repr_html_() + str(made)
    (listed,) = [one for one in client.list_keys(project="hr") if one.id == made.id]
    assert secret not in json.dumps(client.list_keys())
    assert (listed.can, listed["collections"], listed.models) == (
        ["chat", "read"],
        ["policies_*"],
        ["llama*"],
    )
    assert (listed.rate, listed.concurrent, listed.tokens) == ("60/min", 8, "1M/day,20M/month")
    assert listed.note == "HR app"
    assert listed.revoked_at is None
    assert listed.expires_at > listed.created_at
    revoked = client.revoke_key(made.id)
    assert revoked.revoked_at
    assert client.revoke_key(made.id).revoked_at == revoked.revoked_at


def test_one_right_collection_or_model_may_be_a_string(client: LLMBackendClient) -> None:
    made = client.create_key(can="read", collections="policies_*", models="llama*")
    assert (made.can, made["collections"], made.models) == (["read"], ["policies_*"], ["llama*"])


def test_what_is_not_asked_for_is_as_the_callers_but_for_admin(client: LLMBackendClient) -> None:
    made = client.create_key()
    assert made.project == "default"
    assert made.can == ["chat", "jobs", "read", "write"]
    assert (made["collections"], made.models) == (["*"], ["*"])
    assert (made.rate, made.concurrent, made.tokens, made.expires_at) == (None, None, None, None)
    client.revoke_key(made.id)


def test_a_rotated_key_keeps_its_id_and_gets_another_secret(client: LLMBackendClient) -> None:
    made = client.create_key(project="hr", can=["read"])
    rotated = client.rotate_key(made.id, overlap="10min")
    assert rotated.id == made.id
    assert rotated.key != made.key
    assert rotated.rotating_until > rotated.created_at
    assert client.rotate_key(made.id, overlap="0s").rotating_until is None
    client.revoke_key(made.id)
    with pytest.raises(NotFound, match="no key"):
        client.rotate_key(made.id)


def test_keys_that_are_not_there_are_not_found(client: LLMBackendClient) -> None:
    for call in (client.revoke_key, client.rotate_key):
        with pytest.raises(NotFound, match="no key 'llmb_hr_abcdefgh'"):
            call("llmb_hr_abcdefgh")


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": "60"},
        {"rate": "0/min"},
        {"tokens": "1M/year"},
        {"expires": "tomorrow"},
        {"can": ["everything"]},
        {"can": []},
        {"collections": ["a?"]},
        {"project": "a/b"},
        {"concurrent": 0},
        {"note": "a\nb"},
    ],
)
def test_a_key_that_cannot_be_is_refused(client: LLMBackendClient, wrong: dict[str, object]) -> None:
    with pytest.raises(
        InvalidRequest, match=next(iter(wrong)) if wrong != {"rate": "0/min"} else "not a rate"
    ):
        client.create_key(**wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"expires": "90days"}, "expires: should be a number and s, min, h or d, such as 90d"),
        ({"rate": "60 per minute"}, "rate: should be a number a time, such as 60/min"),
        ({"tokens": "1M/year"}, "tokens: should be a number a time, or two, such as 1M/day"),
        ({"note": "a\nb"}, "note: should be without control characters"),
        ({"chunks": "many"}, "chunks: it must be a number of at least 1, such as 500, 100k or 10G"),
        ({"chunks": 0}, "chunks: it must be a number of at least 1, such as 500, 100k or 10G"),
    ],
)
def test_what_a_field_should_be_is_told_in_words(
    client: LLMBackendClient, wrong: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.create_key(**wrong)
    assert said in caught.value.message
    assert "^" not in str(caught.value.to_dict())


@pytest.mark.parametrize(("given", "stored"), [("100k", 100_000), ("5", 5), (7, 7), ("10G", 10**10)])
def test_amounts_are_written_as_in_the_terminal(
    client: LLMBackendClient, given: str | int, stored: int
) -> None:
    made = client.create_key(project="hr", can=["read"], chunks=given, bytes=given)
    assert (made.chunks, made.bytes) == (stored, stored)


def test_a_key_opens_until_it_is_revoked(server_url: str) -> None:
    with LLMBackendClient(server_url, KEY) as admin:
        made = admin.create_key(project="hr", can=["read"])
        with LLMBackendClient(server_url, made.key) as hr:
            assert hr.list_collections() is not None
            rotated = admin.rotate_key(made.id)
            assert hr.list_collections() is not None  # for the overlap
        with LLMBackendClient(server_url, rotated.key) as hr:
            hr.list_collections()
            admin.revoke_key(made.id)
            with pytest.raises(Unauthorized):
                hr.list_collections()


def test_a_collection_is_shared_and_no_more(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest(["Every employee has 28 days of vacation."], collection=collection)
    shared = client.share_collection(collection, with_project="support")
    assert (shared.collection, shared.with_project, shared.can) == (collection, "support", "read")
    assert client.share_collection(collection, "support", can="write").can == "write"
    mine = [share for share in client.list_shares() if share.collection == collection]
    assert [(share.with_project, share.can) for share in mine] == [("support", "write")]
    assert client.unshare_collection(collection, with_project="support").can == "write"
    assert collection not in [share.collection for share in client.list_shares()]
    client.create_collection(f"{collection}2")  # whose name is similar
    with pytest.raises(NotFound, match="is not shared with 'support'"):
        client.unshare_collection(collection, with_project="support")
    with pytest.raises(InvalidRequest, match="collection's own project"):
        client.share_collection(collection, with_project="default")
    with pytest.raises(NotFound, match="no collection 'nothing'"):
        client.share_collection("nothing", with_project="support")


def test_a_misspelt_project_is_told_to_the_administrator(client: LLMBackendClient, collection: str) -> None:
    client.create_collection(collection)
    client.create_key(project="warehouse")
    with pytest.raises(
        NotFound, match="no project 'warehosue' has a key: did you mean 'warehouse'"
    ) as caught:
        client.share_collection(collection, "warehosue")
    assert caught.value.details["near"] == ["warehouse"]
    assert collection not in [share.collection for share in client.list_shares()]
    assert client.share_collection(collection, "unheard-of").with_project == "unheard-of"


def test_a_project_does_not_learn_of_others_by_sharing(server_url: str, collection: str) -> None:
    with LLMBackendClient(server_url, KEY) as admin:
        admin.create_key(project="warehouse")
        own = admin.create_key(project="harbour", can=["admin", "write"])
    with LLMBackendClient(server_url, own.key) as harbour:
        harbour.create_collection(collection)
        for project in ("warehosue", "warehouse"):
            assert harbour.share_collection(collection, project).with_project == project
        harbour.delete_collection(collection)


def test_the_administrator_reaches_any_collection_by_its_project(client: LLMBackendClient) -> None:
    name = "hr/policies"
    made = client.create_collection(name)
    assert made.name == name
    client.rag_ingest([{"id": "a", "text": "28 days of vacation."}], collection=name)
    assert client.get_collection(name).documents == 1
    assert client.rag_search("vacation", name)[0].collection == name
    assert [one.id for one in client.list_documents(name)] == ["a"]
    assert name in [one.name for one in client.list_collections()]
    assert client.delete_documents(name, ["a"]).deleted == 1
    assert client.delete_collection(name).deleted == name
    with pytest.raises(NotFound, match="no collection 'hr/policies'"):
        client.get_collection(name)
    for odd in ("hr/", "/policies", "a/b/c", "hr/../x", "."):
        with pytest.raises(InvalidRequest):
            client.get_collection(odd)


@pytest.mark.parametrize(
    ("key", "said"), [(None, "no API key was sent"), ("wrong", "the API key that was sent is not known")]
)
def test_a_refusal_tells_whether_a_key_was_sent_and_how_one_is(
    server_url: str, key: str | None, said: str
) -> None:
    with LLMBackendClient(server_url, key) as client, pytest.raises(Unauthorized) as caught:
        client.list_collections()
    assert said in caught.value.message
    for way in ("api_key=", "LLM_BACKEND_API_KEY", "Authorization: Bearer", "X-API-Key"):
        assert way in caught.value.message
