"""Vertices of a hash grid around positions: where they are stored, their weights, and the sums over them.

    p = fma(s_l, x, 0.5), cell = floor(p), frac = p − cell, along every axis
    dense:  i = (x + y·R [+ z·R²]) mod size
    hashed: i = (x ⊕ y·2654435761 [⊕ z·805459861]) mod size, in 32 bits that wrap
    f = Σ over the 2^d corners of Π (frac or 1 − frac) · table[i]

The fused multiply-add is one instruction on every target, so cells and indices are equal bit by bit on all of them. A
hashed level has a power of two of entries (only the cap of 2^T makes a level hashed), so mod is a mask there. On a
dense level a corner may lie one past the last vertex (x = 1): it wraps into the next row as in tiny-cuda-nn.

Source: see `tilestream.kernels.hashgrid`. Tolerance of the tests: indices 0; features 1e-6 of the largest entry.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.language import core, cpu_kernel, floor, fma

PRIME_Y = np.uint32(2654435761)
PRIME_Z = np.uint32(805459861)
HALF = np.float32(0.5)
ONE = np.float32(1)
ZERO = np.float32(0)
SLACK = np.float32(1e-3)
"""Of the comparison of levels, so that a rounded last level counts."""
_INFINITE_EXPONENT = np.int32(0x7C00)
_UNBIAS = np.float32(2.0**112)


@core
def position_core(scale: Any, x: Any) -> Any:
    """Return where a coordinate of 0 to 1 lies on a level, in cells."""
    return fma(scale, x, HALF)


@core
def hashed_core(x: Any, y: Any, z: Any, size: Any) -> Any:
    """Return the entry of a vertex of a hashed level, whose size is a power of two; z is 0 in 2-D."""
    mixed = np.uint32(x) ^ np.uint32(np.uint32(y) * PRIME_Y) ^ np.uint32(np.uint32(z) * PRIME_Z)
    return np.uint32(mixed) & np.uint32(np.uint32(size) - np.uint32(1))


@core
def dense_core(x: Any, y: Any, z: Any, resolution: Any) -> Any:
    """Return the entry of a vertex of a dense level before mod its size; z is 0 in 2-D."""
    r = np.uint32(resolution)
    plane = np.uint32(np.uint32(y) + np.uint32(r * np.uint32(z)))
    return np.uint32(np.uint32(x) + np.uint32(r * plane))


@core
def index_core(x: Any, y: Any, z: Any, size: Any, resolution: Any, hashed: Any) -> Any:
    """Return the entry of any vertex of a level; for one at a time."""
    if hashed:
        return np.int64(hashed_core(x, y, z, size))
    at = np.int64(dense_core(x, y, z, resolution))
    return at if at < size else at % np.int64(size)


@core
def share_core(upper: Any, frac: Any) -> Any:
    """Return the share of the upper or the lower vertex along one axis."""
    return frac if upper else ONE - frac


@core
def entry_core(corner: Any, px: Any, py: Any, pz: Any, dims: Any, size: Any, resolution: Any, hashed: Any) -> Any:
    """Return the entry, from the level's first, of a corner of the cell of a position on the level."""
    x = np.int32(floor(px)) + (corner & 1)
    y = np.int32(floor(py)) + ((corner >> 1) & 1)
    z = np.int32(floor(pz)) + (corner >> 2) if dims == 3 else 0
    return index_core(x, y, z, size, resolution, hashed)


@core
def weight_core(corner: Any, px: Any, py: Any, pz: Any, dims: Any) -> Any:
    """Return the weight of a corner of the cell of a position on the level."""
    weight = share_core((corner & 1) != 0, px - floor(px)) * share_core((corner & 2) != 0, py - floor(py))
    return weight * share_core((corner & 4) != 0, pz - floor(pz)) if dims == 3 else weight


@core
def slope_core(corner: Any, axis: Any, px: Any, py: Any, pz: Any, dims: Any, scale: Any) -> Any:
    """Return the derivative of `weight_core` by one coordinate, of which a unit is `scale` cells."""
    fx, fy, fz = px - floor(px), py - floor(py), pz - floor(pz)
    slope = scale if (corner >> axis) & 1 else -scale
    if axis != 0:
        slope = slope * share_core((corner & 1) != 0, fx)
    if axis != 1:
        slope = slope * share_core((corner & 2) != 0, fy)
    if axis != 2 and dims == 3:
        slope = slope * share_core((corner & 4) != 0, fz)
    return slope


