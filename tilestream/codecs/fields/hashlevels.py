"""The table of a hash grid as a coarser level of the picture sees it: finer features are means, not samples.

A pixel of level k covers 2^k × 2^k pixels of level 0. Of grid vertices that are closer than that, some would be met and
others missed, so each grid level with more than `FINER` vertices a pixel is replaced by the mean of its features at the
centres of all level-0 pixels that a pixel covers: one vertex a pixel of level k, exactly on its centre.
A perceptron behind that sees what it has to be the mean of, at the price of one read as at level 0. The means of level
k + 1 are those of four of level k, the last row and column being repeated where their number is odd.

They follow from the table and are never stored. A grid whose table could not hold the means one to one, or of a picture
of more than `MOST_EDGE_PX`, keeps its own features, at the weights of `hashparts`. The idea is that of mip maps of
textures, and of Hu et al., "Tri-MipRF", ICCV 2023, arXiv:2307.11335, whose planes of features are reduced so.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.kernels.hash_vertex import PRIME_Y
from tilestream.kernels.hashgrid import HashGrid

FINER = 1.5
MOST_EDGE_PX = 2048
"""Of a picture, and vertices of its grid along an axis, for means to be made: they pass through memory at once."""


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """How arrays of a library are made: NumPy's, or torch's on a device."""

    of: Callable[[Any], Any]
    """From a NumPy array."""
    join: Callable[[list[Any]], Any]
    """Along the first axis."""


HOST = Arrays(of=np.asarray, join=np.concatenate)


def level_grid(grid: HashGrid, *, level: int, extent_px: int) -> HashGrid:
    """Return the grid that a whole level of the picture is decoded with.

    Parameters
    ----------
    grid : HashGrid
        Of the field; 2-D.
    level : int
        Of the picture.
    extent_px : int
        Level-0 pixels that the grid spans.

    Returns
    -------
    HashGrid
        With the finest levels capped at a vertex a pixel, and one more around; the grid itself where none is finer.
    """
    scale, pixels = extent_px / 2**level, math.ceil(extent_px / 2**level)
    finer = [number for number, own in enumerate(grid.scales) if own > FINER * scale]
    is_large = max(extent_px, grid.resolutions[-1]) > MOST_EDGE_PX
    if level == 0 or not finer or is_large or (pixels + 2) ** 2 > 2**grid.log2_table:
        return grid
    return replace(grid, capped=(finer[0], scale, pixels + 2))


def level_tables(
    table: Any, grid: HashGrid, *, levels: int, extent_px: int, arrays: Arrays = HOST
) -> list[tuple[HashGrid, Any]]:
    """Return grid and table of whole levels of a picture.

    Parameters
    ----------
    table : array of float32
        `(grid.entries, grid.features)`, of NumPy or torch; differentiable there.
    grid : HashGrid
        What it holds.
    levels : int
        How many, level 0 included.
    extent_px : int
        Level-0 pixels that the grid spans.
    arrays : Arrays
        Of which library.

    Returns
    -------
    list of tuple
        Grid and table of each level; those of the field where nothing is finer than pixels.
    """
    found: list[tuple[HashGrid, Any]] = [(grid, table)]
    means: dict[int, Any] = {}
    for level in range(1, levels):
        capped = level_grid(grid, level=level, extent_px=extent_px)
        if capped.capped is None:
            found.append((grid, table))
            continue
        first = capped.capped[0]
        parts = [table[: grid.offsets[first]]]
        for number in range(first, grid.levels):
            if number in means:
                means[number] = _halved(means[number], arrays)
            else:
                means[number] = _means(table, grid, number, (level, extent_px), arrays)
            parts.append(_entries(means[number], capped.sizes[number], arrays))
        found.append((capped, arrays.join(parts)))
    return found


@functools.lru_cache(maxsize=8)  # the fit asks for them again in every step
def _vertex_entries(grid: HashGrid, number: int) -> npt.NDArray[np.int64]:
    """Return `(y, x)`: the entries of the vertices of a level of the grid, and of one more that wraps at either end."""
    first, size, edge = grid.offsets[number], grid.sizes[number], grid.resolutions[number]
    at = np.arange(edge + 1, dtype=np.uint32)
    if grid.dense[number]:
        found = (at + (at * np.uint32(edge))[:, None]).astype(np.int64) % size
    else:
        found = (at ^ (at * PRIME_Y)[:, None]).astype(np.int64) & (size - 1)
    return first + found


def _means(table: Any, grid: HashGrid, number: int, where: tuple[int, int], arrays: Arrays) -> Any:
    """Return `(y, x, features)`: means over the pixels of a level, of features at the centres of those of level 0."""
    level, extent_px = where
    vertices = table[arrays.of(_vertex_entries(grid, number))]
    count, covered = math.ceil(extent_px / 2**level), 2**level
    pixels = np.minimum(np.arange(count * covered), extent_px - 1)
    place = float(grid.scales[number]) * (pixels + 0.5) / extent_px + 0.5
    cell = np.floor(place).astype(np.int64)
    low, upper = arrays.of(cell), arrays.of((place - cell).astype(np.float32))[:, None, None]
    for _ in range(2):  # along rows; turned, so along columns
        between = vertices[low] * (1 - upper) + vertices[low + 1] * upper
        rows = between.reshape(count, covered, *between.shape[1:]).mean(1)
        vertices = rows.swapaxes(0, 1)
    return vertices


def _halved(means: Any, arrays: Arrays) -> Any:
    """Return the means of two by two."""
    for _ in range(2):
        if len(means) % 2:
            means = arrays.join([means, means[-1:]])
        means = means.reshape(len(means) // 2, 2, *means.shape[1:]).mean(1).swapaxes(0, 1)
    return means


def _entries(means: Any, size: int, arrays: Arrays) -> Any:
    """Return means as the entries of a level, with what is at an edge once more beyond it."""
    for _ in range(2):
        means = arrays.join([means[:1], means, means[-1:]]).swapaxes(0, 1)
    flat = means.reshape(-1, means.shape[2])
    return arrays.join([flat, flat[:1].repeat(size - len(flat), *_once(flat))]) if size > len(flat) else flat


def _once(flat: Any) -> tuple[int, ...]:
    """Return what `repeat` of NumPy calls the axis and torch the count of the second one."""
    return (0,) if isinstance(flat, np.ndarray) else (1,)
