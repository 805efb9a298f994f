"""What calls return, and how streams of events are read."""

from __future__ import annotations

import base64
import copy
import json
import math
import pickle
import pprint
import re
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import llm_client
from llm_client import AnswerStream, ReplyStream, _events, _rows
from llmbackend import (
    Answer,
    BackendError,
    Embeddings,
    LLMBackendError,
    NotFound,
    Record,
    Reply,
    StreamInterrupted,
    TransportError,
    schemas,
)

# Records


def test_a_record_is_a_dict_whose_keys_are_attributes() -> None:
    record = Record(name="hr", chunks=3)
    assert record.name == record["name"] == "hr"
    assert json.loads(json.dumps(record)) == {"name": "hr", "chunks": 3}
    assert {"name", "chunks", "keys"} <= set(dir(record))


def test_an_attribute_a_record_does_not_have_tells_those_it_has() -> None:
    with pytest.raises(AttributeError, match=r"'nmae'.*name, chunks"):
        _ = Record(name="hr", chunks=3).nmae


def test_a_record_is_copied_and_pickled_as_a_record() -> None:
    record = Record(progress=Record(done=1))
    for twin in (copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert twin == record
        assert twin.progress.done == 1


SHADOWING = {name: [number] for number, name in enumerate(vars(dict)) if not name.startswith("_")}


def test_a_record_with_fields_named_as_methods_works_as_a_dict() -> None:
    record = Record(SHADOWING, a=1)
    plain = {**SHADOWING, "a": 1}
    assert dict(record) == {**record} == dict(**record) == json.loads(json.dumps(record)) == plain
    assert json.loads(json.dumps(record, indent=1, sort_keys=True)) == plain
    assert record.items() == plain.items()
    assert record.get("missing", 7) == 7
    assert pprint.pformat(record) == pprint.pformat(plain)
    for twin in (copy.copy(record), copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert type(twin) is Record
        assert twin == plain
    assert "items" in record._repr_html_()


@pytest.mark.parametrize("name", SHADOWING)
@pytest.mark.parametrize(
    "use",
    [
        lambda value: value[0],
        lambda value: list(value),
        lambda value: len(value),
        lambda value: bool(value),
        lambda value: value == [1],
        lambda value: 1 in value,
        lambda value: value > 0,
        lambda value: value + 1,
        lambda value: value.price,
    ],
)
def test_a_field_named_as_a_method_is_not_mistaken_for_it(name: str, use: Callable[[Any], Any]) -> None:
    with pytest.raises(AttributeError, match=re.escape(f"record['{name}']")):
        use(getattr(Record(SHADOWING), name))
    assert f"record['{name}']" in repr(getattr(Record(SHADOWING), name))
    assert callable(getattr(Record(a=1), name)), "without such a field, it is the method"


# Replies and answers


def test_a_reply_is_a_str_that_knows_its_model_and_usage() -> None:
    reply = Reply("Paris", model="m", usage={"total_tokens": 3}, finish_reason="stop")
    assert reply == "Paris"
    assert reply.upper() == "PARIS"
    assert (reply.model, reply.usage.total_tokens, reply.finish_reason) == ("m", 3, "stop")
    assert Reply("").usage == {}


def test_a_reply_is_its_message_too() -> None:
    assert Reply("Paris").message == {"role": "assistant", "content": "Paris"}
    assert (Reply("Paris").tool_calls, Reply("Paris").parsed) == ([], None)


def test_a_reply_and_an_answer_survive_a_pickle() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "tide", "arguments": '{"day": 3}'}}
    message = {"role": "assistant", "content": "Paris", "tool_calls": [call]}
    reply = pickle.loads(
        pickle.dumps(Reply("Paris", model="m", usage={"total_tokens": 3}, message=message, parsed=[1]))
    )
    assert (reply, reply.model, reply.usage.total_tokens, reply.parsed) == ("Paris", "m", 3, [1])
    assert reply.tool_calls == [{"id": "1", "name": "tide", "arguments": {"day": 3}}]
    answer = pickle.loads(pickle.dumps(Answer("30 days", sources=[{"number": 1}])))
    assert (answer, answer.found, answer.sources[0].number) == ("30 days", True, 1)


