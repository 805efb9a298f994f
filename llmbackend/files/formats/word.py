"""Reads Word files by mammoth. What mammoth does not read, or misreads, is rewritten in the document beforehand."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any

from ..parsed import Parsed, Warn
from .formulas import linear
from .html import markdown
from .numbering import Numbering
from .office import Package, check_archive

_NAMES = {
    "w": "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
    "m": "http://schemas.openxmlformats.org/officeDocument/2006/math",
    "mc": "http://schemas.openxmlformats.org/markup-compatibility/2006",
    "v": "urn:schemas-microsoft-com:vml",
    "wps": "http://schemas.microsoft.com/office/word/2010/wordprocessingShape",
    "r": "http://schemas.openxmlformats.org/officeDocument/2006/relationships",
}
_HEADING = re.compile(r"heading ?([1-9])", re.IGNORECASE)
LEVELS = 6
"""Levels of headings in HTML and Markdown."""
_RAISED = 4  # half points: a run raised or lowered by more counts as super- or subscript


def docx(data: bytes, warn: Warn) -> Parsed:
    check_archive(data, "docx")
    import mammoth

    styles = [f"p.h{level} => h{level}:fresh" for level in range(1, LEVELS + 1)]
    page = mammoth.convert_to_html(
        io.BytesIO(_written_out(data, warn)),
        style_map="\n".join(styles),
        convert_image=mammoth.images.img_element(lambda image: {"src": ""}),
    )
    return Parsed(markdown(page.value), "markdown")


def _written_out(data: bytes, warn: Warn) -> bytes:
    """Return the file with all its text where mammoth looks for it."""
    from lxml import etree

    package = Package(data)
    main = next(package.related("", "officeDocument"), "word/document.xml")
    if main not in package.parts:
        return data  # mammoth reports what is wrong
    trees = {name: package.tree(name) for name in _with_text(package, main)}
    styles = _Styles(trees.get(name) for name in package.related(main, "styles"))
    numbers = Numbering(trees.get(name) for name in package.related(main, "numbering"))
    hidden = 0
    for tree in trees.values():
        hidden += _spell_out(tree, styles)
    body = trees[main].find(_tag("w:body"))
    if body is not None:
        _mark_headings(body, styles, numbers)
        notes = {
            kind: {
                note.get(_tag("w:id")): note for name in package.related(main, kind) for note in trees[name]
            }
            for kind in ("footnotes", "endnotes", "comments")
        }
        _place_notes(body, notes)
        around = [trees[name] for kind in ("header", "footer") for name in package.related(main, kind)]
        _place_around(body, around)
    if hidden:
        warn(f"{hidden} characters of hidden text are left out")
    package.parts |= {name: etree.tostring(tree) for name, tree in trees.items()}
    return package.written()


def _with_text(package: Package, main: str) -> Iterator[str]:
    yield main
    for kind in ("styles", "numbering", "footnotes", "endnotes", "comments", "header", "footer"):
        yield from package.related(main, kind)


def _tag(name: str) -> str:
    prefix, _, local = name.partition(":")
    return f"{{{_NAMES[prefix]}}}{local}"


def _value(node: Any, path: str) -> str | None:
    """Return the `w:val` of a child element: "" if it has none, None if there is no such element."""
    found = node.find(path, _NAMES) if node is not None else None
    return None if found is None else found.get(_tag("w:val"), "")


def _is_on(value: str | None) -> bool:
    return value is not None and value.lower() not in ("0", "false", "off", "none")


def _run(text: str) -> Any:
    from lxml import etree

    run = etree.Element(_tag("w:r"), nsmap=_NAMES)
    said = etree.SubElement(run, _tag("w:t"))
    said.text = text
    said.set("{http://www.w3.org/XML/1998/namespace}space", "preserve")
    return run


def _paragraph(*runs: Any) -> Any:
    from lxml import etree

    paragraph = etree.Element(_tag("w:p"), nsmap=_NAMES)
    paragraph.extend(runs)
    return paragraph


def _text(node: Any) -> str:
    return "".join(said.text or "" for said in node.iter(_tag("w:t")))


def _unwrap(node: Any, children: Iterable[Any]) -> None:
    """Replace an element by several."""
    for child in list(children):
        node.addprevious(child)
    _remove(node)


def _remove(node: Any) -> None:
    node.getparent().remove(node)  # Word's elements have no text after them


class _Styles:
    """Paragraph and character styles by id; each inherits what it does not set."""

    def __init__(self, trees: Iterable[Any]) -> None:
        self._styles: dict[str, Any] = {}
        for tree in trees:
            for style in list(tree if tree is not None else ()):
                if style.tag != _tag("w:style"):
                    continue
                style.set(_tag("w:type"), style.get(_tag("w:type"), "paragraph"))
                if (id := style.get(_tag("w:styleId"))) is None:
                    _remove(style)  # mammoth fails on a style without an id, to which nothing can refer
                else:
                    self._styles[id] = style

    def _chain(self, id: str | None) -> Iterator[Any]:
        seen: set[str] = set()
        while id in self._styles and id not in seen:
            seen.add(id)
            yield self._styles[id]
            id = _value(self._styles[id], "w:basedOn")

    def value(self, id: str | None, path: str) -> str | None:
        return next((said for style in self._chain(id) if (said := _value(style, path)) is not None), None)

    def numbering(self, id: str | None) -> Any:
        return next(
            (
                found
                for style in self._chain(id)
                if (found := style.find("w:pPr/w:numPr", _NAMES)) is not None
            ),
            None,
        )

    def level(self, id: str | None) -> int | None:
        """The level of a heading, from 1; 0 for a title."""
        for style in self._chain(id):
            name = _value(style, "w:name") or ""
            if name.lower() == "title":
                return 0
            if found := _HEADING.fullmatch(name):
                return int(found[1])
            if (outline := _value(style, "w:pPr/w:outlineLvl")) is not None:
                return _outline(outline)
        return None


def _outline(value: str) -> int | None:
    return int(value) + 1 if value.isdecimal() and int(value) < 9 else None


def _spell_out(tree: Any, styles: _Styles) -> int:
    """Write as plain runs what only Word can show; returns how many hidden characters were left out."""
    for choices in list(tree.iter(_tag("mc:AlternateContent"))):
        fallback = choices.find("mc:Fallback", _NAMES)
        if fallback is None or not _text(fallback):
            choice = next((one for one in choices.iterfind("mc:Choice", _NAMES) if _text(one)), None)
            if choice is not None:
                _unwrap(choices, choice)
    for box in list(tree.iter(_tag("wps:txbx"))):
        if next(box.iterancestors(_tag("mc:AlternateContent")), None) is None:
            drawing = next(box.iterancestors(_tag("w:drawing")), None)
            if drawing is not None:
                _as_vml(drawing)
    for name in ("w:fldSimple", "w:dir", "w:bdo"):
        for wrapper in list(tree.iter(_tag(name))):
            _unwrap(wrapper, wrapper)
    for ruby in list(tree.iter(_tag("w:ruby"))):
        base, reading = (ruby.find(name, _NAMES) for name in ("w:rubyBase", "w:rt"))
        outer = next(ruby.iterancestors(_tag("w:r")), None)
        if outer is not None and base is not None:
            said = "" if reading is None else _text(reading)
            _unwrap(outer, [_run(_text(base) + (f"({said})" if said else ""))])
    for name in ("m:oMathPara", "m:oMath"):
        for formula in list(tree.iter(_tag(name))):
            _unwrap(
                formula,
                formula.iterfind("m:oMath", _NAMES) if name == "m:oMathPara" else [_run(_latex(formula))],
            )
    for row in list(tree.iter(_tag("w:tr"))):
        count = _value(row, "w:trPr/w:gridBefore") or "0"
        if (first := row.find("w:tc", _NAMES)) is not None:
            for _ in range(min(int(count), 63) if count.isdecimal() else 0):
                first.addprevious(_empty_cell())
    hidden = 0
    for run in list(tree.iter(_tag("w:r"))):
        properties = run.find("w:rPr", _NAMES)
        style = _value(properties, "w:rStyle")
        vanish = _value(properties, "w:vanish")
        if vanish is None:
            vanish = styles.value(style, "w:rPr/w:vanish")
        if vanish is None and (paragraph := run.getparent()).tag == _tag("w:p"):
            vanish = styles.value(_value(paragraph, "w:pPr/w:pStyle"), "w:rPr/w:vanish")
        if _is_on(vanish):
            hidden += len(_text(run).strip())
            _remove(run)
            continue
        if properties is None:
            continue
        for double in list(properties.iterfind("w:dstrike", _NAMES)):
            double.tag = _tag("w:strike")
        if _value(properties, "w:vertAlign") is None:
            height = styles.value(style, "w:rPr/w:vertAlign")
            moved = _value(properties, "w:position") or "0"
            if height is None and re.fullmatch(r"-?\d+", moved) and abs(int(moved)) >= _RAISED:
                height = "superscript" if int(moved) > 0 else "subscript"
            if height is not None:
                properties.append(_element("w:vertAlign", height))
    return hidden


def _as_vml(drawing: Any) -> None:
    """Rewrite a drawing that contains text in the older form, which mammoth reads."""
    picture, box = _element("w:pict"), _element("v:textbox")
    picture.append(box)
    box.extend(drawing.iter(_tag("w:txbxContent")))
    _unwrap(drawing, [picture])


def _element(name: str, value: str | None = None) -> Any:
    from lxml import etree

    element = etree.Element(_tag(name), nsmap=_NAMES)
    if value is not None:
        element.set(_tag("w:val"), value)
    return element


def _empty_cell() -> Any:
    cell = _element("w:tc")
    cell.append(_paragraph())
    return cell


def _latex(formula: Any) -> str:
    from xml.etree import ElementTree

    from lxml import etree
    from markitdown.converter_utils.docx.math import omml as library

    omml: Any = library

    try:
        return f"${omml.oMath2Latex(ElementTree.fromstring(etree.tostring(formula))).latex}$"
    except Exception:  # what mammoth does not know
        return linear(formula)


def _mark_headings(body: Any, styles: _Styles, numbers: Numbering) -> None:
    """Name the styles of headings by level, and write out the numbers that Word counts."""
    levels: dict[Any, int] = {}
    for paragraph in body.iter(_tag("w:p")):
        properties = paragraph.find("w:pPr", _NAMES)
        style = _value(properties, "w:pStyle")
        outline = _value(properties, "w:outlineLvl")
        level = styles.level(style) if outline is None else _outline(outline)
        if level is not None and _text(paragraph).strip():
            levels[paragraph] = level
        own = None if properties is None else properties.find("w:numPr", _NAMES)
        label = numbers.label(own, styles.numbering(style), in_heading=paragraph in levels)
        if label:
            paragraph.insert(0 if properties is None else 1, _run(f"{label} "))
            if own is not None:
                properties.remove(own)
    deeper = 1 if 0 in levels.values() else 0
    for paragraph, level in levels.items():
        properties = paragraph.find("w:pPr", _NAMES)
        if properties is None:
            properties = _element("w:pPr")
            paragraph.insert(0, properties)
        for named in list(properties.iterfind("w:pStyle", _NAMES)):
            properties.remove(named)
        if paragraph.getparent().tag != _tag("w:tc"):
            properties.insert(0, _element("w:pStyle", f"h{min(level + deeper, LEVELS)}"))


def _place_notes(body: Any, notes: dict[str, dict[str, Any]]) -> None:
    """Put footnotes, endnotes and comments below their paragraph, so that they are read with it."""
    number = 0
    for paragraph in list(body.iter(_tag("w:p"))):
        below: list[Any] = []
        for kind, name in (("footnotes", "footnote"), ("endnotes", "endnote"), ("comments", "comment")):
            for reference in list(paragraph.iter(_tag(f"w:{name}Reference"))):
                note = notes[kind].get(reference.get(_tag("w:id"), ""))
                run = reference.getparent()
                if note is None or run.tag != _tag("w:r"):
                    continue
                if next(reference.iterancestors(_tag("w:del"), _tag("w:moveFrom")), None) is not None:
                    continue
                said = [
                    _paragraph(*deepcopy(list(one))) for one in note.iter(_tag("w:p")) if _text(one).strip()
                ]
                if kind == "comments":
                    begin = f"Comment by {note.get(_tag('w:author')) or 'a reader'}: "
                    run.remove(reference)
                else:
                    number += 1
                    begin = f"[^{number}]: "
                    _unwrap(run, [_run(f"[^{number}]")])
                if said:
                    _after_properties(said[0], _run(begin))
                below += said
        for one in reversed(below):
            paragraph.addnext(one)


def _after_properties(paragraph: Any, run: Any) -> None:
    first = paragraph[0] if len(paragraph) else None
    paragraph.insert(1 if first is not None and first.tag == _tag("w:pPr") else 0, run)
    for properties in list(paragraph.iterfind("w:pPr", _NAMES)):
        paragraph.remove(properties)


def _place_around(body: Any, around: Iterable[Any]) -> None:
    """Add the pages' headers and footers once: names, versions and the like, but no page numbers."""
    said: dict[str, None] = {}
    for tree in around:
        for paragraph in tree.iter(_tag("w:p")):
            fields = "".join(code.text or "" for code in paragraph.iter(_tag("w:instrText")))
            text = " ".join(_text(paragraph).split())
            if any(map(str.isalpha, text)) and "PAGE" not in fields:
                said[text] = None
    for text in reversed(said):
        body.insert(0, _paragraph(_run(text)))
