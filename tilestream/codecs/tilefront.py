"""Tiles of which only the beginning was read: how many bytes a level needs, and which levels those at hand answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilestream.codecs.fronts import outline_of
from tilestream.codecs.tilecodec import PYRAMID, Tile, unpack_tile

if TYPE_CHECKING:
    from tilestream.codecs.pyramid.pyramidtile import PyramidTile


def bytes_for(start: bytes, level: int) -> int | None:
    """Return how many bytes of a tile answer one of its levels.

    Parameters
    ----------
    start : bytes
        Its first bytes.
    level : int
        0 is the finest.

    Returns
    -------
    int or None
        All of them, unless the tile has fronts that are checked by themselves: its last is of level 1, the one before
        of level 2 and so on, the first of all coarser ones. None where `start` is too short to tell.
    """
    outline = outline_of(start)
    if outline is None:
        return None
    fronts = outline.fronts
    return fronts[max(0, len(fronts) - level)].nbytes if level and fronts else outline.nbytes


def unpack_front(data: bytes) -> Tile:
    """Return a tile of which the beginning is at hand, or all; parameters and errors as of `unpack_tile`."""
    outline = outline_of(data)
    if outline is None or outline.kind != PYRAMID:
        return unpack_tile(data)
    from tilestream.codecs.pyramid.pyramidtile import PyramidTile

    return PyramidTile.from_front(data)


def answers(tile: Tile, level: int) -> bool:
    """Return whether what was read of a tile has all of a level."""
    pyramid = _pyramid(tile)
    return pyramid is None or pyramid.answers(level)


def front_of(tile: Tile) -> bytes:
    """Return the bytes that a tile was unpacked from, where they are not all; else none."""
    pyramid = _pyramid(tile)
    return b"" if pyramid is None else pyramid.front


def _pyramid(tile: Tile) -> PyramidTile | None:
    if tile.kind != PYRAMID:
        return None
    from tilestream.codecs.pyramid.pyramidtile import PyramidTile

    return tile if isinstance(tile, PyramidTile) else None
