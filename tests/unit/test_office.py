"""What Word, PowerPoint and Excel show a reader comes out of their files, and what they hide is told."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest

from llmbackend.files.formats.cell_numbers import shown
from llmbackend.files.parsed import Parsed
from llmbackend.files.parsing import parse
from tests import files


def _run(text: str, properties: str = "") -> str:
    return f"<w:r><w:rPr>{properties}</w:rPr><w:t xml:space='preserve'>{text}</w:t></w:r>"


def _paragraph(*runs: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr>{''.join(runs)}</w:p>"


def _word(*body: str, **parts: str) -> Parsed:
    return parse("a.docx", files.docx_with(f"<w:body>{''.join(body)}</w:body>", **parts))


# Word

_MC = "xmlns:mc='http://schemas.openxmlformats.org/markup-compatibility/2006'"
_WPS = "xmlns:wps='http://schemas.microsoft.com/office/word/2010/wordprocessingShape'"


def _box(text: str) -> str:
    return f"<w:drawing><wps:txbx {_WPS}><w:txbxContent>{_paragraph(_run(text))}</w:txbxContent></wps:txbx></w:drawing>"


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (f"<w:fldSimple w:instr='REF x'>{_run('in a field')}</w:fldSimple>", "in a field"),
        (f"<w:bdo w:val='rtl'>{_run('the other way')}</w:bdo>", "the other way"),
        (
            f"<w:r><w:ruby><w:rt>{_run('とうきょう')}</w:rt><w:rubyBase>{_run('東京')}</w:rubyBase></w:ruby></w:r>",
            "東京(とうきょう)",
        ),
        (f"<w:r>{_box('in a box')}</w:r>", "in a box"),
        (
            f"<w:r><mc:AlternateContent {_MC}><mc:Choice>{_box('in a box')}</mc:Choice></mc:AlternateContent></w:r>",
            "in a box",
        ),
        (
            f"<w:del><w:r><w:delText>100</w:delText></w:r></w:del><w:ins>{_run('120')}</w:ins>",
            "120",
        ),
        (_run("50", "<w:dstrike/>"), "~~50~~"),
        (_run("a_b * c | d"), "a_b * c | d"),
    ],
)
def test_no_text_of_a_paragraph_is_lost_or_bent(runs: str, said: str) -> None:
    assert _word(_paragraph(runs)).text == said


def test_notes_and_comments_stand_below_their_paragraph() -> None:
    parsed = _word(
        _paragraph(_run("28 days"), "<w:r><w:footnoteReference w:id='2'/></w:r>", _run(" of leave.")),
        _paragraph(_run("5,000 euros."), "<w:r><w:commentReference w:id='0'/></w:r>"),
        _paragraph(_run("The end."), "<w:r><w:endnoteReference w:id='3'/></w:r>"),
        footnotes=f"<w:footnote w:id='2'>{_paragraph(_run('14 in the first year.'))}</w:footnote>",
        endnotes=f"<w:endnote w:id='3'>{_paragraph(_run('See the annex.'))}</w:endnote>",
        comments=f"<w:comment w:id='0' w:author='Ada'>{_paragraph(_run('Rather 6,000.'))}</w:comment>",
    )
    assert parsed.text.split("\n\n") == [
        "28 days[^1] of leave.",
        "[^1]: 14 in the first year.",
        "5,000 euros.",
        "Comment by Ada: Rather 6,000.",
        "The end.[^2]",
        "[^2]: See the annex.",
    ]


def test_what_pages_have_above_and_below_is_told_once_without_page_numbers() -> None:
    number = "<w:r><w:instrText> PAGE </w:instrText></w:r>"
    parsed = _word(
        _paragraph(_run("Body.")),
        header=_paragraph(_run("Contract 4711")) * 2,
        footer=_paragraph(_run("Page "), number) + _paragraph(_run("Version 3")),
    )
    assert parsed.text == "Contract 4711\n\nVersion 3\n\nBody."


def test_hidden_text_is_left_out_and_told() -> None:
    style = "<w:style w:type='paragraph' w:styleId='Unseen'><w:rPr><w:vanish/></w:rPr></w:style>"
    parsed = _word(
        _paragraph(_run("Seen."), _run(" Unseen.", "<w:vanish/>")),
        _paragraph("<w:r><w:t>Nor this.</w:t></w:r>", properties="<w:pStyle w:val='Unseen'/>"),
        styles=style,
    )
    assert (parsed.text, parsed.warnings) == ("Seen.", ("16 characters of hidden text are left out",))


def test_notes_on_deleted_text_are_deleted() -> None:
    reference = "<w:r><w:footnoteReference w:id='2'/></w:r>"
    parsed = _word(
        _paragraph(_run("Kept."), f"<w:del>{reference}</w:del>"),
        footnotes=f"<w:footnote w:id='2'>{_paragraph(_run('Gone.'))}</w:footnote>",
    )
    assert parsed.text == "Kept."


def test_titles_and_headings_by_whatever_style_are_headings() -> None:
    styles = "".join(
        f"<w:style w:type='paragraph' w:styleId='{id}'><w:name w:val='{name}'/>{more}</w:style>"
        for id, name, more in (
            ("Titel", "Title", ""),
            ("Eigene", "Own", "<w:basedOn w:val='Heading1'/>"),
            ("Gliederung", "Outline", "<w:pPr><w:outlineLvl w:val='1'/></w:pPr>"),
        )
    )
    parsed = _word(
        *(
            _paragraph(_run(text), properties=f"<w:pStyle w:val='{style}'/>")
            for text, style in (("Handbook", "Titel"), ("Leave", "Eigene"), ("Sick", "Gliederung"))
        ),
        _paragraph(_run("Notes"), properties="<w:outlineLvl w:val='2'/>"),
        styles=styles,
    )
    assert parsed.text == "# Handbook\n\n## Leave\n\n### Sick\n\n#### Notes"


def test_numbers_that_word_counts_are_written_down() -> None:
    levels = "".join(
        f"<w:lvl w:ilvl='{number}'><w:start w:val='{start}'/><w:numFmt w:val='{kind}'/><w:lvlText w:val='{shape}'/></w:lvl>"
        for number, start, kind, shape in ((0, 3, "decimal", "§ %1"), (1, 1, "lowerLetter", "%1.%2)"))
    )
    numbering = (
        f"<w:abstractNum w:abstractNumId='0'>{levels}</w:abstractNum>"
        "<w:num w:numId='1'><w:abstractNumId w:val='0'/></w:num>"
    )

    def item(text: str, level: int, more: str = "") -> str:
        properties = f"{more}<w:numPr><w:ilvl w:val='{level}'/><w:numId w:val='1'/></w:numPr>"
        return _paragraph(_run(text), properties=properties)

    heading = "<w:pStyle w:val='Heading1'/>"
    parsed = _word(
        item("Fees", 0, heading), item("Rent", 1), item("Heat", 1), item("Term", 0, heading), item("A year", 1),
        numbering=numbering,
    )  # fmt: skip
    assert parsed.text.split("\n\n") == [
        "# § 3 Fees", "3.a) Rent", "3.b) Heat", "# § 4 Term", "4.a) A year",
    ]  # fmt: skip


def _table(*rows: str) -> str:
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in rows)}</w:tbl>"


def _cells(*texts: str) -> str:
    return "".join(f"<w:tc>{text if '<' in text else _paragraph(_run(text))}</w:tc>" for text in texts)


def test_cells_of_word_stand_in_their_columns() -> None:
    skipped = f"<w:trPr><w:gridBefore w:val='1'/></w:trPr>{_cells('36', 'Oslo')}"
    inner = _table(_cells("x", "1"), _cells("y", "2"))
    parsed = _word(
        _table(
            _cells("Name", "Age", "Town"),
            skipped,
            _cells("Ada | Bob", _paragraph(_run("see")) + inner, "Bonn"),
        )
    )
    assert parsed.text.splitlines()[2:] == ["|  | 36 | Oslo |", "| Ada \\| Bob | see x: 1; y: 2 | Bonn |"]


def test_a_row_skips_columns_once() -> None:
    """A few bytes would make a hundred thousand cells."""
    skipped = "<w:trPr>" + "<w:gridBefore w:val='1'/>" * 3 + f"</w:trPr>{_cells('36', 'Oslo')}"
    parsed = _word(_table(_cells("Name", "Age", "Town"), skipped))
    assert parsed.text.splitlines()[-1] == "|  | 36 | Oslo |"


# Slides


def _deck(fill: Any) -> Parsed:
    import pptx

    deck = pptx.Presentation()
    fill(deck)
    written = io.BytesIO()
    deck.save(written)
    return parse("a.pptx", written.getvalue())


def _slide(deck: Any, title: str, *boxes: str) -> Any:
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    slide.shapes.title.text = title
    for text in boxes:
        slide.shapes.add_textbox(0, 0, 9, 9).text_frame.text = text
    return slide


def test_a_slide_is_its_title_its_texts_and_its_notes() -> None:
    def fill(deck: Any) -> None:
        slide = _slide(deck, "Two\nlines", "above the title")
        slide.notes_slide.notes_text_frame.text = "Smile."
        _slide(deck, "Unseen", "still read")._element.set("show", "0")
        deck.slides.add_slide(deck.slide_layouts[6])

    parsed = _deck(fill)
    assert parsed.text.split("\f") == [
        "# Two lines\n\nabove the title\n\n### Notes:\nSmile.\n",
        "# Unseen\n\nstill read\n",
        "\n",
    ]
    assert parsed.warnings == (
        "slides that are hidden in the presentation: 2",
        "1 of 3 slides have no text: pictures?",
    )


def test_charts_and_comments_of_slides_are_read() -> None:
    from pptx.chart.data import CategoryChartData, XyChartData
    from pptx.enum.chart import XL_CHART_TYPE
    from pptx.opc.package import Part
    from pptx.opc.packuri import PackURI

    office = "http://schemas.openxmlformats.org"

    def fill(deck: Any) -> None:
        by_quarter: Any = CategoryChartData()
        by_quarter.categories = ["Q1", "Q2"]
        by_quarter.add_series("Sales", (1.5, None))
        _slide(deck, "Bars").shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, 0, 0, 9, 9, by_quarter)
        points: Any = XyChartData()
        points.add_series("Tide").add_data_point(1, 2.5)
        slide = _slide(deck, "Points")
        slide.shapes.add_chart(XL_CHART_TYPE.XY_SCATTER, 0, 0, 9, 9, points)
        comment = f"<p:cmLst xmlns:p='{office}/presentationml/2006/main'><p:cm><p:text>Check 42</p:text></p:cm></p:cmLst>"
        kind = "application/vnd.openxmlformats-officedocument.presentationml.comments+xml"
        part = Part(PackURI("/ppt/comments/comment1.xml"), kind, slide.part.package, comment.encode())
        slide.part.relate_to(part, f"{office}/officeDocument/2006/relationships/comments")

    bars, points = _deck(fill).text.split("\f")
    assert bars.splitlines()[2:] == ["|  | Sales |", "| --- | --- |", "| Q1 | 1.5 |", "| Q2 |  |"]
    assert points.splitlines()[4:] == ["| Tide | 1 | 2.5 |", "", "Comment: Check 42"]


# Workbooks


@pytest.mark.parametrize(
    ("value", "format", "said"),
    [
        (1234.5, '#,##0.00 "€"', "1234.50 €"),
        (-1234.5, '#,##0.00 [$€-407];[Red](#,##0.00 [$€-407])', "-1234.50 €"),
        (1234.5, "_-* #,##0.00_-", "1234.50"),
        (0.125, "0.0 %", "12.5 %"),
        (42, "00000", "00042"),
        (7, '"AB-"0000', "AB-0007"),
        (301234567, "000-000-000", "301-234-567"),
        (5, '0 "days"', "5 days"),
        (12345678, '0.0,,"M"', "12.3M"),
        (1, '"yes";;"no"', "yes"),
        (0, '"yes";;"no"', "no"),
        (2.5, '0;-0', "3"),
        (0.75, "# ?/?", "0.75"),
        (5, "[>100]0;0.0", "5"),
        (0.1 + 0.2, "General", "0.3"),
        (1234567, "0.00E+00", "1.23E+06"),
        (5, 'General" kg"', "5 kg"),
        (3, "@", "3"),
        (1.5, "", "1.5"),
    ],
)  # fmt: skip
def test_a_number_is_told_as_it_is_shown(value: float, format: str, said: str) -> None:
    assert shown(value, format) == said


def _book(fill: Any) -> Parsed:
    import openpyxl

    book = openpyxl.Workbook()
    fill(book)
    written = io.BytesIO()
    book.save(written)
    return parse("a.xlsx", written.getvalue())


def test_what_a_workbook_hides_is_read_and_told() -> None:
    def fill(book: Any) -> None:
        book.active.append(["name", "age"])
        book.active.append(["Ada", 36])
        book.active.append(["Bob", "#REF!"])
        book.active.row_dimensions[3].hidden = True
        book.active.column_dimensions["B"].hidden = True
        other = book.create_sheet("Other")
        other.append(["x"])
        other.sheet_state = "veryHidden"

    parsed = _book(fill)
    assert parsed.text == "# Sheet\n\nname: Ada\nage: 36\n\nname: Bob\nage: #REF!\n\n# Other\n\nx"
    assert parsed.warnings == (
        "sheet 'Sheet': rows hidden in the workbook: 1",
        "sheet 'Sheet': columns, or ranges of them, hidden in the workbook: 1",
        "sheet 'Sheet': cells with an error, as #REF! is one, in place of a value: 1",
        "sheet 'Other' is hidden in the workbook",
    )


def test_notes_and_durations_of_cells_are_told() -> None:
    from openpyxl.comments import Comment

    def fill(book: Any) -> None:
        book.active.append(["what", "how long"])
        book.active.append(["leave", timedelta(hours=36)])
        book.active["A2"].comment = Comment("Ask Ada", "Bob")
        book.active["D9"].comment = Comment("Beside all", "Bob")

    parsed = _book(fill)
    assert parsed.text == (
        "# Sheet\n\nwhat: leave [Note: Ask Ada]\nhow long: 36:00\n\nNote on D9: Beside all"
    )
