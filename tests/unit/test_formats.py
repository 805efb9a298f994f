"""What files say, and nothing else, comes out of them: odd encodings, tables, mails, pages, forms and notebooks."""

from __future__ import annotations

import base64
import io
import json
from email.message import EmailMessage
from typing import Any

import pytest

from llm_client import NEITHER
from llmbackend.files.parsed import Parsed, Unreadable
from llmbackend.files.parsing import parse, parse_all
from tests import files


def _text(name: str, data: bytes | str) -> str:
    return _parsed(name, data).text


def _parsed(name: str, data: bytes | str) -> Parsed:
    return parse(name, data.encode() if isinstance(data, str) else data)


# Encodings

POLISH = "Zażółć gęślą jaźń. "


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.csv"])
@pytest.mark.parametrize(
    "damaged",
    [
        POLISH.encode() * 3 + "ł".encode()[:1],
        b"caf\xe9 " + POLISH.encode() * 3,
        POLISH.encode() + b"\xff\xfe!",
    ],
    ids=["cut within a letter", "a line of Latin-1", "stray bytes"],
)
def test_a_few_bytes_that_are_not_utf8_are_replaced_and_told(name: str, damaged: bytes) -> None:
    parsed = _parsed(name, damaged)
    assert POLISH.strip() in parsed.text
    assert "\ufffd" in parsed.text
    assert [one for one in parsed.warnings if "replaced" in one]


def test_a_mail_that_declares_utf8_keeps_its_letters_beside_a_bad_byte() -> None:
    head = b"Subject: x\nFrom: a@example.org\nContent-Type: text/plain; charset=utf-8\n\n"
    parsed = _parsed("a.eml", head + POLISH.encode() + b"\xe9\n")
    assert POLISH.strip() in parsed.text
    assert parsed.warnings == ("1 place is not UTF-8 and replaced by \ufffd",)


@pytest.mark.parametrize(
    ("declared", "encoding", "text"),
    [
        ("iso-8859-1", "cp1252", "Preis: 5 € – “netto”"),
        ("us-ascii", "cp1252", "Größe"),
        ("iso-8859-8-i", "iso-8859-8", "שלום לכולם"),
        ("iso-8859-9", "cp1254", "İstanbul’da ışık"),
        ("ks_c_5601-1987", "cp949", "직원은 휴가를"),
        ("gb2312", "gb18030", "员工每年有假期"),
        ("x-sjis", "cp932", "従業員は年間"),
        ("iso-2022-jp", "iso2022_jp", "従業員は年間"),
        ("x-unknown", "utf-8", "Größe"),
        ("x-unknown", "cp1252", "Größe der Straße"),
        ("utf-16", "utf-8", "Größe"),
    ],
)
def test_a_charset_is_what_programs_mean_by_its_name(declared: str, encoding: str, text: str) -> None:
    mail = f'Subject: x\nFrom: a@example.org\nContent-Type: text/plain; charset="{declared}"\n'.encode()
    assert text in _text("a.eml", mail + b"Content-Transfer-Encoding: 8bit\n\n" + text.encode(encoding))
    page = f'<html><head><meta charset="{declared}"></head><body><p>'.encode() + text.encode(encoding)
    assert text in _text("a.html", page)


def test_a_byte_order_mark_counts_more_than_what_is_declared() -> None:
    page = "\ufeff<meta charset='iso-8859-1'><p>Größe</p>".encode()
    assert _text("a.html", page) == "Größe"


