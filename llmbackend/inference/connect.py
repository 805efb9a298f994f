"""The models that the settings name."""

from __future__ import annotations

from pydantic import SecretStr

from ..errors import BackendError
from ..settings import Settings
from .chat import ChatModel, OpenAICompatibleChat
from .embedded import EmbeddedChat, EmbeddedEmbedder
from .embeddings import Embedder, OpenAICompatibleEmbedder, TEIEmbedder


def chat_model(settings: Settings) -> ChatModel:
    """vLLM, LiteLLM or another OpenAI-compatible server, the first that is set; else the embedded model."""
    for backend, url, key in _servers(settings):
        if url:
            return OpenAICompatibleChat(backend, _versioned(url), _secret(key), settings)
    return EmbeddedChat(settings.models_path, settings.chat_model)


def embedder(settings: Settings) -> Embedder:
    """TEI, or EMBEDDING_MODEL on one of the servers; else the embedded model."""
    model, timeout = settings.embedding_model, settings.upstream_timeout
    if settings.tei_url:
        return TEIEmbedder(settings.tei_url, _secret(settings.tei_api_key), model, timeout)
    if model in (None, EmbeddedEmbedder.name):
        return EmbeddedEmbedder()
    # vLLM last: it serves one model, and VLLM_URL's is more often the chat model.
    for backend, url, key in sorted(_servers(settings), key=lambda server: server[0] == "vLLM"):
        if url:
            return OpenAICompatibleEmbedder(backend, _versioned(url), _secret(key), model, timeout)
    raise BackendError(
        f"EMBEDDING_MODEL is {model!r} but no server is set for it: "
        "set TEI_URL, LITELLM_URL, OPENAI_BASE_URL or VLLM_URL",
        details={"backend": "embeddings"},
    )


def _servers(settings: Settings) -> list[tuple[str, str | None, SecretStr | None]]:
    return [
        ("vLLM", settings.vllm_url, settings.vllm_api_key),
        ("LiteLLM", settings.litellm_url, settings.litellm_api_key),
        ("the OpenAI-compatible server", settings.openai_base_url, settings.openai_api_key),
    ]


def _versioned(url: str) -> str:
    """A base URL with the /v1 that people leave out."""
    url = url.rstrip("/")
    return url if url.endswith("/v1") else f"{url}/v1"


def _secret(key: SecretStr | None) -> str | None:
    return key.get_secret_value() if key else None
