"""Signatures of webhooks after https://www.standardwebhooks.com, whose libraries can verify them.

A signature is the base64 of the HMAC-SHA256 of `id.timestamp.body`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from ..access.caller import DEFAULT
from ..errors import InvalidRequest


def signed(secret: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a request, with its signature."""
    content = f"{message_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }


def key(secret: str) -> bytes:
    """The bytes of a secret; if it begins with whsec_, the rest is base64."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        raise InvalidRequest("WEBHOOK_SECRET begins with whsec_, but the rest is not base64") from None


def of_project(secret: bytes, project: str) -> bytes:
    """The secret that signs a project's deliveries, so that no project can forge another's.

    `default`, the operator's project, has the server's own secret, as all had before projects existed.
    """
    if project == DEFAULT:
        return secret
    return hmac.new(secret, f"webhooks of {project}".encode(), hashlib.sha256).digest()


def written(secret: bytes) -> str:
    """A secret as receivers' libraries take it."""
    return f"whsec_{base64.b64encode(secret).decode()}"