# Tables


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("id,town\n1,Aldersea\n2,Brack\n", "id: 2\ntown: Brack"),
        (",town,mayor\nx,Aldersea,Ada\ny,Brack,Bo\n", "y\ntown: Brack\nmayor: Bo"),
        ("town,mayor,born\nx,Aldersea,Ada,1950\ny,Brack,Bo,1960\n", "y\ntown: Brack\nmayor: Bo\nborn: 1960"),
        ("town,phone,phone\nBrack,12,34\nAldersea,56,78\n", "town: Aldersea\nphone: 56\nphone: 78"),
        ("town,2019,2020,2021\nBrack,1,2,3\nAldersea,4,5,6\n", "town: Aldersea\n2019: 4\n2020: 5\n2021: 6"),
        ("town,1,2\nBrack,yes,no\nAldersea,no,no\n", "town: Aldersea\n1: no\n2: no"),
        ("town;since;\nBrack;1931;\nAldersea;1402;\n", "town: Aldersea\nsince: 1402"),
        ("Harbours of 2024\n\ntown;boats\nBrack;12\nAldersea;40\n", "town: Aldersea\nboats: 40"),
        (
            "Harbours\nCreated,2024-05-01\n\ntown,boats,piers\nBrack,12,1\n",
            "town: Brack\nboats: 12\npiers: 1",
        ),
        ("town;share\nBrack;1,5\nAldersea;12,25\n", "town: Aldersea\nshare: 12,25"),
        ("sep=|\ntown|note\nBrack|a,b;c\n", "town: Brack\nnote: a,b;c"),
        ('town,note\nBrack,"a, b\nand ""c"""\n', 'town: Brack\nnote: a, b and "c"'),
        ('town,note\nBrack,"a \\"c\\", d"\n', 'town: Brack\nnote: a "c", d'),
        ('town,size\nBrack,"15\nAldersea,17\nCove,19\n', "town: Cove\nsize: 19"),
        ("code,kind\n00123,x\n00456,y\n", "code: 00456\nkind: y"),
    ],
)
def test_a_row_stands_under_the_names_of_its_columns(table: str, row: str) -> None:
    assert row in _text("a.csv", table).split("\n\n")


@pytest.mark.parametrize("table", ["1,2\n3,4\n", "Ada,HR,36\nBo,IT,41\n", "2024-01-01,5\n2024-01-02,6\n"])
def test_a_table_without_names_has_none(table: str) -> None:
    rows = [", ".join(line.split(",")) for line in table.split()]
    assert _text("a.csv", table) == "\n\n".join(rows)


def test_the_first_of_many_lines_does_not_tell_the_separator() -> None:
    rows = "".join(f"Town {n}, near the sea;{n},5;open\n" for n in range(30))
    assert "name: Town 7, near the sea\nprice: 7,5\nstate: open" in _text(
        "a.csv", "name;price;state\n" + rows
    )


PLAN = "| Plan | Term | Price |\n| --- | --- | --- |\n| Basic | monthly | 5 |\n| Basic | yearly | 50 |"


@pytest.mark.parametrize(
    "page",
    [
        "<table><tr><th>Plan</th><th>Term</th><th>Price</th></tr><tr><td rowspan=2>Basic</td><td>monthly</td>"
        "<td>5</td></tr><tr><td>yearly</td><td>50</td></tr></table>",
        "<table><tr><td>Plan<td>Term<td>Price<tr><td rowspan='2'>Basic<td>monthly<td>5<tr><td>yearly<td>50</table>",
        "<table><thead><tr><th>Plan</th><th>Term</th><th>Price</th></tr></thead><tbody><tr><td rowspan=99>Basic</td>"
        "<td>monthly</td><td>5</td></tr><tr><td>yearly</td><td>50</td></tr></tbody></table>",
    ],
)
def test_merged_cells_of_a_page_are_in_each_of_their_rows(page: str) -> None:
    assert _text("a.html", page) == PLAN


def test_merged_cells_of_a_word_file_are_in_each_of_their_rows() -> None:
    def cell(text: str, merged: str = "") -> str:
        return f"<w:tc><w:tcPr>{merged}</w:tcPr><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:tc>"

    rows = [
        cell("Plan") + cell("Term") + cell("Price"),
        cell("Basic", '<w:vMerge w:val="restart"/>') + cell("monthly") + cell("5"),
        cell("", "<w:vMerge/>") + cell("yearly") + cell("50"),
    ]
    table = "".join(f"<w:tr>{row}</w:tr>" for row in rows)
    assert _text("a.docx", files.docx_with(f"<w:body><w:tbl>{table}</w:tbl></w:body>")) == PLAN


def test_merged_cells_of_a_slide_are_in_each_of_their_rows() -> None:
    import pptx
    from pptx.util import Inches

    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    table = slide.shapes.add_table(3, 3, *map(Inches, (1, 1, 5, 2))).table
    for row, texts in enumerate((["Plan", "Term", "Price"], ["Basic", "monthly", "5"], ["", "yearly", "50"])):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    table.cell(1, 0).merge(table.cell(2, 0))
    written = io.BytesIO()
    deck.save(written)
    assert PLAN in _text("a.pptx", written.getvalue())


