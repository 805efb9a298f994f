"""An embedding model's identity: its vectors, not its name, which a server may give to another model tomorrow."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TEXTS = (
    "The ferry to the island leaves at nine, unless the harbour is frozen.",
    "Wie viele Urlaubstage stehen mir nach der Probezeit zu?",
    "def area(radius: float) -> float: return 3.14159 * radius ** 2",
)
"""Never change these: every collection keeps their vectors. They differ in language and subject, so that
models differ on them."""

AGREE = 0.99
"""The least cosine between two vectors of one text by one model. Other hardware or precision changes them
less than that."""


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Identifies a model: in this process by the hash of its weights, on a server by its vectors of TEXTS."""

    model: str
    """The server's name for it."""
    digest: str = ""
    vectors: NDArray[np.float32] | None = None
    query: str = ""
    """The prefix of questions."""
    passage: str = ""
    """The prefix of stored texts."""

    def same_vectors(self, other: Fingerprint) -> bool:
        """Whether both are of the same model, whatever it is called."""
        if self.vectors is None or other.vectors is None:
            return bool(self.digest) and self.digest == other.digest
        if self.vectors.shape != other.vectors.shape:
            return False
        return bool((self.vectors * other.vectors).sum(axis=1).min() >= AGREE)

    def same_prompts(self, other: Fingerprint) -> bool:
        return (self.query, self.passage) == (other.query, other.passage)

    def agrees(self, other: Fingerprint) -> bool:
        """Whether vectors of one can be compared with vectors of the other: same model, same prompts."""
        return self is other or (self.same_prompts(other) and self.same_vectors(other))

    @property
    def key(self) -> str:
        """A name for the model's vectors. Fingerprints that agree may still have different keys."""
        if self.vectors is None:
            return self.digest
        return hashlib.blake2b(self.vectors.astype("<f4").tobytes(), digest_size=16).hexdigest()

    def to_json(self) -> dict[str, Any]:
        told = {"model": self.model, "query": self.query, "passage": self.passage}
        if self.vectors is None:
            return {**told, "digest": self.digest}
        return {**told, "vectors": base64.b64encode(self.vectors.astype("<f4").tobytes()).decode()}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Fingerprint:
        """Read what `to_json` has written; raises ValueError if it is something else."""
        import numpy as np

        made = cls(told["model"], told.get("digest") or "", None, told["query"], told["passage"])
        if not told.get("vectors"):
            return made
        values = np.frombuffer(base64.b64decode(told["vectors"], validate=True), "<f4")
        values = values.reshape(len(TEXTS), -1)
        if not np.isfinite(values).all():
            raise ValueError("a fingerprint has numbers that are not finite")
        return replace(made, vectors=values)
