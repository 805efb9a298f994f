"""Putting files into a collection, on both transports."""

from __future__ import annotations

import base64
import gzip
import os
import re
import unicodedata
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import requests

import llm_client
import llmbackend
from llmbackend import InvalidRequest, LLMBackendClient
from llmbackend.chunks.chunking import split
from llmbackend.schemas import Document
from tests import files
from tests.files import FACT
from tests.server import KEY, serving

QUESTION = "When was the lighthouse painted?"


def _ids(client: LLMBackendClient, collection: str) -> set[str]:
    return {document.id for document in client.list_documents(collection)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files of some types, in folders, and hidden ones."""
    for name, content in {
        "index.md": b"# Aldersea\n\nA town by the sea.",
        "history/lighthouse.html": files.of_each_type()["page.html"],
        "history/harbour.rst": b"Harbour\n=======\n\nThe harbour has two moles.",
        "history/.draft.txt": b"not to be found",
        ".git/config": b"not to be found",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


# What is read


def test_files_of_each_type_are_found_by_what_they_say(client: LLMBackendClient, collection: str) -> None:
    given = files.of_each_type()
    report = client.rag_ingest_files(list(given.items()), collection)
    assert report == {
        "added": len(given),
        "updated": 0,
        "unchanged": 0,
        "deleted": 0,
        "failed": [],
        "warnings": [],
        "chunks": len(given),
        "tokens": report.tokens,
    }
    assert report.tokens > len(given)
    for name in given:
        (hit,) = client.rag_search(QUESTION, collection, filters={"source": name})
        assert (hit.document_id, FACT in hit.text) == (name, True)


def test_each_chunk_that_is_made_is_stored(client: LLMBackendClient, collection: str) -> None:
    folder = Path(llmbackend.__file__).parent / "demo" / "documents"
    texts = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.md")}
    texts["chinese.txt"] = "".join(f"重置路由器需要按住第{number}个按钮然后松开。" for number in range(500))
    report = client.rag_ingest_files(
        [(name, text.encode()) for name, text in texts.items()], collection, chunk_size=64
    )
    made = {name: len(split(Document(id=name, text=text), "", 64, 16)) for name, text in texts.items()}
    assert {document.id: document.chunks for document in client.list_documents(collection)} == made
    assert report.chunks == client.get_collection(collection).chunks == sum(made.values())


def test_each_type_that_is_sent_is_read() -> None:
    names = {os.path.splitext(name)[1] for name in files.of_each_type()}
    assert names == {"", *llm_client.FILE_TYPES.split()}


def test_passages_know_their_page_and_headings(client: LLMBackendClient, collection: str) -> None:
    text = b"---\ntitle: Guide\n---\n\n# Lights\n\n## Lighthouse\n\nPainted green in 1931."
    given = [
        ("paper.pdf", files.pdf("An empty first page.", FACT)),
        (
            "slides.pptx",
            files.pptx(("Welcome", "Nothing yet"), ("Aldersea", "The lighthouse was painted again in 1952.")),
        ),
        ("guide.md", text),
    ]
    assert client.rag_ingest_files(given, collection).chunks == 5
    hits = {hit.document_id: hit for hit in reversed(client.rag_search(QUESTION, collection, top_k=10))}
    assert hits["paper.pdf"].metadata == {"page": 2, "source": "paper.pdf"}
    assert hits["slides.pptx"].metadata == {"page": 2, "headings": ["Aldersea"], "source": "slides.pptx"}
    assert hits["guide.md"].metadata == {
        "headings": ["Guide", "Lights", "Lighthouse"],
        "source": "guide.md",
    }
    assert hits["guide.md"].text == "Painted green in 1931."
    on_page_2 = client.rag_search(QUESTION, collection, top_k=10, filters={"page": 2})
    assert {hit.document_id for hit in on_page_2} == {"paper.pdf", "slides.pptx"}
    below = client.rag_search(QUESTION, collection, filters={"headings": "Lights"})
    assert [hit.document_id for hit in below] == ["guide.md"]


# By content, where the name does not tell


TEXTS = {
    "notes.c": b"/* The lamp is lit at dusk. */\nint main(void) { return 0; }\n",
    "deploy.sh": b"#!/bin/sh\n# The lamp is lit at dusk.\n",
    "server.log": b"\x1b[32mINFO\x1b[0m The lamp is lit at dusk.\n" * 40,
    "README.first": "Das Licht brennt: über Nacht.".encode("cp1252"),
    "wide.srt": "The lamp is lit at dusk.".encode("utf-16"),
    "v1.2": b"The lamp is lit at dusk.",
}
NO_TEXTS = {
    "notes.txt.gz": gzip.compress(b"The lamp is lit at dusk." * 100),
    "a.so": b"\x7fELF\2\1\1" + bytes(200),
    "short.bin": bytes(range(14, 32)) * 3,
    "letter.rtf": rb"{\rtf1\ansi The lamp is lit at dusk.}",
    "late.dat": b"The lamp is lit at dusk. " * 400 + bytes(40),
}


def test_what_is_text_is_read_whatever_its_name(
    client: LLMBackendClient, collection: str, tmp_path: Path
) -> None:
    for name, content in (TEXTS | NO_TEXTS).items():
        (tmp_path / name).write_bytes(content)
    given: list[Any] = [tmp_path, [*(TEXTS | NO_TEXTS).items()]]
    for paths in given:
        report = client.rag_ingest_files(paths, collection)
        assert report.added + report.unchanged == len(TEXTS)
        assert {one.id for one in report.failed} == NO_TEXTS.keys()
        for one in report.failed:
            assert re.fullmatch(r"unsupported type \.\w+: neither text nor PDF, .*", one.error)
            assert one.error.endswith(": unpack it first") == one.id.endswith(".gz")
    assert {one.id for one in client.list_documents(collection)} == TEXTS.keys()
    assert "über Nacht" in client.get_document("README.first", collection).text


# What cannot be read


def _bad() -> dict[str, tuple[bytes, str]]:
    return {
        "locked.pdf": (files.encrypted_pdf(FACT, "secret"), "encrypted"),
        "scanned.pdf": (files.pdf("", ""), "scanned"),
        "empty.txt": (b"", "empty"),
        "blank.md": (b" \n\n ", "empty"),
        "broken.docx": (b"PK\x03\x04 and no more", "broken"),
        "cut.pdf": (files.pdf(FACT)[:200], "broken"),
        "binary.txt": (bytes(range(256)) * 20, "binary"),
        "picture.png": (b"\x89PNG\r\n\x1a\n", "unsupported type .png"),
        "deep.json": (files.deep_json(), "nested too deeply"),
        "bomb.docx": (files.zip_bomb(), "too large"),
    }


def test_a_file_that_cannot_be_read_is_reported_and_the_rest_goes_on(
    client: LLMBackendClient, collection: str
) -> None:
    bad = _bad()
    given = [(name, content) for name, (content, _) in bad.items()]
    given[3:3] = files.of_each_type().items()
    report = client.rag_ingest_files(given, collection)
    assert report.added == len(files.of_each_type())
    reasons = {failure.id: failure.error for failure in report.failed}
    assert reasons.keys() == bad.keys()
    for name, (_, reason) in bad.items():
        assert reason in reasons[name]


def test_words_that_lines_break_are_found_whole_and_quoted_as_they_stand(
    client: LLMBackendClient, collection: str
) -> None:
    line = "Its light-\nhouse has a Nebel\u00ad\nsignal, painted green for 14\u00b9 days."
    page = files.pdf_with(
        "BT /F1 12 Tf 14 TL 72 720 Td (The harbour-) Tj T* (master of Aldersea keeps the keys.) Tj ET"
    )
    client.rag_ingest_files([("text.txt", line.encode()), ("paper.pdf", page)], collection)
    for question, word, stands in (
        ("lighthouse", "text.txt", "light-\nhouse"),
        ("Nebelsignal", "text.txt", "Nebel\u00ad\nsignal"),
        ("14 days", "text.txt", "14\u00b9 days"),
        ("harbourmaster", "paper.pdf", "harbour-\nmaster"),
    ):
        hit = client.rag_search(question, collection, mode="sparse")[0]
        assert (hit.document_id, stands in hit.text) == (word, True), question
    answer = client.rag_query("Who keeps the keys of Aldersea?", collection)
    texts = {hit.document_id: hit.text for hit in client.rag_search("Aldersea light", collection)}
    assert answer.sources
    assert all(source.quote in texts[source.document_id] for source in answer.sources)


def test_what_a_file_lost_is_told(client: LLMBackendClient, collection: str) -> None:
    given = [
        ("cut.txt", "Der Leuchtturm ist grün".encode() + b"\xc3"),
        ("some.pdf", files.pdf("One page.", "")),
        ("whole.txt", b"Nothing is wrong with this."),
    ]
    report = client.rag_ingest_files(given, collection)
    told = {warning.id: warning.warning for warning in report.warnings}
    assert told == {
        "cut.txt": "1 place is not UTF-8 and replaced by \ufffd",
        "some.pdf": "1 of 2 pages have no text: scanned? (2)",
    }
    assert (
        client.rag_ingest_files(given, collection).warnings == report.warnings
    )  # of what is stored already, too


def _mail_with(*attachments: tuple[str, str]) -> bytes:
    message = EmailMessage()
    message["Subject"], message["From"] = "Harbour", "ada@example.org"
    message.set_content("The files are attached.")
    for name, text in attachments:
        message.add_attachment(text, filename=name)
    return bytes(message)


def test_files_attached_to_a_mail_are_documents_that_tell_their_mail(
    client: LLMBackendClient, collection: str
) -> None:
    mail = _mail_with(("tower.txt", FACT), ("tides.csv", "day,metres\nMonday,3\n"))
    report = client.rag_ingest_files([("a.eml", mail), ("b.txt", b"Other text.")], collection)
    assert (report.added, report.failed) == (4, [])
    (hit, *_) = client.rag_search(QUESTION, collection)
    assert (hit.document_id, hit.metadata["part_of"]) == ("a.eml/tower.txt", "a.eml")
    of_mail = client.rag_search(QUESTION, collection, filters={"part_of": "a.eml"})
    assert {one.document_id for one in of_mail} == {"a.eml/tower.txt", "a.eml/tides.csv"}


def test_syncing_keeps_attachments_of_mails_that_were_not_read_and_removes_those_that_are_gone(
    client: LLMBackendClient, collection: str
) -> None:
    given = [("a.eml", _mail_with(("one.txt", "One."))), ("b.eml", _mail_with(("two.txt", "Two.")))]
    assert client.rag_ingest_files(given, collection, sync=True).added == 4
    again = [("a.eml", b"no mail any more"), ("b.eml", _mail_with(("three.txt", "Three.")))]
    report = client.rag_ingest_files(again, collection, sync=True)
    assert (report.deleted, [one.id for one in report.failed]) == (1, ["a.eml"])
    assert {one.id for one in client.list_documents(collection)} == {
        "a.eml",
        "a.eml/one.txt",
        "b.eml",
        "b.eml/three.txt",
    }


def test_a_name_is_one_document_however_its_accents_are_written(
    client: LLMBackendClient, collection: str
) -> None:
    composed, apart = "résumé.txt", unicodedata.normalize("NFD", "résumé.txt")
    assert client.rag_ingest_files([(apart, FACT.encode())], collection).added == 1
    assert client.rag_ingest_files([(composed, FACT.encode())], collection).unchanged == 1
    for name in (composed, apart):
        (hit,) = client.rag_search(QUESTION, collection, filters={"source": name})
        assert hit.document_id == composed
    assert client.delete_documents(collection, [apart]).deleted == 1


def test_names_that_are_no_unicode_stay_apart(
    client: LLMBackendClient, collection: str, tmp_path: Path
) -> None:
    names = [b"caf\xe8.txt", b"caf\xe9.txt"]
    try:
        for name in names:
            Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_text(f"{FACT} {name!r}")
    except OSError:
        pytest.skip("this file system takes Unicode only")
    report = client.rag_ingest_files(tmp_path, collection)
    assert (report.added, report.failed) == (2, [])
    assert _ids(client, collection) == {"caf%E8.txt", "caf%E9.txt"}


def test_what_cannot_be_read_in_a_folder_is_told(
    client: LLMBackendClient, collection: str, tmp_path: Path
) -> None:
    (tmp_path / "good.txt").write_text(FACT)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "other.txt").write_text("Other text.")
    (tmp_path / "link").symlink_to(tmp_path / "inner", target_is_directory=True)
    (tmp_path / "sheet.numbers").write_bytes(b"PK\3\4 and no text")
    report = client.rag_ingest_files(tmp_path, collection)
    assert report.added == 2
    assert {one.id: one.error.partition(":")[0] for one in report.failed} == {
        "gone.txt": "cannot be read",
        "link/": "cannot be read",
        "sheet.numbers": "unsupported type .numbers",
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipes_and_links_in_circles_are_told(
    client: LLMBackendClient, collection: str, tmp_path: Path
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "good.txt").write_text(FACT)
    os.mkfifo(tmp_path / "pipe.txt")
    for name in ("circle", "second circle"):
        (tmp_path / name).symlink_to(tmp_path, target_is_directory=True)
    for paths in (tmp_path, tmp_path / "**" / "*.txt"):
        report = client.rag_ingest_files(paths, collection)
        assert report.added + report.unchanged == 1
        assert sorted(one.id for one in report.failed) == ["circle/", "pipe.txt", "second circle/"]
    assert client.rag_ingest_files(tmp_path / "*" / "good.txt", collection).failed == []
    with pytest.raises(InvalidRequest, match="is a pipe"):
        client.rag_ingest_files(tmp_path / "pipe.txt", collection)


def test_files_of_one_name_are_told_though_they_are_sent_apart(
    client: LLMBackendClient, collection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_client, "UPLOAD_BYTES", 10)
    given = [
        ("résumé.txt", b"One text."),
        ("other.txt", b"Other."),
        ("re\u0301sume\u0301.txt", b"Another text."),
    ]
    report = client.rag_ingest_files(given, collection)
    assert report.added == 2
    [failed] = report.failed
    assert failed.id == "résumé.txt"
    assert failed.error.startswith(
        "another document in this request has the same id: pass the folder or pattern"
    )


def test_a_notebook_shows_what_failed_and_what_was_lost(client: LLMBackendClient, collection: str) -> None:
    lost = ("lost.txt", "Zażółć gęślą jaźń ".encode() + b"\xff")
    report = client.rag_ingest_files([lost, *((f"{number}.xyz", b"\0") for number in range(30))], collection)
    assert len(report.failed) == 30
    shown = report._repr_html_()
    assert shown.count("unsupported type .xyz") == 30
    assert "1 place is not UTF-8 and replaced by" in shown


def test_nothing_but_bad_files_is_a_report_too(client: LLMBackendClient, collection: str) -> None:
    report = client.rag_ingest_files([("picture.png", b"\x89PNG")], collection)
    assert (report.added, [failure.id for failure in report.failed]) == (0, ["picture.png"])


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file whose reading fails")
def test_a_file_that_fails_while_it_is_read_is_reported(
    client: LLMBackendClient, collection: str, folder: Path
) -> None:
    (folder / "memory.txt").symlink_to("/proc/self/mem")
    report = client.rag_ingest_files(folder, collection)
    assert (report.added, [failure.id for failure in report.failed]) == (3, ["memory.txt"])
    assert report.failed[0].error.startswith("cannot be read: ")


def test_an_encrypted_pdf_without_a_password_is_read(client: LLMBackendClient, collection: str) -> None:
    report = client.rag_ingest_files(("open.pdf", files.encrypted_pdf(FACT, "")), collection)
    assert (report.added, report.failed) == (1, [])


# Where files come from


def test_a_folder_is_read_with_those_below_it(
    client: LLMBackendClient, collection: str, folder: Path
) -> None:
    assert client.rag_ingest_files(folder, collection).added == 3
    assert _ids(client, collection) == {"index.md", "history/lighthouse.html", "history/harbour.rst"}
    again = client.rag_ingest_files(str(folder), collection)
    assert (again.added, again.unchanged) == (0, 3)


def test_files_and_patterns_are_read(client: LLMBackendClient, collection: str, folder: Path) -> None:
    given = [folder / "index.md", f"{folder}/**/*.rst", ("letter.eml", files.of_each_type()["letter.eml"])]
    assert client.rag_ingest_files(given, collection).added == 3
    assert _ids(client, collection) == {"index.md", "history/harbour.rst", "letter.eml"}


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        ("/no/such/file.pdf", "no file or folder"),
        ("/no/such/*.pdf", "no file matches"),
        ("https://example.org/page.html", "not fetched"),
        ("file:///etc/passwd", "no file or folder|not fetched"),
        ("..%2f..%2fetc%2fpasswd", "no file or folder"),
        ([], "there are no files"),
        (17, "takes paths"),
        ([17], "must be a path"),
        (b"The gym opens at six.", r"takes paths, or \(name, bytes\), not bytes"),
    ],
)
def test_a_wrong_path_is_refused(client: LLMBackendClient, collection: str, paths: Any, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        client.rag_ingest_files(paths, collection)
    assert caught.value.details["errors"][0]["loc"][0] == "paths"
    assert collection not in [one.name for one in client.list_collections()]


def test_an_empty_folder_is_refused_and_removes_nothing(
    client: LLMBackendClient, collection: str, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    client.rag_ingest_files(folder, collection)
    with pytest.raises(InvalidRequest, match="no files"):
        client.rag_ingest_files(tmp_path_factory.mktemp("empty"), collection, sync=True)
    assert len(_ids(client, collection)) == 3


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("Straße/日本語 – ü.txt", "Straße/日本語 – ü.txt"),
        ("u\N{COMBINING DIAERESIS}.txt", "ü.txt"),
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("..%2f..%2fetc%2fpasswd", "..%2f..%2fetc%2fpasswd"),
        ("file:///etc/passwd", "file:/etc/passwd"),
        ("C:\\Users\\ada\\notes.txt", "Users/ada/notes.txt"),
        ("a/./b//c\n.txt", "a/b/c.txt"),
    ],
)
def test_a_name_is_a_path_that_leads_down(
    client: LLMBackendClient, collection: str, name: str, id: str
) -> None:
    assert client.rag_ingest_files((name, FACT.encode()), collection).added == 1
    assert _ids(client, collection) == {id}


@pytest.mark.parametrize("name", ["", "..", "/", "a" * 600])
def test_a_file_without_a_name_is_refused(client: LLMBackendClient, collection: str, name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"files\[0\]\.name"):
        client.rag_ingest_files((name, FACT.encode()), collection)


# Syncing, in one request and in several


@pytest.fixture(params=[llm_client.UPLOAD_BYTES, 30])
def in_lots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are sent all at once, or one in a request."""
    monkeypatch.setattr(llm_client, "UPLOAD_BYTES", request.param)


@pytest.mark.usefixtures("in_lots")
def test_syncing_removes_what_is_gone_but_not_what_failed(client: LLMBackendClient, collection: str) -> None:
    given = {f"{name}.txt": f"This is the text of {name}.".encode() for name in "abcde"}
    client.rag_ingest_files(list(given.items()), collection)
    del given["b.txt"]
    given["c.txt"] = b"\x89PNG is what this has become"
    given["d.txt"] = b"This is another text."
    given["f.png"] = b""
    given["e.txt"] = b""
    report = client.rag_ingest_files(list(given.items()), collection, sync=True)
    assert (report.added, report.updated, report.unchanged, report.deleted) == (0, 1, 1, 1)
    assert {failure.id for failure in report.failed} == {"c.txt", "e.txt", "f.png"}
    assert _ids(client, collection) == {"a.txt", "c.txt", "d.txt", "e.txt"}


def test_a_server_that_takes_less_gets_less_at_a_time(tmp_path: Path, models_dir: Path) -> None:
    given = {f"{name}.txt": f"This is the text of {name}. ".encode() * 20 for name in "abcde"}
    given["large.txt"] = b"a" * 5000
    limit = {"api_key": KEY, "max_body_bytes": 3000, "models_dir": models_dir}
    with serving(tmp_path, **limit) as server, LLMBackendClient(server.url, KEY) as client:
        for name in ("large.txt", "a.txt"):  # what is too large comes last, and is the first of two halves
            given[name] = given.pop(name)
            report = client.rag_ingest_files(list(given.items()), "small", sync=True)
            assert [failure.id for failure in report.failed] == ["large.txt"]
            assert "3000 are accepted" in report.failed[0].error or "more than 3000" in report.failed[0].error
            assert _ids(client, "small") == given.keys() - {"large.txt"}
        del given["b.txt"]
        assert client.rag_ingest_files(list(given.items()), "small", sync=True).deleted == 1


@pytest.mark.usefixtures("in_lots")
def test_progress_counts_files(client: LLMBackendClient, collection: str) -> None:
    seen: list[tuple[int, int, str]] = []
    given = [(f"{name}.txt", f"This is the text of {name}.".encode()) for name in "abc"]
    report = client.rag_ingest_files(
        given, collection, progress=lambda state: seen.append((state.done, state.total, state.stage))
    )
    assert report.added == 3
    assert {total for _, total, _ in seen} == {3}
    assert seen[0] == (0, 3, "parse")
    assert seen[-1] == (3, 3, "done")


# What travels


def _post(server_url: str, headers: dict[str, str] | None = None, **given: Any) -> requests.Response:
    return requests.post(
        f"{server_url}/v1/rag/ingest/files",
        headers={"Authorization": f"Bearer {KEY}", **(headers or {})},
        timeout=60,
        **given,
    )


@pytest.fixture
def on_server(server_url: str) -> Iterator[LLMBackendClient]:
    """A client of the server; the collection `test-form` is removed from it at the end."""
    with LLMBackendClient(server_url, KEY) as client:
        yield client
        if "test-form" in [one.name for one in client.list_collections()]:
            client.delete_collection("test-form")


def test_a_form_with_files_does_the_same(on_server: LLMBackendClient, server_url: str) -> None:
    given = files.of_each_type()
    form = {"collection": "test-form", "chunk_size": "100", "sync": "true"}
    reply = _post(
        server_url, data=form, files=[("files", (name, content)) for name, content in given.items()]
    )
    assert (reply.status_code, reply.json()["added"], reply.json()["failed"]) == (200, len(given), [])
    assert _ids(on_server, "test-form") == set(given)
    assert on_server.get_collection("test-form").chunk_size == 100
    assert on_server.rag_ingest_files(list(given.items()), "test-form").unchanged == len(given)
    name, content = "../Straße ü.txt", FACT.encode()
    reply = _post(server_url, data=form, files={"file": (name, content)})
    assert (reply.json()["added"], reply.json()["deleted"]) == (1, len(given))
    assert _ids(on_server, "test-form") == {"Straße ü.txt"}


@pytest.mark.parametrize(
    ("named", "name"),
    [
        ("filename*=utf-8''Stra%C3%9Fe%20%22a%22.txt", 'Straße "a".txt'),
        ("filename=\"Strae.txt\"; FileName*=UTF-8'de'Stra%C3%9Fe.txt", "Straße.txt"),
        ("filename*=ISO-8859-1''Stra%DFe.txt", "Straße.txt"),
        ("filename=\"a; filename*=utf-8''b.txt\"", "a; filename*=utf-8''b.txt"),
    ],
)
def test_a_form_names_files_as_rfc_5987_writes_them(
    on_server: LLMBackendClient, server_url: str, named: str, name: str
) -> None:
    body = (
        '--b\r\nContent-Disposition: form-data; name="collection"\r\n\r\ntest-form\r\n'
        f"--b\r\nContent-Disposition: form-data; name=files; {named}\r\n\r\n{FACT}\r\n--b--\r\n"
    )
    reply = _post(server_url, data=body.encode(), headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert reply.status_code == 200, reply.text
    assert _ids(on_server, "test-form") == {name}


def test_a_file_name_that_is_not_what_it_says_is_told(server_url: str) -> None:
    body = (
        b"--b\r\nContent-Disposition: form-data; name=files; filename*=utf-8''%FF.txt\r\n\r\na\r\n--b--\r\n"
    )
    reply = _post(server_url, data=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert reply.status_code == 422
    assert "name is not utf-8" in reply.json()["error"]["message"]


@pytest.mark.usefixtures("on_server")
def test_a_form_can_be_watched(server_url: str) -> None:
    form = {"collection": "test-form", "stream": "true"}
    reply = _post(server_url, data=form, files={"file": ("a.txt", FACT.encode())})
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    assert b'"stage":"parse"' in reply.content.replace(b" ", b"")
    assert reply.content.rstrip().endswith(b"[DONE]")


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"data": {"collection": "test-form"}, "files": {"file": ("", b"")}}, "files"),
        ({"data": {}, "files": {"file": ("a.txt", b"a")}}, "collection"),
        ({"data": {"collection": "test-form", "sync": "perhaps"}, "files": {"f": ("a.txt", b"a")}}, "sync"),
        ({"data": {"collection": "test-form", "colour": "red"}, "files": {"f": ("a.txt", b"a")}}, "colour"),
        ({"json": {"collection": "test-form", "files": []}}, "files"),
        ({"json": {"collection": "test-form", "files": [{"name": "a.txt", "content": "é"}]}}, "base64"),
        ({"json": {"collection": "test-form", "files": [{"name": "/etc/passwd"}]}}, "content"),
    ],
)
def test_a_form_that_does_not_fit_is_refused(server_url: str, given: dict[str, Any], place: str) -> None:
    reply = _post(server_url, **given)
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "invalid_request")
    assert place in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=b",
        "text/plain",
        "application/x-www-form-urlencoded",
    ],
)
def test_a_body_that_is_no_form_is_refused(server_url: str, content_type: str) -> None:
    reply = requests.post(
        f"{server_url}/v1/rag/ingest/files",
        data=b"no form at all",
        headers={"Authorization": f"Bearer {KEY}", "Content-Type": content_type},
        timeout=60,
    )
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "invalid_request")


def test_forms_of_other_sites_are_refused_where_no_key_guards(tmp_path: Path, models_dir: Path) -> None:
    with serving(tmp_path, models_dir=models_dir) as server:

        def status(origin: str | None) -> int:
            return requests.post(
                f"{server.url}/v1/rag/ingest/files",
                data={"collection": "test-form"},
                files={"file": ("a.txt", FACT.encode())},
                headers={"Origin": origin} if origin else {},
                timeout=60,
            ).status_code

        assert [status(origin) for origin in ("https://example.org", "null", "http://localhost:1")] == [
            403
        ] * 3
        assert [status(origin) for origin in (None, server.url)] == [200, 200]


def test_forms_are_for_files_only(server_url: str) -> None:
    reply = requests.post(
        f"{server_url}/v1/rag/search",
        files={"query": ("a.txt", b"a")},
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=60,
    )
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "invalid_request")


@pytest.mark.usefixtures("on_server")
def test_a_file_travels_as_base64(server_url: str) -> None:
    content = base64.b64encode(FACT.encode()).decode()
    reply = _post(
        server_url, json={"collection": "test-form", "files": [{"name": "a.txt", "content": content}]}
    )
    assert (reply.status_code, reply.json()["added"]) == (200, 1)