def test_an_answer_is_a_str_with_its_sources() -> None:
    answer = Answer("30 days [1]", sources=[{"number": 1, "quote": "You get 30 days."}])
    assert answer == "30 days [1]"
    assert answer.found
    assert answer.sources[0].quote == "You get 30 days."


# Embeddings


def _embeddings() -> Embeddings:
    return Embeddings(array("f", [1, 2, 3, 4, 5, 6]), 2, model="m", usage={"total_tokens": 6})


def test_embeddings_are_a_sequence_of_lists_of_floats() -> None:
    vectors = _embeddings()
    assert len(vectors) == 3
    assert list(vectors) == [[1, 2], [3, 4], [5, 6]]
    assert vectors[-1] == [5, 6]
    assert [5, 6] in vectors
    assert list(vectors[::-1]) == [[5, 6], [3, 4], [1, 2]]
    assert (vectors[:1].model, vectors[:1].usage.total_tokens) == ("m", 6)
    with pytest.raises(IndexError):
        _ = vectors[3]


def test_embeddings_are_a_numpy_array_without_copying() -> None:
    vectors = _embeddings()
    matrix = vectors.numpy()
    assert matrix.shape == (3, 2)
    assert matrix.dtype == np.float32
    assert np.shares_memory(matrix, vectors.numpy())
    assert np.asarray(vectors, dtype=np.float64).dtype == np.float64
    assert not np.shares_memory(np.array(vectors), matrix), "np.array copies"


def test_equal_embeddings_are_equal() -> None:
    assert _embeddings() == _embeddings()
    assert _embeddings() != _embeddings()[:2]
    assert _embeddings() != [[1, 2], [3, 4], [5, 6]]


def test_embeddings_are_shown_by_their_size() -> None:
    assert repr(_embeddings()) == "<Embeddings: 3 vectors of 2 dimensions by 'm'>"


def test_no_embeddings_are_an_empty_sequence() -> None:
    assert list(Embeddings.decode(b"", 2)) == []


def test_embeddings_are_decoded_from_bytes_or_from_base64() -> None:
    block = "AACAPwAAAEAAAEBAAACAQA=="  # 1, 2, 3, 4
    assert list(Embeddings.decode(block, 2)) == [[1, 2], [3, 4]]
    assert list(Embeddings.decode(base64.b64decode(block), 4)) == [[1, 2, 3, 4]]


@pytest.mark.parametrize("data", ["not base64!", "AAAA", b"123", None, 0.1], ids=str)
def test_what_is_not_base64_of_floats_is_a_transport_error(data: Any) -> None:
    with pytest.raises(TransportError, match="base64"):
        Embeddings.decode(data, 2)


def test_vectors_of_different_lengths_are_a_transport_error() -> None:
    with pytest.raises(TransportError, match="lengths"):
        Embeddings.decode("AACAPwAAAEAAAEBAAACAQA==", 3)


# Streams


def _data(message: Any) -> bytes:
    return b"data: " + json.dumps(message).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
MESSAGES = [{"n": 1}, {"text": "ä\n\nb"}, {"n": 3}]
WHOLE = b"".join(map(_data, MESSAGES)) + DONE


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_events_are_the_same_however_they_are_cut(size: int, line_end: bytes) -> None:
    sent = WHOLE.replace(b"\n", line_end)
    pieces = [sent[start : start + size] for start in range(0, len(sent), size)]
    assert list(_events(iter(pieces))) == MESSAGES


def test_comments_and_other_fields_are_not_events() -> None:
    sent = b": ping\n\nevent: message\nid: 7\n" + _data({"n": 1}) + b":\n\nretry: 10\n\n" + DONE
    assert list(_events(iter([sent]))) == [{"n": 1}]


