"""Unpacked networks kept in this process under one byte budget: their tiles decode at any level without their files."""

from __future__ import annotations

import os
from typing import Protocol, TypeAlias

from tilestream.cache import limits
from tilestream.cache.tally import FIELDS
from tilestream.cache.tier import Tier

FieldKey: TypeAlias = tuple[str, int, int, int]
"""Identity of the store, array, iy, ix."""


class Unpacked(Protocol):
    """What is kept."""

    @property
    def nbytes(self) -> int:
        """Return the memory of its parameters."""


FieldCache: TypeAlias = Tier[FieldKey, "Unpacked | None"]
"""None for a tile that is not stored."""


class _Process:
    """The one cache of this process."""

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Begin with nothing: a parent may have held a lock when it forked."""
        self.fields: FieldCache = Tier(limits.field_bytes(), _nbytes, FIELDS)


def _nbytes(value: Unpacked | None) -> int:
    return 0 if value is None else value.nbytes


_process = _Process()


def field_cache() -> FieldCache:
    """Return this process's cache of unpacked networks; all images share it."""
    return _process.fields


def fit_fields() -> None:
    """Fit the cache of this process to its share of the machine, after that has changed."""
    _process.fields.resize(limits.field_bytes())


def forget_fields() -> None:
    """Drop all unpacked networks of this process, after a store was written whose fingerprint may be that of before."""
    _process.fields.clear()
