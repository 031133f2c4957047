"""How many of the files that a Zarr array may have are there: what is absent reads as background, lost or empty."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tilestream.sources.zarrlayout import ChunkLayout

MOST_LISTED = 1 << 14
"""Entries of folders that are looked at when a store is opened, coarsest level first: some 10 ms on a local disk."""


def stored_notes(
    folders: Sequence[Path], layouts: Sequence[ChunkLayout | None], written: Sequence[npt.NDArray[np.bool_] | None]
) -> tuple[str, ...]:
    """Return what a user should know of the files that are not there.

    Parameters
    ----------
    folders : sequence of Path
        Folder of each level's array, finest first.
    layouts : sequence of ChunkLayout or None
        Their layouts; levels without one are not counted.
    written : sequence of ndarray or None
        `(y, x)` files that were written, where the store says so.

    Returns
    -------
    tuple of str
        How many are stored of how many by level, and what the absent ones read as; empty when none is absent. A
        second note when files are gone that were written.
    """
    left = MOST_LISTED
    told: list[str] = []
    gone: list[str] = []
    fills: set[str] = set()
    for level in reversed(range(len(layouts))):
        layout = layouts[level]
        if layout is None:
            continue
        places, left = _places(folders[level], layout, left)
        most = math.prod(layout.files)
        if places is None:
            told.append(f"level {level} not counted (up to {most:,})")
            continue
        lost = _lost(places, layout, written[level])
        if lost:
            gone.append(f"level {level} {lost:,}")
        if len(places) < most:
            fills.add(f"{layout.fill:g}")
        told.append(f"level {level} {len(places):,} of {most:,}")
    if not fills:
        return ()
    kind = "shards" if any(layout is not None and layout.index is not None for layout in layouts) else "chunks"
    note = f"stored {kind}: {', '.join(told[::-1])}; absent ones read as {' or '.join(sorted(fills))}"
    if not gone:
        return (note,)
    return note, f"{kind} that were written and are gone: {', '.join(gone[::-1])}; their pixels are damaged"


def _places(folder: Path, layout: ChunkLayout, most: int) -> tuple[set[tuple[int, ...]] | None, int]:
    """Return the files of an array that are there, None when there are too many to look at, and what is left of `most`.

    Names that are no chunk of this array do not count.
    """
    found: set[tuple[int, ...]] = set()
    nested = layout.separator == "/"
    start = folder / "c" if nested and layout.key_start else folder
    seen = 0
    for name in _names(start, len(layout.shape) if nested else 1):
        seen += 1
        if seen > most:
            return None, 0
        place = _place(name if nested else name.removeprefix(layout.key_start), layout)
        if place is not None:
            found.add(place)
    return found, most - seen


def _names(folder: Path, depth: int) -> Iterator[str]:
    """Yield the paths of entries at a depth below a folder, relative to it, as they come."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if depth == 1:
                    yield entry.name
                elif entry.name.isdecimal():
                    yield from (f"{entry.name}/{rest}" for rest in _names(folder / entry.name, depth - 1))
    except (FileNotFoundError, NotADirectoryError):
        return


def _place(name: str, layout: ChunkLayout) -> tuple[int, ...] | None:
    parts = name.split(layout.separator)
    if len(parts) != len(layout.shape) or not all(part.isascii() and part.isdecimal() for part in parts):
        return None
    place = tuple(map(int, parts))
    is_own = all(at < count for at, count in zip(place, layout.files, strict=True)) and layout.key(place).endswith(name)
    return place if is_own else None


def _lost(places: set[tuple[int, ...]], layout: ChunkLayout, written: npt.NDArray[np.bool_] | None) -> int:
    """Return how many files were written and are not there."""
    if written is None:
        return 0
    there = np.zeros(layout.files, np.bool_)
    if places:
        there[tuple(np.array(sorted(places)).T)] = True
    return int((written & ~there.reshape(written.shape)).sum())