def _workbook(fill: Any) -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    fill(book.active)
    written = io.BytesIO()
    book.save(written)
    return written.getvalue()


def test_merged_cells_of_a_sheet_are_in_each_of_their_rows() -> None:
    def fill(sheet: Any) -> None:
        for row in (
            ["Region", "Quarter", "Sales"],
            ["North", "Q1", 10],
            [None, "Q2", 20],
            ["South", "Q1", 30],
        ):
            sheet.append(row)
        sheet.merge_cells("A2:A3")

    assert "Region: North\nQuarter: Q2\nSales: 20" in _text("a.xlsx", _workbook(fill))


def test_a_cell_is_told_as_it_is_shown() -> None:
    from datetime import datetime

    def fill(sheet: Any) -> None:
        sheet.append(["code", "share", "day", "moment", "open", "count"])
        sheet.append([123, 0.255, datetime(2024, 5, 1), datetime(2024, 5, 1, 8, 30), True, 7.0])
        for place, shape in (
            ("A2", "00000"),
            ("B2", "0.0%"),
            ("C2", "dd.mm.yyyy"),
            ("D2", "yyyy-mm-dd hh:mm"),
        ):
            sheet[place].number_format = shape

    assert _text("a.xlsx", _workbook(fill)) == (
        "# Sheet\n\ncode: 00123\nshare: 25.5%\nday: 2024-05-01\nmoment: 2024-05-01 08:30:00\nopen: TRUE\ncount: 7"
    )


def test_formulas_that_were_never_calculated_are_told() -> None:
    def fill(sheet: Any) -> None:
        sheet.append(["town", "boats"])
        sheet.append(["Brack", "=6*7"])

    [warning] = _parsed("a.xlsx", _workbook(fill)).warnings
    assert warning.startswith("sheet 'Sheet': 1 formulas have no stored value")


# Mails


def _part(kind: str, text: str, *more: str) -> str:
    return "\n".join([f"Content-Type: {kind}; charset=utf-8", *more, "", text])


def _mail(*parts: str, kind: str = "mixed") -> str:
    head = (
        f"Subject: x\nFrom: a@example.org\nMIME-Version: 1.0\nContent-Type: multipart/{kind}; boundary=b\n\n"
    )
    return head + "".join(f"--b\n{part}\n" for part in parts) + "--b--\n"


PICTURE = _part("image/png", "iVBORw0KGgo=", "Content-Transfer-Encoding: base64", "Content-ID: <1>")


def test_all_texts_of_a_mail_come_in_their_order() -> None:
    mail = _mail(
        _part("text/plain", "Before."),
        PICTURE,
        _part("text/html", "<p>Between.</p>"),
        _part("text/plain", "After."),
    )
    assert _text("a.eml", mail).endswith("Before.\n\nBetween.\n\nAfter.")


def test_of_several_forms_of_a_text_there_is_one() -> None:
    both = (
        _part("text/plain", "The pier is closed."),
        _part("text/html", "<p>The pier is <b>closed</b>.</p>"),
    )
    assert _text("a.eml", _mail(*both, kind="alternative")).count("pier") == 1
    poor = (
        _part("text/plain", "See the page."),
        _part("text/html", "<p>The pier is closed on Fridays, and so on.</p>"),
    )
    assert "Fridays" in _text("a.eml", _mail(*poor, kind="alternative"))


def test_forwarded_mails_are_read_with_their_heads() -> None:
    inner = "Content-Type: message/rfc822\n\nSubject: The contract\nFrom: c@example.org\n\nIt ends on 31 May."
    text = _text("a.eml", _mail(_part("text/plain", "See below."), inner))
    assert text.index("See below.") < text.index("Subject: The contract") < text.index("It ends on 31 May.")


def test_an_invitation_says_when_and_where() -> None:
    event = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:Harbour\\, the meeting\nDTSTART;TZID=Europe/Berlin:20240501T083000\n"
    event += "LOCATION:Room\n  12\nEND:VEVENT\nEND:VCALENDAR"
    text = _text(
        "a.eml", _mail(_part("text/plain", "Come!"), _part("text/calendar", event), kind="alternative")
    )
    assert "Come!" in text
    assert "Event: Harbour, the meeting\nStart: 2024-05-01 08:30 (Europe/Berlin)\nPlace: Room 12" in text


