"""LlamaIndex takes a second to import, and does not stand two threads that import parts of it at the same time."""

from __future__ import annotations

import gc
import threading

_loading = threading.Lock()


def llamaindex() -> None:
    """Load all that this package uses of it, once. Blocks: call it in a thread, before anything is imported of it."""
    with _loading:
        import llama_index.core.node_parser
        import llama_index.core.workflow  # noqa: F401
        from llama_index.core.utils import get_tokenizer, globals_helper

        # Both are loaded when first used, without a lock either.
        get_tokenizer()
        _ = globals_helper.punkt_tokenizer
        if (
            gc.get_freeze_count()
        ):  # a server, which leaves out what stays when it looks for garbage (server/app.py)
            gc.freeze()
