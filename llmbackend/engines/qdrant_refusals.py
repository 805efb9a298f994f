"""Translates a Qdrant server's error replies into our errors, by status and by the words of their messages."""

from __future__ import annotations

import json
import re
from typing import Any

from ..backoff import passing
from ..errors import (
    BackendError,
    BackendTimeout,
    InsufficientStorage,
    InvalidRequest,
    LLMBackendError,
    Overloaded,
)
from .indexes import parts

# What a cluster says while some of its nodes are away, whatever the status.
_PARTIAL = re.compile(r"read operations failed|replica|consensus|not enough|shards? .*not available", re.I)
_NO_INDEX = re.compile(
    r'Index required but not found for \\*"(.+?)\\*"(?: of one of the following types: \[(.*?)\])?'
)
_TOO_LARGE = re.compile(r"larger than allowed|too large|length limit exceeded", re.I)
_TOO_MANY = re.compile(r"(Filter condition|Condition size) limit reached \((\d+) > (\d+)\)")
_STRICT = re.compile(r"Limit exceeded|disabled!")
# More points than the rate per minute: retrying never helps.
_NEVER = re.compile(r"larger than rate limiter capacity|split your request", re.I)
_FULL = re.compile(
    r"(storage size|points) limit .*reached|Max .* reached|\bquota\b|\bdisk\b|resident memory|memory usage",
    re.I,
)

_TITLE = re.compile(r"<title>([^<]+)</title>", re.I)
_NO_SPACE = re.compile(r"no space left on device", re.I)
"""Reported with status 500, which is normally retried; this is not."""


def refusal(status: int, body: str, where: str, about: dict[str, Any]) -> LLMBackendError:
    """Return the error for a reply with an error status."""
    said, its_own = _said(body)
    details = {**about, "status": status}
    if 300 <= status < 400:
        to = details.get("location", "another address")
        return BackendError(f"{where} redirects to {to}: set QDRANT_URL to that", details=details)
    if status == 401:
        return BackendError(f"{where} refuses the key: set QDRANT_API_KEY to the right one", details=details)
    if status == 403:  # for instance, the key may only read, or an administrator has locked all writes
        return BackendError(
            f"{where} forbids the call: {said}: does the key in QDRANT_API_KEY have the right?",
            details=details,
        )
    if (found := _NO_INDEX.search(said)) is not None:
        field = ".".join(parts(found[1])[1:]) or found[1]
        types = [one.strip() for one in (found[2] or "keyword").split(",")]
        return InvalidRequest(
            f"filters: {where} filters by indexed fields only (strict mode), and {field!r} has no index of the type "
            f"{' or '.join(types)}: make it by set_indexes(collection, {{{field!r}: {types[0]!r}}})",
            details={**details, "field": field, "types": types},
        )
    if (found := _TOO_MANY.search(said)) is not None:
        what = "conditions" if found[1].startswith("Filter") else "values in a condition"
        return InvalidRequest(
            f"filters: {found[2]} {what}, and {where} allows {found[3]} (strict mode): use a smaller filter",
            details={**details, "limit": int(found[3]), "strict": True},
        )
    if (status == 400 and _STRICT.search(said)) or (status == 429 and _NEVER.search(said)):
        return InvalidRequest(
            f"{where} refuses the request (strict mode): {said}", details={**details, "strict": True}
        )
    if status == 413 or (status == 400 and _TOO_LARGE.search(said)):
        return InvalidRequest(
            f"{where} refuses a request of that size: {said}", details={**details, "too_large": True}
        )
    if status == 429:
        return Overloaded(f"{where} is overloaded: {said}", details={**details, "passing": True})
    if status == 507 or (400 <= status < 500 and _FULL.search(said)) or _NO_SPACE.search(said):
        return InsufficientStorage(f"{where} has no room: {said}", details=details)
    if passing(status) or (status != 404 and _PARTIAL.search(said)):
        details["passing"] = True
    if status == 404 and not its_own:
        return BackendError(
            f"what answers in place of {where} does not know the address ({said}): is this the right URL?",
            details=details,
        )
    if status == 404:
        details["gone"] = True
    if status in (408, 504):
        return BackendTimeout(f"{where} did not answer in time: {said}", details=details)
    return BackendError(f"{where} answered {status}: {said}", details=details)


def _said(body: str) -> tuple[str, bool]:
    """Return the error message in a reply, and whether it is Qdrant's own: a proxy in front of it has other pages."""
    try:
        return str(json.loads(body)["status"]["error"])[:300], True
    except (ValueError, LookupError, TypeError):
        title = _TITLE.search(body)
        return " ".join((title[1] if title else body).split())[:300] or "nothing", False