def test_soft_line_breaks_of_a_mail_are_undone() -> None:
    flowed = _part("text/plain; format=flowed", "The pier is \nclosed.\n-- \nAda")
    assert _text("a.eml", _mail(flowed)).endswith("The pier is closed.\n-- \nAda")


def test_attachments_that_can_be_read_are_documents_of_their_own() -> None:
    message = EmailMessage()
    message["Subject"], message["From"] = "x", "a@example.org"
    message.set_content("See the files.")
    message.add_attachment("town,boats\nBrack,12\n", filename="boats.csv")
    message.add_attachment("Second.", filename="boats.csv")
    message.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="pier.png")
    message.add_attachment(b"no pdf", maintype="application", subtype="pdf", filename="broken.pdf")
    found = dict(parse_all("a.eml", bytes(message)))
    mail = found.pop("a.eml")
    assert isinstance(mail, Parsed)
    assert "Attachments: boats.csv, boats.csv, pier.png, broken.pdf" in mail.text
    assert mail.warnings == (f"left out of it, {NEITHER}: pier.png",)
    assert {name: one.text for name, one in found.items() if isinstance(one, Parsed)} == {
        "a.eml/boats.csv": "town: Brack\nboats: 12",
        "a.eml/boats (2).csv": "Second.",
    }
    assert isinstance(found["a.eml/broken.pdf"], Unreadable)


# Pages


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("<button>How do I reset it?</button><div>Hold it.</div>", ["How do I reset it?", "Hold it."]),
        ("<details><summary>Costs?</summary><p>5 EUR</p></details>", ["Costs?", "5 EUR"]),
        ("<main></main><main><p>One</p></main><main><p>Two</p></main>", ["One", "Two"]),
        ("<main> </main><div>All of the text.</div>", ["All of the text."]),
        ("<header><h1>Leave</h1></header><p>30 days.</p>", ["# Leave", "30 days."]),
        ("<dl><dt>Router</dt><dd>A box.</dd></dl>", ["Router", "A box."]),
        (
            "<figure><img src=x alt=Plan><figcaption>The plan of 2024</figcaption></figure>",
            ["Plan", "The plan of 2024"],
        ),
        ("<p>Open.</p><aside>Closed on Fridays.</aside>", ["Open.", "Closed on Fridays."]),
        ("<ruby>漢<rp>(</rp><rt>kan</rt><rp>)</rp></ruby>", ["漢(kan)"]),
    ],
)
def test_no_text_is_lost_for_the_element_it_stands_in(page: str, said: list[str]) -> None:
    text = _text("a.html", f"<body>{page}</body>")
    assert [one for one in said if one not in text] == []


def test_navigation_scripts_and_cookie_banners_are_left_out() -> None:
    page = (
        "<nav>Home Contact</nav><div class='cookie-consent'>We use cookies. <button>Accept</button></div>"
        "<script>track()</script><p hidden>Draft</p><p>The pier is closed.</p>"
        "<footer><a href='/imprint'>Imprint</a></footer>"
    )
    assert _text("a.html", f"<body>{page}</body>") == "The pier is closed."


def test_a_page_whose_text_stands_in_its_navigation_is_kept_and_told() -> None:
    parsed = _parsed("a.html", f"<body><nav>{'The pier is closed. ' * 20}</nav><p>x</p></body>")
    assert parsed.text.count("The pier is closed.") == 20
    assert "are kept" in parsed.warnings[0]


# PDF


def test_pages_without_text_are_told_by_number() -> None:
    pages = ("one", "", "three", "", "", "six")
    assert _parsed("a.pdf", files.pdf(*pages)).warnings == ("3 of 6 pages have no text: scanned? (2, 4-5)",)


