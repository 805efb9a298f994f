"""Texts longer than an embedding model takes: in parts, cut off or refused as asked, and never silently."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbackend import InvalidRequest, LLMBackendClient
from llmbackend.inference import openai_embedder
from llmbackend.inference.context_limits import Length, told
from llmbackend.inference.long_texts import shorter
from tests.server import KEY as SERVER_KEY
from tests.server import serving
from tests.upstream.conftest import Connect, fails
from tests.upstream.fake import CONTEXT, KEY, Upstream

FITS = "word " * (CONTEXT - 1) + "last"
LONG = " ".join(f"w{number:04}" for number in range(2 * CONTEXT))
LITTLE_TOO_LONG = "x " * CONTEXT + "y"
TEXTS = ["a ferry", LONG, FITS, "market", LITTLE_TOO_LONG, LONG]

# Each way to learn that a text is too long: the limit known and the text counted, or a refusal, which may not tell how
# long it is, with and without a count.
SERVERS: dict[str, dict[str, str]] = {
    "TEI": {"tei_url": "{url}/ok"},
    "TEI without /info and /tokenize": {"tei_url": "{url}/old"},
    "vLLM": {"embedding_model": "ok"},
    "vLLM, not in its list": {"embedding_model": "other"},
    "no /tokenize, length not told": {"embedding_model": "silent"},
}


@pytest.fixture(params=SERVERS)
def embedding(request: pytest.FixtureRequest, connect: Connect, upstream: Upstream) -> LLMBackendClient:
    settings = SERVERS[request.param]
    return connect(**{name: value.format(url=upstream.url) for name, value in settings.items()})


def _embedded(upstream: Upstream) -> list[str]:
    """The texts that were sent to be embedded in requests that were not refused."""
    bodies = [body.get("inputs") or body["input"] for body in upstream.seen]
    return [text for batch in bodies for text in batch if max(len(one.split()) for one in batch) <= CONTEXT]


def test_a_long_text_is_the_mean_of_its_parts(embedding: LLMBackendClient, upstream: Upstream) -> None:
    vectors = embedding.embed(TEXTS)
    assert [(one.index, one.limit) for one in vectors.cut] == [(1, CONTEXT), (4, CONTEXT), (5, CONTEXT)]
    assert {one.tokens for one in vectors.cut} <= {2 * CONTEXT, CONTEXT + 1, None}
    sent = list(dict.fromkeys(_embedded(upstream)))
    parts = sorted((text for text in sent if text.strip()[:2] in ("w0", "w1")), key=str.strip)
    assert "".join(parts) == LONG, "nothing is left out"
    assert vectors.cut[0].parts == len(parts) > 1
    alone = embedding.embed(parts)
    assert not alone.cut
    mean = np.average(alone.numpy(), axis=0, weights=[len(part) for part in parts])
    np.testing.assert_allclose(vectors[1], mean / np.linalg.norm(mean), rtol=1e-5)
    assert vectors[1] == vectors[5]


def test_a_long_text_is_cut_off_if_so_asked(embedding: LLMBackendClient, upstream: Upstream) -> None:
    vectors = embedding.embed(TEXTS, too_long="truncate")
    assert [(one.index, one.limit, one.parts) for one in vectors.cut] == [
        (1, CONTEXT, 1),
        (4, CONTEXT, 1),
        (5, CONTEXT, 1),
    ]
    dimensions = vectors.numpy()
    length = dimensions[1, 1] / dimensions[1, 0]  # the fake's second number is the text's length
    assert 0.4 * CONTEXT * 6 <= length <= CONTEXT * 6, "its beginning, and not much less than fits"
    assert embedding.embed_single(LONG, too_long="truncate") == vectors[1]


def test_a_long_text_is_refused_if_so_asked(embedding: LLMBackendClient, upstream: Upstream) -> None:
    with fails(InvalidRequest, index=1, limit=CONTEXT) as caught:
        embedding.embed(TEXTS, too_long="error")
    assert "input[1]: " in str(caught.value)
    assert str(CONTEXT) in str(caught.value)
    assert caught.value.details["tokens"] in (2 * CONTEXT, None)
    assert not embedding.embed(["a ferry", FITS], too_long="error").cut


def test_what_was_cut_is_told_again_from_the_cache(embedding: LLMBackendClient, upstream: Upstream) -> None:
    first = embedding.embed(TEXTS)
    upstream.reset()
    again = embedding.embed(TEXTS)
    assert again == first
    assert again.cut == first.cut
    assert upstream.seen == []


def test_tei_itself_cuts_off_exactly(connect: Connect, upstream: Upstream) -> None:
    client = connect(tei_url=f"{upstream.url}/ok")
    vectors = client.embed(["a ferry", LONG], too_long="truncate")
    assert vectors.cut == [{"index": 1, "tokens": 2 * CONTEXT, "limit": CONTEXT, "parts": 1}]
    assert vectors[1][1] / vectors[1][0] == pytest.approx(len(" ".join(LONG.split()[:CONTEXT])))


COUNTING_SERVERS: list[dict[str, str]] = [{"tei_url": "{url}/ok"}, {"embedding_model": "ok"}]


@pytest.fixture(params=COUNTING_SERVERS, ids=["TEI", "vLLM"])
def counting(request: pytest.FixtureRequest, connect: Connect, upstream: Upstream) -> LLMBackendClient:
    return connect(**{name: value.format(url=upstream.url) for name, value in request.param.items()})


def test_what_is_hardly_too_long_is_not_counted(counting: LLMBackendClient, upstream: Upstream) -> None:
    """Texts with more bytes than the model takes tokens cost no request of their own."""
    chunk = "The harbour of Aldersea was dredged. " * 50
    vectors = counting.embed([f"{number} {chunk}" for number in range(64)])
    assert CONTEXT < len(chunk) < 3 * CONTEXT
    assert vectors.cut == []
    assert upstream.counted == []
    assert len(upstream.seen) <= 2, "as few requests as the batches"


def test_texts_counted_spare_others_like_them(counting: LLMBackendClient, upstream: Upstream) -> None:
    """Of texts that may be too long by their bytes, a few tell how much of them a token is."""
    chunk = "Aldersea harbour " * 200  # 400 words in 3,400 bytes
    texts = [f"{number} {chunk}" for number in range(64)]
    assert counting.embed(texts).cut == []
    assert 0 < len(upstream.counted) <= 8
    upstream.reset()
    assert counting.embed([f"again {text}" for text in texts]).cut == []
    assert upstream.counted == []


def test_texts_of_more_tokens_than_it_seems_are_cut_all_the_same(
    counting: LLMBackendClient, upstream: Upstream
) -> None:
    dense = ["x " * (CONTEXT + number) for number in range(1, 65)]
    vectors = counting.embed(dense)
    assert [one.index for one in vectors.cut] == list(range(64))
    upstream.reset()
    again = counting.embed([f"{text}y" for text in dense])
    assert [one.index for one in again.cut] == list(range(64))
    assert all(len(one) <= CONTEXT for body in upstream.seen for one in map(str.split, _texts(body)))


def _texts(body: dict[str, Any]) -> list[str]:
    found: list[str] = body.get("inputs") or body["input"]
    return found


def test_a_server_that_did_not_tell_its_limit_is_asked_again(
    connect: Connect, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(embedding_model="ok")
    upstream.faults = ["500"]
    client.embed(["the first " * 60])
    client.embed(["the second " * 60])
    assert upstream.listed == 1, "not at each call"
    monkeypatch.setattr(openai_embedder, "ASK_AGAIN", 0.0)
    client = connect(embedding_model="ok")
    upstream.faults = ["500"]
    client.embed(["the third " * 60])
    client.embed([LONG])
    assert upstream.listed == 3
    assert LONG not in [text for body in upstream.seen for text in _texts(body)], "its limit is known now"
    client.embed(["the last " * 60])
    assert upstream.listed == 3


def test_a_text_without_spaces_is_cut_too() -> None:
    parts = shorter("漢" * 5000, Length(5000, 512), "split")
    assert "".join(parts) == "漢" * 5000
    assert max(map(len, parts)) <= 512


def test_ingest_takes_long_texts(connect: Connect, upstream: Upstream) -> None:
    """Chunks are counted in our tokens, which may be more of the model's."""
    client = connect(tei_url=f"{upstream.url}/ok")
    report = client.rag_ingest({"id": "long", "text": "x " * 3 * CONTEXT}, "town", chunk_size=8192)
    assert (report.added, report.failed) == (1, [])
    assert max(len(text.split()) for text in _embedded(upstream)) <= CONTEXT


