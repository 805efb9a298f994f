"""What metadata may be made of, how filters find it, and what is told of filters that find nothing."""

from __future__ import annotations

import datetime
import decimal
import enum
import html
import pathlib
import uuid
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from llmbackend import InvalidRequest, LLMBackendClient

CEST = datetime.timezone(datetime.timedelta(hours=2))


class Team(enum.Enum):
    HR = "hr"


KINDS: list[tuple[Any, Any]] = [
    (datetime.date(2026, 3, 1), "2026-03-01"),
    (datetime.datetime(2026, 3, 1, 9, 30), "2026-03-01T09:30:00Z"),
    (datetime.datetime(2026, 3, 1, 9, 30, tzinfo=CEST), "2026-03-01T09:30:00+02:00"),
    (np.datetime64("2026-03-01T09:30"), "2026-03-01T09:30:00Z"),
    (np.datetime64("2026-03-01T09:30", "ns"), "2026-03-01T09:30:00Z"),
    (np.array(["2026-03-01"], dtype="datetime64[D]"), ["2026-03-01T00:00:00Z"]),
    (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    (decimal.Decimal("12.50"), 12.5),
    (decimal.Decimal("3"), 3),
    (Team.HR, "hr"),
    (pathlib.PurePosixPath("a/b"), "a/b"),
    (np.float32(0.5), 0.5),
    (np.int64(5), 5),
    (np.bool_(True), True),
    (pd.Timestamp("2026-03-01 09:30", tz="Europe/Berlin"), "2026-03-01T09:30:00+01:00"),
    (pa.scalar(7), 7),
    (("a", "b"), ["a", "b"]),
]


def test_values_of_python_are_stored_as_json_has_them(client: LLMBackendClient, collection: str) -> None:
    documents = [
        {"id": str(number), "text": f"text {number}", "metadata": {f"value{number}": given}}
        for number, (given, _) in enumerate(KINDS)
    ]
    client.rag_ingest(documents, collection)
    metadata = {one.id: one.metadata for one in client.list_documents(collection)}
    for number, (given, stored) in enumerate(KINDS):
        value = metadata[str(number)][f"value{number}"]
        assert (value, type(value)) == (stored, type(stored))
        hits = client.rag_search("text", collection, filters={f"value{number}": given})
        assert [hit.document_id for hit in hits] == [str(number)], given


REFUSED: list[tuple[Any, str]] = [
    (float("nan"), "is NaN: leave it out"),
    (np.float32("nan"), "is NaN: leave it out"),
    (np.float64("inf"), "is inf, which is not finite"),
    (pd.NA, "is NA: leave it out"),
    (pd.NaT, "is NaT: leave it out"),
    (np.datetime64("NaT"), "is NaT: leave it out"),
    (decimal.Decimal("NaN"), "is NaN: leave it out"),
    (decimal.Decimal("sNaN"), "is sNaN: leave it out"),
    (decimal.Decimal("-Infinity"), "is -Infinity, which is not finite"),
    (decimal.Decimal("0.1234567890123456789"), r"is Decimal\('0.12.*give it as text"),
    (decimal.Decimal("1E+1000000000"), "is .*give it as text"),
    (np.timedelta64(5, "s"), r"is np.timedelta64\(5,'s'\), which JSON does not have"),
    (datetime.timedelta(1), "is a timedelta, which JSON does not have"),
    (datetime.time(9, 30), r"is a time, which JSON does not have \(datetime.time\(9, 30\)\)"),
    ({"a", "b"}, "is a set, .*give it as a list"),
    (iter("ab"), "is a \\w+, .*give it as a list"),
    (b"bytes", "is a bytes, which JSON does not have .*give it as text"),
    (object(), "is an object, which JSON does not have"),
    ({(1, 2): "b"}, "has a field whose name is a tuple"),
]


@pytest.mark.parametrize(
    ("given", "reason"), REFUSED, ids=[str(type(given)) + reason for given, reason in REFUSED]
)
def test_what_json_has_not_is_refused_by_its_place(
    client: LLMBackendClient, collection: str, given: Any, reason: str
) -> None:
    fine = {"id": "a", "text": "one text", "metadata": {"value": 1}}
    wrong = {"id": "b", "text": "another text", "metadata": {"deep": [{"value": given}]}}
    with pytest.raises(
        InvalidRequest, match=rf"documents\[1\]\.metadata\.deep\[0\]\.value {reason}"
    ) as caught:
        client.rag_ingest([fine, wrong], collection)
    assert caught.value.details["errors"][0]["loc"][:2] == ["documents", 1]
    with pytest.raises(InvalidRequest, match=rf"filters\.value {reason}"):
        client.rag_search("text", collection, filters={"value": given})


def test_what_is_in_itself_is_refused(client: LLMBackendClient, collection: str) -> None:
    metadata: dict[str, Any] = {}
    metadata["again"] = metadata
    with pytest.raises(InvalidRequest, match=r"documents\[0\]\.metadata is nested too deep"):
        client.rag_ingest([{"id": "a", "text": "one text", "metadata": metadata}], collection)


def test_times_are_compared_as_times(client: LLMBackendClient, collection: str) -> None:
    signed = {
        "day": datetime.date(2026, 3, 1),
        "morning": datetime.datetime(2026, 3, 1, 9, 30, tzinfo=CEST),
        "evening": datetime.datetime(2026, 3, 1, 21, 30),
        "text": "2026-04-01 08:00:00",
        "none": "soon",
    }
    documents = [
        {"id": name, "text": f"a text of {name}", "metadata": {"signed": moment}}
        for name, moment in signed.items()
    ]
    client.rag_ingest(documents, collection)

    def found(**bounds: Any) -> set[str]:
        hits = client.rag_search("text", collection, top_k=10, filters={"signed": bounds})
        return {hit.document_id for hit in hits}

    assert found(gte=datetime.date(2026, 3, 1)) == {"day", "morning", "evening", "text"}
    assert found(lte=datetime.date(2026, 3, 1)) == {"day", "morning", "evening"}
    assert found(gt=datetime.date(2026, 3, 1)) == {"text"}
    assert found(lt="2026-03-01") == set()
    assert found(gte=datetime.datetime(2026, 3, 1, 7, 30), lt="2026-03-01T07:31:00Z") == {"morning"}
    assert found(gt=datetime.datetime(2026, 3, 1, 9, 30, tzinfo=CEST), lte="2026-03-01") == {"evening"}
    with pytest.raises(
        InvalidRequest, match=r"'signed' has bounds that are neither numbers nor times.*2026-03-01"
    ):
        found(gte="soon")


def test_a_day_or_moment_is_found_in_whatever_way_it_is_written(
    client: LLMBackendClient, collection: str
) -> None:
    day = datetime.date(2024, 2, 29)
    whens: dict[str, Any] = {
        "midnight": pd.Timestamp(day),
        "evening": datetime.datetime(2024, 2, 29, 23, 30, tzinfo=CEST),
        "day": day,
        "listed": ["2023-01-01", day],
        "next": datetime.datetime(2024, 3, 1, tzinfo=datetime.UTC),
        "zone": datetime.datetime(2024, 3, 1, tzinfo=CEST),
        "text": "29 Feb 2024",
    }
    for indexes in ({}, {"when": "datetime"}, {"when": "keyword"}):
        name = f"{collection}{indexes.get('when', '')}"
        client.create_collection(name, indexes=indexes)
        documents = [
            {"id": key, "text": f"a text of {key}", "metadata": {"when": when}} for key, when in whens.items()
        ]
        client.rag_ingest(documents, name)

        def found(asked: Any, name: str = name) -> set[str]:
            hits = client.rag_search("text", name, top_k=10, filters={"when": asked})
            return {hit.document_id for hit in hits}

        of_the_day = {"midnight", "evening", "day", "listed", "zone"}
        assert found(day) == of_the_day
        assert found("2024-02-29") == of_the_day
        assert found([day, "29 Feb 2024"]) == of_the_day | {"text"}
        assert found({"not": day}) == {"next", "text"}
        assert found({"not": [day, datetime.date(2024, 3, 1)]}) == {"text"}
        assert found(pd.Timestamp(day)) == {"midnight", "day", "listed"}
        assert found(datetime.datetime(2024, 2, 29, 22, tzinfo=datetime.UTC)) == {"zone"}
        assert found("29 Feb") == found("2024-02") == set()


DESCRIBED = [
    {
        "author": {"name": "Ada"},
        "year": 2024,
        "code": "17",
        "signed": "2026-03-01",
        "tags": ["a"],
        "done": True,
    },
    {"author": {"name": "Bob"}, "year": 2024, "parts": [{"kind": "pump"}], "Team": "hr", "code": "17"},
]

NOTES: list[tuple[dict[str, Any], str]] = [
    ({"auther.name": "Ada"}, "no document has the field 'auther.name': did you mean 'author.name'?"),
    ({"name": "Ada"}, "no document has the field 'name': did you mean 'author.name'?"),
    ({"team": "hr"}, "no document has the field 'team': did you mean 'Team'?"),
    ({"or": [{"yeer": 2024}, {"done": True}]}, "no document has the field 'yeer': did you mean 'year'?"),
    ({"parts.kind": "pump"}, "no document has the field 'parts.kind': did you mean 'parts[].kind'?"),
    (
        {"qqq": {"exists": True}},
        "no document has the field 'qqq'; there are 'Team', 'author.name', 'code', 'done', ",
    ),
    ({"author": "Ada"}, "'author' holds objects: ask for a field in it, such as 'author.name'"),
    ({"parts": "pump"}, "'parts' holds objects: ask for a field in it, such as 'parts[].kind'"),
    ({"year": "2024"}, "'year' holds numbers, such as '2024', and the filter asks for texts"),
    ({"code": 17}, "'code' holds texts, such as '17', and the filter asks for numbers"),
    ({"code": [17, True]}, "'code' holds texts, such as '17', and the filter asks for numbers"),
    ({"done": 1}, "'done' holds true or false, such as 'True', and the filter asks for numbers"),
    (
        {"year": {"not": {"gte": "2026-03-01"}}},
        "'year' holds numbers, such as '2024', and the filter asks for times",
    ),
    (
        {"signed": {"gte": 2026}},
        "'signed' holds times, such as '2026-03-01', and the filter asks for numbers",
    ),
    (
        {"signed": "01.03.2026"},
        "'signed' holds times, such as '2026-03-01', and the filter asks for texts",
    ),
    (
        {"code": [datetime.date(2026, 3, 1)]},
        "'code' holds texts, such as '17', and the filter asks for times",
    ),
]


@pytest.fixture(scope="module")
def described(clients: list[LLMBackendClient]) -> str:
    documents = [
        {"id": str(number), "text": f"text {number}", "metadata": it} for number, it in enumerate(DESCRIBED)
    ]
    for one in clients:
        one.rag_ingest(documents, "described")
    return "described"


@pytest.mark.parametrize(("filters", "note"), NOTES, ids=[str(filters) for filters, _ in NOTES])
def test_an_explanation_tells_what_filters_do_not_find(
    client: LLMBackendClient, described: str, filters: dict[str, Any], note: str
) -> None:
    explanation = client.rag_query("text", described, filters=filters, explain=True).explanation
    assert [one[: len(note)] for one in explanation.notes] == [note]
    assert note.strip() in " ".join(repr(explanation).split())


@pytest.mark.parametrize(
    "filters",
    [
        None,
        {"author.name": "Eve", "parts[0].kind": "pump", "page": 1, "headings": "a"},
        {"year": 2024.5, "signed": {"lt": "2020-01-01"}, "tags": ["x"], "code": {"exists": True}},
    ],
    ids=str,
)
def test_filters_on_what_there_is_need_no_note(
    client: LLMBackendClient, described: str, filters: dict[str, Any] | None
) -> None:
    assert client.rag_query("text", described, filters=filters, explain=True).explanation.notes == []


SECTIONS = """# Handbook
Read it.
## 1. Vacation
Everyone has 25 days.
### Carry over
Until March.
## 2. Notice
Three months.
# Annex
Nothing.
"""


@pytest.mark.parametrize(
    ("filters", "chunks"),
    [
        ({"headings": "1. Vacation"}, [0]),
        ({"headings": ["Carry over", "none"]}, [0]),
        ({"headings": "2. Notice", "page": {"exists": False}}, [0]),
        ({"headings": "Handbook"}, [0]),
        ({"headings": "Annex"}, [1]),
        ({"headings": {"not": "2. Notice"}}, [1]),
        ({"sections": "2. Notice"}, [0]),
        ({"headings": "3. Travel"}, []),
    ],
    ids=str,
)
def test_short_sections_that_one_passage_joins_are_found_by_their_headings(
    client: LLMBackendClient, collection: str, filters: dict[str, Any], chunks: list[int]
) -> None:
    client.rag_ingest([{"id": "it.md", "text": SECTIONS}], collection)
    assert [hit.chunk for hit in client.rag_search("days", collection, filters=filters)] == chunks
    first, _ = sorted(client.list_chunks(collection), key=lambda one: one.chunk)
    assert first.metadata["headings"] == ["Handbook"]
    assert first.metadata["sections"] == ["1. Vacation", "Carry over", "2. Notice"]


def test_wherever_a_filter_finds_nothing_a_misspelt_field_is_told(
    client: LLMBackendClient, collection: str
) -> None:
    client.rag_ingest(
        [{"id": "a", "text": "Ships stay at the berth.", "metadata": {"year": 2026, "kind": "rule"}}],
        collection,
    )
    meant = "no document has the field 'yaer': did you mean 'year'?"
    odd = {"yaer": 2026}
    hits = client.rag_search("ships", collection, filters=odd)
    answer = client.rag_query("Where do ships stay?", collection, filters=odd)
    stream = client.rag_query("Where do ships stay?", collection, filters=odd, stream=True)
    "".join(stream)
    chunks = client.list_chunks(collection, filters=odd)
    deleted = client.delete_documents(collection, filters=odd)
    for found in (hits, answer, stream.answer, chunks, deleted):
        assert list(found.notes) == [meant]
        assert meant in html.unescape(found._repr_html_())
    assert (hits, chunks, answer.sources, deleted.deleted) == ([], [], [], 0)
    assert f"{hits} {chunks!r}" == f"[]  # {meant} []  # {meant}"
    (told,) = client.rag_search("ships", collection, filters={"year": "2026"}).notes
    assert told == "'year' holds numbers, such as '2026', and the filter asks for texts"
    # Nothing is said where there is something, or nothing to say.
    assert not client.rag_search("ships", collection, filters={"or": [odd, {"year": 2026}]}).notes
    assert not client.rag_search("ships", collection, filters={"year": 1900}).notes
    assert client.delete_documents(collection, filters={"year": 1900}) == {"deleted": 0}