def test_what_was_filled_in_and_written_onto_a_page_is_read() -> None:
    from pypdf import PdfReader, PdfWriter
    from pypdf.annotations import FreeText
    from pypdf.generic import ArrayObject, DictionaryObject, NameObject, NumberObject, TextStringObject

    writer = PdfWriter()
    writer.append(PdfReader(io.BytesIO(files.pdf("Name of the applicant:"))))
    writer.add_annotation(0, FreeText(text="Seen by Bo", rect=(50, 550, 200, 650)))
    field = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Annot"),
            NameObject("/Subtype"): NameObject("/Widget"),
            NameObject("/FT"): NameObject("/Tx"),
            NameObject("/T"): TextStringObject("applicant"),
            NameObject("/V"): TextStringObject("Ada Example"),
            NameObject("/Rect"): ArrayObject(map(NumberObject, (0, 0, 9, 9))),
        }
    )
    page: Any = writer.pages[0]
    page["/Annots"].append(writer._add_object(field))
    written = io.BytesIO()
    writer.write(written)
    assert _text("a.pdf", written.getvalue()).splitlines()[1:] == ["Seen by Bo", "applicant: Ada Example"]


def test_a_page_that_is_broken_spoils_no_others() -> None:
    parsed = _parsed("a.pdf", files.pdf("one", "two", "three").replace(b"(two) Tj", b"(two(( Tj"))
    assert parsed.text.split() == ["one", "three"]
    [warning] = parsed.warnings
    assert warning.startswith("pages that are broken, and left out: 2 (")


def test_files_in_a_pdf_and_fields_on_no_page_are_read() -> None:
    from pypdf import PdfReader, PdfWriter
    from pypdf.generic import ArrayObject, DictionaryObject, NameObject, TextStringObject

    writer = PdfWriter()
    writer.append(PdfReader(io.BytesIO(files.pdf("one"))))
    writer.add_attachment("tides.csv", b"place,tide\nAldersea,3\n")
    names = {"/FT": NameObject("/Tx"), "/T": TextStringObject("town"), "/V": TextStringObject("Aldersea")}
    field = DictionaryObject({NameObject(name): value for name, value in names.items()})
    form = DictionaryObject({NameObject("/Fields"): ArrayObject([field])})
    writer.root_object[NameObject("/AcroForm")] = form
    written = io.BytesIO()
    writer.write(written)
    found = {
        name: one.text for name, one in parse_all("a.pdf", written.getvalue()) if isinstance(one, Parsed)
    }
    assert found == {
        "a.pdf": "one\ntown: Aldersea\nAttachments: tides.csv\n",
        "a.pdf/tides.csv": "place: Aldersea\ntide: 3",
    }


# Notebooks


def test_a_notebook_of_any_version_is_read() -> None:
    old = {
        "nbformat": 3,
        "metadata": {"name": ""},
        "worksheets": [
            {
                "cells": [
                    {"cell_type": "heading", "level": 2, "source": ["Tides"]},
                    {
                        "cell_type": "code",
                        "language": "python",
                        "input": "tide()",
                        "outputs": [{"text": ["3 m"]}],
                    },
                ]
            }
        ],
    }
    assert _text("a.ipynb", json.dumps(old)) == "## Tides\n\n```python\ntide()\n```\n\n```\n3 m\n```"
    odd = {
        "metadata": {"kernelspec": None, "language_info": {"name": "R"}},
        "cells": [None, {"source": None}, {"cell_type": "code", "source": ["tide()"], "outputs": None}],
    }
    assert _text("a.ipynb", json.dumps(odd)) == "```R\ntide()\n```"


def test_long_outputs_of_a_notebook_are_cut_and_told() -> None:
    cell = {"cell_type": "code", "source": "print(x)", "outputs": [{"text": "9" * 5_000}]}
    parsed = _parsed("a.ipynb", json.dumps({"cells": [cell], "metadata": {}}))
    assert len(parsed.text) < 2_200
    assert parsed.warnings == ("a cell's output of 5000 characters is cut to 2000",)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ({"output_type": "error", "ename": "TideError", "evalue": "too low"}, "TideError: too low"),
        ({"text": "\x1b[31mhigh\x1b[0m tide"}, "```\nhigh tide\n```"),
        ({"text": "10 %\r50 %\r100 %\n"}, "```\n100 %\n```"),
        ({"data": {"text/html": ["<p>3 <b>m</b></p>"]}}, "3 **m**"),
        ({"data": {"text/markdown": "# High"}}, "# High"),
        ({"data": {"text/latex": "$3m$", "image/png": "iVBO"}}, "$3m$"),
        ({"html": "<p>3 m</p>"}, "3 m"),
        ({"data": {"application/json": {"tide": 3}}}, "tide: 3"),
    ],
)
def test_what_came_of_a_cell_is_told(output: dict[str, Any], said: str) -> None:
    cell = {"cell_type": "code", "source": "", "outputs": [None, output]}
    assert said in _text("a.ipynb", json.dumps({"cells": [cell]}))


