"""Tiles as they are stored, so that they can be copied without being decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from tilestream.errors import DamagedError

Cell: TypeAlias = tuple[int, int, int]
"""Index `(c, y, x)` in the grid of chunks of a level, as in the key of a Zarr chunk."""
Encoded: TypeAlias = bytes | DamagedError | None
"""A chunk's bytes; the reason why they are no good; or None where nothing is stored on purpose (sparse)."""


@dataclass(frozen=True, kw_only=True)
class EncodedLevel:
    """How the chunks of one level decode, or why they cannot be copied."""

    codecs: tuple[Mapping[str, Any], ...] = ()
    """Metadata of the Zarr v3 codecs of one chunk, in encoding order; empty where chunks cannot be copied."""
    chunk_shape: tuple[int, int, int] = (0, 0, 0)
    """Shape `(c, y, x)` of every chunk; those at the edges are full too."""
    stored_bytes: int = 0
    """About what all chunks of the level take together, as the source's tables say."""
    reason: str = ""
    """Why chunks cannot be copied; empty where they can."""


@runtime_checkable
class EncodedSource(Protocol):
    """A source that may give its tiles as they are stored."""

    def encoded(self, level: int) -> EncodedLevel:
        """Return how the chunks of a level decode, or why they cannot be copied."""

    def read_encoded(self, level: int, cells: Sequence[Cell]) -> list[Encoded]:
        """Return one result a cell, in order; a damaged tile is a result, since it must not cost the others.

        Each chunk stands for itself, and `encoded(level).codecs` decode it to exactly the pixels of `read_block`.
        Neighbouring cells are read at once: ask for many.
        """
