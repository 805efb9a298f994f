"""Marks that bear meaning: what is raised or lowered changes no number, and words that lines break are found whole."""

from __future__ import annotations

import io
from typing import Any

import pytest

from llmbackend.answers.links import inert
from llmbackend.engines.bm25 import Multilingual
from llmbackend.files.parsing import parse
from llmbackend.text.legible import legible, with_parts
from tests import files


def _text(name: str, data: bytes | str) -> str:
    return parse(name, data.encode() if isinstance(data, str) else data).text


# What is raised or lowered


def test_raised_and_lowered_digits_do_not_change_numbers() -> None:
    page = "<p>14<sup><a href='#n1'>1</a></sup> days, 10<sup>6</sup> tries, 20<sup>2</sup> m<sup>2</sup>, H<sub>2</sub>O</p>"
    assert _text("a.html", page) == "14¹ days, 10^6 tries, 20² m², H₂O"
    raised = "<w:r><w:rPr><w:vertAlign w:val='superscript'/></w:rPr><w:t>1</w:t></w:r>"
    body = f"<w:body><w:p><w:r><w:t>14</w:t></w:r>{raised}<w:r><w:t xml:space='preserve'> days</w:t></w:r></w:p></w:body>"
    assert _text("a.docx", files.docx_with(body)) == "14¹ days"


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("14<span style='font-size: 60%; vertical-align:super'>1</span> days", "14¹ days"),
        ("14<span class='sup'>1</span> days", "14¹ days"),
        ("14<sup>a</sup> days, the 1<sup>st</sup>", "14^a days, the 1st"),
        ("14<sup>1, 2</sup> days", "14¹, ² days"),
        ("2<sup>1/2</sup> cups", "2^(1/2) cups"),
        ("<math><mn>10</mn></math> <math><msup><mn>10</mn><mn>6</mn></msup></math>", "10 10^6"),
        ("<math><mfrac><mn>1</mn><mn>2</mn></mfrac></math> cup", "1/2 cup"),
        ("<math><mi>x</mi><annotation encoding='application/x-tex'>x^2</annotation></math>", "$x^2$"),
    ],
)
def test_what_is_raised_by_other_means_changes_no_number(page: str, said: str) -> None:
    assert _text("a.html", f"<body><p>{page}</p></body>") == said


def _run(text: str, properties: str = "") -> str:
    return f"<w:r><w:rPr>{properties}</w:rPr><w:t xml:space='preserve'>{text}</w:t></w:r>"


@pytest.mark.parametrize("how", ["<w:position w:val='6'/>", "<w:rStyle w:val='Raised'/>"])
def test_word_raises_by_position_and_by_style(how: str) -> None:
    styles = (
        "<w:style w:type='character' w:styleId='Base'><w:rPr><w:vertAlign w:val='superscript'/></w:rPr></w:style>"
        "<w:style w:type='character' w:styleId='Raised'><w:basedOn w:val='Base'/></w:style>"
    )
    body = f"<w:body><w:p>{_run('14')}{_run('1', how)}{_run(' days')}</w:p></w:body>"
    assert _text("a.docx", files.docx_with(body, styles=styles)) == "14¹ days"


def test_word_formulas_are_text() -> None:
    namespace = "xmlns:m='http://schemas.openxmlformats.org/officeDocument/2006/math'"
    power = "<m:sSup><m:e><m:r><m:t>10</m:t></m:r></m:e><m:sup><m:r><m:t>6</m:t></m:r></m:sup></m:sSup>"
    half = "<m:f><m:num><m:r><m:t>1</m:t></m:r></m:num><m:den><m:r><m:t>2</m:t></m:r></m:den></m:f>"
    formulas = "".join(f"<m:oMath {namespace}>{one}</m:oMath>{_run(' m ')}" for one in (power, half))
    text = _text("a.docx", files.docx_with(f"<w:body><w:p>{_run('Up to ')}{formulas}</w:p></w:body>"))
    assert text == "Up to $10^{6}$ m 1/2 m"


def test_raised_digits_of_a_slide_change_no_number() -> None:
    import pptx

    deck: Any = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    slide.shapes.title.text = "Leave"
    paragraph = slide.shapes.add_textbox(0, 9, 9, 9).text_frame.paragraphs[0]
    for text, baseline in (("14", 0), ("1", 30_000), (" days, H", 0), ("2", -25_000), ("O", 0)):
        run = paragraph.add_run()
        run.text = text
        run._r.get_or_add_rPr().set("baseline", str(baseline))
    written = io.BytesIO()
    deck.save(written)
    assert _text("a.pptx", written.getvalue()) == "# Leave\n\n14¹ days, H₂O\n"


def test_raised_digits_of_a_cell_change_no_number() -> None:
    from openpyxl.cell.rich_text import CellRichText, TextBlock
    from openpyxl.cell.text import InlineFont

    raised, lowered = (InlineFont(vertAlign=f"{place}script") for place in ("super", "sub"))
    water = CellRichText("H", TextBlock(lowered, "2"), "O & <more>")
    book = files.xlsx([["days", water], [CellRichText("14", TextBlock(raised, "1"), " days"), "x"]])
    assert _text("a.xlsx", book) == "# Sheet\n\ndays: 14¹ days\nH₂O & <more>: x"


@pytest.mark.parametrize(
    "small",
    [
        "/F1 7 Tf 4 Ts (1) Tj /F1 12 Tf 0 Ts",
        "/F1 7 Tf 4 Ts (1) Tj 0 Ts /F1 12 Tf",
        "4 Ts (1) Tj 0 Ts",
        "/F1 7 Tf 68 5 Td (1) Tj /F1 12 Tf 4 -5 Td",
        "/F1 7 Tf 1 0 0 1 138.7 724 Tm (1) Tj /F1 12 Tf 1 0 0 1 142.6 720 Tm",
        "0.6 0 0 0.6 138.7 724 Tm (1) Tj 1 0 0 1 142.6 720 Tm",
    ],
)
def test_raised_digits_of_a_pdf_change_no_number(small: str) -> None:
    written = f"BT /F1 12 Tf 1 0 0 1 72 720 Tm (You have 14) Tj {small} ( days) Tj ET"
    assert _text("a.pdf", files.pdf_with(written)) == "You have 14¹ days\n"


def test_what_is_raised_changes_no_number_of_an_answer() -> None:
    assert inert("14<sup>1</sup> days, 5<br>6, <td>7</td><td>8</td>", "host") == "14^1 days, 5 6,  7 8"


# Words in one piece


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("an agree-\nment", "an agreement"),
        ("an agree-\r\n   ment", "an agreement"),
        ("Donau\u00addampf\u00ad\nschiff", "Donaudampfschiff"),
        ("Wort\u2010\nteil", "Wortteil"),
        ("eine E-\nMail", "eine E-Mail"),
        ("2020-\n2024, a -\nb", "2020-\n2024, a -\nb"),
        ("- one\n- two", "- one\n- two"),
        ("o\u200bf\ufb01ce", "office"),
        ("14¹ of 2½ m²", "14 ¹ of 2 ½ m²"),
    ],
)
def test_words_are_searched_in_one_piece(text: str, said: str) -> None:
    assert legible(text) == said


def test_a_hyphen_at_a_lines_end_may_be_the_words_own() -> None:
    encoder = Multilingual()
    found = set(encoder.document(with_parts("a well-\nknown agree-\nment")).indices)
    for word in ("well", "known", "wellknown", "agreement"):
        assert found.intersection(encoder.query(word).indices), word
