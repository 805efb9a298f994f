"""A model server behind us, and what goes wrong there in our terms: the one place where foreign errors become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import SecretStr

from ..errors import BackendError, BackendTimeout, InvalidRequest, LLMBackendError, NotFound, Overloaded


@dataclass(frozen=True)
class Upstream:
    name: str
    url: str
    key: SecretStr | None = None

    @property
    def secret(self) -> str | None:
        return self.key.get_secret_value() if self.key else None

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Within this block, whatever a client of the server raises becomes an LLMBackendError that names it."""
        import openai

        about = {"backend": self.name}
        try:
            yield
        except LLMBackendError:
            raise
        except openai.APIStatusError as error:
            raise self.refusal(
                error.status_code, _said(error), error.response.headers.get("retry-after")
            ) from error
        except Exception as error:
            # The HTTP client under openai differs by its version, hence names instead of classes.
            names = {kind.__name__ for kind in type(error).__mro__}
            if names & {"APITimeoutError", "TimeoutException", "TimeoutError"}:
                raise BackendTimeout(
                    f"{self.name} at {self.url} did not answer in time", details=about
                ) from error
            if names & {"APIConnectionError", "TransportError", "ClientError", "OSError"}:
                raise BackendError(
                    f"{self.name} at {self.url} cannot be reached, or broke off: is it running?",
                    details=about,
                ) from error
            raise BackendError(
                f"{self.name} at {self.url} gave an answer that does not fit ({type(error).__name__}): "
                "is this the right URL?",
                details=about,
            ) from error

    def refusal(self, status: int, said: str, retry_after: str | None = None) -> LLMBackendError:
        """The error for a reply with an error status and what its body said."""
        about: dict[str, object] = {"backend": self.name, "status": status}
        if self.secret:
            said = said.replace(self.secret, "***")  # servers have been seen to quote what they were sent
        said = said[:500] or f"HTTP {status}"
        match status:
            case 400 | 413 | 422:
                return InvalidRequest(f"{self.name} refused the request: {said}", details=about)
            case 401 | 403:
                return BackendError(
                    f"{self.name} at {self.url} refused our API key: check its setting", details=about
                )
            case 404:
                return NotFound(f"{self.name} has no such model: {said}", details=about)
            case 408 | 504:
                return BackendTimeout(f"{self.name} at {self.url} did not answer in time", details=about)
            case 429:
                if retry_after is not None and retry_after.replace(".", "", 1).isdigit():
                    about["retry_after"] = float(retry_after)
                return Overloaded(f"{self.name} is busy: try again later", details=about)
            case _:
                return BackendError(f"{self.name} at {self.url} failed with {status}: {said}", details=about)


def _said(error: object) -> str:
    body = getattr(error, "body", None)
    return str(body.get("message") or body.get("detail") or "") if isinstance(body, dict) else ""
