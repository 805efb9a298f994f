"""OpenDocument texts: everything that LibreOffice shows, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from llmbackend.files.parsed import Unreadable
from llmbackend.files.parsing import parse
from tests import files

STYLES = """
<style:style style:name="P1" style:parent-style-name="Title"/>
<style:style style:name="T1"><style:text-properties style:text-position="super 58%"/></style:style>
<style:style style:name="T2"><style:text-properties style:text-position="-33% 58%"/></style:style>
<text:list-style style:name="L1">
<text:list-level-style-number text:level="1" style:num-format="1"/><text:list-level-style-bullet text:level="2"/>
</text:list-style>"""


def _text(body: str, **parts: Any) -> str:
    return parse("a.odt", files.odt(body, STYLES, **parts)).text


def _cell(text: str, about: str = "") -> str:
    return f"<table:table-cell {about}><text:p>{text}</text:p></table:table-cell>"


def test_headings_stand_below_the_title() -> None:
    heading = '<text:h text:outline-level="1">Berths</text:h>'
    assert _text(heading) == "# Berths"
    assert _text(f'<text:p text:style-name="P1">Harbour</text:p>{heading}') == "# Harbour\n\n## Berths"
    counted = f"<text:list><text:list-item>{heading}</text:list-item></text:list>"
    assert _text(counted) == "# Berths"


def test_lists_count_where_they_do() -> None:
    def items(*said: str) -> str:
        return "".join(f"<text:list-item>{one}</text:list-item>" for one in said)

    inner = f"<text:p>first</text:p><text:list>{items('<text:p>inner</text:p>')}</text:list>"
    listed = f'<text:list text:style-name="L1">{items(inner, "<text:p>second</text:p>")}</text:list>'
    assert _text(listed) == "1. first\n\n   * inner\n2. second"


def test_marks_and_spaces_are_kept_apart() -> None:
    mark = '14<text:span text:style-name="T1">1</text:span> days, H<text:span text:style-name="T2">2</text:span>O'
    assert _text(f"<text:p>{mark}</text:p>") == "14¹ days, H₂O"
    assert _text('<text:p>one<text:s text:c="3"/>two<text:tab/>three</text:p>') == "one two three"
    assert _text('<text:p>See <text:a xlink:href="https://a.example/b">it</text:a>.</text:p>') == (
        "See [it](https://a.example/b)."
    )


def test_notes_comments_and_boxes_are_read_below_their_paragraph() -> None:
    note = "<text:note><text:note-body><text:p>of 1931</text:p></text:note-body></text:note>"
    comment = (
        "<office:annotation><dc:creator>Ada</dc:creator><text:p>Is &lt;it&gt;?</text:p></office:annotation>"
    )
    box = "<drawing:frame><drawing:text-box><text:p>Closed on Sundays.</text:p></drawing:text-box></drawing:frame>"
    said = _text(f"{box}<text:p>The rule{note} holds.{comment}</text:p><text:p>{box}Mind the step.</text:p>")
    assert said.split("\n\n") == [
        "The rule[^1] holds.",
        "[^1]: of 1931",
        "Comment by Ada: Is <it>?",
        "Mind the step.",
        "Closed on Sundays.",
        "Closed on Sundays.",
    ]


def test_what_was_deleted_and_what_repeats_headings_is_left_out() -> None:
    deleted = "<text:tracked-changes><text:p>deleted</text:p></text:tracked-changes>"
    contents = "<text:table-of-content><text:p>Berths 3</text:p></text:table-of-content>"
    assert _text(f"{deleted}{contents}<text:p>kept</text:p>") == "kept"


def test_a_wide_cell_is_in_each_column() -> None:
    head = f"<table:table-row>{_cell('year')}{_cell('ships')}</table:table-row>"
    wide = _cell("1931", 'table:number-columns-spanned="2"') + "<table:covered-table-cell/>"
    rows = (
        f"<table:table-header-rows>{head}</table:table-header-rows><table:table-row>{wide}</table:table-row>"
    )
    assert _text(f"<table:table>{rows}</table:table>") == ("| year | ships |\n| --- | --- |\n| 1931 | 1931 |")


def test_formulas_are_read() -> None:
    formula = "<math xmlns='http://www.w3.org/1998/Math/MathML'><msup><mi>x</mi><mn>2</mn></msup></math>"
    shown = '<drawing:frame><drawing:object xlink:href="./Object 1"/><drawing:desc>formula</drawing:desc></drawing:frame>'
    assert _text(f"<text:p>f ={shown}</text:p>", **{"Object 1/content.xml": formula}) == "f = x^2"


@pytest.mark.parametrize(
    ("body", "parts", "why"),
    [
        ("", {"META-INF/manifest.xml": "<encryption-data/>"}, "encrypted: remove its password first"),
        ("<text:span>" * 600 + "</text:span>" * 600, {}, "nested too deeply"),
        ("<text:p>a</text:p>" * 310_000, {}, "too large: it has 310,000 paragraphs"),
        ("<text:list-item/>" * 10, {}, "empty"),
        ("", {"big": bytes(260 * 2**20)}, "too large: it unpacks to"),
    ],
)
def test_what_cannot_be_read_tells_why(body: str, parts: dict[str, Any], why: str) -> None:
    with pytest.raises(Unreadable) as caught:
        parse("a.odt", files.odt(body, **parts))
    assert str(caught.value).startswith(why)
