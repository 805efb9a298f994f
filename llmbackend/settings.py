"""Every setting, and the only place in the package that reads the environment and `.env`."""

import difflib
import json
import logging
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from .access.caller import DEFAULT, OPERATOR, Caller, Limits, of_project
from .errors import InvalidRequest, in_words, position
from .schemas.collections import EngineOptions
from .schemas.usage import Price

log = logging.getLogger(__name__)


def _home() -> Path:
    from platformdirs import user_data_path

    return user_data_path("llmbackend")


class Settings(BaseSettings):
    """All settings. The defaults are the embedded stack: Qdrant Edge, wordllama, SmolLM2 and SQLite in this process."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then LLMBACKEND_NAME from the environment and `.env`, then the bare NAME from both."""
        return (
            init_settings,
            EnvSettingsSource(cls, env_prefix="LLMBACKEND_"),
            DotEnvSettingsSource(cls, env_prefix="LLMBACKEND_"),
            EnvSettingsSource(cls),
            DotEnvSettingsSource(cls),
        )

    # Storage
    data_dir: Path = Field(default_factory=_home)
    models_dir: Path | None = None
    models_url: str = "https://huggingface.co"
    backup_dir: Path | None = None
    disk_reserve_mb: int | None = Field(None, ge=16)

    # Jobs and manifests in a database that several processes share; otherwise in the data directory
    database_url: SecretStr | None = None
    redis_url: SecretStr | None = None

    # Chat: tried in this order, each one URL or several separated by commas; otherwise the embedded model
    vllm_url: str | None = None
    vllm_api_key: SecretStr | None = None
    litellm_url: str | None = None
    litellm_api_key: SecretStr | None = None
    openai_base_url: str | None = None
    openai_api_key: SecretStr | None = None
    chat_model: str | None = None
    chat_context: int | None = Field(None, ge=512)
    chat_cool_down: float = Field(30, ge=0)

    # Embeddings: TEI, or EMBEDDING_MODEL on the chat server; otherwise the embedded model
    tei_url: str | None = None
    tei_api_key: SecretStr | None = None
    embedding_model: str | None = None
    embedding_query_prefix: str = Field("", max_length=10_000)
    embedding_passage_prefix: str = Field("", max_length=10_000)
    embedding_cache_mb: int = Field(256, ge=0)
    # With the embedded models: how many passages, of all collections, the judge reads ahead while idle
    read_ahead_chunks: int = Field(5_000, ge=0)

    # Vectors: a Qdrant server, or several URLs of a cluster separated by commas; otherwise Qdrant Edge in this process
    qdrant_url: str | None = None
    qdrant_api_key: SecretStr | None = None
    # Idle collections in the data directory that are kept open: how many, and for how long
    collections_open: int = Field(32, ge=1)
    collection_idle_seconds: float = Field(30.0, gt=0)
    qdrant_collection: Annotated[EngineOptions, NoDecode] = EngineOptions()

    # Reranking: TEI, or a server with Jina's and Cohere's POST /rerank, such as vLLM; otherwise none
    tei_rerank_url: str | None = None
    tei_rerank_api_key: SecretStr | None = None
    rerank_url: str | None = None
    rerank_api_key: SecretStr | None = None
    rerank_model: str | None = None

    # The server
    api_key: SecretStr | None = Field(None, min_length=1)
    api_keys: SecretStr | None = None
    host: str = "127.0.0.1"
    port: int = Field(8888, ge=0, le=65535)
    cors_origins: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    audit_days: float = Field(365, gt=0)
    metrics_port: int | None = Field(None, ge=1, le=65535)
    otel: bool = False

    # Links in answers and analyses; images and HTML are removed too, except with "keep"
    answer_links: Literal["host", "remove", "keep"] = "host"

    # Limits of projects; `*` is for all that are not named
    project_limits: Annotated[dict[str, Limits], NoDecode] = Field({})

    # Price of a million tokens by model, for `usage`
    usage_prices: Annotated[dict[str, Price], NoDecode] = Field({})

    # Limits
    upstream_timeout: float = Field(120, gt=0)
    upstream_concurrency: int = Field(256, ge=1)
    requests_at_once: int = Field(4, ge=1, le=256)
    hang_up_seconds: float = Field(0.5, ge=0)
    file_seconds: float = Field(60, gt=0)
    file_memory_mb: int = Field(1024, ge=512)
    plugin_seconds: float = Field(30, gt=0)
    max_body_bytes: int = Field(64 * 2**20, ge=1024)
    max_bodies_bytes: int = Field(256 * 2**20, ge=1024)
    max_requests: int = Field(1000, ge=2)
    max_connections: int = Field(2000, ge=16)
    max_reply_bytes: int = Field(32 * 2**20, ge=1024)
    workers: int = Field(2, ge=0, le=64)
    jobs_per_owner: int | None = Field(None, ge=1)
    job_lease: float = Field(30, ge=1)
    job_result_days: float = Field(30, gt=0)
    job_days: float = Field(365, gt=0)
    chats_at_once: int = Field(32, ge=1, le=1000)
    response_days: float = Field(30, gt=0)
    webhook_secret: SecretStr | None = Field(None, min_length=8)
    webhook_private: bool = False
    image_urls_private: bool = False
    # Upper limits of an agent's run; a request may ask for less
    agent_steps: int = Field(50, ge=1)
    agent_tokens: int = Field(500_000, ge=1)
    agent_seconds: float = Field(600, gt=0)
    agent_tool_seconds: float = Field(60, gt=0)
    agent_tool_characters: int = Field(20_000, ge=1000)
    # MCP servers whose tools agents may call, by name: a URL or a command, either of which may contain a key
    agent_mcp: Annotated[dict[str, SecretStr], NoDecode] = Field({})
    responses_upstream: bool = True
    prompts_dir: Path | None = None
    heartbeat_seconds: float = Field(10, gt=0, le=15)

    @property
    def callers(self) -> dict[str, Caller]:
        """Callers by key; API_KEY is the administrator's."""
        found: dict[str, Caller] = {}
        for pair in (self.api_keys.get_secret_value() if self.api_keys else "").split(","):
            project, _, key = pair.strip().partition(":")
            if project and key:
                found[key] = of_project(project)
        if self.api_key:
            found[self.api_key.get_secret_value()] = of_project(DEFAULT, everywhere=True, key=OPERATOR)
        return found

    @field_validator("api_keys")
    @classmethod
    def _named(cls, keys: SecretStr | None) -> SecretStr | None:
        for pair in (keys.get_secret_value() if keys else "").split(","):
            if pair.strip() and not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}:\S+", pair.strip()):
                raise ValueError("write it like hr:key,support:another-key")
        return keys

    @property
    def models_path(self) -> Path:
        """Folder of downloaded models: MODELS_DIR, or `models` in the data directory."""
        return self.models_dir or self.data_dir / "models"

    @property
    def origins(self) -> list[str]:
        """The origins in CORS_ORIGINS."""
        return [one.strip() for one in (self.cors_origins or "").split(",") if one.strip()]

    @property
    def backup_path(self) -> Path:
        """Folder of backups: BACKUP_DIR, or `backups` in the data directory."""
        return self.backup_dir or self.data_dir / "backups"

    @property
    def databases(self) -> list[Path | str]:
        """The database of jobs, and that of collections if it is another one, in the data directory."""
        file = self.data_dir / "state.db"
        if self.database_url is None:
            return [file]
        url = self.database_url.get_secret_value()
        return [url, file] if self.qdrant_url is None else [url]

    @field_validator("data_dir", "models_dir", "backup_dir")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        """Make paths absolute, so that a later change of the working directory does not matter."""
        return path.absolute() if path else None

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_any_case(cls, level: Any) -> Any:
        return level.lower() if isinstance(level, str) else level

    @field_validator("qdrant_collection", mode="before")
    @classmethod
    def _engine_options(cls, given: Any) -> Any:
        """Parse JSON; errors name the option, because it is not secret."""
        try:
            return EngineOptions.model_validate_json(given) if isinstance(given, str) else given
        except ValidationError as error:
            wrong = error.errors(include_input=False, include_url=False)[0]
            place = position(wrong["loc"])
            raise ValueError(
                f"{place + ': ' if place else ''}{wrong['msg'].removeprefix('Value error, ')}"
            ) from None

    @field_validator("project_limits", mode="before")
    @classmethod
    def _project_limits(cls, given: Any) -> Any:
        """Parse JSON."""
        if not isinstance(given, str):
            return given
        try:
            found = json.loads(given)
            return {str(project): Limits.of(limits) for project, limits in found.items()}
        except InvalidRequest as error:
            raise ValueError(error.message) from None
        except (ValueError, TypeError, AttributeError):
            raise ValueError(
                'write it like {"hr": {"rate": "600/min", "tokens": "1M/day", "concurrent": 50, "jobs": 1000}, "*": {…}}'
            ) from None

    @field_validator("agent_mcp", mode="before")
    @classmethod
    def _mcp(cls, given: Any) -> Any:
        """Parse JSON."""
        try:
            servers = json.loads(given) if isinstance(given, str) else given
            told = {
                str(name): where.get_secret_value() if isinstance(where, SecretStr) else str(where)
                for name, where in servers.items()
            }
        except (ValueError, AttributeError):
            told = {"": ""}
        if not all(
            re.fullmatch(r"[A-Za-z0-9-]{1,20}", name) and where.strip() for name, where in told.items()
        ):
            raise ValueError(
                'write it like {"files": "http://127.0.0.1:9000/mcp", "git": "uvx mcp-server-git"}'
            )
        return told

    @field_validator("usage_prices", mode="before")
    @classmethod
    def _prices(cls, given: Any) -> Any:
        """Parse JSON."""
        if not isinstance(given, str):
            return given
        try:
            prices = json.loads(given)
            return {str(model): Price(**price) for model, price in prices.items()}
        except (ValueError, TypeError, AttributeError):
            raise ValueError(
                'write it like {"llama*": {"prompt": 0.15, "completion": 0.6, "embedded": 0.02}}, per million tokens'
            ) from None

    @field_validator("vllm_url", "litellm_url", "openai_base_url", "tei_url", "qdrant_url")
    @classmethod
    def _are_urls(cls, urls: str | None) -> str | None:
        for one in (urls or "").split(","):
            _check_url(one)
        return urls

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: str | None) -> str | None:
        for one in filter(None, map(str.strip, (origins or "").split(","))):
            parts = urlsplit(one)
            if one != "*" and (
                parts.scheme not in ("http", "https") or one != f"{parts.scheme}://{parts.netloc}"
            ):
                raise ValueError("an origin is like https://app.example.com, without a path; * allows any")
        return origins

    @field_validator("tei_rerank_url", "rerank_url", "models_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if "," in (url or ""):
            raise ValueError("this takes one URL, not several")
        _check_url(url or "")
        return url


def _check_url(url: str) -> None:
    """Refuse URLs that contain a password or key: URLs are shown in messages, so keys have settings of their own."""
    parts = urlsplit(url.strip())
    if "?" in url or "#" in url:
        raise ValueError(
            "a URL must not have a query (?…), because a key in it would be shown: use the setting for the key"
        )
    if "@" in parts.netloc:
        raise ValueError("a URL must not contain a password: use the setting for the key")
    if url.strip() and not (parts.scheme in ("http", "https") and parts.hostname):
        raise ValueError("a URL is like http://host:port")
    _ = parts.port  # raises ValueError if it is not a port


def load(**overrides: Any) -> Settings:
    """Settings from the environment and `.env`. Raises InvalidRequest naming each wrong one, never its value."""
    _check_env_file(Path(".env"))
    try:
        _tell_misspelt()
        return Settings(**overrides)
    except ValidationError as error:
        wrong = [
            f"{str(e['loc'][0]).upper()}: {in_words(e['type'], e['msg'], e.get('ctx', {})).removeprefix('Value error, ')}"
            for e in error.errors(include_input=False)
        ]
        raise InvalidRequest("wrong settings: " + "; ".join(wrong)) from None
    except UnicodeDecodeError:
        raise InvalidRequest("wrong settings: the file .env is not UTF-8 text") from None


def _check_env_file(file: Path) -> None:
    """Raise InvalidRequest if `.env` cannot be read, which pydantic-settings would ignore silently."""
    if file.is_dir():  # Docker creates one for a mounted file that does not exist
        if not (file / "pyvenv.cfg").exists():  # a virtual environment of that name is fine
            raise InvalidRequest("wrong settings: .env is a folder: put a file in its place, or remove it")
    elif os.path.lexists(file):
        try:
            file.open("rb").close()
        except OSError as error:
            raise InvalidRequest(
                f"wrong settings: the file .env cannot be read ({error.strerror})"
            ) from error


def _tell_misspelt() -> None:
    """Warn of unknown names that resemble a setting. Others may be somebody else's, such as Kubernetes' LLMBACKEND_SERVICE_HOST."""
    prefix = "llmbackend_"
    for name in sorted({*EnvSettingsSource(Settings).env_vars, *DotEnvSettingsSource(Settings).env_vars}):
        setting = name.removeprefix(prefix)
        if setting != name and setting not in Settings.model_fields:
            for meant in difflib.get_close_matches(setting, Settings.model_fields, 1, 0.7):
                log.warning("%s is not a setting: do you mean %s?", name.upper(), (prefix + meant).upper())


def notebook() -> str:
    """The name of the notebook that runs this process, from Jupyter; empty if there is none."""
    return Path(os.environ.get("JPY_SESSION_NAME", "")).name