@pytest.fixture(scope="module")
def both(_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[LLMBackendClient]]:
    """A client on each transport, with the same TEI."""
    from llmbackend.local import LocalTransport
    from llmbackend.settings import Settings

    settings: dict[str, Any] = {"tei_url": f"{_upstream.url}/ok", "tei_api_key": KEY}
    folder: Path = tmp_path_factory.mktemp("server")
    with (
        LLMBackendClient(
            transport=LocalTransport(Settings(data_dir=tmp_path_factory.mktemp("local"), **settings))
        ) as local,
        serving(folder, api_key=SERVER_KEY, **settings) as server,
        LLMBackendClient(server.url, SERVER_KEY) as http,
    ):
        yield [local, http]


def test_both_transports_agree_over_several_pages(both: list[LLMBackendClient]) -> None:
    texts = [f"text {number}" for number in range(2050)] + [LONG, "the last"]
    local, http = (client.embed(texts) for client in both)
    assert local == http
    assert local.cut == http.cut == [{"index": 2050, "tokens": 2 * CONTEXT, "limit": CONTEXT, "parts": 3}]
    assert local[2049:2052].cut[0].index == 1
    assert local[:5].cut == []
    for client in both:
        with fails(InvalidRequest, index=2050, tokens=2 * CONTEXT, limit=CONTEXT) as caught:
            client.embed(texts, too_long="error")
        assert "input[2050]: " in str(caught.value)


REFUSALS = {
    "This model's maximum context length is 512 tokens. However, you requested 1451 tokens in the input for embedding "
    "generation. Please reduce the length of the input.": Length(1451, 512),
    "This model's maximum context length is 8192 tokens, however you requested 9001 tokens (9001 in your prompt; 0 for "
    "the completion). Please reduce your prompt; or completion length.": Length(9001, 8192),
    "Invalid 'input': maximum context length is 8192 tokens.": Length(None, 8192),
    "Input validation error: `inputs` must have less than 512 tokens. Given: 534": Length(534, 512),
    "Input validation error: `inputs` must have less than 32000 characters. Given: 67337": None,
    "input (1300 tokens) is larger than the max context size (512 tokens). skipping": Length(1300, 512),
    "the input is not a list": None,
}


@pytest.mark.parametrize("said", REFUSALS)
def test_refusals_are_understood(said: str) -> None:
    assert told(said) == REFUSALS[said]
