"""The drawing of each kind of result, which becomes HTML in notebooks and text in terminals."""

from __future__ import annotations

from . import jobs, passages, quality, state, stored, written
from .values import drawing

__all__ = ["drawing", "jobs", "passages", "quality", "state", "stored", "written"]
