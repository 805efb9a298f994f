"""Embeddings, on both transports."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from llmbackend import Embeddings, InvalidRequest, LLMBackendClient, NotFound

TEXTS = ["a cat sat on the mat", "the quarterly report is late", "a cat sat on the mat", "naïve café ☕"]


def test_vectors_come_in_the_order_of_the_texts(client: LLMBackendClient) -> None:
    vectors = client.embed(TEXTS)
    assert len(vectors) == len(TEXTS)
    assert vectors[0] == vectors[2] != vectors[1]
    assert client.embed(TEXTS[::-1])[3] == vectors[0]


def test_a_thousand_texts_keep_their_order(client: LLMBackendClient) -> None:
    texts = [f"text number {number}" for number in range(1000)]
    vectors = client.embed(texts)
    for number in (0, 1, 499, 999):
        np.testing.assert_allclose(vectors[number], client.embed_single(texts[number]), atol=1e-5)


def test_vectors_have_unit_length(client: LLMBackendClient) -> None:
    for vector in client.embed(TEXTS):
        assert math.isclose(math.hypot(*vector), 1, abs_tol=1e-5)


def test_one_text_gives_the_vector_it_has_among_others(client: LLMBackendClient) -> None:
    vector = client.embed_single(TEXTS[1])
    assert all(isinstance(number, float) for number in vector)
    np.testing.assert_allclose(vector, client.embed(TEXTS)[1], atol=1e-6)


def test_similar_texts_have_similar_vectors(client: LLMBackendClient) -> None:
    cat, kitten, tax = client.embed(["the cat sleeps", "a kitten is sleeping", "income tax return"]).numpy()
    assert cat @ kitten > cat @ tax


def test_embeddings_are_a_sequence_of_lists(client: LLMBackendClient) -> None:
    vectors = client.embed(TEXTS)
    assert isinstance(vectors, Embeddings)
    assert list(vectors) == [vectors[index] for index in range(4)]
    assert vectors[-1] == vectors[3]
    assert vectors[1] in vectors
    with pytest.raises(IndexError):
        vectors[4]


def test_a_slice_is_embeddings_again(client: LLMBackendClient) -> None:
    vectors = client.embed(TEXTS)
    assert isinstance(vectors[1:3], Embeddings)
    assert list(vectors[1:3]) == [vectors[1], vectors[2]]
    assert list(vectors[::-1]) == list(vectors)[::-1]
    assert len(vectors[4:]) == 0
    assert vectors[:] == vectors


def test_equality_is_by_value(client: LLMBackendClient) -> None:
    assert client.embed(TEXTS) == client.embed(TEXTS)
    assert client.embed(TEXTS) != client.embed(TEXTS[:3])
    assert client.embed(TEXTS) != "something else"


def test_numpy_shares_the_memory(client: LLMBackendClient) -> None:
    vectors = client.embed(TEXTS)
    matrix = vectors.numpy()
    assert matrix.shape == (4, vectors.dimension)
    assert matrix.dtype == np.float32
    assert np.shares_memory(matrix, vectors.numpy())
    assert matrix.tolist() == list(vectors)
    assert np.array_equal(np.asarray(vectors), matrix)
    assert np.asarray(vectors, dtype=np.float64).dtype == np.float64


def test_no_vectors_make_an_empty_matrix(client: LLMBackendClient) -> None:
    assert client.embed(TEXTS)[:0].numpy().shape[0] == 0


def test_model_and_usage_come_along(client: LLMBackendClient) -> None:
    vectors = client.embed(TEXTS)
    assert vectors.model == client.health().embeddings
    assert vectors.usage.prompt_tokens == vectors.usage.total_tokens > 0
    assert vectors.model in repr(vectors)


def test_the_model_may_be_named(client: LLMBackendClient) -> None:
    assert client.embed(TEXTS, model=client.health().embeddings) == client.embed(TEXTS)


def test_base64_and_floats_are_the_same_vectors(client: LLMBackendClient) -> None:
    floats = client._call("embed", input=TEXTS, encoding_format="float")["data"]
    assert [row["index"] for row in floats] == [0, 1, 2, 3]
    assert np.array_equal(np.float32([row["embedding"] for row in floats]), client.embed(TEXTS).numpy())


def test_a_generator_of_texts_is_taken(client: LLMBackendClient) -> None:
    assert client.embed(text for text in TEXTS) == client.embed(TEXTS)  # type: ignore[arg-type]


def test_text_without_known_words_has_a_finite_vector(client: LLMBackendClient) -> None:
    assert np.isfinite(client.embed([" ", "\n", "\0", "😀", "😀" * 500]).numpy()).all()


def test_an_unknown_model_is_not_found(client: LLMBackendClient) -> None:
    with pytest.raises(NotFound, match="no-such-model") as caught:
        client.embed(TEXTS, model="no-such-model")
    assert caught.value.details == {"model": "no-such-model"}


def test_an_empty_text_is_refused(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest, match=r"input\[1\]"):
        client.embed(["something", ""])
    with pytest.raises(InvalidRequest):
        client.embed_single("")


def test_nothing_to_embed_is_refused(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest, match="there are no texts") as caught:
        client.embed([])
    assert caught.value.code == "invalid_request"


def test_vectors_may_be_shorter_where_the_model_was_made_for_it(client: LLMBackendClient) -> None:
    whole = client.embed(TEXTS).numpy()
    for dimensions in (64, 128, 256):
        vectors = client.embed(TEXTS, dimensions=dimensions)
        assert vectors.dimension == dimensions
        beginning = whole[:, :dimensions]
        expected = beginning / np.linalg.norm(beginning, axis=1, keepdims=True)
        np.testing.assert_allclose(vectors.numpy(), expected, atol=1e-5)
    assert client.embed_single(TEXTS[0], dimensions=64) == client.embed(TEXTS, dimensions=64)[0]


@pytest.mark.parametrize("dimensions", [63, 512])
def test_dimensions_that_the_model_has_not_are_refused(client: LLMBackendClient, dimensions: int) -> None:
    with pytest.raises(InvalidRequest, match="64, 128 or 256") as caught:
        client.embed(TEXTS, dimensions=dimensions)
    assert caught.value.details == {"dimensions": dimensions, "possible": [64, 128, 256]}


@pytest.mark.parametrize("too_long", ["split", "truncate", "error"])
def test_no_text_is_too_long_for_the_embedded_model(client: LLMBackendClient, too_long: Any) -> None:
    vectors = client.embed([TEXTS[0], "a long text " * 20_000], too_long=too_long)
    assert vectors.cut == []
    assert vectors[0] == client.embed_single(TEXTS[0])


def test_another_way_with_long_texts_is_refused(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest, match="too_long"):
        client.embed(TEXTS, too_long="shorten")  # type: ignore[arg-type]


@pytest.mark.parametrize("ids", [[1, 2, 3], [[1, 2], [3]]])
def test_token_ids_are_refused_with_the_remedy(client: LLMBackendClient, ids: Any) -> None:
    """LangChain's OpenAIEmbeddings sends them unless told otherwise."""
    with pytest.raises(InvalidRequest, match="check_embedding_ctx_length=False"):
        client.embed(ids)


def test_a_second_call_gives_the_same_bits(client: LLMBackendClient) -> None:
    texts = ["kept from the first call", *TEXTS]
    first, again = client.embed(texts), client.embed(texts)
    assert first.values.tobytes() == again.values.tobytes()
    assert first.usage == again.usage


def test_an_error_names_the_place_of_a_text_in_the_whole_list(client: LLMBackendClient) -> None:
    texts = [f"text {number}" for number in range(2050)] + [""]
    with pytest.raises(InvalidRequest, match=r"input\[2050\]:") as caught:
        client.embed(texts)
    assert caught.value.details == {"index": 2050}
