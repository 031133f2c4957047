"""Features of a hash grid along rows of pixels: exact positions from whole numbers, and vertices read once a row.

The centre of pixel i of a level of an image lies at p = s_l · (i + 0.5) · scale / extent + 0.5 on level l of the grid.
That is start_l + i · step_l, kept as int64 with `fraction_bits` binary places: it is as exact at pixel 200,000 as at 0,
it does not depend on how the image is cut into boxes, and all targets agree on it. A float32 coordinate would be off
by 0.012 px there.

    low, high = Σ over the rows of vertices (2 in 2-D, 4 in 3-D) of weight · table[x], table[x + 1]
    f = low + frac_x · (high − low)

Along a row of pixels the sums over rows of vertices are needed once for each x, which at coarse levels many pixels
share. Source of the grid: `tilestream.kernels.hashgrid`.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.hash_vertex import ZERO, dense_core, hashed_core, share_core, widen_core
from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.language import core, cpu_kernel, fma
from tilestream.types import Box

MAX_FRACTION_BITS = 40
_POSITION_BITS = 61
_FRAC_BITS = 24
"""Of a fraction as float32."""
_CODES = np.float32(255)
_ROUND = np.float32(2.0**23)
"""Added to float32 of 0 to 255 it leaves whole numbers, rounded as the hardware does: ties to even."""
_FRAC_UNIT = np.float32(2.0**-_FRAC_BITS)


def fraction_bits(grid: HashGrid) -> int:
    """Return how many binary places positions have."""
    return min(MAX_FRACTION_BITS, _POSITION_BITS - max(grid.resolutions).bit_length())


def raster_positions(
    grid: HashGrid, *, scale_yx: tuple[float, float], extent_yx: tuple[float, float], z: float
) -> npt.NDArray[np.int64]:
    """Return where pixels lie on the levels of a grid.

    Parameters
    ----------
    grid : HashGrid
        Grid.
    scale_yx : tuple of float
        Level-0 pixels for each pixel of the image's level.
    extent_yx : tuple of float
        Level-0 pixels that the grid spans.
    z : float
        Third coordinate, 0 to 1; left out in 2-D.

    Returns
    -------
    ndarray of int64
        `(levels, 5)`: start and step along x, start and step along y, place along z.
    """
    unit = 2 ** fraction_bits(grid)
    found = np.empty((grid.levels, 5), np.int64)
    for level, scale in enumerate(grid.scales):
        exact = Fraction(float(scale))
        for axis, (ratio, extent) in enumerate(zip(reversed(scale_yx), reversed(extent_yx), strict=True)):
            step = exact * Fraction(ratio) / Fraction(extent)
            found[level, 2 * axis] = round((step / 2 + Fraction(1, 2)) * unit)
            found[level, 2 * axis + 1] = round(step * unit)
        found[level, 4] = round((exact * Fraction(z) + Fraction(1, 2)) * unit) if grid.dims == 3 else 0
    return found


def check_reach(grid: HashGrid, positions: npt.NDArray[np.int64], box: Box) -> None:
    """Raise unless the positions of all pixels of a box can be held."""
    ends = ((box.x, box.x_stop, 0), (box.y, box.y_stop, 2))
    reach = max(
        abs(int(row[axis]) + pixel * int(row[axis + 1]))
        for row in positions
        for *pixels, axis in ends
        for pixel in pixels
    )
    if reach >= 2 ** (fraction_bits(grid) + 30) or reach >= 2**62:
        raise ConfigError.of(
            "`box`",
            got=f"{box}, pixels far outside of the grid",
            expected="pixels near the extent",
            do="Choose a box inside of `extent_yx`, or larger ones.",
        )


@core
def raster_cell_core(position: Any, bits: Any) -> Any:
    """Return the cell of a position."""
    return np.int32(np.int64(position) >> np.int64(bits))


@core
def raster_frac_core(position: Any, bits: Any) -> Any:
    """Return the fraction of a position."""
    places = np.int64(position) >> np.int64(bits - _FRAC_BITS)
    return np.float32(np.int32(places & np.int64(2**_FRAC_BITS - 1))) * _FRAC_UNIT


@core
def between_core(low: Any, high: Any, frac: Any) -> Any:
    """Return the value between two neighbours along x."""
    return fma(frac, high - low, low)


@core
def code_core(value: Any) -> Any:
    """Return 255 times a value as a code: clamped, ties to even, 0 for what is not a number."""
    scaled = np.float32(value) * _CODES
    clamped = min(scaled, _CODES) if scaled > ZERO else ZERO
    return np.uint8(np.float32(clamped + _ROUND) - _ROUND)


@core
def row_weight_core(row: Any, fy: Any, fz: Any, dims: Any) -> Any:
    """Return the weight of one of the rows of vertices around a row of pixels."""
    weight = share_core((row & 1) != 0, fy)
    return weight * share_core((row & 2) != 0, fz) if dims == 3 else weight


@cpu_kernel
def locate_columns(positions: Any, bits: Any, first: Any, n: Any, columns: Any, fracs: Any, vertices: Any) -> None:
    """Write where the columns of a strip lie on every level.

    `columns` is `(levels, 3 + p)`: how many vertices, the step from a pixel's vertex to the next one, whether the cells
    lie inside of the grid as far as they are known, and the place of each pixel's vertex among them; `fracs` is
    `(levels, p)`, `vertices` `(levels, 2 p)`.
    """
    for level in range(positions.shape[0]):
        start, step = positions[level, 0], positions[level, 1]
        left = raster_cell_core(start + first * step, bits)
        right = raster_cell_core(start + (first + n - 1) * step, bits)
        count = np.int64(right) - np.int64(left) + 2
        place = columns[level, 3:]
        for p in range(n):
            fracs[level, p] = raster_frac_core(start + (first + p) * step, bits)
        if count <= 2 * n:
            for p in range(n):
                place[p] = raster_cell_core(start + (first + p) * step, bits) - left
            for k in range(count):
                vertices[level, k] = left + k
            columns[level, 1] = 1
        else:  # pixels lie further apart than vertices: each has its own two
            count = 2 * n
            for p in range(n):
                place[p] = p
                vertices[level, p] = raster_cell_core(start + (first + p) * step, bits)
                vertices[level, n + p] = vertices[level, p] + 1
            columns[level, 1] = n
        columns[level, 0] = count
        columns[level, 2] = max(abs(np.int64(left)), abs(np.int64(right)))
        for p in range(n, place.shape[0]):  # the lanes that fill the last vector
            place[p] = 0
            fracs[level, p] = 0


@cpu_kernel
def entries_of_row(vertices: Any, y: Any, z: Any, row: Any, inside: Any, at: Any) -> None:
    """Write the entries (int32, from the level's first) of vertices x of the row y, z."""
    size, resolution, hashed = row[1], row[2], row[3]
    if hashed:
        for k in range(at.shape[0]):
            at[k] = hashed_core(vertices[k], y, z, size)
    elif inside:
        for k in range(at.shape[0]):
            found = np.int32(dense_core(vertices[k], y, z, resolution))
            at[k] = found - (np.int32(size) if found >= np.int32(size) else np.int32(0))
    else:
        for k in range(at.shape[0]):
            at[k] = np.int64(dense_core(vertices[k], y, z, resolution)) % size


@cpu_kernel
def read_row(table: Any, first: Any, features: Any, at: Any, held: Any) -> None:
    """Write the entries of a row of vertices as features × vertices; `first` is the level's first sample."""
    plain, half, is_half = table
    for f in range(features):
        line = held[f]
        if is_half:
            bits = half[first + f :]
            for k in range(at.shape[0]):
                line[k] = widen_core(bits[np.int64(at[k]) * features])
        else:
            values = plain[first + f :]
            for k in range(at.shape[0]):
                line[k] = values[np.int64(at[k]) * features]


@cpu_kernel
def row_features(
    table: Any, row: Any, shape: Any, place_yz: Any, bits: Any, columns: Any, fracs: Any, vertices: Any, scratch: Any,
    held: Any, held_y: Any, out: Any,
) -> None:  # fmt: skip
    """Write the features `(features, p)` of a run of pixels of one row at one level.

    `held` is `(rows, features, vertices)`: what was read for the row before, by `held_y`, and is read only once.
    """
    dims, features, lanes = shape
    at, sums = scratch
    count, step, reach = columns[0], columns[1], columns[2]
    y, z = raster_cell_core(place_yz[0], bits), raster_cell_core(place_yz[1], bits)
    fy, fz = raster_frac_core(place_yz[0], bits), raster_frac_core(place_yz[1], bits)
    inside = max(reach, abs(np.int64(y)), abs(np.int64(z))) < row[2] and min(vertices[0], y, z) >= 0
    place = columns[3:]
    sums[:, :count] = 0
    for corner in range(1 << (dims - 1)):
        of_y, of_z = np.int32(y + (corner & 1)), np.int32(z + (corner >> 1))
        slot = (of_y & 1) + (corner & 2)
        if held_y[slot] != of_y:
            entries_of_row(vertices[:count], of_y, of_z, row, inside, at[:count])
            read_row(table, row[0] * features, features, at[:count], held[slot])
            held_y[slot] = of_y
        weight = row_weight_core(corner, fy, fz, dims)
        for f in range(features):
            line, total = held[slot, f], sums[f]
            for k in range(count):
                total[k] = fma(weight, line[k], total[k])
    for f in range(features):
        line, given = sums[f], out[f]
        for p in range(lanes):
            low = line[place[p]]
            given[p] = between_core(low, line[place[p] + step], fracs[p])
