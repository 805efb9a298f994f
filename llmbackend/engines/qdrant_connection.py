"""Calls a Qdrant server or cluster: clients, retries, and the translation of errors into ours."""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from ..backoff import Patience, asked_for
from ..errors import BackendError, BackendTimeout, LLMBackendError, Overloaded
from .qdrant_refusals import refusal

CONNECTING = 10.0
"""Most seconds for a connection, and to wait for a server that has never answered, because the URL may be wrong."""

Result = TypeVar("Result")
Ask = Callable[[Any], Result]


class Connection:
    """Calls a server at one URL, or a cluster at several, separated by commas; if one does not answer, the next is called.

    The server is not called before it is needed, so it may be down when this is made.
    """

    def __init__(self, url: str, api_key: str | None, timeout: float, client: Any = None) -> None:
        self.url = url
        self._urls = [one.strip() for one in url.split(",") if one.strip()]
        self._api_key = api_key
        self._timeout = timeout
        self._client = client
        self._clients: dict[str, Any] = {}
        self._asked = 0
        """The index of the URL that answered last."""
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
                        event_hooks={
                            "request": [_connect_soon],
                            "response": [partial(_in_time, self._timeout)],
                        },
                    )
            return self._clients[url]

    def ask(self, ask: Ask[Result], *, again: bool = True) -> Result:
        """Call `ask(client)` and return its result; with `again`, retry while that may help, within the timeout.

        A write may be sent twice, which changes nothing. Raises our errors, translated from the client's.
        """
        seconds = self._timeout if self._answered else min(CONNECTING, self._timeout)
        patience = Patience(time.monotonic() + seconds)
        while True:
            first = self._asked
            for number in range(first, first + len(self._urls)):
                url = self._urls[number % len(self._urls)]
                try:
                    with self._translated(url):
                        result = ask(self.client(url))
                except LLMBackendError as error:
                    if not error.details.get("passing"):
                        raise
                    failed = error
                else:
                    self._answered, self._asked = True, number % len(self._urls)
                    return result
            pause = patience.pause(failed.details.get("retry_after")) if again else None
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
        """Translate qdrant-client's exceptions into ours. Those with `passing` in their details are worth a retry."""
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
                f"{where} is overloaded: {error}",
                details={**for_now, "retry_after": error.retry_after_s},
            ) from error
        except UnexpectedResponse as error:
            if (seconds := asked_for(error.headers.get("Retry-After"))) is not None:
                about["retry_after"] = seconds
            if (place := error.headers.get("Location")) is not None:
                about["location"] = place
            raise refusal(
                error.status_code or 0, error.content.decode(errors="replace"), where, about
            ) from error
        except ResponseHandlingException as error:
            if isinstance(error.source, httpx.TimeoutException) and not isinstance(
                error.source, httpx.ConnectTimeout
            ):
                raise BackendTimeout(
                    f"{where} did not answer in {self._timeout:.3g} s", details=for_now
                ) from error
            if isinstance(error.source, httpx.TransportError):
                raise BackendError(
                    f"{where} cannot be reached ({type(error.source).__name__}): is it running?",
                    details=for_now,
                ) from error
            raise BackendError(
                f"{where} sent a reply that is not Qdrant's ({type(error.source).__name__}): is this the right URL?",
                details=about,
            ) from error
        except QdrantException as error:  # a Retry-After that the client cannot read
            raise Overloaded(f"{where} is overloaded", details=for_now) from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, AssertionError) as error:
            raise BackendError(
                f"{where} sent a reply that is not Qdrant's ({type(error).__name__}): is this the right URL?",
                details=about,
            ) from error
        except Exception as error:  # what the client refuses before it calls the server
            raise BackendError(f"{where}: {error}", details=about) from error


def _connect_soon(request: Any) -> None:
    """Limit the time for a connection: a machine that is off does not answer, and the next URL is waiting."""
    limits = request.extensions["timeout"]
    limits["connect"] = min(CONNECTING, limits["connect"] or CONNECTING)


def _in_time(timeout: float, response: Any) -> None:
    """Limit the time for a reply's body: httpx limits only the time between two of its pieces."""
    import httpx

    class InTime(httpx.SyncByteStream):
        def __init__(self, stream: Any) -> None:
            self._stream, self._ends = stream, time.monotonic() + timeout

        def __iter__(self) -> Iterator[bytes]:
            for piece in self._stream:
                if time.monotonic() > self._ends:
                    raise httpx.ReadTimeout("the reply takes too long", request=response.request)
                yield piece

        def close(self) -> None:
            self._stream.close()

    response.stream = InTime(response.stream)
