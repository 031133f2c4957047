"""Smooth noise and points on an endless plane, each value a function of its place and a seed alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tilestream.types import Box

Floats = npt.NDArray[np.float32]
_MIX = (0x7FEB352D, 0x846CA68B)
"""Multipliers of the `lowbias32` integer hash (C. Wellons, "Prospecting for Hash Functions", 2018)."""


def hash_unit(y: npt.NDArray[np.int64], x: npt.NDArray[np.int64], seed: int) -> Floats:
    """Return numbers in [0, 1) that look random but follow from place and seed.

    Parameters
    ----------
    y, x : ndarray of int64
        Places on an integer lattice; broadcast against each other.
    seed : int
        Another seed, other numbers.

    Returns
    -------
    ndarray of float32
        One number a place.
    """
    with np.errstate(over="ignore"):
        value = (y.astype(np.uint32) * np.uint32(0x9E3779B1)) ^ (x.astype(np.uint32) * np.uint32(0x85EBCA77))
        value = value ^ np.uint32(seed * 0xC2B2AE3D & 0xFFFFFFFF)
        for shift, factor in zip((16, 15), _MIX, strict=True):
            value = (value ^ (value >> np.uint32(shift))) * np.uint32(factor)
    value = value ^ (value >> np.uint32(16))
    return (value >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24)


def value_noise(box: Box, *, cell_px: float | tuple[float, float], seed: int, octaves: int = 1) -> Floats:
    """Return smooth noise in [0, 1] for the pixels of a box.

    Parameters
    ----------
    box : Box
        Where; neighbouring boxes fit without a seam.
    cell_px : float or tuple of float
        Size of the largest feature, pixels, along y and x.
    seed : int
        Another seed, another pattern.
    octaves : int
        How many times finer detail of half the size and strength is added.

    Returns
    -------
    ndarray of float32
        Shape `(box.height, box.width)`.
    """
    cell_y, cell_x = cell_px if isinstance(cell_px, tuple) else (cell_px, cell_px)
    total = np.zeros((box.height, box.width), np.float32)
    weight, norm = 1.0, 0.0
    for octave in range(octaves):
        total += np.float32(weight) * _lattice(box, cell_y / 2**octave, cell_x / 2**octave, seed + 101 * octave)
        norm += weight
        weight /= 2
    return total / np.float32(norm)


def _lattice(box: Box, cell_y: float, cell_x: float, seed: int) -> Floats:
    if box.shape.area == 0:
        return np.zeros(box.shape.yx, np.float32)
    iy, fy = _cells(box.y, box.height, cell_y)
    ix, fx = _cells(box.x, box.width, cell_x)
    rows, columns = np.arange(iy[0], iy[-1] + 2), np.arange(ix[0], ix[-1] + 2)
    corners = hash_unit(rows[:, None], columns[None, :], seed)
    down = corners[iy - iy[0]] * (1 - fy)[:, None] + corners[iy - iy[0] + 1] * fy[:, None]
    noise: Floats = down[:, ix - ix[0]] * (1 - fx) + down[:, ix - ix[0] + 1] * fx
    return noise


def _cells(start: int, count: int, cell: float) -> tuple[npt.NDArray[np.int64], Floats]:
    place = (start + np.arange(count) + 0.5) / cell
    index = np.floor(place).astype(np.int64)
    part = (place - index).astype(np.float32)
    return index, part * part * (3 - 2 * part)  # smoothstep: no visible lattice


def iter_points(box: Box, *, cell_px: int, reach_px: int, seed: int) -> Iterator[tuple[float, float, Floats]]:
    """Yield one point for each lattice cell within `reach_px` of a box: y, x and eight random numbers.

    Parameters
    ----------
    box : Box
        Where.
    cell_px : int
        Edge of a cell; the mean distance between points, pixels.
    reach_px : int
        How far outside the box a point may lie and still matter, pixels.
    seed : int
        Another seed, other points.

    Yields
    ------
    tuple
        Position in pixels of level 0, and numbers in [0, 1) for whatever stands there.
    """
    rows = np.arange((box.y - reach_px) // cell_px, (box.y_stop + reach_px) // cell_px + 1)
    columns = np.arange((box.x - reach_px) // cell_px, (box.x_stop + reach_px) // cell_px + 1)
    grid = [hash_unit(rows[:, None], columns[None, :], seed + 7919 * k) for k in range(10)]
    numbers = np.stack(grid, axis=-1)
    for j, row in enumerate(rows):
        for i, column in enumerate(columns):
            drawn = numbers[j, i]
            yield (row + float(drawn[0])) * cell_px, (column + float(drawn[1])) * cell_px, drawn[2:]


def cell_walls(box: Box, *, cell_px: int, seed: int) -> Floats:
    """Return the distance to the nearest wall between Voronoi cells, in parts of `cell_px`, for a foam of round cells.

    Parameters
    ----------
    box : Box
        Where.
    cell_px : int
        Mean size of a cell, pixels.
    seed : int
        Another seed, another foam.

    Returns
    -------
    ndarray of float32
        `(box.height, box.width)`; 0 on a wall (S. Worley, "A Cellular Texture Basis Function", 1996).
    """
    nearest = np.full((box.height, box.width), 2 * cell_px, np.float32)
    second = nearest.copy()
    for py, px, _ in iter_points(box, cell_px=cell_px, reach_px=2 * cell_px, seed=seed):
        # two cells away another point is always nearer, so each point works on its own surroundings only
        y0, x0 = int(py) - 2 * cell_px, int(px) - 2 * cell_px
        part = box.intersect(Box(level=box.level, y=y0, x=x0, height=4 * cell_px + 1, width=4 * cell_px + 1))
        if part.shape.area == 0:
            continue
        here = slice(part.y - box.y, part.y_stop - box.y), slice(part.x - box.x, part.x_stop - box.x)
        y = np.arange(part.y, part.y_stop, dtype=np.float32)[:, None] - np.float32(py)
        x = np.arange(part.x, part.x_stop, dtype=np.float32)[None, :] - np.float32(px)
        distance = np.sqrt(y * y + x * x)
        second[here] = np.minimum(second[here], np.maximum(nearest[here], distance))
        nearest[here] = np.minimum(nearest[here], distance)
    return (second - nearest) / np.float32(cell_px)
