"""LlamaIndex takes seconds to import, and does not stand two threads that import parts of it at the same time."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from . import threads

_loading = threading.Lock()


def load() -> None:
    """Load all that this package uses of it, once. Blocks: call it in a thread, before anything is imported of it."""
    with _loading, giving_way():
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


class GivesWay:
    """Among those that find modules: finds none, but lets small requests go first between two of them (precedence.py)."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        threads.give_way()


@contextmanager
def giving_way() -> Iterator[None]:
    """What is imported within in a thread holds nobody up for all of its seconds."""
    finder = GivesWay()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def tokenizer() -> Callable[[str], Sized]:
    """LlamaIndex's: the application's own, if that has set one; else the same as LlamaIndex would load, without it."""
    with _loading:
        if "llama_index.core" in sys.modules:
            from llama_index.core.utils import get_tokenizer

            return get_tokenizer()
        import tiktoken

        spec = find_spec("llama_index.core")
        assert spec is not None
        assert spec.origin is not None
        # LlamaIndex ships what tiktoken would download, and names it in the same way.
        shipped = str(Path(spec.origin).with_name("_static") / "tiktoken_cache")
        named = "TIKTOKEN_CACHE_DIR" in os.environ
        if not named:
            os.environ["TIKTOKEN_CACHE_DIR"] = shipped
        try:
            encoding = tiktoken.encoding_for_model("gpt-3.5-turbo")
        finally:
            if not named:
                del os.environ["TIKTOKEN_CACHE_DIR"]
        return partial(encoding.encode, allowed_special="all")
