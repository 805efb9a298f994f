"""The local models that `llmbackend models pull` knows by name: openly licensed, each file pinned by revision
and SHA-256.

Tokenizer files have no SHA-256 here. The revision pins them, and one that does not fit the model is not used.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

LOADED_FROM = "2026.10"
"""The oldest xllamacpp whose llama.cpp knows all chat models listed here."""

Task = Literal["chat", "embeddings", "rerank"]


class File(NamedTuple):
    source: str
    """Its path in the repository."""
    name: str
    """The file's name in the model's folder."""
    size: int | None = None
    sha256: str | None = None


class Entry(NamedTuple):
    name: str
    task: Task
    repository: str
    """Its repository on Hugging Face, or on a mirror of it (MODELS_URL)."""
    revision: str
    files: tuple[File, ...]
    license: str
    memory_mb: int
    """Memory in use, with the default context."""
    use: str

    @property
    def size(self) -> int:
        """Bytes to download, not counting a tokenizer's few."""
        return sum(file.size or 0 for file in self.files)

    def url(self, file: File, base: str) -> str:
        return f"{base.rstrip('/')}/{self.repository}/resolve/{self.revision}/{file.source}"


ENTRIES = (
    Entry(
        "Qwen3.5-0.8B",
        "chat",
        "unsloth/Qwen3.5-0.8B-GGUF",
        "6ab461498e2023f6e3c1baea90a8f0fe38ab64d0",
        (
            File(
                "Qwen3.5-0.8B-Q4_K_M.gguf",
                "Qwen3.5-0.8B-Q4_K_M.gguf",
                532_517_120,
                "bd258782e35f7f458f8aced1adc053e6e92e89bc735ba3be89d38a06121dc517",
            ),
        ),
        "Apache-2.0",
        1200,
        "chat on a machine of 4 GB",
    ),
    Entry(
        "Qwen3-0.6B",
        "chat",
        "Qwen/Qwen3-0.6B-GGUF",
        "23749fefcc72300e3a2ad315e1317431b06b590a",
        (
            File(
                "Qwen3-0.6B-Q8_0.gguf",
                "Qwen3-0.6B-Q8_0.gguf",
                639_446_688,
                "9465e63a22add5354d9bb4b99e90117043c7124007664907259bd16d043bb031",
            ),
        ),
        "Apache-2.0",
        1700,
        "chat in many languages on a machine of 4 GB",
    ),
    Entry(
        "Qwen2.5-1.5B-Instruct",
        "chat",
        "Qwen/Qwen2.5-1.5B-Instruct-GGUF",
        "91cad51170dc346986eccefdc2dd33a9da36ead9",
        (
            File(
                "qwen2.5-1.5b-instruct-q4_k_m.gguf",
                "qwen2.5-1.5b-instruct-q4_k_m.gguf",
                1_117_320_736,
                "6a1a2eb6d15622bf3c96857206351ba97e1af16c30d7a74ee38970e434e9407e",
            ),
        ),
        "Apache-2.0",
        1800,
        "chat on a machine of 8 GB",
    ),
    Entry(
        "SmolLM3-3B",
        "chat",
        "ggml-org/SmolLM3-3B-GGUF",
        "4965cb60b150737b68a0408c36aeefb65078f894",
        (
            File(
                "SmolLM3-Q4_K_M.gguf",
                "SmolLM3-Q4_K_M.gguf",
                1_915_305_312,
                "8334b850b7bd46238c16b0c550df2138f0889bf433809008cc17a8b05761863e",
            ),
        ),
        "Apache-2.0",
        3200,
        "chat on a machine of 16 GB or more",
    ),
    Entry(
        "potion-retrieval-32M",
        "embeddings",
        "minishlab/potion-retrieval-32M",
        "6fc8051fab2a1e0ee76689cf08c853792ac285e7",
        (
            File(
                "model.safetensors",
                "weights.safetensors",
                129_210_456,
                "07609e5bd33aad37900b3fd62f4ec96f6daec88ca4d46b9d8b928bfababf6ea0",
            ),
            File("tokenizer.json", "tokenizer.json"),
        ),
        "MIT",
        400,
        "better vectors of English than wordllama's, nearly as fast",
    ),
    Entry(
        "ms-marco-MiniLM-L-6-v2",
        "rerank",
        "Xenova/ms-marco-MiniLM-L-6-v2",
        "a09144355adeed5f58c8ed011d209bf8ee5a1fec",
        (
            File(
                "onnx/model_quantized.onnx",
                "model.onnx",
                23_143_499,
                "e9d8ebf845c413e981c175bfe49a3bfa9b3dcce2a3ba54875ee5df5a58639fbe",
            ),
            File("tokenizer.json", "tokenizer.json"),
        ),
        "Apache-2.0; its training data (MS MARCO) is said to be for research",
        200,
        "reranking of English texts",
    ),
)


def find(name: str) -> Entry | None:
    """The entry of that name, in any case of letters."""
    return next((entry for entry in ENTRIES if entry.name.lower() == name.lower()), None)


def by_sha256(sha256: str) -> tuple[Entry, File] | None:
    """The entry and the file with this hash, whatever the file at hand is called."""
    return next(
        ((entry, file) for entry in ENTRIES for file in entry.files if file.sha256 == sha256),
        None,
    )
