"""Provides embeddings as a step of scikit-learn's pipelines. Needs scikit-learn: pip install 'llmbackend[sklearn]'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from llm_client import Conflict, Embeddings, LLMBackendClient


class EmbeddingTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turns texts into unit-length vectors by a client's `embed`, with the same arguments.

        make_pipeline(EmbeddingTransformer(), LogisticRegression()).fit(texts, labels)

    Texts are a list, an array, a Series, or a table of one column. Without a `client`, `LLMBackendClient()` is made in each
    process that needs it; a given client can be sent to other processes only if it works over HTTP. Fitting embeds one
    text, to learn the model; transforming with another model raises Conflict.
    """

    def __init__(
        self,
        *,
        client: LLMBackendClient | None = None,
        model: str | None = None,
        dimensions: int | None = None,
        too_long: Literal["split", "truncate", "error"] = "split",
        input_type: Literal["query", "passage"] | None = None,
    ) -> None:
        self.client = client
        self.model = model
        self.dimensions = dimensions
        self.too_long = too_long
        self.input_type = input_type

    def fit(self, X: Any, y: Any = None) -> EmbeddingTransformer:
        first = self._embedded(_texts(X)[:1])
        self.model_ = first.model
        self._n_features_out = first.dimension
        return self

    def transform(self, X: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
        check_is_fitted(self, "model_")
        texts = _texts(X)
        if len(texts) == 0:
            return np.empty((0, self._n_features_out), np.float32)
        found = self._embedded(texts)
        if (found.model, found.dimension) != (self.model_, self._n_features_out):
            raise Conflict(
                f"this was fitted to vectors of {self._n_features_out} dimensions by {self.model_}, but now {found.model} "
                f"makes vectors of {found.dimension}: fit it again, or pass model="
            )
        return np.asarray(found)

    def _embedded(self, texts: Sequence[str]) -> Embeddings:
        client = self.client if self.client is not None else self._own()
        return client.embed(
            texts,
            model=self.model,
            dimensions=self.dimensions,
            too_long=self.too_long,
            input_type=self.input_type,
        )

    def _own(self) -> LLMBackendClient:
        if "_made" not in vars(self):
            self._made = LLMBackendClient()
        return self._made

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_made"}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags


def _texts(X: Any) -> Any:
    """Return a sliceable sequence of texts; for an array of one column, that column."""
    if hasattr(X, "iloc") and getattr(X, "ndim", 1) == 2 and X.shape[1] == 1:
        X = X.iloc[:, 0]
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] == 1:
        X = X[:, 0]
    return X.tolist() if hasattr(X, "tolist") else X if hasattr(X, "columns") else list(X)