def test_odd_cells_spoil_no_notebook() -> None:
    cells = [
        {"cell_type": "heading", "level": "x", "source": "One"},
        {"cell_type": "code", "source": ["say('''\n", ["```"], "''')"], "language": ["?"]},
    ]
    book = {"metadata": {"language_info": {"name": ["?"]}}, "worksheets": [None, {"cells": cells}]}
    assert _text("a.ipynb", json.dumps(book)) == "# One\n\n````python\nsay('''\n```''')\n````"


# Data


def test_numbers_and_repeated_names_of_data_stay_as_they_are() -> None:
    assert _text("a.json", '{"price": 1.10, "a": 1, "a": 2, "e": 1e5}') == "price: 1.10\na: 1\na: 2\ne: 1e5"


def test_a_line_that_is_no_json_stays_and_is_told() -> None:
    parsed = _parsed("a.jsonl", '{"a": 1}\n{"a": 2\n{"a": 3}')
    assert parsed.text == 'a: 1\n\n{"a": 2\n\na: 3'
    assert parsed.warnings[0].startswith("1 of 3 lines stay as they are: line 2 is not JSON")
    assert _text("a.json", '{"a": 1}\n{"a": 2}') == "a: 1\n\na: 2"
    assert _text("a.jsonl", '{\n"a": 1\n}\n') == "a: 1"


def test_half_a_character_in_data_is_replaced_and_told() -> None:
    parsed = _parsed("a.json", '{"a": "x \\ud83d"}')
    assert parsed.text == "a: x \ufffd"
    assert "half a surrogate pair" in parsed.warnings[0]


# What is hidden, repeated or nested in pages, and what tables say in several rows


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (
            "<title>Leave – Handbook</title><h1>Leave</h1><h2>Sick</h2><p>x</p>",
            "# Leave – Handbook\n\n## Leave\n\n### Sick\n\nx",
        ),
        ("<title>All about leave – ACME</title><h1>All about leave</h1><p>x</p>", "# All about leave\n\nx"),
        ("<header><h1>Leave</h1></header><main><p>28 days.</p></main>", "# Leave\n\n28 days."),
        ("<p>Go <svg><title>Icon</title><text>42 %</text></svg></p>", "Go 42 %"),
        (
            "<input type=checkbox checked> yes <input type=radio> no <input value='Ada'> ",
            "[x] yes [ ] no Ada",
        ),
        ("<select><option>S<option selected>M</select>", "S / M"),
        ("<ol type='a'><li>one</li><li>two</li></ol>", "* a. one\n* b. two"),
        ("<ol start='3'><li>one</li><li value='7'>two</li></ol>", "* 3. one\n* 7. two"),
        ("<p>a_b * c</p>", "a_b * c"),
    ],
)
def test_a_page_says_what_a_reader_sees(page: str, said: str) -> None:
    assert _text("a.html", page) == said