def test_an_event_may_have_several_lines() -> None:
    assert list(_events(iter([b'data: {"n":\ndata: 1}\n\n', DONE]))) == [{"n": 1}]


def test_what_follows_done_is_not_read() -> None:
    def chunks() -> Iterator[bytes]:
        yield DONE
        raise AssertionError("was read")

    assert list(_events(chunks())) == []


def test_an_error_event_is_raised_as_what_it_is() -> None:
    error = BackendError("vLLM failed", details={"backend": "vLLM"})
    with pytest.raises(BackendError, match="vLLM failed") as caught:
        list(_events(iter([_data({"error": error.to_dict()})])))
    assert caught.value.details == {"backend": "vLLM"}


def test_a_stream_without_its_last_event_was_interrupted() -> None:
    with pytest.raises(StreamInterrupted):
        list(_events(iter([_data({"n": 1})])))


def _piece(text: str) -> bytes:
    return _data({"model": "m", "choices": [{"delta": {"content": text}, "finish_reason": None}]})


BREAKS = {
    "the connection ends": [],
    "an error event": [_data({"error": NotFound("gone").to_dict()})],
    "not JSON": [b"data: {oops\n\n"],
    "not an object": [_data(5)],
}


@pytest.mark.parametrize("rest", BREAKS.values(), ids=list(BREAKS))
def test_a_reply_that_breaks_off_keeps_its_text(rest: list[bytes]) -> None:
    stream = ReplyStream(iter([_piece("Par"), _piece("is"), *rest]))
    assert [next(stream), next(stream)] == ["Par", "is"]
    with pytest.raises(StreamInterrupted) as caught:
        next(stream)
    assert caught.value.text == stream.reply == "Paris"


def test_what_broke_a_reply_off_is_told() -> None:
    stream = ReplyStream(iter([_piece("Par"), _data({"error": NotFound("no model here").to_dict()})]))
    with pytest.raises(StreamInterrupted, match="no model here") as caught:
        list(stream)
    assert isinstance(caught.value.__cause__, NotFound)
    assert caught.value.details["code"] == "not_found"


def test_a_reply_stream_ends_with_model_usage_and_reason() -> None:
    last = {"choices": [{"delta": {}, "finish_reason": "length"}]}
    usage = {"choices": [], "usage": {"completion_tokens": 2}}
    stream = ReplyStream(iter([_piece("Par"), _piece("is"), _data(last), _data(usage), DONE]))
    assert "".join(stream) == "Paris"
    reply = stream.reply
    assert (reply, reply.model, reply.finish_reason) == ("Paris", "m", "length")
    assert reply.usage.completion_tokens == 2
    assert list(stream) == [], "it stays ended"


def test_leaving_a_stream_closes_what_it_reads_from() -> None:
    closed = []

    def chunks() -> Iterator[bytes]:
        try:
            yield from map(_piece, "Paris")
        finally:
            closed.append(True)

    with ReplyStream(chunks()) as stream:
        assert next(stream) == "P"
    assert closed == [True]


SOURCE = {"number": 1, "document_id": "d", "quote": "q"}


def _answer_stream(chunks: Iterator[bytes]) -> AnswerStream:
    stream = AnswerStream(chunks)
    stream._begin()
    return stream


def test_an_answer_stream_has_its_sources_before_the_first_piece() -> None:
    final = {"answer": "30 days", "found": True, "model": "m", "usage": {"total_tokens": 5}}
    sent = [_data({"sources": [SOURCE]}), _data({"delta": "30 "}), _data({"delta": "days"})]
    stream = _answer_stream(iter([*sent, _data({"answer": final}), DONE]))
    assert stream.sources[0].document_id == "d"
    assert list(stream) == ["30 ", "days"]
    answer = stream.answer
    assert (answer, answer.found, answer.model, answer.usage.total_tokens) == ("30 days", True, "m", 5)
    assert answer.sources == stream.sources


