"""Real parts throughout: the embedded engine and models, SQLite, a server process on a real socket."""

from __future__ import annotations

import gc
import ipaddress
import os
import sys
import uuid
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llmbackend import LLMBackendClient, NotFound
from llmbackend.access.caller import DEFAULT
from llmbackend.access.names import QualifiedName
from llmbackend.async_local import AsyncLocalTransport
from llmbackend.inference.weights import ALL, pull
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings, load
from llmbackend.tracing import Trace, tracing
from tests import in_memory, other_python, waiting, warm
from tests.server import KEY, PLUGIN, serving

# Nothing of the developer's own set-up may leak into the tests: no upstream, no server, no key.
for name in set(Settings.model_fields) | {"llm_backend_url", "llm_backend_api_key"}:
    for variable in (name.upper(), f"LLMBACKEND_{name.upper()}"):
        if variable != "LLMBACKEND_MODELS_DIR":
            os.environ.pop(variable, None)

# What is read ahead depends on the time there was; tests/unit/test_ahead.py has it read.
os.environ["LLMBACKEND_READ_AHEAD_CHUNKS"] = "0"

# Without bytecode, each of hundreds of processes would compile all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

sys.path.append(str(PLUGIN))

MODELS = load().models_path.absolute()
LONGEST = {
    "test_agents",
    "test_answers",
    "test_backup",
    "test_chat",
    "test_contract",
    "test_kill",
    "test_kill_reindex",
    "test_openai_client",
    "test_readme",
    "test_responses",
    "test_retrieval",
    "test_shared_collections",
    "test_terminal",
    "test_transfer",
    "test_usage",
    "test_webhooks",
    "test_workers",
}
"""Files that take more than a minute."""


def _only_loopback(event: str, args: tuple[Any, ...]) -> None:
    """Refuse any connection that leaves this machine, whoever makes it."""
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
        if host not in ("localhost", "") and not ipaddress.ip_address(host).is_loopback:
            raise AssertionError(f"a connection to {host} was attempted")
    if event == "socket.getaddrinfo" and args[0] not in ("localhost", "127.0.0.1", "::1", "", None):
        raise AssertionError(f"the name {args[0]!r} was looked up")


sys.addaudithook(_only_loopback)


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr != "benchmark":  # which is of disks, too
        in_memory.use()
    if sys.platform == "linux" and getattr(config.option, "numprocesses", None):
        warm.share()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "SDK_PYTHON" in os.environ:
        left_out = [item for item in items if item.name.startswith(tuple(other_python.LEFT_OUT))]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    """What takes longest comes first: several processes run a file each, and none has long to go in the end."""
    items.sort(
        key=lambda item: (
            item.path.stem not in LONGEST,
            item.path.parent.name not in ("faults", "shared"),
        )
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    gc.disable()  # nearly all that is made stays
    result = yield
    gc.enable()
    gc.freeze()  # of all that was imported, nothing needs to be looked at again
    return result


@pytest.fixture(scope="session", autouse=True)
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run in an empty folder, where no developer's `.env` lies."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(before)


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder with the embedded models, downloaded if they are not there yet."""
    for weights in ALL:
        pull(weights, MODELS)
    return MODELS


@pytest.fixture(scope="session")
def _local(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[LLMBackendClient]:
    options = Settings(data_dir=tmp_path_factory.mktemp("local"), models_dir=models_dir)
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        yield client


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[str]:
    """A server process with an API key (KEY)."""
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, models_dir=models_dir, api_key=KEY) as server:
        yield server.url


@pytest.fixture(scope="session")
def _http(server_url: str) -> Iterator[LLMBackendClient]:
    with LLMBackendClient(server_url, KEY) as client:
        yield client


@pytest.fixture(scope="session")
def _loop() -> Iterator[waiting.Loop]:
    loop = waiting.Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def _async_local(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, _loop: waiting.Loop
) -> Iterator[Any]:
    options = Settings(data_dir=tmp_path_factory.mktemp("local"), models_dir=models_dir)
    with waiting.client(_loop, transport=AsyncLocalTransport(options)) as client:
        yield client


@pytest.fixture(scope="session")
def _async_http(server_url: str, _loop: waiting.Loop) -> Iterator[Any]:
    with waiting.client(_loop, server_url, KEY) as client:
        yield client


@pytest.fixture(scope="session")
def _other_python(server_url: str) -> Iterator[Any]:
    python = other_python.OtherPython(os.environ["SDK_PYTHON"], server_url, KEY)
    yield python.client
    python.close()


TRANSPORTS = ["local", "http"] if "ASYNC_CLIENT" not in os.environ else ["async_local", "async_http"]
"""With ASYNC_CLIENT set, the client for `await` is tested in place of the one for threads (`make test-async`)."""
if "SDK_PYTHON" in os.environ:  # the SDK's file by another Python is (`make contract-sdk`)
    TRANSPORTS = ["other_python"]


@pytest.fixture(scope="session")
def clients(request: pytest.FixtureRequest) -> list[Any]:
    """The clients under test, one for each transport."""
    return [request.getfixturevalue(f"_{name}") for name in TRANSPORTS]


@pytest.fixture(params=TRANSPORTS)
def client(request: pytest.FixtureRequest) -> LLMBackendClient:
    """The client under test, on each transport in turn."""
    result: LLMBackendClient = request.getfixturevalue(f"_{request.param}")
    return result


class _EverythingOfDefault(dict[str, QualifiedName]):
    def __missing__(self, name: str) -> QualifiedName:
        return QualifiedName(DEFAULT, name)


@pytest.fixture
def in_default() -> Iterator[None]:
    """For tests of the core's methods themselves, which are called once it is decided that they may touch a collection."""
    with tracing(Trace("test", granted=_EverythingOfDefault())):
        yield


@pytest.fixture
def collection(client: LLMBackendClient) -> Iterator[str]:
    """A name no collection has yet; what is made under it is removed."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    if name in [one.name for one in client.list_collections()]:
        with suppress(NotFound):  # an ingest that failed may just remove it
            client.delete_collection(name)
