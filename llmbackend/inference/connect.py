"""The models that the settings name."""

from __future__ import annotations

from ..errors import BackendError
from ..settings import Settings
from .cache import Cache, CachedEmbedder
from .chat import CONTEXT, ChatModel, OpenAICompatibleChat
from .embedded import EmbeddedChat, EmbeddedEmbedder
from .embeddings import Embedder
from .served import OpenAICompatibleEmbedder, TEIEmbedder
from .upstream import Upstream


def chat_model(settings: Settings) -> ChatModel:
    """The servers that are set: vLLM, then LiteLLM, then another OpenAI-compatible one; else the embedded model."""
    upstreams = servers(settings)
    if upstreams:
        return OpenAICompatibleChat(upstreams, settings)
    return EmbeddedChat(settings.models_path, settings.chat_model, settings.chat_context or CONTEXT)


def embedder(settings: Settings) -> Embedder:
    """TEI, or EMBEDDING_MODEL on one of the servers; else the embedded model. Before it, the cache of vectors."""
    megabytes = settings.embedding_cache_mb
    cache = Cache(settings.data_dir / "embeddings.db", megabytes) if megabytes else None
    return CachedEmbedder(_embedding_model(settings), cache)


def _embedding_model(settings: Settings) -> Embedder:
    model, timeout = settings.embedding_model, settings.upstream_timeout
    if settings.tei_url:
        tei = Upstream("TEI", settings.tei_url.rstrip("/"), settings.tei_api_key, timeout)
        return TEIEmbedder(tei, model)
    if model is None or model == EmbeddedEmbedder.name:
        return EmbeddedEmbedder()
    # vLLM last: it serves one model, and VLLM_URL's is more often the chat model.
    for server in sorted(servers(settings), key=lambda server: server.name == "vLLM"):
        return OpenAICompatibleEmbedder(server, model)
    raise BackendError(
        f"EMBEDDING_MODEL is {model!r} but no server is set for it: "
        "set TEI_URL, LITELLM_URL, OPENAI_BASE_URL or VLLM_URL",
        details={"backend": "embeddings"},
    )


def servers(settings: Settings) -> list[Upstream]:
    """The OpenAI-compatible servers, in the order in which they are asked to chat."""
    return [
        Upstream(name, _versioned(url), key, settings.upstream_timeout)
        for name, urls, key in (
            ("vLLM", settings.vllm_url, settings.vllm_api_key),
            ("LiteLLM", settings.litellm_url, settings.litellm_api_key),
            ("the OpenAI-compatible server", settings.openai_base_url, settings.openai_api_key),
        )
        for url in (urls or "").split(",")
        if url.strip()
    ]


def _versioned(url: str) -> str:
    """A base URL with the /v1 that people leave out."""
    url = url.strip().rstrip("/")
    return url if url.endswith("/v1") else f"{url}/v1"
