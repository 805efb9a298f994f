"""Imports LlamaIndex, which takes seconds and fails if two threads import parts of it at the same time."""

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

from . import slices

_loading = threading.Lock()
_loaded = False


def load() -> None:
    """Import all of LlamaIndex that this package uses, once. Blocks: call it in a thread, before any import of it."""
    global _loaded
    if _loaded:
        return
    with _loading, giving_way():
        import llama_index.core.node_parser
        import llama_index.core.workflow  # noqa: F401
        from llama_index.core.utils import get_tokenizer

        get_tokenizer()  # which LlamaIndex loads lazily, without a lock
        if (
            gc.get_freeze_count()
        ):  # a server, which excludes permanent objects from garbage collection (server/running.py)
            gc.freeze()
        _loaded = True


def load_with_sentences() -> None:
    """Also import what LlamaIndex's splitters find sentences by, nltk: it is loaded lazily, without a lock."""
    load()
    with _loading, giving_way():
        from llama_index.core.utils import globals_helper

        _ = globals_helper.punkt_tokenizer


class GivesWay:
    """An import finder that finds nothing; between two imports it lets small requests go first (precedence.py)."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        slices.give_way()


@contextmanager
def giving_way() -> Iterator[None]:
    """Imports in this block, in a thread, let other work run in between."""
    finder = GivesWay()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def tokenizer() -> Callable[[str], Sized]:
    """LlamaIndex's tokenizer: the one that the application has set, else the one that LlamaIndex would load."""
    with _loading:
        if "llama_index.core" in sys.modules:
            from llama_index.core.utils import get_tokenizer

            return get_tokenizer()
        import tiktoken

        spec = find_spec("llama_index.core")
        assert spec is not None
        assert spec.origin is not None
        # LlamaIndex ships the file that tiktoken would download, under the same name.
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
