"""Reads mails, with the mails forwarded in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..decoding import decoded
from ..parsed import Attachment, Parsed, Unreadable, Warn, at_most
from .html import page

_HEAD = ("Subject", "From", "To", "Cc", "Date")
FORWARD_DEPTH = 20
"""Most levels of forwarded mails."""


HEAD = 2**18
"""Most bytes of a mail's head; mail servers accept less."""
PARTS = 20_000
"""Most boundary lines, each of which may begin a part."""


_BEFORE = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*")
"""What sometimes precedes the head; it is skipped."""


def mail(data: bytes, warn: Warn) -> Parsed:
    message = _message(data)
    if not _fields(message, warn):
        raise Unreadable("broken: a mail has a sender and a subject, but this has none")
    attachments: list[Attachment] = []
    text = _told(message, attachments, warn)
    return Parsed(text, attachments=tuple(attachments))


def web_page(data: bytes, warn: Warn) -> Parsed:
    """Read a page that a browser has saved with its pictures in one file (MHTML): a mail whose text is the page."""
    if (body := _message(data).get_body(("html",))) is None:
        raise Unreadable("broken: there is no page in it")
    return Parsed(
        page(decoded(body.get_payload(decode=True), warn, body.get_content_charset()), warn), "markdown"
    )


def _message(data: bytes) -> Any:
    from email import message_from_bytes, policy

    head = data.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    at_most(HEAD, len(head), "bytes of head")
    at_most(PARTS, data.count(b"\n--"), "parts")
    return message_from_bytes(_BEFORE.sub(b"", data), policy=policy.default)


def _told(message: Any, attachments: list[Attachment], warn: Warn, depth: int = 0) -> str:
    """Return a mail's head, its texts in order, and the mails inside it."""
    before = len(attachments)
    body = "\n\n".join(filter(None, (text.strip("\n") for text in _texts(message, attachments, warn, depth))))
    fields = _fields(message, warn)
    names = [one.name for one in attachments[before:]]
    if names:
        fields.append(f"Attachments: {', '.join(names)}")
    return "\n".join(fields) + "\n\n" + body


def _fields(message: Any, warn: Warn) -> list[str]:
    found: list[str] = []
    for name in _HEAD:
        raw = str(next((raw for key, raw in message.raw_items() if key.lower() == name.lower()), ""))
        if not raw.isascii():  # raw bytes, which the library does not decode
            value = decoded(raw.encode("ascii", "surrogateescape"), warn)
        else:
            try:
                value = message[name]
            except Exception:  # a broken header as the library returns it
                value = raw
        if value:
            found.append(f"{name}: {' '.join(str(value).split())}")
    return found


def _texts(part: Any, attachments: list[Attachment], warn: Warn, depth: int) -> Iterator[str]:
    kind = part.get_content_type()
    if kind == "message/delivery-status":
        payload = part.get_payload()
        groups = map(str, payload) if part.is_multipart() else [str(payload)]
        yield "\n\n".join(group.strip() for group in groups)
    elif kind == "message/rfc822" or (kind.startswith("message/") and part.is_multipart()):
        for inner in _unpacked(part):
            if depth == FORWARD_DEPTH:
                warn(f"mails forwarded more than {FORWARD_DEPTH} times over are left out")
            else:
                yield "---------- Forwarded message ----------\n" + _told(inner, attachments, warn, depth + 1)
    elif kind == "multipart/alternative":
        yield from _best(part.get_payload(), attachments, warn, depth)
    elif part.is_multipart():
        for inner in part.get_payload():
            yield from _texts(inner, attachments, warn, depth)
    elif kind.startswith("multipart/"):  # without a boundary line
        yield from _with_another_boundary(part, attachments, warn, depth)
    elif (name := _file_name(part)) or (
        part.get_content_disposition() == "attachment" and not kind.startswith("text/")
    ):
        if kind == "text/calendar":
            yield _invitation(_text(part, warn))
        if kind in _ENCRYPTED:
            warn("it is encrypted, or signed as a whole: its text is not read")
        attachments.append(Attachment(name or kind, part.get_payload(decode=True) or b""))
    elif kind == "text/html":
        yield page(_text(part, warn), warn)
    elif kind == "text/calendar":
        yield _invitation(_text(part, warn))
    elif kind.startswith("text/"):
        text = _text(part, warn)
        flowed = str(part.get_param("format", "")).lower() == "flowed"
        yield _flowed(text, str(part.get_param("delsp", "")).lower() == "yes") if flowed else text
    else:
        if kind in _ENCRYPTED:
            warn("it is encrypted, or signed as a whole: its text is not read")
        attachments.append(Attachment(kind, b""))


def _with_another_boundary(part: Any, attachments: list[Attachment], warn: Warn, depth: int) -> Iterator[str]:
    """Yield the parts of a mail that is divided by another boundary line than its head says."""
    from email import message_from_string, policy

    text = str(part.get_payload())
    begin = re.match(r"\s*--(\S{1,70})[ \t]*\r?\n", text)
    if begin is None:
        yield text
        return
    whole = f'Content-Type: multipart/mixed; boundary="{begin[1]}"\n\n{text}'
    yield from _texts(message_from_string(whole, policy=policy.default), attachments, warn, depth)


