"""OpenAI's client, of any server. Importing this takes most of a second, so do it in a thread, when it is needed."""

from __future__ import annotations

import ssl

import openai


class OpenAIClient(openai.AsyncOpenAI):
    """Tries nothing again, and follows no redirect: Upstream decides on that. Of the environment it takes nothing.

    The key is always given, or it would send OPENAI_API_KEY to another's server.
    """

    def __init__(self, url: str, key: str | None, timeout: float, connecting: float) -> None:
        super().__init__(
            base_url=url,
            api_key=key or "none",
            timeout=openai.Timeout(timeout, connect=connecting),
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(
                follow_redirects=False,
                trust_env=False,
                verify=ssl.create_default_context(),  # with whichever authorities aiohttp trusts
            ),
        )

    @property
    def default_headers(self) -> dict[str, str | openai.Omit]:
        """Not what the environment has for OpenAI itself (organization, project, …), nor what this machine is."""
        return {"Accept": "application/json", "Content-Type": "application/json"}
