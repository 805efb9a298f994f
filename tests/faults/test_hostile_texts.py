"""Texts made to be slow are taken as any others, wherever one may come in."""

from __future__ import annotations

import pytest

from llmbackend import LLMBackendClient

TEXTS = {
    "full stops": ". " * 10_000,
    "one word": "[!" * 10_000,
    "short sentences": "Hello there. " * 2_000,
    "initials": "A. B " * 4_000,
    "lines": "a\n=\n" * 5_000,
    "items": "* a\n" * 5_000,
    "spaces": "a" + "  " * 10_000 + "b",
    "signs": "\U0001f600" * 10_000,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_it_is_ingested_and_found(client: LLMBackendClient, collection: str, text: str) -> None:
    kept = f"Penguins live in the south. {text}"
    report = client.rag_ingest(
        [{"id": f"it{end}", "text": kept} for end in (".txt", ".md", ".rst")], collection
    )
    assert (report.added, report.failed) == (3, [])
    assert client.rag_search(text[:4_000], collection)
    assert client.rag_search("Where do penguins live?", collection)


@pytest.mark.parametrize("kind", [".txt", ".md", ".rst", ".html"])
def test_it_is_read_from_a_file(client: LLMBackendClient, collection: str, kind: str) -> None:
    files = [
        (f"{name}{kind}", f"Penguins live in the south. {text[:5_000]}".encode())
        for name, text in TEXTS.items()
    ]
    plan = client.rag_ingest_files(files, collection, plan=True)
    report = client.rag_ingest_files(files, collection)
    assert (report.added, report.failed) == (len(TEXTS), [])
    assert plan.chunks == report.chunks


def test_it_is_ingested_by_a_job_and_asked(client: LLMBackendClient, collection: str) -> None:
    documents = [{"id": name, "text": "Penguins. " + text[:5_000]} for name, text in TEXTS.items()]
    job = client.submit_job("rag_ingest", {"documents": documents, "collection": collection})
    assert client.wait_for_job(job, 60).added == len(TEXTS)
    assert client.rag_query(TEXTS["one word"][:4_000], collection).sources


@pytest.mark.parametrize("name", ["one word"])
def test_it_is_analyzed(client: LLMBackendClient, name: str) -> None:
    assert client.analyze_document(TEXTS[name][:50_000] + " The end was good.").key_points
