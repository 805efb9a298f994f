"""Every setting, and the only place in the package that reads the environment and `.env`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import InvalidRequest


def _home() -> Path:
    from platformdirs import user_data_path

    return user_data_path("llmbackend")


def _named(name: str) -> AliasChoices:
    """LLMBACKEND_NAME wins over the bare NAME, which other programs may use as well."""
    return AliasChoices(f"LLMBACKEND_{name}", name)


class Settings(BaseSettings):
    """Nothing set means the embedded stack: Qdrant Edge, wordllama, SmolLM2, SQLite, all in this process."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, populate_by_name=True, env_ignore_empty=True
    )

    # Where things are kept
    data_dir: Path = Field(default_factory=_home, validation_alias=_named("DATA_DIR"))
    models_dir: Path | None = Field(None, validation_alias=_named("MODELS_DIR"))
    database_url: str | None = Field(None, validation_alias=_named("DATABASE_URL"))

    # Chat: the first of these that is set; otherwise the embedded model
    vllm_url: str | None = Field(None, validation_alias=_named("VLLM_URL"))
    vllm_api_key: SecretStr | None = Field(None, validation_alias=_named("VLLM_API_KEY"))
    litellm_url: str | None = Field(None, validation_alias=_named("LITELLM_URL"))
    litellm_api_key: SecretStr | None = Field(None, validation_alias=_named("LITELLM_API_KEY"))
    openai_base_url: str | None = Field(None, validation_alias=_named("OPENAI_BASE_URL"))
    openai_api_key: SecretStr | None = Field(None, validation_alias=_named("OPENAI_API_KEY"))
    chat_model: str | None = Field(None, validation_alias=_named("CHAT_MODEL"))
    chat_context: int = Field(8192, ge=512, validation_alias=_named("CHAT_CONTEXT"))

    # Embeddings: TEI, or EMBEDDING_MODEL on the chat server; otherwise the embedded model
    tei_url: str | None = Field(None, validation_alias=_named("TEI_URL"))
    tei_api_key: SecretStr | None = Field(None, validation_alias=_named("TEI_API_KEY"))
    embedding_model: str | None = Field(None, validation_alias=_named("EMBEDDING_MODEL"))

    # The server
    api_key: SecretStr | None = Field(None, validation_alias=_named("API_KEY"))
    host: str = Field("127.0.0.1", validation_alias=_named("HOST"))
    port: int = Field(8888, ge=0, le=65535, validation_alias=_named("PORT"))

    # Limits
    upstream_timeout: float = Field(120, gt=0, validation_alias=_named("UPSTREAM_TIMEOUT"))
    max_body_bytes: int = Field(64 * 2**20, ge=1024, validation_alias=_named("MAX_BODY_BYTES"))
    workers: int = Field(2, ge=1, le=64, validation_alias=_named("WORKERS"))

    @property
    def models_path(self) -> Path:
        """Where downloaded models are: MODELS_DIR, or `models` in the data directory."""
        return self.models_dir or self.data_dir / "models"

    @property
    def database(self) -> str:
        """DATABASE_URL, or SQLite in the data directory."""
        return self.database_url or f"sqlite:///{self.data_dir / 'state.db'}"


def load(**overrides: Any) -> Settings:
    """Settings from the environment and `.env`; raises InvalidRequest naming each wrong one (never its value)."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False)]
        raise InvalidRequest("wrong settings: " + "; ".join(wrong)) from None