@core
def add_core(weight: Any, value: Any, total: Any) -> Any:
    """Return the sum with one more weighted value, rounded once."""
    return fma(weight, value, total)


@core
def level_kept_core(level: Any, most_here: Any, most: Any) -> Any:
    """Return whether a level is no higher than asked for, at this position and at all."""
    return np.float32(level) < min(most_here, most) + SLACK


@core
def widen_core(bits: Any) -> Any:
    """Return the float32 that the 16 bits of a float16 stand for; exact, infinite and NaN too."""
    magnitude = np.int32(np.int32(bits) & np.int32(0x7FFF))
    scaled = np.float32(np.int32(magnitude << 13).view(np.float32) * _UNBIAS)
    wide = np.int32(scaled.view(np.int32)) if magnitude < _INFINITE_EXPONENT else np.int32(magnitude << 13) | 0x7F800000
    return np.int32(wide | np.int32(np.int32(bits & np.int32(0x8000)) << 16)).view(np.float32)


@cpu_kernel
def locate(scale: Any, coords: Any, cells: Any, fracs: Any) -> None:
    """Write cells (int32) and fractions of a run of coordinates along one axis."""
    for p in range(cells.shape[0]):
        at = position_core(scale, coords[p])
        whole = floor(at)
        cells[p] = np.int32(whole)
        fracs[p] = at - whole


@cpu_kernel
def entries_of_corner(cells: Any, corner: Any, row: Any, at: Any) -> None:
    """Write the entries (int64, from the level's first) of one corner of the cells of a block.

    `cells` is `(3, p)` int32, `row` one of `HashGrid.layout`.
    """
    size, resolution, hashed = row[1], row[2], row[3]
    n = at.shape[0]
    cx, cy, cz = cells[0], cells[1], cells[2]
    up_x, up_y, up_z = np.int32(corner & 1), np.int32((corner >> 1) & 1), np.int32(corner >> 2)
    if hashed:
        for p in range(n):
            at[p] = hashed_core(cx[p] + up_x, cy[p] + up_y, cz[p] + up_z, size)
        return
    most = np.uint32(0)
    for p in range(n):
        at[p] = dense_core(cx[p] + up_x, cy[p] + up_y, cz[p] + up_z, resolution)
        most = max(most, np.uint32(cx[p]), np.uint32(cy[p]), np.uint32(cz[p]))
    if most < resolution:
        # entries end below twice the size here, and a division is no vector instruction
        for p in range(n):
            at[p] -= size if at[p] >= size else 0
        return
    for p in range(n):
        at[p] %= size


@cpu_kernel
def weights_of_corner(fracs: Any, corner: Any, dims: Any, weights: Any) -> None:
    """Write the weights of one corner of the cells of a block; `fracs` is `(3, p)`."""
    fx, fy, fz = fracs[0], fracs[1], fracs[2]
    x, y, z = (corner & 1) != 0, (corner & 2) != 0, (corner & 4) != 0
    for p in range(weights.shape[0]):
        weights[p] = share_core(x, fx[p]) * share_core(y, fy[p])
    if dims == 3:
        for p in range(weights.shape[0]):
            weights[p] *= share_core(z, fz[p])


@cpu_kernel
def add_entries(table: Any, first: Any, features: Any, at: Any, weights: Any, out: Any) -> None:
    """Add weight times entry to the features `(features, p)` of a block.

    `table` is the samples of the table, the same as bits of float16, and which of the two holds them.
    """
    plain, bits, is_half = table
    for f in range(features):
        found = out[f]
        if is_half:
            level = bits[first * features + f :]
            for p in range(at.shape[0]):
                found[p] = fma(weights[p], widen_core(level[at[p] * features]), found[p])
        else:
            level = plain[first * features + f :]
            for p in range(at.shape[0]):
                found[p] = fma(weights[p], level[at[p] * features], found[p])


@cpu_kernel
def level_features(
    table: Any, row: Any, dims: Any, features: Any, cells: Any, fracs: Any, at: Any, weights: Any, out: Any
) -> None:
    """Write the features `(features, p)` of a block of positions at one level; `at` and `weights` are scratch."""
    for f in range(features):
        out[f, : at.shape[0]] = 0
    for corner in range(1 << dims):
        entries_of_corner(cells, corner, row, at)
        weights_of_corner(fracs, corner, dims, weights)
        add_entries(table, row[0], features, at, weights, out)
