"""The step for scikit-learn's pipelines, as its own tools use one."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from llmbackend import Conflict, LLMBackendClient, TransportError
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from llmbackend.sklearn import EmbeddingTransformer
from tests.server import KEY

TEXTS = [
    "The router has no signal.",
    "The modem and its cable are broken.",
    "The network is down again.",
    "Employees get thirty days of vacation.",
    "Sick leave needs a note of a doctor.",
    "Parental leave lasts a year.",
]
KINDS = ["it", "it", "it", "hr", "hr", "hr"]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMBackendClient]:
    options = Settings(data_dir=tmp_path_factory.mktemp("sklearn"))
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        yield client


@pytest.mark.parametrize(
    "of",
    [list, tuple, np.array, pd.Series, pd.DataFrame, lambda texts: np.array(texts, dtype=object)[:, None]],
    ids=["list", "tuple", "array", "Series", "DataFrame", "array of one column"],
)
def test_texts_become_the_client_s_vectors(local: LLMBackendClient, of: Any) -> None:
    found = EmbeddingTransformer(client=local).fit_transform(of(TEXTS))
    assert found.dtype == np.float32
    assert np.array_equal(found, local.embed(TEXTS).numpy())


def test_it_is_an_estimator_as_others_are(local: LLMBackendClient) -> None:
    step = EmbeddingTransformer(client=local, dimensions=64)
    assert step.get_params()["dimensions"] == 64
    assert clone(step).get_params() == step.get_params()
    assert clone(step).set_params(dimensions=128).fit_transform(TEXTS).shape == (6, 128)
    with pytest.raises(NotFittedError):
        step.transform(TEXTS)
    assert list(step.fit(TEXTS).get_feature_names_out()[:2]) == [
        "embeddingtransformer0",
        "embeddingtransformer1",
    ]
    assert step.set_output(transform="pandas").transform(TEXTS).shape == (6, 64)
    assert step.set_output(transform="default").transform([]).shape == (0, 64)


def test_it_works_in_pipelines_column_transformers_and_searches(local: LLMBackendClient) -> None:
    asked = ["Who repairs the router?", "How many days of vacation?"]
    pipeline = make_pipeline(EmbeddingTransformer(client=local), LogisticRegression())
    assert list(pipeline.fit(TEXTS, KINDS).predict(asked)) == ["it", "hr"]
    table = pd.DataFrame({"text": TEXTS, "length": [len(text) for text in TEXTS]})
    by_column = make_column_transformer(
        (EmbeddingTransformer(client=local), "text"), ("passthrough", ["length"])
    )
    assert by_column.fit_transform(table).shape == (6, 257)
    search = GridSearchCV(pipeline, {"embeddingtransformer__dimensions": [64, 256]}, cv=2)
    assert list(search.fit(TEXTS, KINDS).predict(asked)) == ["it", "hr"]


def test_vectors_of_another_model_are_refused(local: LLMBackendClient) -> None:
    step = EmbeddingTransformer(client=local).fit(TEXTS)
    step.set_params(dimensions=64)
    with pytest.raises(Conflict, match=r"256 dimensions by .* vectors of 64: fit it again"):
        step.transform(TEXTS)


def test_it_is_stored_and_sent_with_a_client_over_http_or_none(
    server_url: str, local: LLMBackendClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LLMBackendClient(server_url, KEY) as client:
        step = EmbeddingTransformer(client=client).fit(TEXTS)
        assert np.array_equal(pickle.loads(pickle.dumps(step)).transform(TEXTS), step.transform(TEXTS))
    monkeypatch.setenv("LLM_BACKEND_URL", server_url)
    monkeypatch.setenv("LLM_BACKEND_API_KEY", KEY)
    own = EmbeddingTransformer().fit(TEXTS)
    assert np.array_equal(pickle.loads(pickle.dumps(own)).transform(TEXTS), own.transform(TEXTS))
    with pytest.raises(TransportError, match="cannot be sent to another: start a server"):
        pickle.dumps(EmbeddingTransformer(client=local).fit(TEXTS))