def test_an_answer_that_breaks_off_keeps_its_text_and_sources() -> None:
    stream = _answer_stream(iter([_data({"sources": [SOURCE]}), _data({"delta": "30"})]))
    with pytest.raises(StreamInterrupted) as caught:
        list(stream)
    assert caught.value.text == stream.answer == "30"
    assert stream.sources[0].quote == "q"


# A proxy in between may send anything at all.
STRANGE = {
    "nothing": [],
    "only the end": [DONE],
    "not JSON": [b"data: <html>\n\n"],
    "not an object": [_data(5)],
}


@pytest.mark.parametrize("sent", STRANGE.values(), ids=list(STRANGE))
def test_an_answer_stream_without_sources_is_an_error_of_ours(sent: list[bytes]) -> None:
    with pytest.raises(LLMBackendError):
        _answer_stream(iter(sent))


def test_unit_vectors_stay_unit_vectors_over_the_wire() -> None:
    values = np.random.default_rng(1).normal(size=(4, 8)).astype("<f4")
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    decoded = Embeddings.decode(values.tobytes(), values.shape[1])
    assert np.array_equal(decoded.numpy(), values)
    assert all(math.isclose(math.hypot(*row), 1, abs_tol=1e-6) for row in decoded)


@pytest.mark.parametrize("sent", [[b"<html>\n"], [b'{"a": 1}\n', b'{"a": 2'], [b"\xff\n"]], ids=repr)
def test_rows_that_are_none_are_a_broken_stream(sent: list[bytes]) -> None:
    with pytest.raises(StreamInterrupted):
        list(_rows(iter(sent)))


# Types: what a class says of its fields is what there is


RESULTS = {
    "KeyInfo": schemas.KeyInfo,
    "CreatedKey": schemas.CreatedKey,
    "IngestReport": schemas.IngestPlan,
    "CollectionInfo": schemas.CollectionInfo,
    "DocumentInfo": schemas.DocumentInfo,
    "StoredDocument": schemas.StoredDocument,
    "ChunkInfo": schemas.ChunkInfo,
    "ModelInfo": schemas.Model,
    "Health": schemas.Health,
    "Hit": schemas.Hit,
    "Source": schemas.Source,
    "Job": schemas.JobStatus,
    "Analysis": schemas.Analysis,
    "Explanation": schemas.Explanation,
    "AgentRun": schemas.AgentRun,
    "Evaluation": schemas.Evaluation,
}
NOT_TOLD = {"ModelInfo": {"object"}}
MADE_HERE = {"IngestReport": {"columns"}, "Evaluation": {"warnings"}}


def _fields(kind: type) -> set[str]:
    return {name for base in kind.__mro__ for name in vars(base).get("__annotations__", {})}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_s_fields_are_those_of_its_schema(name: str) -> None:
    fields = _fields(getattr(llm_client, name))
    assert fields == RESULTS[name].model_fields.keys() - NOT_TOLD.get(name, set()) | MADE_HERE.get(
        name, set()
    )


def test_no_result_has_a_field_that_is_a_method_of_dict() -> None:
    kinds = [
        kind for kind in vars(llm_client).values() if isinstance(kind, type) and issubclass(kind, Record)
    ]
    assert len(kinds) > len(RESULTS)
    wrapped = schemas.KeyList  # whose list is what the client gives
    responses = [kind for kind in vars(schemas).values() if isinstance(kind, type) and kind is not wrapped]
    names = {name: kind for kind in kinds for name in _fields(kind)}
    names |= {name: kind for kind in responses for name in getattr(kind, "model_fields", ())}
    assert len(names) > 150
    assert names.keys() & {name for name in vars(dict) if not name.startswith("_")} == set()


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_a_record_of_its_kind_copied_or_pickled(name: str) -> None:
    kind = getattr(llm_client, name)
    result = kind(SHADOWING, id="hr_1", text="x")
    for twin in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert (type(twin), isinstance(twin, Record), dict(twin)) == (kind, True, dict(result))
    assert list(result.items()) == list(dict(result).items())
    with pytest.raises(AttributeError, match=re.escape("record['items']")):
        _ = result.items[0]
