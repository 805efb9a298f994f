"""What a server leaves out when it looks for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from llmbackend import llamaindex_import
from llmbackend.server import running


@pytest.fixture(autouse=True)
def _unfrozen() -> Iterator[None]:
    freezing = running._Freezing()
    gc.callbacks.append(freezing)
    yield
    gc.callbacks.remove(freezing)
    gc.unfreeze()


def test_what_made_a_collection_long_is_left_out_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LONG_COLLECTION", 0.0)
    stays = [[number] for number in range(1000)]
    gc.collect()
    assert gc.get_freeze_count() > len(stays)
    assert len(gc.get_objects()) < len(stays)


def test_after_a_short_one_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LONG_COLLECTION", 1000.0)
    before = gc.get_freeze_count()
    gc.collect()
    assert gc.get_freeze_count() == before


def test_what_uses_llamaindex_again_leaves_nothing_more_out() -> None:
    """Each call of an own parser or an analysis did, and counted some 350,000 objects first, which takes 50 ms."""
    llamaindex_import.load()
    gc.freeze()  # as a server has
    lives = [[number] for number in range(1000)]
    llamaindex_import.load()
    assert any(one is lives for one in gc.get_objects())