def test_what_a_page_hides_is_told_and_kept_if_it_is_most_of_it() -> None:
    answer = "Leave is 28 days a year for everybody."
    parsed = _parsed("a.html", f"<p>{'Seen. ' * 20}</p><p style='display:none'>{answer}</p>")
    assert answer not in parsed.text
    assert parsed.warnings == (f"{len(answer)} characters that the page hides are left out",)
    parsed = _parsed("a.html", f"<p>How long?</p><p hidden>{answer}</p>")
    assert answer in parsed.text
    assert parsed.warnings[0].startswith("most of its text is hidden until a script shows it")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            "<tr><th rowspan=2>Town<th colspan=2>2024</tr><tr><th>Q1<th>Q2</tr><tr><td>Oslo<td>5<td>6</tr>",
            ["| Town | 2024 Q1 | 2024 Q2 |", "| --- | --- | --- |", "| Oslo | 5 | 6 |"],
        ),
        (
            "<thead><tr><th>Kind<th>Fee</thead><tbody><tr><td>A<td>5</tbody><tfoot><tr><td>Sum<td>5</tfoot>",
            ["| Kind | Fee |", "| --- | --- |", "| A | 5 |", "| Sum | 5 |"],
        ),
        (
            "<tr><th>Who<th>What</tr><tr><td>a | b<td><table><tr><td>x<td>1<tr><td>y<td>2</table></tr>",
            ["| Who | What |", "| --- | --- |", "| a \\| b | x: 1; y: 2 |"],
        ),
        ("<tr><td><table><tr><td><p>Dear Ada,</p></table></tr>", ["Dear Ada,"]),
        (
            "<tr><th>A<th>B</tr><tr><td rowspan=0>1<td>2</tr><tr><td>3</tr>",
            ["| A | B |", "| --- | --- |", "| 1 | 2 |", "| 1 | 3 |"],
        ),
    ],
)
def test_tables_of_pages_are_plain(table: str, said: list[str]) -> None:
    assert _text("a.html", f"<table>{table}</table>").splitlines() == said


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (",2023,,2024\n,Q1,Q2,Q1\nNorth,1,2,3\nSouth,4,5,6\n", "South\n2023 Q1: 4\n2023 Q2: 5\n2024 Q1: 6"),
        ("name,age\nAda,36\n\ntown,people\nOslo,700000\nBergen,290000\n", "town: Bergen\npeople: 290000"),
        ("name,age\nAda,36\n\nBob,41\nCy,7\n", "name: Bob\nage: 41"),
        ("id,text\n1,'a, b'\n2,'c; d, e'\n", "id: 2\ntext: c; d, e"),
    ],
)
def test_rows_stand_under_their_own_tables_names(table: str, said: str) -> None:
    assert said in _text("a.csv", table).split("\n\n")


# Mails as they should not be


@pytest.mark.parametrize("head", ["multipart/mixed; boundary=other", "multipart/mixed"])
def test_a_mail_that_is_not_divided_as_it_says_loses_nothing(head: str) -> None:
    part = (
        "--B\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nTMO2d2U=\n--B--\n"
    )
    assert _text("a.eml", f"From: a@b.c\nContent-Type: {head}\n\n{part}").endswith("Löwe")


def test_a_mail_forwarded_as_base64_is_read() -> None:
    inner = base64.b64encode(b"From: c@d.e\nSubject: Inner\n\nThe fee is 5.").decode()
    part = f"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n{inner}"
    text = _text("a.eml", f"From: a@b.c\nContent-Type: multipart/mixed; boundary=B\n\n--B\n{part}\n--B--\n")
    assert text.endswith("Subject: Inner\nFrom: c@d.e\n\nThe fee is 5.")


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_a_mails_head_may_have_bare_letters(encoding: str) -> None:
    assert _text("a.eml", "\r\nFrom: a@b.c\nSubject: Größe\n\nx".encode(encoding)).startswith(
        "Subject: Größe\n"
    )


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (
            "message/delivery-status\n\nReporting-MTA: x\n\nFinal-Recipient: bo\nStatus: 5.1.1\n",
            "Status: 5.1.1",
        ),
        ("text/plain\nContent-Disposition: attachment\n\nwithout a name", "without a name"),
        ("text/plain; format=flowed; delsp=yes\n\nDonau \ndampf\n-- \nAda", "Donaudampf\n-- \nAda"),
        (
            'text/calendar\n\nBEGIN:VEVENT\nSUMMARY:Tea\nSTATUS:CANCELLED\nATTENDEE;CN="Bo: B":mailto:bo@x.y\n'
            "BEGIN:VALARM\nDESCRIPTION:Ring\nEND:VALARM\nEND:VEVENT\n",
            "Event: Tea\nStatus: CANCELLED\nAttendee: Bo: B <bo@x.y>",
        ),
    ],
)
def test_parts_of_mails_are_read(part: str, said: str) -> None:
    text = _text(
        "a.eml",
        f"From: a@b.c\nContent-Type: multipart/mixed; boundary=B\n\n--B\nContent-Type: {part}\n--B--\n",
    )
    assert text.rstrip().endswith(said)


