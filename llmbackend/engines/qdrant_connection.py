"""Calls to a Qdrant server or cluster: clients, retries, and errors translated into ours."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ..backoff import Patience, asked_for
from ..errors import BackendError, BackendTimeout, LLMBackendError, Overloaded
from .qdrant_refusals import refusal

CONNECTING = 10.0
"""Seconds to wait for a server that has never answered: the URL may be wrong."""

Result = TypeVar("Result")
Ask = Callable[[Any], Result]


class Connection:
    """To one URL, or to several of a cluster, with commas between: those that answer are asked.

    Nothing is asked of the server before it is needed, so that it may be away when this starts.
    """

    def __init__(self, url: str, api_key: str | None, timeout: float, client: Any = None) -> None:
        self.url = url
        self._urls = [one.strip() for one in url.split(",") if one.strip()]
        self._api_key = api_key
        self._timeout = timeout
        self._client = client
        self._clients: dict[str, Any] = {}
        self._asked = 0
        """Which of the URLs is asked."""
        self._answered = False
        self._connecting = threading.Lock()

    def client(self, url: str) -> Any:
        if self._client is not None:
            return self._client
        with self._connecting:
            if url not in self._clients:
                from qdrant_client import QdrantClient

                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about a key without TLS, as in a private network
                    self._clients[url] = QdrantClient(
                        url=url,
                        api_key=self._api_key,
                        timeout=max(1, round(self._timeout)),
                        check_compatibility=False,
                    )
            return self._clients[url]

    def ask(self, ask: Ask[Result], *, again: bool = True) -> Result:
        """What `ask` gets from the client, tried `again` while that may help, for as long as the time-out.

        What is written may be written twice, which changes nothing. Raises what `translated` does.
        """
        seconds = self._timeout if self._answered else min(CONNECTING, self._timeout)
        patience = Patience(time.monotonic() + seconds)
        while True:
            for _ in self._urls:
                url = self._urls[self._asked % len(self._urls)]
                try:
                    with self._translated(url):
                        result = ask(self.client(url))
                except LLMBackendError as error:
                    if not again or not error.details.get("passing"):
                        raise
                    self._asked += 1  # the next of several URLs
                    failed = error
                else:
                    self._answered = True
                    return result
            pause = patience.pause(failed.details.get("retry_after"))
            used_up = isinstance(failed, BackendTimeout) and "status" not in failed.details
            if pause is None or used_up:
                raise failed
            time.sleep(pause)

    def close(self) -> None:
        for client in [self._client, *self._clients.values()]:
            if client is not None:
                client.close()

    @contextmanager
    def _translated(self, url: str) -> Iterator[None]:
        """Translate qdrant-client's exceptions into ours, the one place that does; `passing` ones may succeed when
        tried again.
        """
        import httpx
        from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        where = f"the Qdrant server at {url}"
        about: dict[str, Any] = {"backend": "Qdrant", "url": url}
        for_now = {**about, "passing": True}
        try:
            yield
        except LLMBackendError:
            raise
        except ResourceExhaustedResponse as error:
            raise Overloaded(
                f"{where} has too much to do: {error}",
                details={**for_now, "retry_after": error.retry_after_s},
            ) from error
        except UnexpectedResponse as error:
            if (seconds := asked_for(error.headers.get("Retry-After"))) is not None:
                about["retry_after"] = seconds
            raise refusal(
                error.status_code or 0, error.content.decode(errors="replace"), where, about
            ) from error
        except ResponseHandlingException as error:
            if isinstance(error.source, httpx.TimeoutException):
                raise BackendTimeout(
                    f"{where} did not answer in {self._timeout:.3g} s", details=for_now
                ) from error
            if isinstance(error.source, httpx.TransportError):
                raise BackendError(
                    f"{where} cannot be reached ({type(error.source).__name__}): is it running there?",
                    details=for_now,
                ) from error
            raise BackendError(
                f"{where} gave an answer that does not fit ({type(error.source).__name__}): is this the right URL?",
                details=about,
            ) from error
        except QdrantException as error:  # a Retry-After that the client cannot read
            raise Overloaded(f"{where} has too much to do", details=for_now) from error
        except Exception as error:  # what the client finds wrong before it asks
            raise BackendError(f"{where}: {error}", details=about) from error
