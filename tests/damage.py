"""Files as disks, networks and programs leave them: with flipped bits, cut off, put together, parts of them gone."""

from __future__ import annotations

import io
import random
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from typing import Any

import anyio

from llmbackend.files.parsed import Parsed, Unreadable
from llmbackend.files.pool import Limits, ParsingPool
from tests import files

SECONDS = 20
"""For one file, on a busy machine."""
_REFUSED = ("took too", "broken: its parser crashed", "its parser misbehaved")


def damaged(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """So many files, the same for the same seed, by names that tell their type and what was done to them."""
    chance = random.Random(seed)
    whole = [*files.of_each_type().items(), *_rich().items()]
    for number in range(count):
        name, data = whole[number % len(whole)]
        how = chance.choice(_WAYS)
        if (
            zipfile.is_zipfile(io.BytesIO(data)) and chance.random() < 0.7
        ):  # else few get beyond its checksums
            changed = _within(data, how, chance)
        else:
            changed = how(data, chance)
        if how is _put_together:
            changed = data + chance.choice(whole)[1]
        yield f"{number}-{how.__name__.strip('_')}-{name}", changed


def _rich() -> dict[str, bytes]:
    """Files with much in them that has a reader of its own."""
    import openpyxl
    import pptx
    from openpyxl.comments import Comment
    from pptx.chart.data import CategoryChartData
    from pptx.enum.chart import XL_CHART_TYPE

    written = io.BytesIO()
    deck: Any = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    slide.shapes.title.text = "Aldersea"
    cells = slide.shapes.add_table(2, 2, 0, 0, 9, 9).table
    cells.cell(0, 0).merge(cells.cell(0, 1))
    chart: Any = CategoryChartData()
    chart.categories = ["1931"]
    chart.add_series("Painted", (1,))
    slide.shapes.add_chart(XL_CHART_TYPE.PIE, 0, 0, 9, 9, chart)
    slide.notes_slide.notes_text_frame.text = files.FACT
    deck.save(written)

    sheets = io.BytesIO()
    book: Any = openpyxl.Workbook()
    for row in (["year", "share", "what"], [1931, 0.5, files.FACT], [1932, "=B2", None]):
        book.active.append(row)
    book.active["B2"].number_format = '0.0 %;"none"'
    book.active["C2"].comment = Comment("Says the chronicle.", "Ada")
    book.active.merge_cells("C2:C3")
    book.save(sheets)

    run = "<w:r><w:t>{}</w:t></w:r>".format
    body = (
        f"<w:p><w:pPr><w:pStyle w:val='Heading1'/><w:numPr><w:numId w:val='1'/></w:numPr></w:pPr>{run('Paint')}</w:p>"
        f"<w:p>{run(files.FACT)}<w:r><w:footnoteReference w:id='2'/></w:r>"
        f"<w:r><w:rPr><w:vertAlign w:val='superscript'/></w:rPr><w:t>2</w:t></w:r></w:p>"
        f"<w:tbl><w:tr><w:tc><w:tcPr><w:vMerge w:val='restart'/></w:tcPr><w:p>{run('a')}</w:p></w:tc></w:tr></w:tbl>"
    )
    level = "<w:lvl w:ilvl='0'><w:start w:val='4'/><w:numFmt w:val='upperRoman'/><w:lvlText w:val='§ %1'/></w:lvl>"
    page = (
        "<html><title>Aldersea</title><body><nav><a href='/'>Home</a></nav><main><h1>Paint</h1>"
        f"<table><tr><th rowspan=2>Year<th colspan=2>What</tr><tr><th>a<th>b</tr><tr><td>1931<td>{files.FACT}<td>"
        "<table><tr><td>x<td>1</table></table><p>10<sup>6</sup> <math><msup><mn>2</mn><mn>3</mn></msup></math>"
        "<ol type=a><li>one<li>two</ol><select><option selected>M</select></main></body></html>"
    )
    mail = EmailMessage()
    mail["Subject"], mail["From"] = "Grüße", "ada@example.org"
    mail.set_content(files.FACT)
    mail.add_alternative(page, subtype="html")
    mail.add_attachment(
        files.docx(files.FACT), maintype="application", subtype="octet-stream", filename="a.docx"
    )
    mail.add_attachment(f"year,what\n1931,{files.FACT}\n", subtype="csv", filename="t.csv")
    return {
        "rich.pptx": written.getvalue(),
        "rich.xlsx": sheets.getvalue(),
        "rich.docx": files.docx_with(
            f"<w:body>{body}</w:body>",
            footnotes=f"<w:footnote w:id='2'><w:p>{run('By Ada.')}</w:p></w:footnote>",
            numbering=f"<w:abstractNum w:abstractNumId='0'>{level}</w:abstractNum>"
            "<w:num w:numId='1'><w:abstractNumId w:val='0'/></w:num>",
        ),
        "rich.html": page.encode(),
        "rich.eml": mail.as_bytes(),
    }


async def read(cases: Iterator[tuple[str, bytes]], tell: Callable[[str, str], None]) -> None:
    """Read each by one process; `tell` gets its name and what came of it: a text, or the reason why there is none."""
    pool = ParsingPool(Limits(seconds=SECONDS))
    try:
        for name, data in cases:
            try:
                found = await pool.parse(name, data)
            except Unreadable as error:
                tell(name, str(error))
                continue
            for inner, one in found:
                tell(inner, "text" if isinstance(one, Parsed) else str(one))
                if isinstance(one, Parsed):
                    assert one.text.strip(), f"{inner} is an empty document, and nobody is told"
    finally:
        await pool.close()


def outcomes(count: int, seed: int) -> Counter[str]:
    """How many have a text, and how many a reason; raises AssertionError for a crash, a hang or an empty document."""
    told: Counter[str] = Counter()

    def tell(name: str, outcome: str) -> None:
        assert outcome, f"{name} has no text, and no reason"
        assert not outcome.startswith(_REFUSED), f"{name}: {outcome}"
        kind = name.rpartition(".")[2] if "." in name else "no suffix"
        told[f"{kind}: {'text' if outcome == 'text' else 'a reason'}"] += 1

    anyio.run(read, damaged(count, seed), tell)
    return told


def _flip_bits(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 4, 32))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut_off(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(1, len(data) + 1)]


def _take_out(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    return data[:start] + data[start + chance.randrange(1, 64) :] or b"\0"


def _repeat(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    return data[:start] + data[start : start + 200] * chance.choice((2, 50)) + data[start:]


def _blank(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    end = min(len(data), start + 512)
    return data[:start] + bytes(end - start) + data[end:]


def _put_together(data: bytes, chance: random.Random) -> bytes:
    return data + data


_WAYS = (_flip_bits, _cut_off, _take_out, _repeat, _blank, _put_together)


def _within(archive: bytes, how: Callable[[bytes, random.Random], bytes], chance: random.Random) -> bytes:
    """An archive with one of its parts damaged, and all checksums right."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        parts: dict[str, bytes] = {name: file.read(name) for name in file.namelist()}
    name = chance.choice([name for name, content in parts.items() if content])
    parts[name] = how(parts[name], chance)
    return files.archive(parts)
