"""An index that may be exchanged for another while it is in use."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ...threads import Threads
from ..engines.interface import Chunk, Found, Ids, List, Mode, Page, Scored, Stored, VectorIndex

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..engines.filters import Condition
    from ..engines.indexes import FieldType, Indexes


class LiveIndex:
    """A VectorIndex that passes everything on to the one it has now, and can tell which documents are written to."""

    def __init__(self, now: VectorIndex, after_flush: Callable[[], None] = lambda: None) -> None:
        self.now = now
        self.changed: set[str] | None = None
        """Documents written to since this was set to an empty set."""
        self._after_flush = after_flush

    @property
    def threads(self) -> Threads:
        return self.now.threads

    def note(self, document_ids: Iterable[str]) -> None:
        if self.changed is not None:
            self.changed.update(document_ids)

    def require_room(self, characters: int) -> None:
        self.now.require_room(characters)

    def upsert(self, chunks: Sequence[Chunk], vectors: NDArray[np.float32]) -> None:
        self.note([chunk.document_id for chunk in chunks])
        self.now.upsert(chunks, vectors)

    def keep_only(self, versions: Sequence[tuple[str, str]], older: Collection[str] | None = None) -> None:
        self.note([name for name, _ in versions])
        self.now.keep_only(versions, older)

    def discard(self, versions: Sequence[tuple[str, str]]) -> None:
        self.note([name for name, _ in versions])
        self.now.discard(versions)

    def delete(self, document_ids: Sequence[str]) -> int:
        self.note(document_ids)
        return self.now.delete(document_ids)

    def flush(self) -> None:
        self.now.flush()
        self._after_flush()

    def stored(self, versions: Sequence[tuple[str, str]]) -> set[str]:
        return self.now.stored(versions)

    def known(self, document_ids: Sequence[str]) -> set[str]:
        return self.now.known(document_ids)

    def search(
        self,
        text: str,
        vector: NDArray[np.float32] | None,
        *,
        mode: Mode,
        top_k: int,
        conditions: Sequence[Condition] = (),
        weight: float = 1.0,
    ) -> list[Found]:
        return self.now.search(text, vector, mode=mode, top_k=top_k, conditions=conditions, weight=weight)

    def lists(
        self,
        text: str,
        vector: NDArray[np.float32] | None,
        which: Sequence[List],
        limit: int,
        conditions: Sequence[Condition] = (),
        *,
        current: bool = False,
    ) -> dict[List, list[Scored]]:
        return self.now.lists(text, vector, which, limit, conditions, current=current)

    def chunks(self, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Chunk]:
        return self.now.chunks(ids)

    def documents(self, limit: int, cursor: str | None) -> Page:
        return self.now.documents(limit, cursor)

    def passages(
        self,
        limit: int,
        cursor: str | None,
        document_ids: Sequence[str] | None = None,
        conditions: Sequence[Condition] = (),
    ) -> Page:
        return self.now.passages(limit, cursor, document_ids, conditions)

    def read(self, limit: int, cursor: str | None, document_ids: Sequence[str] | None = None) -> Stored:
        return self.now.read(limit, cursor, document_ids)

    def ids(self, limit: int, cursor: str | None) -> Ids:
        return self.now.ids(limit, cursor)

    def there(self, ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        return self.now.there(ids)

    def count(self) -> tuple[int, int]:
        return self.now.count()

    def lacks(self, indexes: Indexes) -> bool:
        return self.now.lacks(indexes)

    def prepare(self, fields: Indexes, declared: Indexes) -> None:
        self.now.prepare(fields, declared)

    def set_indexes(self, changes: Mapping[str, FieldType | None], declared: Indexes) -> None:
        self.now.set_indexes(changes, declared)

    def take_over(self, other: VectorIndex) -> None:
        self.now.take_over(other)

    def close(self) -> None:
        self.now.close()
