"""The tree of errors: each travels as itself, and its table in the docstring is true."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr, ValidationError

from llmbackend import InvalidRequest, LLMBackendClient, LLMBackendError, StreamInterrupted, TransportError
from llmbackend import errors as core
from llmbackend.errors import invalid, names_in
from llmbackend.schemas import AnalyzeRequest, RagIngestRequest, RagSearchRequest


def _tree(kind: type[LLMBackendError]) -> list[type[LLMBackendError]]:
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in _tree(child))]


TREE = _tree(LLMBackendError)

kinds = pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)


@kinds
def test_an_error_travels_as_itself(kind: type[LLMBackendError]) -> None:
    sent = kind("it went wrong", details={"backend": "vLLM", "errors": [1]}, request_id="r-1")
    assert sent.to_dict() == {
        "code": kind.code,
        "message": "it went wrong",
        "details": {"backend": "vLLM", "errors": [1]},
        "request_id": "r-1",
    }
    arrived = LLMBackendError.from_dict(sent.to_dict())
    assert type(arrived) is kind
    assert arrived.to_dict() == sent.to_dict()
    assert str(arrived) == "it went wrong"


def test_an_unknown_code_becomes_the_base_class() -> None:
    error = LLMBackendError.from_dict({"code": "from_the_future", "message": "new"})
    assert type(error) is LLMBackendError
    assert error.message == "new"


@pytest.mark.parametrize(
    "sent", [{}, {"message": None}, {"code": None, "details": None}, {"code": 7, "details": "text"}], ids=str
)
def test_an_error_that_is_not_whole_is_still_an_error(sent: dict[str, object]) -> None:
    error = LLMBackendError.from_dict(sent)
    assert type(error) is LLMBackendError
    assert error.details == {}


@kinds
def test_an_error_says_what_it_means(kind: type[LLMBackendError]) -> None:
    assert vars(kind)["__doc__"]
    assert kind.__name__ in core.__all__


def test_codes_are_unique() -> None:
    assert [code for code, count in Counter(kind.code for kind in TREE).items() if count > 1] == []


def test_statuses_are_unique_where_an_error_has_one() -> None:
    own = [kind.status for kind in TREE if "status" in vars(kind)]
    assert len(own) == len(set(own))
    without = {kind for kind in TREE if "status" not in vars(kind)}
    assert without == {TransportError, StreamInterrupted}


def test_the_table_in_the_docstring_is_the_tree() -> None:
    rows = re.findall(r"^[ │├└]*(\w+) +([a-z_]+) +(\d+|-) ", LLMBackendError.__doc__ or "", re.MULTILINE)
    told = {(name, code, status) for name, code, status in rows}
    assert told == {
        (kind.__name__, kind.code, str(kind.status) if "status" in vars(kind) else "-") for kind in TREE
    }


def test_details_are_the_errors_own() -> None:
    given = {"a": 1}
    error = LLMBackendError("x", details=given)
    given["a"] = 2
    assert error.details == {"a": 1}


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("collection", 5, "collection: Input should be a valid string or a valid array"),
        ("rerank", [1], "rerank: Input should be a valid boolean or a valid string"),
    ],
)
def test_a_value_that_none_of_several_types_takes_is_one_mistake(field: str, value: Any, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RagSearchRequest.model_validate({"query": "q", "collection": "c", field: value})
    error = invalid(caught.value, "rag_search")
    assert error.message == f"rag_search: {told}"
    assert [one["loc"] for one in error.details["errors"]] == [[field]]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"id": "a", "text": 1}, "documents[0].text: Input should be a valid string"),
        ({"id": "a\0", "text": "t", "other": 1}, "documents[0].other: Extra inputs are not permitted"),
        (1, "documents[0]: Input should be a valid string or an object"),
    ],
)
def test_of_a_text_or_an_object_the_one_that_was_meant_is_told(document: object, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RagIngestRequest.model_validate({"collection": "c", "documents": [document]})
    assert invalid(caught.value, "rag_ingest").message == f"rag_ingest: {told}"


@pytest.mark.parametrize(
    ("collection", "told"),
    [("a b", "collection: a collection's name is 1 to 128 letters"), ([], "collection: is empty")],
)
def test_of_a_name_or_names_the_one_that_was_given_is_told(collection: object, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RagSearchRequest.model_validate({"collection": collection, "query": "q"})
    message = invalid(caught.value, "rag_search").message
    assert message.startswith(f"rag_search: {told}")
    assert "Input should be" not in message


def test_a_field_that_is_not_known_is_told_with_the_one_that_was_meant() -> None:
    with pytest.raises(ValidationError) as caught:
        AnalyzeRequest.model_validate({"txt": "a"})
    told = "text: is missing, or None; txt: Extra inputs are not permitted: did you mean 'text'?"
    assert invalid(caught.value, "analyze_document").message == f"analyze_document: {told}"
    with pytest.raises(ValidationError) as caught:
        AnalyzeRequest.model_validate({"text": "a", "X-API-Key": "a key"})
    told = "X-API-Key: Extra inputs are not permitted"
    assert invalid(caught.value, "analyze_document").message == f"analyze_document: {told}"
    assert "a key" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"topk": 3}, "topk: Extra inputs are not permitted: did you mean 'top_k'?"),
        ({"filter": {"a": 1}}, "filter: Extra inputs are not permitted: did you mean 'filters'?"),
        ({"colour": 3}, "colour: Extra inputs are not permitted"),
        ({"": 3}, "'': Extra inputs are not permitted"),
        ({" ": 3}, "' ': Extra inputs are not permitted"),
        ({"": 3, "colour": 3}, "'': Extra inputs are not permitted; colour: Extra inputs are not permitted"),
    ],
)
def test_a_field_that_may_be_left_out_is_suggested_too(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RagSearchRequest.model_validate({"collection": "a", "query": "q", **given})
    message = invalid(caught.value, "rag_search", names_in(RagSearchRequest)).message
    assert message == f"rag_search: {told}"


@dataclasses.dataclass
class Noted:
    id: str
    text: str


def test_a_dataclass_is_told_how_to_become_a_document() -> None:
    with (
        LLMBackendClient("http://127.0.0.1:9", "no-key") as client,
        pytest.raises(InvalidRequest, match=r"documents\[0\] is a Noted: .*dataclasses\.asdict"),
    ):
        client.rag_ingest([Noted("a", "b")], "c")


def test_what_is_too_short_is_told_in_words() -> None:
    class Given(BaseModel):
        names: list[str] = Field(min_length=2)
        classes: dict[str, str] = Field(min_length=2)
        secret: SecretStr = Field(min_length=8)
        word: str = Field(min_length=3)
        one: str = Field(min_length=1)

    with pytest.raises(ValidationError) as caught:
        Given.model_validate({"names": ["a"], "classes": {}, "secret": "abc", "word": "ab", "one": ""})
    assert invalid(caught.value, "it").message == (
        "it: names: should have at least 2 items; classes: should have at least 2 items; "
        "secret: should have at least 8 characters; word: should have at least 3 characters; one: is empty"
    )
