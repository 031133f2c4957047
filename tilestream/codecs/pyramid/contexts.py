"""What the numbers of a grid are foretold to be, by the networks of a pyramid and those that are decoded before.

A grid comes in three passes: places of even row and column (A), those of odd row and column (B), and the rest (C).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tilestream.codecs.pyramid.nets import FEATURE_BITS, FEATURE_MOST, LATENT_MOST, Layer
from tilestream.types import Array

Context = tuple[Layer, Layer, Layer]
Places = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
_MIDDLE_BITS = 4


def pass_mask(shape: tuple[int, int], which: int) -> npt.NDArray[np.bool_]:
    """Return `(h, w)`: the places of pass 0, 1 or 2 of a grid."""
    odd_y, odd_x = (np.arange(size) % 2 == 1 for size in shape)
    one, other = ((~odd_y, ~odd_x), (odd_y, odd_x), (odd_y, odd_x))[which]
    found: npt.NDArray[np.bool_] = np.not_equal.outer(one, other) if which == 2 else np.logical_and.outer(one, other)
    return found


def grid_context(
    grids: Sequence[Array], grid: int, which: int, net: Context
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Return middles in 16ths and indices of scales, `(n,)` each, of the places of a pass in raster order."""
    features = _neighbours(grids, grid, which) << FEATURE_BITS
    for number, layer in enumerate(net):
        sums = layer.weights.astype(np.float64) @ features  # whole numbers below 2^31: exact
        features = _rounded(sums.astype(np.int64) + layer.bias[:, None], layer.shift)
        features = np.clip(features, 0 if number < 2 else -FEATURE_MOST, FEATURE_MOST)
    most = LATENT_MOST << _MIDDLE_BITS
    middle = np.clip(_rounded(features[0], FEATURE_BITS - _MIDDLE_BITS), -most, most)
    return middle.astype(np.int16), np.clip(_rounded(features[1], 4), 0, 63).astype(np.uint8)


def _rounded(sums: npt.NDArray[np.int64], shift: int) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = (sums + (1 << shift - 1)) >> shift
    return found


def _neighbours(grids: Sequence[Array], grid: int, which: int) -> npt.NDArray[np.int64]:
    """Return `(9, n)` numbers that are known."""
    own = grids[grid]
    rows, columns = np.nonzero(pass_mask(own.shape, which))
    around = {
        0: (),
        1: ((-1, -1), (-1, 1), (1, -1), (1, 1)),
        2: ((-1, 0), (1, 0), (0, -1), (0, 1)),
    }[which]
    found = [_mirrored(own, rows, columns, by) for by in around] or [np.zeros_like(rows)] * 4
    zeros = np.zeros_like(rows)
    if grid + 1 < len(grids):
        parent = grids[grid + 1]
        near = [(place >> 1, (place >> 1) + np.where(place & 1, 1, -1)) for place in (rows, columns)]
        (y, near_y), (x, near_x) = (
            (at, np.clip(beside, 0, size - 1)) for (at, beside), size in zip(near, parent.shape, strict=True)
        )
        found += [parent[y, x], parent[near_y, x], parent[y, near_x], parent[near_y, near_x]]
    else:
        found += [zeros] * 4
    found.append(grids[grid + 2][rows >> 2, columns >> 2] if grid + 2 < len(grids) else zeros)
    return np.stack(found).astype(np.int64)


def _mirrored(
    own: Array, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], by: tuple[int, int]
) -> npt.NDArray[np.int64]:  # fmt: skip
    """Return numbers beside places; beyond an edge those on the other side, or 0 where there is none either."""
    moved, there = [], np.ones(rows.shape, bool)
    for place, step, size in zip((rows, columns), by, own.shape, strict=True):
        at = place + step
        at = np.where((at < 0) | (at >= size), place - step, at)
        there &= (at >= 0) & (at < size)
        moved.append(np.clip(at, 0, size - 1))
    return np.where(there, own[moved[0], moved[1]], 0)
