"""Makes the models that the settings name."""

from __future__ import annotations

import math
from importlib.util import find_spec

from pydantic import SecretStr

from ..disk import Disk
from ..errors import BackendError
from ..settings import Settings
from . import catalogue
from .cache import Cache
from .cached_embedder import CachedEmbedder, Prompts
from .chat import CONTEXT, VLLM, ChatModel, OpenAICompatibleChat
from .cross_encoder import CrossEncoder
from .embeddings import Embedder
from .forwarding import ForwardingChat
from .judge import Judge
from .local_chat import LocalChat
from .minilm import MiniLM
from .models_folder import ModelsFolder
from .openai_embedder import OpenAICompatibleEmbedder
from .remote_embedders import RemoteEmbedder
from .replicas import Replicas
from .rerank import JinaReranker, NoReranker, Reranker, TEIReranker
from .static_vectors import WORDLLAMA, StaticEmbedder, static_model, wordllama
from .tei_embedder import TEIEmbedder
from .upstream import Upstream


def chat_model(settings: Settings, *, forwards: bool = False) -> ChatModel:
    """The chat servers of the settings: vLLM, then LiteLLM, then OPENAI_BASE_URL. If none is set, the
    embedded model."""
    upstreams = servers(settings)
    if upstreams:
        kind = ForwardingChat if forwards else OpenAICompatibleChat
        return kind(upstreams, settings)
    return LocalChat(settings.models_path, settings.chat_model, settings.chat_context or CONTEXT)


def embedders(settings: Settings, disk: Disk | None = None) -> tuple[CachedEmbedder, Judge]:
    """The embedding model of collections, and the judge of what is found in them. Both use the cache of
    vectors.

    The first is on TEI, or it is EMBEDDING_MODEL on one of the other servers; otherwise it runs in this
    process.
    """
    megabytes = settings.embedding_cache_mb
    cache = Cache(settings.data_dir / "embeddings.db", megabytes, disk) if megabytes else None
    minilm = MiniLM(settings.models_path)
    model = _embedding_model(settings, minilm)
    prompts = Prompts(settings.embedding_query_prefix, settings.embedding_passage_prefix)
    embedder = CachedEmbedder(model, cache, prompts, keeps_bulk=not isinstance(model, StaticEmbedder))
    return embedder, Judge(minilm, CachedEmbedder(minilm, cache, counts=False))


def sifter(embedder: CachedEmbedder) -> CachedEmbedder | None:
    """An embedded model that looks through the sentences of passages, if one is installed.

    A server is never used for this: it would have to make dozens of vectors before the first word of an
    answer.
    """
    if isinstance(embedder.model, StaticEmbedder | MiniLM):
        return embedder
    if all(map(find_spec, ("safetensors", "tokenizers"))):
        return CachedEmbedder(wordllama(), None, counts=False)
    return None


def _embedding_model(settings: Settings, minilm: MiniLM) -> Embedder:
    model = settings.embedding_model
    upstreams = embedding_servers(settings)
    if not upstreams:
        return _embedded(model, ModelsFolder(settings.models_path), minilm)
    served: list[RemoteEmbedder]
    if settings.tei_url:
        served = [TEIEmbedder(upstream, model) for upstream in upstreams]
    else:
        assert model is not None
        served = [OpenAICompatibleEmbedder(upstream, model) for upstream in upstreams]
    return Replicas(served, settings.chat_cool_down) if len(served) > 1 else served[0]


def _embedded(model: str | None, folder: ModelsFolder, minilm: MiniLM) -> Embedder:
    """The model in this process: the one that EMBEDDING_MODEL names, else the chosen one, else wordllama."""
    name = model or folder.chosen("embeddings") or WORDLLAMA.name
    if name == MiniLM.name:
        return minilm
    if (local := folder.find(name, "embeddings")) is None:
        return wordllama()
    try:
        return StaticEmbedder(static_model(local.name, local.folder))
    except LookupError as error:
        raise BackendError(
            f"{name} cannot be used ({error}): run `llmbackend models pull {name}`",
            details={"backend": "embeddings"},
        ) from error


def embedding_servers(settings: Settings) -> list[Upstream]:
    """The servers that embed texts, in order of fallback: the URLs of one setting. Empty if a model in this
    process does."""
    model = settings.embedding_model
    if settings.tei_url:
        urls = [url.strip() for url in settings.tei_url.split(",") if url.strip()]
        return [_tei(url, settings.tei_api_key, "TEI_API_KEY", settings) for url in urls]
    if model is None or model == WORDLLAMA.name:
        return []
    # vLLM comes last: it serves one model, and the one at VLLM_URL is usually the chat model.
    found = sorted(servers(settings), key=lambda server: server.name == "vLLM")
    if found:
        return [server for server in found if server.name == found[0].name]
    if model == MiniLM.name or ModelsFolder(settings.models_path).find(model, "embeddings"):
        return []
    remedy = (
        f"run `llmbackend models pull {model}`"
        if catalogue.find(model)
        else f"set TEI_URL, LITELLM_URL, OPENAI_BASE_URL or VLLM_URL, or EMBEDDING_MODEL to {MiniLM.name}"
    )
    raise BackendError(
        f"EMBEDDING_MODEL is {model!r} but no server is set for it, and it is not in {settings.models_path}: {remedy}",
        details={"backend": "embeddings"},
    )


def reranker(settings: Settings) -> Reranker:
    """The reranker on TEI or on a server with Jina's API, else the embedded one, else one that only raises."""
    upstream = rerank_server(settings)
    if upstream is None:
        return _local_reranker(settings)
    kind = TEIReranker if settings.tei_rerank_url else JinaReranker
    return kind(upstream, settings.rerank_model)


def _local_reranker(settings: Settings) -> Reranker:
    folder = ModelsFolder(settings.models_path)
    name = settings.rerank_model or folder.chosen("rerank")
    local = folder.find(name, "rerank") if name else None
    return CrossEncoder(local.name, local.folder) if local else NoReranker(name)


def rerank_server(settings: Settings) -> Upstream | None:
    """The server that reranks texts, if one is set."""
    if settings.tei_rerank_url:
        return _tei(settings.tei_rerank_url, settings.tei_rerank_api_key, "TEI_RERANK_API_KEY", settings)
    if settings.rerank_url:
        url, key = settings.rerank_url.rstrip("/"), settings.rerank_api_key
        return _upstream("the rerank server", url, key, "RERANK_API_KEY", settings)
    return None


def _tei(url: str, key: SecretStr | None, key_setting: str, settings: Settings) -> Upstream:
    return _upstream("TEI", url.rstrip("/"), key, key_setting, settings)


def _upstream(
    name: str,
    url: str,
    key: SecretStr | None,
    key_setting: str,
    settings: Settings,
    concurrency: float = math.inf,
) -> Upstream:
    return Upstream(
        name,
        url,
        key,
        settings.upstream_timeout,
        key_setting,
        settings.max_reply_bytes,
        concurrency,
        settings.requests_at_once,
    )


def servers(settings: Settings) -> list[Upstream]:
    """The OpenAI-compatible chat servers, in order of fallback."""
    return [
        _upstream(name, _versioned(url), key, key_setting, settings, settings.upstream_concurrency)
        for name, urls, key, key_setting in (
            (VLLM, settings.vllm_url, settings.vllm_api_key, "VLLM_API_KEY"),
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
    """A base URL with the /v1 that is often left out."""
    url = url.strip().rstrip("/")
    return url if url.endswith("/v1") else f"{url}/v1"
