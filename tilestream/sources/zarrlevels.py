"""The levels of a Zarr image: their blocks, and their true scales by metadata that may lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tilestream.errors import SourceError
from tilestream.sources.ngff import Multiscale
from tilestream.sources.scales import level_scale
from tilestream.types import Level, Shape

LEAST_BLOCK_PX = 128
"""As many chunks as fit into this are read at once, since a call costs about as much as decoding so many pixels."""
MOST_BLOCK_BYTES = 4 << 30
"""Most decoded bytes of the unit that is read at once; metadata can claim any, and absent chunks are made."""
SLACK_PX = 0.01
"""Pixels of a level that it may lie beside its place by the rounding of metadata."""


class ArrayForm(Protocol):
    """What has to be known of an array: zarr's own, or a layout."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return its shape."""

    @property
    def chunks(self) -> tuple[int, ...]:
        """Return the shape of what is decoded at once."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of its samples."""


def stored_levels(
    image: Multiscale, arrays: Sequence[ArrayForm], dims: tuple[str, ...]
) -> tuple[tuple[Level, ...], tuple[str, ...]]:
    """Return the levels of an image, and what a user should know of them.

    Parameters
    ----------
    image : Multiscale
        What its metadata say.
    arrays : sequence of ArrayForm
        Its arrays, finest first.
    dims : tuple of str
        Canonical names of their axes.

    Returns
    -------
    tuple of Level, tuple of str
        Levels and notes.

    Raises
    ------
    SourceError
        When a unit that is read at once would be absurdly large.
    """
    at = dims.index("y"), dims.index("x")
    levels: list[Level] = []
    notes: tuple[str, ...] = ()
    for index, array in enumerate(arrays):
        shape = Shape(y=array.shape[at[0]], x=array.shape[at[1]])
        chunk = array.chunks[at[0]], array.chunks[at[1]]
        whole = levels[0].shape if levels else shape
        scale_yx, lies = _ratio(image, index, whole, shape, at)
        if lies:
            notes += (f"level {index}: the stated scale does not fit its size, the ratio of the sizes is used",)
        block = Shape(y=_block_edge(chunk[0], shape.y), x=_block_edge(chunk[1], shape.x))
        chunk_bytes = block.area * (array.shape[dims.index("c")] if "c" in dims else 1) * array.dtype.itemsize
        chunk_bytes = max(chunk_bytes, math.prod(array.chunks) * array.dtype.itemsize)
        if chunk_bytes > MOST_BLOCK_BYTES:
            raise SourceError.of(
                f"array `{image.paths[index] or '/'}`",
                got=f"chunks of {array.chunks} {array.dtype}, {chunk_bytes:,} bytes decoded with all channels",
                expected=f"at most {MOST_BLOCK_BYTES:,}",
                do="Rewrite the array with smaller chunks, or check that its metadata are not damaged.",
            )
        levels.append(Level(index=index, shape=shape, block=block, scale_yx=scale_yx))
    return tuple(levels), notes + _beside(image, levels, at)


def _beside(image: Multiscale, levels: Sequence[Level], at: tuple[int, int]) -> tuple[str, ...]:
    """Return a note on levels whose stated translation is not that of means: (f - 1)/2 level-0 pixels."""
    off: dict[int, float] = {}
    scale = image.scales[0] if image.scales else None
    for level in levels[1:]:
        moved = image.translations[level.index] if image.translations else None
        if moved is None or scale is None:
            continue
        start = image.translations[0] or (0.0,) * len(moved)
        shifts = [(moved[n] - start[n]) / scale[n] - (f - 1) / 2 for n, f in zip(at, level.scale_yx, strict=True)]
        off[level.index] = max(map(abs, shifts))
    wrong = [index for index, shift in off.items() if shift > SLACK_PX * levels[index].scale_yx[0]]
    if not wrong:
        return ()
    which = f"level {wrong[0]}" if len(wrong) == 1 else f"levels {', '.join(map(str, wrong))}"
    return (
        f"{which}: stated to lie up to {max(off.values()):.3g} level-0 pixels beside the means of level 0, as pixels "
        "that are picked do; read as if they shared its corner",
    )


def _ratio(
    image: Multiscale, index: int, whole: Shape, shape: Shape, at: tuple[int, int]
) -> tuple[tuple[float, float], bool]:
    """Return level-0 pixels per pixel, and whether the stated scale had to be put aside."""
    sizes = whole.y / shape.y, whole.x / shape.x
    first, own = (image.scales[0], image.scales[index]) if image.scales else (None, None)
    stated = image.factors[index] if image.factors else None
    if first is not None and own is not None:
        stated = own[at[0]] / first[at[0]], own[at[1]] / first[at[1]]
    if stated is None:
        return level_scale(whole, shape), False
    fits = all(abs(w / f - s) < 1.0 for w, f, s in zip(whole.yx, stated, shape.yx, strict=True))
    return (stated, False) if fits else (sizes, True)


def _block_edge(chunk: int, size: int) -> int:
    return min(chunk * max(1, LEAST_BLOCK_PX // chunk), size)
