"""A model on ONNX Runtime, for short calls beside much else that needs the processor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import BackendError


def session(file: Path, name: str, more: bytes = b"") -> Any:
    """An InferenceSession of the model in a file, with `more` appended: Protocol Buffers merge messages in a row.

    Raises BackendError, with the model's name, if ONNX Runtime or tokenizers is missing.
    """
    try:
        import onnxruntime
        import tokenizers  # noqa: F401  # which its texts take
    except ModuleNotFoundError as error:
        raise BackendError(
            f"{name} needs {error.name}: pip install 'llmbackend[embedded]'", details={"backend": name}
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(2, os.cpu_count() or 1)
    options.log_severity_level = 3
    # Else waiting threads would spin and keep the processor from others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = file.read_bytes() + more if more else file
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def whole_characters(text: str) -> str:
    """The text with its half characters replaced, which a str may hold: they are none to a tokenizer."""
    return text.encode(errors="replace").decode()
