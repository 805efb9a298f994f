"""Mails, with what is forwarded in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..decoding import decoded
from ..parsed import Attachment, Parsed, Unreadable, Warn, at_most
from .pages import page

_HEAD = ("Subject", "From", "To", "Cc", "Date")
DEPTH = 20
"""How deep mails may lie in one another."""


HEAD = 2**18
"""Bytes; servers of mail take less."""
PARTS = 20_000
"""Lines that may begin one."""


def mail(data: bytes, warn: Warn) -> Parsed:
    from email import message_from_bytes, policy

    head = data.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    at_most(HEAD, len(head), "bytes of head")
    at_most(PARTS, data.count(b"\n--"), "parts")
    message: Any = message_from_bytes(data, policy=policy.default)
    if not _fields(message):
        raise Unreadable("broken: a mail has a sender and a subject, and this has none")
    attachments: list[Attachment] = []
    text = _told(message, attachments, warn)
    return Parsed(text, attachments=tuple(attachments))


def _told(message: Any, attachments: list[Attachment], warn: Warn, depth: int = 0) -> str:
    """A mail's head, its texts in their order, and the mails in it."""
    before = len(attachments)
    body = "\n\n".join(filter(None, (text.strip("\n") for text in _texts(message, attachments, warn, depth))))
    fields = _fields(message)
    names = [one.name for one in attachments[before:]]
    if names:
        fields.append(f"Attachments: {', '.join(names)}")
    return "\n".join(fields) + "\n\n" + body


def _fields(message: Any) -> list[str]:
    found: list[str] = []
    for name in _HEAD:
        try:
            value = message[name]
        except Exception:  # what the library makes of a broken header
            value = next((raw for key, raw in message.raw_items() if key.lower() == name.lower()), None)
        if value:
            found.append(f"{name}: {' '.join(str(value).split())}")
    return found


def _texts(part: Any, attachments: list[Attachment], warn: Warn, depth: int) -> Iterator[str]:
    kind = part.get_content_type()
    if kind == "message/rfc822" or (kind.startswith("message/") and part.is_multipart()):
        for inner in part.get_payload():
            if depth == DEPTH:
                warn(f"mails forwarded more than {DEPTH} times over are left out")
            else:
                yield "---------- Forwarded message ----------\n" + _told(inner, attachments, warn, depth + 1)
    elif kind == "multipart/alternative":
        yield from _best(part.get_payload(), attachments, warn, depth)
    elif part.is_multipart():
        for inner in part.get_payload():
            yield from _texts(inner, attachments, warn, depth)
    elif (name := _file_name(part)) or part.get_content_disposition() == "attachment":
        if kind == "text/calendar":
            yield _invitation(_text(part, warn))
        attachments.append(Attachment(name or kind, part.get_payload(decode=True) or b""))
    elif kind == "text/html":
        yield page(_text(part, warn), warn)
    elif kind == "text/calendar":
        yield _invitation(_text(part, warn))
    elif kind.startswith("text/") or kind == "message/delivery-status":
        text = _text(part, warn)
        yield _flowed(text) if str(part.get_param("format", "")).lower() == "flowed" else text
    else:
        attachments.append(Attachment(kind, b""))


def _best(parts: list[Any], attachments: list[Attachment], warn: Warn, depth: int) -> Iterator[str]:
    """Of several forms of one text the plain one, unless another says much more; what is no such form stays."""
    told = [(part, "\n\n".join(_texts(part, attachments, warn, depth)).strip()) for part in parts]
    plain = [text for part, text in told if part.get_content_type() == "text/plain" and text]
    other = [
        text for part, text in told if part.get_content_type() not in ("text/plain", "text/calendar") and text
    ]
    richest = max(other, key=len, default="")
    yield plain[0] if plain and 2 * len(plain[0]) >= len(_words(richest)) else richest or "".join(plain[:1])
    yield from (text for part, text in told if part.get_content_type() == "text/calendar")


def _words(text: str) -> str:
    """Without what links point to."""
    return re.sub(r"\]\([^()\s]*\)", "]", text)


def _file_name(part: Any) -> str:
    try:
        return " ".join(str(part.get_filename() or "").split())
    except Exception:  # a broken header
        return "attachment"


def _text(part: Any, warn: Warn) -> str:
    payload = part.get_payload(decode=True) or b""
    return decoded(payload, warn, part.get_content_charset()) if payload else ""


def _flowed(text: str) -> str:
    """Paragraphs as they were before they were broken into lines (RFC 3676)."""
    text = re.sub(r"(?m)^ (?=[> ]|From )", "", text)
    return re.sub(r"(?m)(?<!^-- )(?<=[^\n] )\r?\n(?!>|\r?\n|-- \r?\n)", "", text)


_EVENT = {
    "SUMMARY": "Event",
    "DTSTART": "Start",
    "DTEND": "End",
    "LOCATION": "Place",
    "ORGANIZER": "Organizer",
    "ATTENDEE": "Attendee",
    "DESCRIPTION": "Description",
    "DUE": "Due",
}


def _invitation(text: str) -> str:
    """What a calendar entry says (RFC 5545)."""
    lines = re.sub(r"\r?\n[ \t]", "", text).splitlines()
    told: list[str] = []
    inside = 0
    for line in lines:
        name, _, value = line.partition(":")
        key, *options = name.split(";")
        if key in ("BEGIN", "END"):
            if value in ("VEVENT", "VTODO"):
                inside += 1 if key == "BEGIN" else -1
        elif inside and key in _EVENT and value:
            said = re.sub(r"\\([,;\\])", r"\1", re.sub(r"\\[nN]", "\n", value)).strip()
            zone = next((option[5:] for option in options if option.startswith("TZID=")), "")
            if key in ("DTSTART", "DTEND", "DUE"):
                said = _moment(said) + (f" ({zone})" if zone else "")
            told.append(f"{_EVENT[key]}: {re.sub('(?i)^mailto:', '', said)}")
    return "\n".join(told)


def _moment(value: str) -> str:
    found = re.fullmatch(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)(Z?))?", value)
    if found is None:
        return value
    year, month, day, hour, minute, _, utc = found.groups()
    return f"{year}-{month}-{day}" + (f" {hour}:{minute}{' UTC' if utc else ''}" if hour else "")
