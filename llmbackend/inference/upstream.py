"""What goes wrong at a server behind us, in our terms: the one place where its client's exceptions become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import openai

from ..errors import BackendError, BackendTimeout, InvalidRequest, LLMBackendError, NotFound, Overloaded


@contextmanager
def translate(name: str, url: str) -> Iterator[None]:
    """Within this block, what the openai client raises becomes an LLMBackendError that names the server."""
    about = {"backend": name}
    try:
        yield
    except openai.APITimeoutError as error:
        raise BackendTimeout(f"{name} at {url} did not answer in time", details=about) from error
    except openai.APIConnectionError as error:
        raise BackendError(f"{name} at {url} cannot be reached: is it running?", details=about) from error
    except openai.APIStatusError as error:
        raise _of_status(error, name, url) from error
    except openai.OpenAIError as error:
        raise BackendError(f"{name} at {url} gave an answer that does not fit", details=about) from error


def _of_status(error: openai.APIStatusError, name: str, url: str) -> LLMBackendError:
    about = {"backend": name, "status": error.status_code}
    said = _message(error)
    match error.status_code:
        case 400 | 413 | 422:
            return InvalidRequest(f"{name} refused the request: {said}", details=about)
        case 401 | 403:
            # Its message may quote the key, so it is not passed on.
            return BackendError(f"{name} at {url} refused our API key: check its setting", details=about)
        case 404:
            return NotFound(f"{name} has no such model: {said}", details=about)
        case 429:
            wait = error.response.headers.get("retry-after")
            if wait is not None and wait.replace(".", "", 1).isdigit():
                about["retry_after"] = float(wait)
            return Overloaded(f"{name} is busy: try again later", details=about)
        case 408 | 504:
            return BackendTimeout(f"{name} at {url} did not answer in time", details=about)
        case _:
            return BackendError(f"{name} at {url} failed with {error.status_code}: {said}", details=about)


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict):
        text = body.get("message") or body.get("detail") or ""
        if text:
            return str(text)[:500]
    return f"HTTP {error.status_code}"
