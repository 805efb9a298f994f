"""What becomes of a file's bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import llm_client
from llmbackend.files.parsed import Parsed, Unreadable
from llmbackend.files.parsing import FORMATS, parse
from tests import files
from tests.files import FACT


def _text(name: str, data: bytes) -> str:
    return parse(name, data).text


def test_the_sdk_sends_what_can_be_read() -> None:
    assert ["", *llm_client.FILE_TYPES.split()] == list(FORMATS)


@pytest.mark.parametrize(("name", "data"), files.of_each_type().items())
def test_a_file_of_each_type_tells_its_fact(name: str, data: bytes) -> None:
    assert FACT in _text(name, data)
    assert _text(name.upper(), data) == _text(name, data)


# Encodings

GERMAN = "Die Vergütung für Überstunden beträgt 25 %. Größere Änderungen müssen bestätigt werden."
POLISH = "Pracownik ma prawo do urlopu wypoczynkowego. Zażółć gęślą jaźń, proszę wysłać wniosek."
RUSSIAN = "Сотрудники имеют право на отпуск. Пожалуйста, обратитесь к руководителю."
GREEK = "Οι εργαζόμενοι δικαιούνται άδεια. Ρωτήστε τον προϊστάμενο."
ARABIC = "يحق للموظفين الحصول على إجازة سنوية. يرجى سؤال المدير."
JAPANESE = "従業員は年間二十日の休暇を取得できます。上司に確認してください。"
CHINESE = "员工每年有二十天的假期。请先询问您的经理。"
KOREAN = "직원은 연간 20일의 휴가를 받습니다. 관리자에게 문의하십시오."


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", GERMAN + CHINESE),
        ("utf-8-sig", GERMAN + CHINESE),
        ("utf-16", GERMAN + CHINESE),
        ("utf-32", GERMAN + CHINESE),
        ("utf-16-le", GERMAN),
        ("utf-16-be", GERMAN),
        ("cp1252", GERMAN),
        ("cp1250", POLISH),
        ("cp1251", RUSSIAN),
        ("koi8-r", RUSSIAN),
        ("cp1253", GREEK),
        ("cp1256", ARABIC),
        ("shift_jis", JAPANESE),
        ("gb18030", CHINESE),
        ("big5", "員工每年有二十天的假期。請先詢問您的經理。"),
        ("euc_kr", KOREAN),
        ("latin-1", "Müller"),
        ("latin-1", "## können\n\nkönnen\n\näöüß\n"),
        ("cp1252", "Preis: 5 €"),
    ],
)
@pytest.mark.parametrize("times", [1, 30])
def test_a_text_is_read_in_its_encoding(encoding: str, text: str, times: int) -> None:
    given = "\n".join([text] * times)
    assert _text("a.txt", given.encode(encoding)) == given


def test_line_ends_and_control_characters_are_made_plain() -> None:
    assert _text("a.txt", b"one\r\ntwo\rthree\0four\x1b[0m") == "one\ntwo\nthree four [0m"


def test_a_page_is_read_as_it_declares() -> None:
    page = "<html><head><meta charset='windows-1251'></head><body><p>Отпуск</p></body></html>"
    assert _text("a.html", page.encode("cp1251")) == "Отпуск"


# Types


def test_a_page_loses_what_is_not_its_text() -> None:
    text = _text(
        "page.html",
        b"""<!DOCTYPE html><html><head><title>Aldersea</title><style>p {color: red}</style></head><body>
        <nav><a href="/">Home</a></nav><header>Site</header>
        <article><header><h2>The lighthouse<a href="#lighthouse">\xc2\xb6</a></h2></header>
        <p>It is <b>green</b>.<img src="x.png" alt="A tower"></p><script>function() {}</script>
        <table><tr><th>year</th></tr><tr><td>1931</td></tr></table></article>
        <footer>Imprint</footer></body></html>""",
    )
    assert text.startswith("# Aldersea\n\n## The lighthouse\n\nIt is **green**.A tower")
    assert "| 1931 |" in text
    for word in ("Home", "Site", "function", "Imprint", "color", "\xb6", "x.png"):
        assert word not in text


def test_the_main_part_of_a_page_is_all_of_it() -> None:
    page = b"<body><div>Menu</div><main><h1>Aldersea</h1><aside>By the sea.</aside></main></body>"
    assert _text("page.html", page) == "# Aldersea\n\nBy the sea."


def test_headings_of_a_word_file_are_headings() -> None:
    parsed = parse("a.docx", files.docx(FACT, headings=["Aldersea", "The lighthouse"]))
    assert parsed == Parsed(f"# Aldersea\n\n## The lighthouse\n\n{FACT}", "markdown")


def test_pages_and_slides_end_with_a_form_feed() -> None:
    assert _text("a.pdf", files.pdf("one", "", "three")) == "one\n\f\n\fthree\n"
    assert (
        _text("a.pptx", files.pptx(("One", "first"), ("Two", "second")))
        == "# One\n\nfirst\n\f# Two\n\nsecond\n"
    )


def test_rows_are_told_by_their_columns_names() -> None:
    told = "name: Ada\nage: 36\n\nname: Bob, jr.\nage: 4.5"
    assert _text("a.csv", b'name;age\nAda;36\n"Bob, jr.";4.5\n') == told
    assert _text("a.tsv", b"name\tage\nAda\t36\nBob, jr.\t4.5\n") == told
    assert _text("a.xlsx", files.xlsx([["name", "age"], ["Ada", 36.0], ["Bob, jr.", 4.5]], "People")) == (
        f"# People\n\n{told}"
    )


def test_a_title_above_a_table_is_not_its_head() -> None:
    assert _text("a.csv", b"People,,\nname,age,town\nAda,36,\n") == "People\n\nname: Ada\nage: 36"


def test_a_table_without_a_head_is_told_as_it_is() -> None:
    assert _text("a.csv", b"1,2\n3,4\n") == "1, 2\n\n3, 4"


def test_data_is_told_with_the_paths_to_it() -> None:
    data = {"town": {"name": "Aldersea", "tags": ["sea", "mole"], "mayor": None}, "open": True}
    assert _text("a.json", json.dumps(data).encode()) == (
        "town.name: Aldersea\ntown.tags: sea\ntown.tags: mole\nopen: true"
    )
    assert _text("a.jsonl", b'{"a": 1}\n\n{"a": 2}\n') == "a: 1\n\na: 2"


def test_a_notebook_is_its_texts_and_code() -> None:
    book = files.notebook(("markdown", "# Tides\n\nHigh and low."), ("code", "tide = 3\nprint(tide)"))
    assert parse("a.ipynb", book) == Parsed(
        "# Tides\n\nHigh and low.\n\n```python\ntide = 3\nprint(tide)\n```", "markdown"
    )


def test_a_mail_is_its_head_and_its_text() -> None:
    text = _text("a.eml", files.mail("Grüße", FACT, attached="map.pdf"))
    assert text.startswith(
        "Subject: Grüße\nFrom: ada@example.org\nTo: bob@example.org\nAttachments: map.pdf\n"
    )
    assert text.rstrip().endswith(FACT)
    assert FACT in _text("a.eml", files.mail("Hello", f"<p>{FACT}</p>", html=True))


def test_ligatures_are_letters() -> None:
    assert _text("a.txt", "mis\ufb01ts, ½".encode()) == "misfits, ½"


# What cannot be read


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n", "unsupported type .png"),
        ("a.exe", b"MZ\0", "unsupported type .exe"),
        ("a.exe", b"", "empty"),
        ("a.txt", b"", "empty"),
        ("a.md", b"\xef\xbb\xbf \n", "empty"),
        ("a.csv", b",,\n,,\n", "empty"),
        ("a.json", b"{}", "empty"),
        ("a.txt", b"\x89PNG\r\n\x1a\nand so on", "binary, not text"),
        ("a.txt", bytes(range(256)) * 10, "binary, not text"),
        ("README", b"\x7fELF\0\0\0", "binary, not text"),
        ("a.txt", b"\xff\xfea", "binary, not text"),
        ("a.pdf", files.encrypted_pdf(FACT, "secret"), "encrypted: remove its password first"),
        ("a.pdf", files.pdf("", ""), "scanned: its pages have no text, only images"),
        ("a.pdf", b"no PDF", "broken, or no .pdf file: "),
        ("a.docx", b"no archive", "broken, or no .docx file"),
        ("a.docx", b"\xd0\xcf\x11\xe0 and so on", "encrypted, or of an older Office: save it as .docx"),
        ("a.xlsx", files.docx(FACT), "broken, or no .xlsx file: "),
        ("a.pptx", files.archive({"a": "b"}), "broken, or no .pptx file: "),
        ("a.docx", files.zip_bomb, "too large: it unpacks to 2 parts of 400 MB in all"),
        ("a.docx", files.billion_laughs(), "broken, or no .docx file"),
        ("a.json", files.deep_json(), "nested too deeply"),
        ("a.docx", files.docx_with("<w:body>" + "<w:ins>" * 300), "nested too deeply"),
        ("a.json", b"{not json}", "broken, or no .json file: "),
        ("a.jsonl", b'{"a": 1}\n{"b"\n{"c"', "broken: line 2 is not JSON"),
        ("a.ipynb", b"{}", "broken: a notebook has cells"),
        ("a.eml", b"no mail at all", "broken: a mail has a sender"),
        ("a.mhtml", b"<p>no page that a browser saved</p>", "broken: there is no page in it"),
    ],
)
def test_a_file_that_cannot_be_read_tells_why(
    name: str, data: bytes | Callable[[], bytes], reason: str
) -> None:
    with pytest.raises(Unreadable) as caught:
        parse(name, data() if callable(data) else data)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    "name", ["report.docx", "slides.pptx", "sheet.xlsx", "text.odt", "book.epub", "page.html"]
)
def test_what_an_entity_names_is_not_fetched(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    plain = files.of_each_type()[name]
    file = files.external_entity(plain, (tmp_path / "secret").as_uri())
    assert file != plain
    with suppress(Unreadable):
        assert "s3cret" not in _text(name, file)


@pytest.mark.parametrize(
    ("name", "data", "instead"),
    [
        ("a.doc", b"\xd0\xcf\x11\xe0\0", "save it as .docx or .pdf"),
        ("a.rtf", rb"{\rtf1 The lamp is lit.}", "save it as .docx or .pdf"),
        ("a.ods", b"PK\3\4\0", "save it as .xlsx"),
        ("a.key", b"PK\3\4\0", "save it as .pptx or .pdf"),
        ("a.parquet", b"PAR1\0", "rag_ingest(path) stores its rows"),
    ],
)
def test_a_file_of_a_type_that_is_not_read_tells_what_to_do(name: str, data: bytes, instead: str) -> None:
    failed: llm_client.Records[llm_client.Record] = llm_client.Records()
    llm_client.file_lots([(name, data)], failed, set())
    assert [error.error.endswith(f": {instead}") for error in failed] == [True] * (name != "a.rtf"), (
        "RTF consists of letters, and is sent"
    )
    with pytest.raises(Unreadable, match=rf"^unsupported type .*: {re.escape(instead)}$"):
        parse(name, data)
    assert not llm_client.INSTEAD.keys() & FORMATS.keys()


def test_a_page_that_a_browser_saved_with_its_pictures_is_read_as_a_page() -> None:
    assert (
        _text("a.mhtml", files.saved_page("<h1>Preise</h1><p>Für Größe S: 5 €.</p>"))
        == "# Preise\n\nFür Größe S: 5 €."
    )
