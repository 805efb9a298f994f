"""Checks which addresses this server, or a model server, may call for a caller: public ones, unless a setting allows others.

A URL is parsed once, and checked twice: its host when the request arrives, and each address before it is called.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

import anyio

from .. import threads
from ..errors import InvalidRequest

if TYPE_CHECKING:
    import yarl

LOOKUP_SECONDS = 10.0
"""Most seconds to look up all names of a request."""

_NAME = re.compile(
    r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?"
)
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)\.?$", re.IGNORECASE)
_SPECIAL = tuple(
    map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32"))
)  # Protocol assignments, global to older Pythons, and 6to4 relays; Oracle's and Azure's metadata services among them.
_UNICAST = ipaddress.IPv6Network("2000::/3")
_TUNNELS = (ipaddress.IPv6Network("2001::/32"), ipaddress.IPv6Network("2002::/16"))  # Teredo, 6to4
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)  # in the middle of an address that ends with an IPv4 address


class Refused(OSError):
    """An address that may not be called."""


def is_public(address: str) -> bool:
    """Whether a literal address is public, and so is any address embedded in it."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # not a plain address, or one with a zone, which is local
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif found in _NAT64:
            found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        elif (
            found not in _UNICAST
            or any(found in net for net in _TUNNELS)
            or (int(found) >> 32) & 0xFFFFFFFF in _ISATAP
        ):
            return False
    special = isinstance(found, ipaddress.IPv4Address) and any(found in net for net in _SPECIAL)
    return found.is_global and not found.is_multicast and not special


def parsed(url: str, name: str, *, private: bool) -> yarl.URL:
    """The URL as it is called, its host in ASCII.

    Raises InvalidRequest, which begins with `name`, if the text alone shows that it may not be called.
    """
    import yarl

    wrong = InvalidRequest(f"{name}: it must be like https://host/path, without a name or password")
    try:
        found = yarl.URL(url)
    except (ValueError, UnicodeError):
        raise wrong from None
    host = found.raw_host or ""
    if found.scheme not in ("http", "https") or found.raw_user is not None or found.raw_password is not None:
        raise wrong
    if not _is_address(host) and (len(host) > 253 or not _NAME.fullmatch(host)):
        raise wrong
    if not private:
        last = host.rstrip(".").rpartition(".")[2]
        # A host that ends with a number is an address: the system reads 127.1, 0x7f.1 and 2130706433 as such.
        if (_is_address(host) or _NUMBER.fullmatch(last)) and not is_public(host):
            raise InvalidRequest(f"{name}: {host} is no public address")
    return found


def origin(url: str) -> str:
    """Host and port as the HTTP client sees them; empty if it is not a URL."""
    import yarl

    try:
        found = yarl.URL(url)
        return f"{found.raw_host}:{found.port}"[:300]
    except (ValueError, UnicodeError):
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


async def look_up(host: str, by: threads.Threads = threads.names) -> list[str]:
    """The addresses of a name, as this machine resolves it."""
    found = await by(lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM), abandon_on_cancel=True)
    return [str(address[0]) for *_, address in found]


async def check_names(hosts: Iterable[str], name: str) -> None:
    """Raise InvalidRequest if one of these names has an address that is not public, or none.

    For URLs that another server fetches. That server resolves the name itself, and may get another address; preventing
    that is left to its own network.
    """

    async def check(host: str) -> None:
        try:
            found = await look_up(host)
            public = bool(found) and all(map(is_public, found))
        except (OSError, UnicodeError):
            public = False
        if not public:
            refused.append(host)

    refused: list[str] = []
    with anyio.move_on_after(LOOKUP_SECONDS) as scope:
        async with anyio.create_task_group() as looking:
            for host in {host for host in hosts if not _is_address(host)}:
                looking.start_soon(check, host)
    if refused or scope.cancelled_caught:
        which = min(refused, default="a host")
        raise InvalidRequest(f"{name}: {which} has no public address")
