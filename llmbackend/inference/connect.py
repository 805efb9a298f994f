"""The models that the settings name."""

from __future__ import annotations

from ..errors import BackendError
from ..settings import Settings
from .chat import CONTEXT, ChatModel, OpenAICompatibleChat
from .embedded import EmbeddedChat, EmbeddedEmbedder
from .embeddings import Embedder, OpenAICompatibleEmbedder, TEIEmbedder
from .rerank import JinaReranker, NoReranker, Reranker, TEIReranker
from .upstream import Upstream


def chat_model(settings: Settings) -> ChatModel:
    """The servers that are set: vLLM, then LiteLLM, then another OpenAI-compatible one; else the embedded model."""
    upstreams = servers(settings)
    if upstreams:
        return OpenAICompatibleChat(upstreams, settings)
    return EmbeddedChat(settings.models_path, settings.chat_model, settings.chat_context or CONTEXT)


def embedder(settings: Settings) -> Embedder:
    """TEI, or EMBEDDING_MODEL on one of the servers; else the embedded model."""
    model, timeout = settings.embedding_model, settings.upstream_timeout
    if settings.tei_url:
        tei = Upstream("TEI", settings.tei_url.rstrip("/"), settings.tei_api_key, timeout, "TEI_API_KEY")
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


def reranker(settings: Settings) -> Reranker:
    """TEI, or a server of Jina's wire; where neither is set, one that says so."""
    upstream = rerank_server(settings)
    if upstream is None:
        return NoReranker()
    kind = TEIReranker if settings.tei_rerank_url else JinaReranker
    return kind(upstream, settings.rerank_model)


def rerank_server(settings: Settings) -> Upstream | None:
    """Where texts are reranked, if anywhere."""
    for name, url, key, key_setting in (
        ("TEI", settings.tei_rerank_url, settings.tei_rerank_api_key, "TEI_RERANK_API_KEY"),
        ("the rerank server", settings.rerank_url, settings.rerank_api_key, "RERANK_API_KEY"),
    ):
        if url:
            return Upstream(name, url.rstrip("/"), key, settings.upstream_timeout, key_setting)
    return None


def servers(settings: Settings) -> list[Upstream]:
    """The OpenAI-compatible servers, in the order in which they are asked to chat."""
    return [
        Upstream(name, _versioned(url), key, settings.upstream_timeout, key_setting)
        for name, urls, key, key_setting in (
            ("vLLM", settings.vllm_url, settings.vllm_api_key, "VLLM_API_KEY"),
            ("LiteLLM", settings.litellm_url, settings.litellm_api_key, "LITELLM_API_KEY"),
            (
                "the OpenAI-compatible server",
                settings.openai_base_url,
                settings.openai_api_key,
                "OPENAI_API_KEY",
            ),
        )
        for url in (urls or "").split(",")
        if url.strip()
    ]


def _versioned(url: str) -> str:
    """A base URL with the /v1 that people leave out."""
    url = url.strip().rstrip("/")
    return url if url.endswith("/v1") else f"{url}/v1"
