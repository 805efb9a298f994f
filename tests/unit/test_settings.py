"""Settings: from where, in which order, and that secrets stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from llmbackend import InvalidRequest
from llmbackend.server.running import check_exposure
from llmbackend.settings import Settings, load


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_our_own_name_wins_over_the_bare_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1111")
    assert load().port == 1111
    monkeypatch.setenv("LLMBACKEND_PORT", "2222")
    assert load().port == 2222


@pytest.mark.parametrize("name", ["VLLM_URL", "LLMBACKEND_VLLM_URL", "vllm_url"])
def test_a_setting_has_both_names_in_any_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://one.example")
    assert load().vllm_url == "http://one.example"


def test_dotenv_is_read_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("LLMBACKEND_WORKERS=3\nCHAT_CONTEXT=4096\nSOMEBODY_ELSES=1\n")
    assert (load().workers, load().chat_context) == (3, 4096)
    monkeypatch.setenv("LLMBACKEND_WORKERS", "5")
    assert load().workers == 5, "the environment wins over .env"
    assert load(workers=7).workers == 7, "an argument wins over both"


def test_a_bare_variable_of_another_program_loses_to_our_own_name_in_dotenv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("LLMBACKEND_PORT=2222\n")
    monkeypatch.setenv("PORT", "1111")
    assert load().port == 2222


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBACKEND_VLLM_URL", "")
    assert load().vllm_url is None


def test_secrets_are_never_shown() -> None:
    secret = "s3cret-value"
    names = [name for name in Settings.model_fields if name.endswith("api_key")]
    assert len(names) == 8
    options = load(**dict.fromkeys(names, secret))
    assert all(isinstance(getattr(options, name), SecretStr) for name in names)
    for shown in (repr(options), str(options), options.model_dump_json(), repr(options.model_dump())):
        assert secret not in shown


SECRET_URLS = {"database_url", "redis_url"}  # a password is part of them, and they are never shown


@pytest.mark.parametrize(
    "name",
    [name for name in Settings.model_fields if name.endswith("_url") and name not in SECRET_URLS],
    ids=str.upper,
)
def test_a_password_in_a_url_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(InvalidRequest, match=name.upper()) as caught:
        load(**{name: "http://user:s3cret-value@models.example"})
    assert "s3cret-value" not in str(caught.value.to_dict())


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://models.example", "http://", "http://a.example,b.example"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="VLLM_URL"):
        load(vllm_url=url)


@pytest.mark.parametrize("name", ["tei_rerank_url", "rerank_url"])
def test_several_urls_are_refused_where_one_is_asked(name: str) -> None:
    urls = {name: "http://a.example:1,http://b.example:1"}
    with pytest.raises(InvalidRequest, match=f"{name.upper()}.*one URL"):
        load(**urls)
    assert load(vllm_url=urls[name]).vllm_url == urls[name]


WRONG = [
    ("LLMBACKEND_PORT", "s3cret-value"),
    ("PORT", "s3cret-value"),
    ("LLMBACKEND_PORT", "70001"),
    ("LLMBACKEND_CHAT_CONTEXT", "33"),
    ("LLMBACKEND_UPSTREAM_TIMEOUT", "-77"),
    ("WEBHOOK_SECRET", "s3cret"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_named_but_not_repeated(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidRequest, match=name.removeprefix("LLMBACKEND_")) as caught:
        load()
    assert value not in str(caught.value.to_dict())


@pytest.mark.parametrize("what", ["folder", "link to nothing", "link to itself"])
def test_a_dotenv_that_is_no_file_is_told(what: str, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    if what == "folder":
        file.mkdir()
    else:
        file.symlink_to(".env" if what == "link to itself" else "nowhere")
    with pytest.raises(InvalidRequest, match=r"\.env"):
        load()


def test_a_virtual_environment_may_be_called_env(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    (tmp_path / ".env" / "pyvenv.cfg").touch()
    assert load().port == 8888


def test_a_misspelt_setting_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LLMBACKEND_PROT", "s3cret")
    monkeypatch.setenv("LLMBACKEND_SERVICE_HOST", "10.0.0.1")  # Kubernetes' doing
    (tmp_path / ".env").write_text("LLMBACKEND_MAX_REPLY_BYTE=1\n")
    load()
    assert [record.getMessage() for record in caplog.records] == [
        "LLMBACKEND_MAX_REPLY_BYTE is not a setting: do you mean LLMBACKEND_MAX_REPLY_BYTES?",
        "LLMBACKEND_PROT is not a setting: do you mean LLMBACKEND_PORT?",
    ]


def test_a_url_with_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="QDRANT_URL"):
        load(qdrant_url="http://127.0.0.1:99999")


def test_a_secret_that_is_too_short_is_told_in_words() -> None:
    with pytest.raises(InvalidRequest, match="WEBHOOK_SECRET: should have at least 8 characters"):
        load(webhook_secret="abc")


def test_several_wrong_values_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBACKEND_PORT", "x")
    monkeypatch.setenv("LLMBACKEND_WORKERS", "-1")
    with pytest.raises(InvalidRequest, match=r"PORT.*WORKERS"):
        load()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com", ""])
def test_listening_beyond_this_machine_takes_a_key(host: str) -> None:
    with pytest.raises(InvalidRequest, match="API_KEY"):
        check_exposure(load(host=host))
    check_exposure(load(host=host, api_key="a-key"))


def test_an_empty_key_is_no_key() -> None:
    with pytest.raises(InvalidRequest, match="API_KEY"):
        check_exposure(load(host="0.0.0.0", api_key=""))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_listening_on_this_machine_takes_none(host: str) -> None:
    check_exposure(load(host=host))


def test_models_are_in_the_data_directory_unless_set(tmp_path: Path) -> None:
    assert load(data_dir=tmp_path, models_dir=None).models_path == tmp_path / "models"
    assert load(data_dir=tmp_path, models_dir=tmp_path).models_path == tmp_path


def test_a_dotenv_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"LLMBACKEND_PORT=\xff\xfe\n")
    with pytest.raises(InvalidRequest, match=r"\.env"):
        load()
