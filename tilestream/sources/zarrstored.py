"""How many of the files that a Zarr array may have are there: what is absent reads as background, lost or empty."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tilestream.sources.chunkread import Place
from tilestream.sources.zarrlayout import ChunkLayout

MOST_LISTED = 1 << 14
"""Entries of folders that are looked at when a store is opened, coarsest level first: some 10 ms on a local disk."""


def stored_notes(
    folders: Sequence[Path],
    layouts: Sequence[ChunkLayout | None],
    written: Sequence[npt.NDArray[np.bool_] | None],
    *,
    step: int = 1,
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
    step : int
        Levels of the image from one array to the next.

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
            told.append(f"level {level * step} not counted (up to {most:,})")
            continue
        lost = _lost(places, layout, written[level])
        if lost:
            gone.append(f"level {level * step} {lost:,}")
        if len(places) < most:
            fills.add(f"{layout.fill:g}")
        told.append(f"level {level * step} {len(places):,} of {most:,}")
    if not fills:
        return ()
    kind = "shards" if any(layout is not None and layout.index is not None for layout in layouts) else "chunks"
    note = f"stored {kind}: {', '.join(told[::-1])}; absent ones read as {' or '.join(sorted(fills))}"
    if not gone:
        return (note,)
    return note, f"{kind} that were written and are gone: {', '.join(gone[::-1])}; their pixels are damaged"


def _places(folder: Path, layout: ChunkLayout, most: int) -> tuple[set[Place] | None, int]:
    """Return the files of an array that are there, None when there are too many to look at, and what is left of `most`.

    Names that are no chunk of this array do not count.
    """
    found: set[Place] = set()
    nested = layout.separator == "/"
    start = folder / "c" if nested and layout.key_start else folder
    seen = 0
    for place in _nested(str(start), layout.files) if nested else _flat(str(start), layout):
        seen += 1
        if seen > most:
            return None, 0
        if place is not None:
            found.add(place)
    return found, most - seen


def _nested(folder: str, files: Sequence[int], outer: Place = ()) -> Iterator[Place | None]:
    """Yield the places of files whose folders are numbers, None for names that are no place, as they come."""
    for name in _names(folder):
        at = _number(name, files[0])
        if at is None:
            yield None
        elif len(files) == 1:
            yield (*outer, at)
        else:
            yield from _nested(f"{folder}/{name}", files[1:], (*outer, at))


def _flat(folder: str, layout: ChunkLayout) -> Iterator[Place | None]:
    """Yield the places of files with all numbers in their names, None for names that are no place, as they come."""
    for name in _names(folder):
        parts = name.removeprefix(layout.key_start).split(layout.separator)
        place = tuple(_number(part, count) for part, count in zip(parts, layout.files, strict=False))
        whole = tuple(at for at in place if at is not None)
        yield whole if name == layout.key(whole) and len(whole) == len(layout.files) else None


def _names(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry.name
    except (FileNotFoundError, NotADirectoryError):
        return


def _number(name: str, count: int) -> int | None:
    """Return a name as the number that it is, None for any other and for one that is not below `count`."""
    if not (name.isascii() and name.isdecimal()) or (name[0] == "0" and name != "0") or int(name) >= count:
        return None
    return int(name)


def _lost(places: set[Place], layout: ChunkLayout, written: npt.NDArray[np.bool_] | None) -> int:
    """Return how many files were written and are not there."""
    if written is None:
        return 0
    there = np.zeros(layout.files, np.bool_)
    if places:
        there[tuple(np.array(sorted(places)).T)] = True
    return int((written & ~there.reshape(written.shape)).sum())
