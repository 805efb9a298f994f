"""Decodes a file's bytes, whatever their encoding."""

from __future__ import annotations

import codecs
import re
import unicodedata

from .parsed import Unreadable, Warn

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]+")

_BOMS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
# Only encodings in common use: a short text would fit many of those that Python knows.
_ENCODINGS = [f"cp125{number}" for number in range(7)] + [
    "koi8_r",
    "cp932",
    "euc_jp",
    "gb18030",
    "big5",
    "cp949",
]
_MAGIC = (
    b"%PDF-",
    b"PK\x03\x04",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"\x1f\x8b",
    b"\x7fELF",
    b"\xd0\xcf\x11\xe0",
)
_MARKUP = (b"{\\rtf", b"%!PS", b"-----BEGIN PGP")
"""How files begin that consist of letters, but are not text to read."""
_SEVEN_BIT = {"iso2022_jp": b"\x1b$", "iso2022_kr": b"\x1b$)C", "hz": b"~{", "utf_7": b"+"}
"""Encodings whose bytes are all ASCII, with the sequence that introduces other letters in each."""


def is_text(data: bytes) -> bool:
    """Return whether a file of an unknown type looks like text; UTF-16 only with a byte order mark."""
    if data.startswith(tuple(mark for mark, _ in _BOMS)):
        return True
    if b"\0" in data or data.startswith(_MARKUP):
        return False
    try:
        decoded(data, lambda warning: None)
    except Unreadable:
        return False
    return True


def decoded(data: bytes, warn: Warn, declared: str | None = None) -> str:
    """Decode by the byte order mark, as UTF-8, as declared, or by what the bytes look like.

    A few invalid bytes are replaced by U+FFFD; `warn` gets their number.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _readable(_replacing(data[len(mark) :], encoding, warn))
    if data.startswith(_MAGIC):
        raise Unreadable("binary, not text")
    nuls = data.count(0)
    if nuls > len(data) // 4:  # UTF-16 without a mark: in most languages, every other byte is 0
        high = data[1::2].count(0)
        encoding = "utf-16-le" if high > nuls - high else "utf-16-be"
        return _readable(_replacing(data, encoding, warn))
    return _readable(_by_looks(data, _codec(declared), warn))


def _by_looks(data: bytes, declared: str | None, warn: Warn) -> str:
    if (declared in _SEVEN_BIT and _SEVEN_BIT[declared] in data) or (b"\x1b$" in data and declared is None):
        return _replacing(data, declared or "iso2022_jp", warn)
    text = data.decode("utf-8", "replace")
    wrong = text.count("\ufffd") - data.count("\ufffd".encode())
    if not wrong:
        return text
    # Bytes in another encoding hardly ever form a valid UTF-8 sequence.
    letters = sum(1 for _ in _UTF8_LETTERS.finditer(data)) + len(_CUT.findall(data))
    if letters >= wrong or (declared == "utf-8" and wrong == len(_BEGUN.findall(data))):
        _tell(wrong, "UTF-8", warn)
        return text
    if declared and declared != "utf-8":
        try:
            return data.decode(declared)
        except UnicodeDecodeError as error:
            if error.start > len(data) // 2:  # most of it is valid
                return _replacing(data, declared, warn)
    from charset_normalizer import from_bytes

    matches = from_bytes(data, cp_isolation=_ENCODINGS)
    possible = {name for match in matches for name in (match.encoding, *match.could_be_from_charset)}
    best = matches.best()
    if best is None or "cp1252" in possible:  # if in doubt, western European, by far the most frequent
        return data.decode("cp1252", "replace")
    return str(best)


# Sequences that are rare in other encodings: Â and Ã before a character that does not follow them there.
_CUT = re.compile(rb"(?:[\xc2\xc3]|[\xe0-\xef][\x80-\xbf]|[\xf0-\xf4][\x80-\xbf]{1,2})\Z")
"""A multi-byte letter that the end of the file cuts off."""
_BEGUN = re.compile(rb"[\xc2\xc3](?![\x80-\xbf])|[\xe0-\xf4][\x80-\xbf]+(?![\x80-\xbf])")
_UTF8_LETTERS = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


def _replacing(data: bytes, encoding: str, warn: Warn) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode(encoding, "replace")
        _tell(text.count("\ufffd"), encoding, warn)
        return text


def _tell(wrong: int, encoding: str, warn: Warn) -> None:
    what = "1 place is" if wrong == 1 else f"{wrong} places are"
    warn(f"{what} not {encoding.upper()} and replaced by \ufffd")


def _codec(declared: str | None) -> str | None:
    """Python's codec for a charset as mails and pages name it, after the WHATWG Encoding Standard.

    That has iso-8859-1 mean cp1252, as browsers do (https://encoding.spec.whatwg.org/#names-and-labels). None for an
    unknown one, and for UTF-16: the declaration was read as ASCII.
    """
    if not declared:
        return None
    import webencodings

    found = webencodings.lookup(declared.strip().strip("\"'"))
    name = found.codec_info.name if found else declared.strip()
    try:
        name = codecs.lookup(name).name
    except LookupError:
        return None
    return None if name.startswith(("utf-16", "utf-32")) else name.replace("utf-7", "utf_7")


def _readable(text: str) -> str:
    text = text.lstrip("\ufeff")  # some programs write the mark twice
    odd = sum(len(run) for run in _CONTROLS.findall(text)) + text.count("\ufffd")
    if odd > max(4, len(text) // 30) or ("\ufffd" in text and not text.replace("\ufffd", "").strip()):
        raise Unreadable("binary, not text")
    return text


_LINE_END = re.compile("\r\n?|[\x85\u2028\u2029]")
_LIGATURE = re.compile("[\ufb00-\ufb06]")
_HALF = re.compile("[\ud800-\udfff]")


def clean(text: str, warn: Warn) -> str:
    """Return the text with plain line ends, and with ligatures as letters.

    Control characters and lone surrogates are removed, and reported to `warn`.
    """
    text = _CONTROLS.sub(" ", _LINE_END.sub("\n", text))
    if text.isascii():
        return text
    text, halves = _HALF.subn("\ufffd", text)
    if halves:
        warn(f"{halves} of its characters are half a surrogate pair and replaced by \ufffd")
    return _LIGATURE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
