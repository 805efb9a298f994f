"""Pages of other sites: none may call, but those that CORS_ORIGINS names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
from pydantic import ValidationError

from llmbackend.settings import Settings
from tests.server import KEY, serving

APP, OTHER = "https://app.example.com", "https://other.example.com"
ASKED = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key,content-type"}
ALLOWED = "Access-Control-Allow-Origin"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(
        tmp_path_factory.mktemp("cors"), api_key=KEY, cors_origins=f"{APP}, http://localhost:3000"
    ) as one:
        yield one.url


def test_a_named_site_may_call(url: str) -> None:
    asked = requests.options(f"{url}/v1/rag/search", headers={"Origin": APP, **ASKED}, timeout=30)
    assert asked.status_code == 200
    assert asked.headers[ALLOWED] == APP
    assert "x-api-key" in asked.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in asked.headers
    listed = requests.get(f"{url}/v1/collections", headers={"Origin": APP, "X-API-Key": KEY}, timeout=30)
    assert (listed.status_code, listed.headers[ALLOWED]) == (200, APP)
    refused = requests.get(f"{url}/v1/collections", headers={"Origin": APP}, timeout=30)
    assert (refused.status_code, refused.headers[ALLOWED]) == (401, APP)


def test_another_site_may_not(url: str) -> None:
    asked = requests.options(f"{url}/v1/rag/search", headers={"Origin": OTHER, **ASKED}, timeout=30)
    assert asked.status_code == 400
    assert ALLOWED not in asked.headers
    listed = requests.get(f"{url}/v1/collections", headers={"Origin": OTHER, "X-API-Key": KEY}, timeout=30)
    assert ALLOWED not in listed.headers


def test_it_is_off_by_default(server_url: str) -> None:
    asked = requests.options(f"{server_url}/v1/rag/search", headers={"Origin": APP, **ASKED}, timeout=30)
    assert asked.status_code in (401, 405)
    listed = requests.get(
        f"{server_url}/v1/collections", headers={"Origin": APP, "X-API-Key": KEY}, timeout=30
    )
    assert not [
        name for name in (*asked.headers, *listed.headers) if name.lower().startswith("access-control")
    ]


@pytest.mark.parametrize(
    "wrong", ["app.example.com", "https://app.example.com/", "https://a.example,ftp://b.example"]
)
def test_what_is_no_origin_is_told(wrong: str) -> None:
    with pytest.raises(ValidationError, match="an origin is like"):
        Settings(cors_origins=wrong)
