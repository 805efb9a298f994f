"""A chat server in an order of fallback: which models it offers, and whether to avoid it for now."""

from __future__ import annotations

import time
from typing import Any

from ..errors import BackendError, InvalidRequest, LLMBackendError, NotFound
from . import responses_route
from .upstream import RETRIES, Upstream


class ChatServer:
    LIST_AGE = 60.0  # seconds after which the list is read again to look for an unknown model
    LISTING = 2.0  # seconds that a call may have to wait for that

    def __init__(self, upstream: Upstream, cool_down: float) -> None:
        self.upstream = upstream
        self.tells_usage = True
        """Whether its streams take the options that make them tell their usage; some servers refuse these."""
        self._cool_down = cool_down
        self._has_responses: bool | None = None
        self._takes_tools: bool | None = None
        self._rests_until = 0.0
        self._offered: dict[str, int | None] = {}
        self._read_at = -self.LIST_AGE

    @property
    def resting(self) -> bool:
        return time.monotonic() < self._rests_until

    def rest(self, failure: LLMBackendError) -> None:
        """Avoid the server for as long as it asks for, else for the cool-down."""
        self._rests_until = time.monotonic() + (failure.details.get("retry_after") or self._cool_down)

    async def has_responses(self) -> bool:
        """Whether the server has OpenAI's responses route. It is asked once."""
        if self._has_responses is None and not self.resting:
            deadline = time.monotonic() + self.LISTING
            self._has_responses = await responses_route.has_route(self.upstream, deadline)
        return bool(self._has_responses)

    async def takes_tools(self, model: str) -> bool:
        """Whether the server's chats take functions. It is asked once, since its responses route may silently
        ignore them."""
        if self._takes_tools is None and not self.resting:
            deadline = time.monotonic() + self.LISTING
            self._takes_tools = await responses_route.takes_tools(self.upstream, model, deadline)
        return self._takes_tools is not False

    def forget_responses(self) -> None:
        """Note that the server does not have the responses route any more."""
        self._has_responses = False

    @property
    def first(self) -> str | None:
        """The first model that the server offers, if its list has been read."""
        return next(iter(self._offered), None)

    async def default(self, deadline: float, *, fresh: bool = False) -> str:
        """The first model that the server offers; raises BackendError or Overloaded."""
        about = {"backend": self.upstream.name}
        try:
            offered = await self.offered(deadline, fresh=fresh)
        except (NotFound, InvalidRequest) as error:
            raise BackendError(
                f"{self.upstream.name} at {self.upstream.url} does not list its models: correct the URL, "
                f"or name one with CHAT_MODEL ({error.message})",
                details=about,
            ) from error
        if not offered:
            raise BackendError(
                f"{self.upstream.name} at {self.upstream.url} offers no model: start it with one",
                details=about,
            )
        return next(iter(offered))

    async def may_offer(self, model: str, patience: float) -> bool:
        """Whether to ask the server for this model: yes, unless it is known not to have it."""
        now = time.monotonic()
        if model not in self._offered and not self.resting and now >= self._read_at + self.LIST_AGE:
            self._read_at = now
            try:
                self._offered = await offered(self.upstream, now + patience, retries=0)
            except NotFound:
                pass  # it does not list its models
            except LLMBackendError as error:
                self.rest(error)
        return model in self._offered or not self._offered

    async def offered(self, deadline: float | None = None, *, fresh: bool = False) -> dict[str, int | None]:
        """The models that the server offers, each with the tokens that it takes, if the server tells."""
        if fresh or not self._offered:
            self._offered = await offered(self.upstream, deadline)
        return self._offered


async def offered(
    upstream: Upstream, deadline: float | None = None, retries: int = RETRIES
) -> dict[str, int | None]:
    """The models that a server lists, each with the tokens that it takes, if the server tells."""
    return {model["id"]: context(model) for model in await listed(upstream, deadline, retries)}


async def listed(
    upstream: Upstream, deadline: float | None = None, retries: int = RETRIES
) -> list[dict[str, Any]]:
    """What a server tells about each of its models; `id` is the name to ask for."""
    with upstream.errors.translated():
        models = (await upstream.get("/models", deadline, retries))["data"]
        return [{**model, "id": str(model["id"])} for model in models]


def context(model: dict[str, Any]) -> int | None:
    """The tokens that a listed model takes; None if the server does not tell."""
    tokens = model.get("max_model_len")  # vLLM's field
    return tokens if isinstance(tokens, int) and tokens > 0 else None
