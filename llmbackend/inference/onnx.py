"""Opens models on ONNX Runtime, for short calls that share the processor with much else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import BackendError


def session(file: Path, name: str, more: bytes = b"") -> Any:
    """Open an InferenceSession of a file's model, with the bytes `more` appended (Protocol Buffers merge
    appended messages).

    Raises BackendError with the model's name if onnxruntime or tokenizers is not installed.
    """
    try:
        import onnxruntime
        import tokenizers  # noqa: F401  # needed for the model's texts
    except ModuleNotFoundError as error:
        raise BackendError(
            f"{name} needs {error.name}: pip install 'llmbackend[embedded]'", details={"backend": name}
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(2, os.cpu_count() or 1)
    options.log_severity_level = 3
    # Otherwise, waiting threads would spin and take the processor from others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = file.read_bytes() + more if more else file
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def whole_characters(text: str) -> str:
    """The text with lone surrogates replaced: a str may contain such half characters, but tokenizers do not
    take them."""
    return text.encode(errors="replace").decode()
