"""Files of each type, made here, good ones and hostile ones."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from functools import cache

FACT = "The lighthouse of Aldersea was painted green in 1931."


def docx(*paragraphs: str, headings: Sequence[str] = ()) -> bytes:
    """Headings, one below the other, then paragraphs."""
    body = "".join(
        f'<w:p><w:pPr><w:pStyle w:val="Heading{level}"/></w:pPr><w:r><w:t>{title}</w:t></w:r></w:p>'
        for level, title in enumerate(headings, 1)
    )
    body += "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    return docx_with(f"<w:body>{body}</w:body>")


_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def docx_with(body: str, before: str = "", styles: str = "", **parts: str) -> bytes:
    """A Word file whose document is this XML, with styles, and other parts (footnotes, comments, …) by their kind."""
    package = "http://schemas.openxmlformats.org/package/2006"
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    styles += "".join(
        f'<w:style w:type="paragraph" w:styleId="Heading{level}"><w:name w:val="heading {level}"/></w:style>'
        for level in range(1, 4)
    )
    roots = {"header": "hdr", "footer": "ftr"}
    related = "".join(
        f'<Relationship Id="{part}" Type="{office}/{part}" Target="{part}.xml"/>'
        for part in ("styles", *parts)
    )
    others = {
        f"word/{part}.xml": f'<w:{roots.get(part, part)} xmlns:w="{_W}">{content}</w:{roots.get(part, part)}>'
        for part, content in {"styles": styles, **parts}.items()
    }
    return archive(
        {
            "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/word/document.xml" ContentType="{kind}.document.main+xml"/>'
            f'<Override PartName="/word/styles.xml" ContentType="{kind}.styles+xml"/></Types>',
            "_rels/.rels": f'<Relationships xmlns="{package}/relationships">'
            f'<Relationship Id="r1" Type="{office}/officeDocument" Target="word/document.xml"/></Relationships>',
            "word/_rels/document.xml.rels": f'<Relationships xmlns="{package}/relationships">{related}</Relationships>',
            **others,
            "word/document.xml": f'{before}<w:document xmlns:w="{_W}">{body}</w:document>',
        }
    )


def archive(parts: Mapping[str, str | bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return written.getvalue()


def unpacked(file: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(file)) as made:
        return {name: made.read(name) for name in made.namelist()}


def pptx(*slides: tuple[str, str]) -> bytes:
    """Slides with a title and a text."""
    import pptx as library

    deck = library.Presentation()
    for title, text in slides:
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = text
    written = io.BytesIO()
    deck.save(written)
    return written.getvalue()


def xlsx(rows: Sequence[Sequence[object]], sheet: str = "Sheet") -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.title = sheet
    for row in rows:
        book.active.append(list(row))
    written = io.BytesIO()
    book.save(written)
    return written.getvalue()


OPENDOCUMENT = "urn:oasis:names:tc:opendocument:xmlns:"


def odt(body: str, styles: str = "", **parts: str) -> bytes:
    """A text of LibreOffice with this content and these styles."""
    kinds = ("office", "text", "table", "style", "drawing", "meta")
    names = " ".join(f'xmlns:{kind}="{OPENDOCUMENT}{kind}:1.0"' for kind in kinds)
    names += ' xmlns:xlink="x" xmlns:dc="http://purl.org/dc/elements/1.1/"'
    content = f"<office:automatic-styles>{styles}</office:automatic-styles>"
    content += f"<office:body><office:text>{body}</office:text></office:body>"
    return archive(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "META-INF/manifest.xml": "<manifest/>",
            "styles.xml": f"<office:document-styles {names}/>",
            "content.xml": f"<office:document-content {names}>{content}</office:document-content>",
            **parts,
        }
    )


def epub(title: str, *chapters: str, **parts: str) -> bytes:
    """A book with a table of contents and these chapters' bodies."""
    names = [f"chapter {number}" for number in range(len(chapters))]
    items = "".join(
        f'<item id="{name}" href="text/{name.replace(" ", "%20")}.xhtml" media-type="application/xhtml+xml"/>'
        for name in names
    )
    nav = '<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>'
    spine = "".join(f'<itemref idref="{name}"/>' for name in ("nav", *names))
    about = f'<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title></metadata>'
    head = '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head>'
    return archive(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
            "OEBPS/book.opf": f"<package>{about}<manifest>{nav}{items}</manifest><spine>{spine}</spine></package>",
            "OEBPS/nav.xhtml": f"{head}<body><nav><ol><li>Contents</li></ol></nav></body></html>",
            **{
                f"OEBPS/text/{name}.xhtml": f"{head}<body>{chapter}</body></html>"
                for name, chapter in zip(names, chapters, strict=True)
            },
            **parts,
        }
    )


def pdf(*pages: str, repeat: int = 1) -> bytes:
    """Pages with a line of text each; all of them `repeat` times, which takes few bytes. "" is a page without text."""
    return pdf_with(
        *(f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else "0 0 m" for text in pages), repeat=repeat
    )


def pdf_with(*contents: str, repeat: int = 1) -> bytes:
    """Pages with these content streams."""
    objects: list[bytes] = [b"", b"", b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
    kids: list[str] = []
    for content in contents:
        written = content.encode("latin-1")
        objects.append(b"<</Length %d>>stream\n%s\nendstream" % (len(written), written))
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F1 3 0 R>>>>/Contents %d 0 R>>"
            % len(objects)
        )
        kids.append(f"{len(objects)} 0 R")
    objects[0] = b"<</Type/Catalog/Pages 2 0 R>>"
    listed = " ".join(kids * repeat)
    objects[1] = f"<</Type/Pages/Count {len(kids) * repeat}/Kids[{listed}]>>".encode()
    file = b"%PDF-1.7\n"
    places: list[int] = []
    for number, one in enumerate(objects, 1):
        places.append(len(file))
        file += b"%d 0 obj%s endobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    return file + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF"
        % (size, table, size, len(file))
    )


