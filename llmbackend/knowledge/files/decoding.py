"""Bytes of a file into text, whatever its encoding."""

from __future__ import annotations

import re


class Unreadable(Exception):
    """A file that gives no text; the message is the reason, for a person."""


_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]+")


_BOMS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
# Those in use; among all that Python knows, a short text fits many.
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


def decoded(data: bytes, declared: str | None = None) -> str:
    """Text by its byte order mark, as UTF-8, as declared, or by what its bytes look like."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(encoding)
            except UnicodeDecodeError:
                raise Unreadable(f"broken: it is not {encoding}, as its first bytes say") from None
    if data.startswith(_MAGIC):
        raise Unreadable("binary, not text")
    nuls = data.count(0)
    if nuls > len(data) // 4:  # UTF-16 without a mark: every other byte of most languages' texts
        high = data[1::2].count(0)
        encoding = "utf-16-le" if high > nuls - high else "utf-16-be"
        text = data.decode(encoding, "replace")
    else:
        text = _by_looks(data, declared)
    odd = sum(len(run) for run in _CONTROLS.findall(text)) + text.count("\ufffd")
    if odd > max(4, len(text) // 30):
        raise Unreadable("binary, not text")
    return text


def _by_looks(data: bytes, declared: str | None) -> str:
    for encoding in ("utf-8", declared):
        try:
            return data.decode(encoding or "utf-8")
        except (UnicodeDecodeError, LookupError):
            pass
    from charset_normalizer import from_bytes

    matches = from_bytes(data, cp_isolation=_ENCODINGS)
    possible = {name for match in matches for name in (match.encoding, *match.could_be_from_charset)}
    best = matches.best()
    if best is None or "cp1252" in possible:  # in doubt, western European: by far the most frequent
        return data.decode("cp1252", "replace")
    return str(best)


def clean(text: str) -> str:
    """With plain line ends, and without what no text has: control characters, halves of surrogate pairs."""
    text = _CONTROLS.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))
    return text.encode("utf-8", "replace").decode()