_ENCRYPTED = ("application/pkcs7-mime", "application/x-pkcs7-mime", "application/pgp-encrypted")


def _unpacked(part: Any) -> list[Any]:
    """Return the mails in a part; some programs send them as base64, against the standard."""
    inner = part.get_payload()
    if str(part.get("Content-Transfer-Encoding", "")).strip().lower() not in ("base64", "quoted-printable"):
        return list(inner)
    from email import message_from_bytes, policy
    from email.message import Message

    found = []
    for one in inner:
        if one.keys() or not isinstance(one.get_payload(), str):
            found.append(one)  # it was not base64
            continue
        packed = Message()
        packed["Content-Transfer-Encoding"] = part["Content-Transfer-Encoding"]
        packed.set_payload(one.get_payload())
        unpacked: Any = packed.get_payload(decode=True)
        found.append(message_from_bytes(unpacked or b"", policy=policy.default))
    return found


def _best(parts: list[Any], attachments: list[Attachment], warn: Warn, depth: int) -> Iterator[str]:
    """Yield the plain form of a text with several forms, unless another one has much more text; keep other parts."""
    told = [(part, "\n\n".join(_texts(part, attachments, warn, depth)).strip()) for part in parts]
    plain = [text for part, text in told if part.get_content_type() == "text/plain" and text]
    other = [
        text for part, text in told if part.get_content_type() not in ("text/plain", "text/calendar") and text
    ]
    richest = max(other, key=len, default="")
    yield plain[0] if plain and 2 * len(plain[0]) >= len(_words(richest)) else richest or "".join(plain[:1])
    yield from (text for part, text in told if part.get_content_type() == "text/calendar")


def _words(text: str) -> str:
    """Return the text without link targets."""
    return re.sub(r"\]\([^()\s]*\)", "]", text)


def _file_name(part: Any) -> str:
    try:
        return " ".join(str(part.get_filename() or "").split())
    except Exception:  # a broken header
        return "attachment"


def _text(part: Any, warn: Warn) -> str:
    payload = part.get_payload(decode=True) or b""
    return decoded(payload, warn, part.get_content_charset()) if payload else ""


def _flowed(text: str, without_space: bool) -> str:
    """Undo the line breaks inside paragraphs (RFC 3676), which may be inside words."""
    text = re.sub(r"(?m)^ (?=[> ]|From )", "", text)
    break_ = r"(?m)(?<!^--)(?<=[^\n]) \r?\n(?!>|\r?\n|-- \r?\n)"
    return re.sub(break_, "" if without_space else " ", text)


_EVENT = {
    "SUMMARY": "Event",
    "STATUS": "Status",
    "DTSTART": "Start",
    "DTEND": "End",
    "RRULE": "Repeats",
    "LOCATION": "Place",
    "ORGANIZER": "Organizer",
    "ATTENDEE": "Attendee",
    "DESCRIPTION": "Description",
    "DUE": "Due",
}
_LINE = re.compile(
    r"([\w-]+)((?:;[\w-]+=(?:\"[^\"]*\"|[^\";:]*)(?:,(?:\"[^\"]*\"|[^\";:]*))*)*):(.*)", re.DOTALL
)
_OPTION = re.compile(r";([\w-]+)=(?:\"([^\"]*)\"|([^\";:]*))")


def _invitation(text: str) -> str:
    """Return a calendar entry as text (RFC 5545)."""
    told: list[str] = []
    within: list[str] = []
    for line in re.sub(r"\r?\n[ \t]", "", text).splitlines():
        if (found := _LINE.fullmatch(line)) is None:
            continue
        key, value = found[1].upper(), found[3]
        if key == "BEGIN":
            within.append(value.upper())
        elif key == "END":
            del within[-1:]
        elif key == "METHOD" and value.upper() == "CANCEL":
            told.append("Cancelled")
        elif within[-1:] in (["VEVENT"], ["VTODO"]) and key in _EVENT and value:
            options = {name.upper(): quoted or plain for name, quoted, plain in _OPTION.findall(found[2])}
            said = re.sub(r"\\([,;\\])", r"\1", re.sub(r"\\[nN]", "\n", value)).strip()
            if key in ("DTSTART", "DTEND", "DUE"):
                said = _moment(said) + (f" ({options['TZID']})" if "TZID" in options else "")
            said = re.sub("(?i)^mailto:", "", said)
            told.append(f"{_EVENT[key]}: " + (f"{options['CN']} <{said}>" if options.get("CN") else said))
    return "\n".join(told)


def _moment(value: str) -> str:
    found = re.fullmatch(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)(Z?))?", value)
    if found is None:
        return value
    year, month, day, hour, minute, _, utc = found.groups()
    return f"{year}-{month}-{day}" + (f" {hour}:{minute}{' UTC' if utc else ''}" if hour else "")