def encrypted_pdf(text: str, password: str) -> bytes:
    import pypdf

    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf(text)))
    writer.encrypt(user_password=password, owner_password="owner", algorithm="AES-256")
    written = io.BytesIO()
    writer.write(written)
    return written.getvalue()


def notebook(*cells: tuple[str, str]) -> bytes:
    """Cells of a type ("markdown", "code") with a source."""
    written = [{"cell_type": kind, "source": source.splitlines(keepends=True)} for kind, source in cells]
    return json.dumps({"nbformat": 4, "metadata": {}, "cells": written}).encode()


def mail(subject: str, text: str, *, html: bool = False, attached: str | None = None) -> bytes:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, "ada@example.org", "bob@example.org"
    message.set_content(text, subtype="html" if html else "plain")
    if attached:
        message.add_attachment(b"\0\1", maintype="application", subtype="octet-stream", filename=attached)
    return message.as_bytes()


def saved_page(body: str) -> bytes:
    """A page with a picture, as browsers save both in one file."""
    message = EmailMessage()
    message["From"] = "<Saved by Blink>"
    message.set_content(
        f"<!DOCTYPE html><html><body>{body}<img src=cid:a></body></html>",
        subtype="html",
        cte="quoted-printable",
    )
    message.add_related(b"\x89PNG" * 100, "image", "png", cid="<a>")
    return message.as_bytes()


def of_each_type() -> dict[str, bytes]:
    """A file of each type, by its name, that tells FACT."""
    page = f"<html><head><title>Aldersea</title></head><body><p>{FACT}</p></body></html>"
    return {
        "plain": FACT.encode(),
        "text.txt": FACT.encode(),
        "text.md": f"# Aldersea\n\n{FACT}".encode(),
        "text.markdown": FACT.encode(),
        "text.rst": f"Aldersea\n========\n\n{FACT}".encode(),
        "page.html": page.encode(),
        "page.htm": page.encode(),
        "paper.pdf": pdf(FACT),
        "report.docx": docx(FACT, headings=["Aldersea"]),
        "slides.pptx": pptx(("Aldersea", FACT)),
        "sheet.xlsx": xlsx([["year", "what"], [1931, FACT]]),
        "text.odt": odt(f'<text:h text:outline-level="1">Aldersea</text:h><text:p>{FACT}</text:p>'),
        "book.epub": epub("Aldersea", f"<h1>Events</h1><p>{FACT}</p>"),
        "table.csv": f"year,what\n1931,{FACT}\n".encode(),
        "table.tsv": f"year\twhat\n1931\t{FACT}\n".encode(),
        "data.json": json.dumps({"events": [{"year": 1931, "what": FACT}]}).encode(),
        "lines.jsonl": json.dumps({"year": 1931, "what": FACT}).encode(),
        "book.ipynb": notebook(("markdown", FACT), ("code", "1 + 1")),
        "letter.eml": mail("Aldersea", FACT),
        "saved.mhtml": saved_page(f"<h1>Aldersea</h1><p>{FACT}</p>"),
        "saved.mht": saved_page(f"<h1>Aldersea</h1><p>{FACT}</p>"),
    }


@cache
def zip_bomb() -> bytes:
    """A Word file of some hundred KB that unpacks to 400 MB. Takes seconds."""
    return archive({"[Content_Types].xml": "<Types/>", "word/document.xml": bytes(400 * 2**20)})


def deep_xml() -> bytes:
    depth = 200_000
    return docx_with("<w:p>" * depth + "</w:p>" * depth)


def billion_laughs() -> bytes:
    entities = '<!ENTITY a0 "ha">' + "".join(
        f'<!ENTITY a{level} "{f"&a{level - 1};" * 10}">' for level in range(1, 11)
    )
    return docx_with("<w:body><w:p><w:r><w:t>&a10;</w:t></w:r></w:p></w:body>", f"<!DOCTYPE w [{entities}]>")


def external_entity(data: bytes, url: str) -> bytes:
    """A file of XML parts, or a page, in which an entity that is to be fetched stands in place of FACT."""
    declared = f'<!DOCTYPE x [<!ENTITY fetched SYSTEM "{url}">]>'.encode()

    def changed(part: bytes) -> bytes:
        if FACT.encode() not in part:
            return part
        head, _, rest = part.rpartition(b"?>")
        return head + (b"?>" if head else b"") + declared + rest.replace(FACT.encode(), b"&fetched;")

    if not zipfile.is_zipfile(io.BytesIO(data)):
        return changed(data)
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        return archive({name: changed(packed.read(name)) for name in packed.namelist()})


def endless_pdf() -> bytes:
    """A PDF of a few MB that takes many minutes to read."""
    return pdf("The same page again. " * 200, repeat=40_000)


def deep_json() -> bytes:
    return b"[" * 1_000_000


def hostile() -> dict[str, bytes]:
    """Files that cost much more than their size, by name."""
    return {
        "bomb.docx": zip_bomb(),
        "deep.docx": deep_xml(),
        "laughs.docx": billion_laughs(),
        "endless.pdf": endless_pdf(),
        "deep.json": deep_json(),
    }
