"""Tools of the MCP servers in AGENT_MCP (https://modelcontextprotocol.io), named `<server>__<tool>`; runs must name them."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import shlex
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from .. import threads
from ..errors import BackendError, InvalidRequest
from ..plugins import TOOLS, ToolPart
from ..text.delimiters import as_data

log = logging.getLogger(__name__)

BETWEEN = "__"
"""Separates a server's name from its tool's."""
LISTING_SECONDS = 15
"""Longest time a server may take to list its tools."""
AGAIN_SECONDS = 60
"""Seconds until a server that failed is asked again."""
_LOG_URLS = ("mcp.client.streamable_http", "mcp.client.sse", "httpx", "httpx2")
"""Loggers of the libraries that write a server's whole URL, at DEBUG or INFO."""
_URL = re.compile(r"(https?://)(?:[^\s/?#]*@)?(\[[^\s\]]*\]|[^\s/:?#\"']+)([^\s?#\"']*)(?:\?[^\s\"']*)?")
_hosts: set[str | None] = set()
"""Of servers that are reached by URLs."""


class McpServers:
    """Asks each server for its tools once, when agents are first listed or run. Made and used on the core's loop."""

    def __init__(self, servers: Mapping[str, str], seconds: float) -> None:
        """`servers` are URLs or commands by name; `seconds` limits each call."""
        self._waiting = dict.fromkeys(servers, 0.0)
        self._servers = servers
        self._seconds = seconds
        self._failed: dict[str, str] = {}
        self._loading = {name: asyncio.Lock() for name in servers}

    async def load(self, names: Collection[str] | None = None) -> None:
        """Register the tools of these servers (None: all); one that fails is logged, and asked again later."""
        wanted = [name for name in self._waiting if names is None or name in names]
        await asyncio.gather(*map(self._load, wanted))

    async def _load(self, name: str) -> None:
        async with self._loading[name]:
            if self._waiting.get(name, math.inf) > time.monotonic():
                return
            try:
                async with asyncio.timeout(LISTING_SECONDS):
                    await threads.plugins(self._register, name)
                del self._waiting[name]
            except InvalidRequest:
                raise
            except (Exception, TimeoutError) as error:
                self._waiting[name] = time.monotonic() + AGAIN_SECONDS
                late = isinstance(error, TimeoutError)
                self._failed[name] = f"no answer in {LISTING_SECONDS} s" if late else _plain(error)
                log.warning("the MCP server %s does not list its tools: %s", name, self._failed[name])

    async def lacking(self, seconds: float) -> list[str]:
        """Messages about the servers that do not list their tools within so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.load()
        return [
            f"the MCP server {name} does not list its tools: {self._failed.get(name, 'it does not answer')}: see AGENT_MCP"
            for name in self._waiting
        ]

    def _register(self, name: str) -> None:
        listed = asyncio.run(self._client(name).list_tools())
        for tool in listed.tools:
            schema = (
                getattr(tool, "input_schema", None)
                or getattr(tool, "inputSchema", None)
                or {"type": "object"}
            )
            hints = tool.annotations
            read = getattr(hints, "read_only_hint", None) or getattr(hints, "readOnlyHint", None)
            self._add(name, tool.name, tool.description or tool.name, schema, writes=not read)

    def _add(self, server: str, tool: str, about: str, schema: dict[str, Any], *, writes: bool) -> None:
        name = f"{server}{BETWEEN}{re.sub(r'[^A-Za-z0-9_-]', '_', tool)}"[:64]

        async def call(**arguments: Any) -> str:
            client = self._client(server)
            try:
                result = await client.call_tool(tool, arguments)
            except Exception as error:
                said = f"the MCP server {server} failed ({_plain(error)})"
                raise BackendError(said, details={"backend": "mcp"}) from None
            said = "\n".join(text for part in result.content if (text := getattr(part, "text", None)))
            if getattr(result, "is_error", False) or getattr(result, "isError", False):
                raise BackendError(said or "it failed", details={"backend": "mcp"})
            return said

        # A server's descriptions of its tools are untrusted data too.
        schema = json.loads(as_data(json.dumps(schema, ensure_ascii=False)))
        call.__module__, call.__qualname__, call.__doc__ = f"mcp.{server}", name, about
        TOOLS.add(name, ToolPart("tool", name, call, writes=writes, parameters=schema), call)

    def _client(self, name: str) -> Any:
        try:
            from llama_index.tools.mcp import BasicMCPClient
        except ImportError as error:
            raise InvalidRequest(f"AGENT_MCP needs MCP: pip install 'llmbackend[mcp]' ({error})") from error
        where = self._servers[name]
        if where.startswith(("http://", "https://")):
            _hosts.add(urlsplit(where).hostname)
            for logger in _LOG_URLS:
                logging.getLogger(logger).addFilter(_without_keys)  # once: it is the same each time
            return BasicMCPClient(where, timeout=max(1, int(self._seconds)))
        command, *arguments = shlex.split(where)
        return BasicMCPClient(command, args=arguments, timeout=max(1, int(self._seconds)))


def _without_keys(record: logging.LogRecord) -> bool:
    """Leave user, password and query, in which a key may be, out of the servers' URLs in a record; always keep the record."""
    said = record.getMessage()
    shown = _URL.sub(
        lambda url: url[1] + url[2] + url[3] if url[2].strip("[]").lower() in _hosts else url[0], said
    )
    if shown != said:
        record.msg, record.args = shown, ()
    return True


def _plain(error: BaseException) -> str:
    """An error without its message, which may quote the server's URL or command and so a key in it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = error.strerror if isinstance(error, OSError) else f"status {status}" if status else None
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