def test_a_mail_that_is_encrypted_is_told() -> None:
    mail = "From: a@b.c\nSubject: Fee\nContent-Type: application/pkcs7-mime; name=smime.p7m\n\nx"
    assert _parsed("a.eml", mail).warnings == ("it is encrypted, or signed as a whole: its text is not read",)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", b"only its last letter is cut, \xc3"),
        ("a.eml", b"From: a@b.c\nContent-Type: text/plain; charset=utf-8\n\nf\xc3 r"),
    ],
)
def test_a_letter_that_is_cut_is_no_letter_of_another_encoding(name: str, data: bytes) -> None:
    parsed = _parsed(name, data)
    assert "\ufffd" in parsed.text
    assert parsed.warnings == ("1 place is not UTF-8 and replaced by \ufffd",)


@pytest.mark.parametrize("text", ["Ärger", "Olé", "À la carte", "Ende: Ü", "SÃO"])
def test_letters_of_western_europe_stay(text: str) -> None:
    assert _text("a.txt", text.encode("cp1252")) == text


@pytest.mark.parametrize(
    "tag",
    [
        "address",
        "aside",
        "button",
        "details",
        "fieldset",
        "figure",
        "form",
        "label",
        "main",
        "summary",
        "x-card",
    ],
)
def test_numbers_in_two_places_of_a_page_are_not_one(tag: str) -> None:
    page = f"<p>{'Text. ' * 40}</p><{tag}>5</{tag}><{tag}>6</{tag}>"
    assert "56" not in _text("a.html", f"<body>{page}</body>")


def test_only_what_asks_for_cookies_is_a_banner() -> None:
    kept = "<div id='consent-form'>I consent to 5 mg. <a href='/x'>Sign</a></div><div class='cookie'>Bake the cookies.</div>"
    gone = "<div class='cookie-consent'>We use cookies. <button>Accept</button></div>"
    text = _text("a.html", f"<body>{gone}{kept}</body>")
    assert text.split("\n\n") == ["I consent to 5 mg. Sign", "Bake the cookies."]


def test_links_within_a_site_are_their_words() -> None:
    away = "<a href='https://a.example/y' title='A page'>a page</a> and <a href='//b.example/z'>another</a>"
    page = f"<p>See <a href='pkg.html#x' title='7.9. What is it?'>Section 7.9</a>, {away}: <a href='n.html'>one</a><a href=''>two</a></p>"
    told = "See Section 7.9, [a page](https://a.example/y) and [another](//b.example/z): one two"
    assert _text("a.html", page) == told


def test_what_leads_from_page_to_page_of_a_manual_is_left_out() -> None:
    text = "<p>A virtual package is a generic name for packages that provide the same.</p>"
    declared = '<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n<!DOCTYPE html>'
    ahead = "<div class='navheader'><table><tr><th>Chapter 7</th></tr><tr><td><a href='6.html'>Prev</a></td></tr></table></div>"
    rest = "<div class='header'><p>Next: <a href='8.html' rel='next'>Tools</a>, Up: <a rel='up' href='.'>The manual</a></p></div>"
    page = f"{declared}<html><body>{ahead}{rest}<h1>Packages</h1>{text}<p>More in the <a rel='next' href='8.html'>next</a> chapter.</p></body></html>"
    assert _text("a.html", page) == (
        "# Packages\n\nA virtual package is a generic name for packages that provide the same.\n\nMore in the next chapter."
    )


def test_a_pages_table_of_contents_is_left_out_and_one_of_other_pages_stays() -> None:
    contents = "<div class='toc'><p><b>Contents</b></p><dl><dt>1. <a href='#a'>Virtual packages</a></dt><dt>2. <a href='p.html#b'>Real packages</a></dt></dl></div>"
    text = "<h2 id='a'>Virtual packages</h2><p>A generic name.</p><h2><a name='b'></a>Real packages</h2><p>They have files.</p>"
    assert _text("a.html", f"{contents}{text}") == (
        "## Virtual packages\n\nA generic name.\n\n## Real packages\n\nThey have files."
    )
    assert "Real packages" in _text("index.html", f"<h1>The manual</h1>{contents}")


def test_names_of_columns_may_have_an_empty_corner() -> None:
    table = "<table><tr><td></td><th>2023</th></tr><tr><th>North</th><td>5</td></tr></table>"
    assert _text("a.html", table).splitlines() == ["|  | 2023 |", "| --- | --- |", "| North | 5 |"]


def test_a_byte_order_mark_may_come_twice() -> None:
    assert _text("a.csv", "\ufeff\ufeffid,name\n1,Ada\n") == "id: 1\nname: Ada"
