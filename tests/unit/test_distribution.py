"""What is handed out: the wheel holds all that the embedded stack embeds with, whatever the platform."""

from __future__ import annotations

import asyncio
import hashlib
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from llmbackend.inference.static_vectors import WORDLLAMA, StaticEmbedder

ROOT = Path(__file__).parents[2]
LLAMA2_WORDS = 32_000
"""Tokens of wordllama's vocabulary."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install` has of a source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    (archive,) = SdistBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return next(path for path in folder.iterdir() if path.is_dir())


def test_a_wheel_made_of_the_source_distribution_is_whole(sources: Path, tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(sources)).build(directory=str(tmp_path), versions=["standard"])
    assert wheel.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        there = set(archive.namelist())
        weights = archive.read("llmbackend/inference/wordllama/weights.safetensors")
    assert {
        "llm_client.py",
        "llm_client/py.typed",
        "llmbackend/py.typed",
        "llmbackend/inference/wordllama/tokenizer.json",
        "llmbackend/inference/wordllama/LICENSE",
    } <= there
    assert not any(name.startswith(("tests/", "sdk/", "hatch_build")) for name in there)
    assert (
        hashlib.sha256(weights).hexdigest()
        == "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5"
    )


def test_a_text_s_vector_is_the_mean_of_its_tokens() -> None:
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    (table,) = load_file(WORDLLAMA.folder / "weights.safetensors").values()
    assert table.shape == (LLAMA2_WORDS, 256)
    tokenizer = Tokenizer.from_file(str(WORDLLAMA.folder / "tokenizer.json"))
    texts = ["Hold the red button.", "Ein längerer Satz über Urlaub und Gleitzeit.", "日本語", "word"]
    vectors = asyncio.run(StaticEmbedder().embed(texts))
    for text, vector, tokens in zip(texts, vectors.values, vectors.tokens, strict=True):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        mean = table[ids].astype(np.float32).mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
        assert tokens == len(ids)
