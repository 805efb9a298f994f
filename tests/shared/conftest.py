"""The fixture `client` on shared storage: PostgreSQL alone in this process, PostgreSQL and Redis with a worker over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbackend import LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import KEY, serving, working
from tests.shared import services


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    try:
        with services.postgres() as url:
            yield url
    except services.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from _redis(tmp_path_factory.mktemp("redis"))


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[str]:
    """A Redis that the test may pause or stop."""
    yield from _redis(tmp_path)


def _redis(folder: Path) -> Iterator[str]:
    try:
        with services.redis(folder) as url:
            yield url
    except services.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def _local(
    postgres: str, tmp_path_factory: pytest.TempPathFactory, models_dir: Path
) -> Iterator[LLMBackendClient]:
    options = Settings(
        data_dir=tmp_path_factory.mktemp("local"),
        models_dir=models_dir,
        database_url=services.database(postgres, "local"),
    )
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        yield client


@pytest.fixture(scope="session")
def _http(
    postgres: str, redis: str, tmp_path_factory: pytest.TempPathFactory, models_dir: Path
) -> Iterator[LLMBackendClient]:
    shared = {
        "database_url": services.database(postgres, "http"),
        "redis_url": redis,
        "models_dir": models_dir,
    }
    folder = tmp_path_factory.mktemp("server")
    with (
        serving(folder, api_key=KEY, **shared) as server,
        working(folder, **shared),
        LLMBackendClient(server.url, KEY) as client,
    ):
        yield client
