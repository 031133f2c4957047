"""Pixels from a hash grid and its network in one pass: positions, features and hidden layers are never stored.

    pixel = network(features(position)), as float32, or as codes: 255 times it, clamped to 0 … 255, ties to even

Positions are those of the pixels of a box, from whole numbers (`tilestream.kernels.hash_raster`), or coordinates. CPU
and CUDA sum in one order with fused multiply-adds; each is tested against float64, not against the other. Tolerance of
the tests: 1e-5 of the sum of absolute terms of the network, each feature counted with a tenth of the largest entry of
the table more, since that is what features are kept to; codes differ from exact ones by 1 where these are that close
to a tie.

Source: `tilestream.kernels.hashgrid` and `tilestream.kernels.mlp`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need, need_kind, number_of, numbers_of
from tilestream.kernels.decoded import outputs_of, room_for, write_codes, write_values
from tilestream.kernels.hash_decode_cuda import decode_box_on_device, decode_coords_on_device
from tilestream.kernels.hash_encode import check_encoding, levels_kept, samples_of
from tilestream.kernels.hash_raster import (
    check_reach,
    fraction_bits,
    locate_columns,
    raster_positions,
    row_features,
)
from tilestream.kernels.hash_vertex import SLACK, level_features, level_kept_core, locate
from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.language import cpu_kernel
from tilestream.kernels.mlp_layers import MlpLayers, forward_block, pad
from tilestream.kernels.place import Array, place
from tilestream.kernels.product_tile import COLUMNS
from tilestream.kernels.rows import flat_view
from tilestream.types import Box

BLOCK_PIXELS = 128
"""Of a row, taken through all layers at once."""
_NO_ROW = -(2**40)


@cpu_kernel
def _decode_box_cpu(
    table: Any, layout: Any, positions: Any, weights: Any, layers: Any, sizes: Any, box: Any, band: Any, out: Any,
    codes: Any,
) -> None:  # fmt: skip
    dims, features, kept, widest, channels, bits = sizes
    y_first, x_first, width = box
    values, pixels, start, steps = out
    levels = layout.shape[0]
    columns = np.empty((levels, 3 + BLOCK_PIXELS), np.int64)
    fracs = np.empty((levels, BLOCK_PIXELS), np.float32)
    vertices = np.empty((levels, 2 * BLOCK_PIXELS), np.int32)
    scratch = (np.empty(2 * BLOCK_PIXELS, np.int32), np.empty((features, 2 * BLOCK_PIXELS), np.float32))
    held = np.empty((levels, 1 << (dims - 1), features, 2 * BLOCK_PIXELS), np.float32)
    held_y = np.empty((levels, 1 << (dims - 1)), np.int64)
    blocks = np.zeros((2, widest, BLOCK_PIXELS), np.float32)
    for first in range(0, width, BLOCK_PIXELS):
        n = min(BLOCK_PIXELS, width - first)
        lanes = n + -n % COLUMNS
        locate_columns(positions, bits, x_first + first, n, columns[:, : 3 + lanes], fracs[:, :lanes], vertices)
        held_y[:] = _NO_ROW
        for y in range(band[0], band[1]):
            for level in range(kept):
                at_y = positions[level, 2] + (y_first + y) * positions[level, 3]
                row_features(
                    table, layout[level], (dims, features, lanes), (at_y, positions[level, 4]), bits, columns[level],
                    fracs[level], vertices[level], scratch, held[level], held_y[level],
                    blocks[0, level * features : (level + 1) * features],
                )  # fmt: skip
            blocks[0, kept * features : layers[0, 0]] = 0
            found = blocks[forward_block(weights, layers, blocks, lanes)]
            to = start + y * steps[1] + first * steps[2]
            if codes:
                write_codes(found, channels, n, pixels, to, (steps[0], steps[2]))
            else:
                write_values(found, channels, n, values, to, (steps[0], steps[2]))


@cpu_kernel
def _decode_coords_cpu(
    coords: Any, table: Any, max_level: Any, layout: Any, scales: Any, weights: Any, layers: Any, sizes: Any,
    band: Any, out: Any, codes: Any,
) -> None:  # fmt: skip
    dims, features, widest, channels = sizes
    flat, start, steps = coords
    limits, limit, limit_step, most = max_level
    values, pixels, out_start, out_steps = out
    at, shares = np.empty(BLOCK_PIXELS, np.int64), np.empty(BLOCK_PIXELS, np.float32)
    cells, fracs = np.zeros((3, BLOCK_PIXELS), np.int32), np.zeros((3, BLOCK_PIXELS), np.float32)
    line, blocks = np.empty(BLOCK_PIXELS, np.float32), np.zeros((2, widest, BLOCK_PIXELS), np.float32)
    for first in range(band[0], band[1], BLOCK_PIXELS):
        n = min(BLOCK_PIXELS, band[1] - first)
        blocks[0, layout.shape[0] * features : layers[0, 0]] = 0
        for level in range(layout.shape[0]):
            held = blocks[0, level * features : (level + 1) * features]
            for axis in range(dims):
                for p in range(n):
                    line[p] = flat[start + (first + p) * steps[0] + axis * steps[1]]
                locate(scales[level], line[:n], cells[axis, :n], fracs[axis, :n])
            level_features(table, layout[level], dims, features, cells, fracs, at[:n], shares[:n], held)
            for p in range(n):
                if not level_kept_core(level, limits[limit + (first + p) * limit_step], most):
                    held[:, p] = 0
        found = blocks[forward_block(weights, layers, blocks, n + -n % COLUMNS)]
        to = out_start + first * out_steps[0]
        if codes:
            write_codes(found, channels, n, pixels, to, (out_steps[1], out_steps[0]))
        else:
            write_values(found, channels, n, values, to, (out_steps[1], out_steps[0]))


def hash_decode(
    table: Array,
    weights: Array,
    *,
    grid: HashGrid,
    layers: MlpLayers,
    box: Box | None = None,
    extent_yx: tuple[float, float] | None = None,
    scale_yx: tuple[float, float] = (1.0, 1.0),
    z: float = 0.0,
    coords_xyz: Array | None = None,
    max_level: float | Array | None = None,
    dtype: npt.DTypeLike = np.uint8,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return the pixels of a box, or at coordinates, that a hash grid and its network stand for.

    Parameters
    ----------
    table : array of float32 or float16
        `(grid.entries, grid.features)`, contiguous.
    weights : array of float32 or float16
        `(layers.parameters,)`, contiguous; in the order of `tilestream.kernels.mlp_layers`.
    grid : HashGrid
        What the table holds.
    layers : MlpLayers
        Sizes of the network, which takes `grid.width` features. On CUDA at most 128 wide.
    box : Box, optional
        Pixels of one level of the image. Either this or `coords_xyz`.
    extent_yx : tuple of float, optional
        Level-0 pixels that the grid spans along y and x; needed with a box. The longer edge twice makes cells square.
    scale_yx : tuple of float
        Level-0 pixels for each pixel of the box's level, the true ratios.
    z : float
        Third coordinate of the box in 3-D, 0 to 1.
    coords_xyz : array of float32, optional
        `(n, 2)` or `(n, 3)`, each 0 to 1; any strides.
    max_level : float or array of float32, optional
        Levels of the grid above this number are left out, which is a coarser image; with coordinates also `(n,)`.
    dtype : dtype
        uint8 for codes, of outputs of 0 to 1, or float32 for the outputs as they are.
    out : array of `dtype`, optional
        `(c, y, x)` of the box, or `(n, c)`; any strides; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array
        `(c, y, x)`, a view of interleaved memory, or `(n, c)`: `out`, or a new array of the kind of the table.

    Raises
    ------
    ConfigError
        When types or shapes do not fit, a box has no extent or lies far outside of it, or the arrays are not in one
        place.
    """
    per_position = max_level if max_level is not None and not isinstance(max_level, (int, float)) else None
    here = place(
        "hash_decode", backend=backend, stream=stream, threads=threads,
        table=table, weights=weights, coords_xyz=coords_xyz, max_level=per_position, out=out,
    )  # fmt: skip
    z = number_of("hash_decode", "z", z)
    _check_kinds(grid, layers, box, dtype)
    wanted = np.dtype(dtype)
    _check(grid, layers, table, weights, box, extent_yx, scale_yx, coords_xyz, per_position, wanted)
    channels = layers.widths[-1]
    shape = (int(coords_xyz.shape[0]), channels) if box is None else (channels, box.height, box.width)  # type: ignore[union-attr]
    need("hash_decode", "out", out, dtypes=(wanted.name,), shape=shape, empty=True)
    found = room_for(table, shape, wanted) if out is None else out
    if 0 in shape:
        return found
    if box is None:
        kept = levels_kept(here, grid, max_level, per_position)
        work = decode_coords_on_device if here.backend == "cuda" else _coords_on_host
        work(here, coords_xyz, table, weights, grid, layers, kept, found)
        return found
    positions = _positions(grid, tuple(scale_yx), tuple(extent_yx or (1.0, 1.0)), z)
    check_reach(grid, positions, box)
    kept_levels = sum(level < (grid.levels if max_level is None else max_level) + SLACK for level in range(grid.levels))
    fill = decode_box_on_device if here.backend == "cuda" else _box_on_host
    fill(here, box, positions, table, weights, grid, layers, int(kept_levels), found)
    return found


@functools.lru_cache(maxsize=256)
def _positions(
    grid: HashGrid, scale_yx: tuple[float, float], extent_yx: tuple[float, float], z: float
) -> npt.NDArray[np.int64]:
    return raster_positions(grid, scale_yx=scale_yx, extent_yx=extent_yx, z=z)


def _check_kinds(grid: object, layers: object, box: object, dtype: Any) -> None:
    """Raise unless parameters that are no arrays are of their types."""
    need_kind("hash_decode", "grid", grid, HashGrid, do="Make one of its sizes.")
    need_kind("hash_decode", "layers", layers, MlpLayers, do="Make them of their widths.")
    if box is not None:
        need_kind("hash_decode", "box", box, Box, do="Make one, or give coordinates.")
    try:
        np.dtype(dtype)
    except TypeError:
        raise ConfigError.of(
            "`dtype` of `hash_decode`", got=repr(dtype), expected="uint8 or float32", do="Convert it after."
        ) from None


def _check(
    grid: HashGrid, layers: MlpLayers, table: Array, weights: Array, box: Box | None, extent_yx: Any, scale_yx: Any,
    coords: Array | None, max_level: Array | None, dtype: np.dtype[Any],
) -> None:  # fmt: skip
    if (box is None) == (coords is None):
        raise ConfigError.of(
            "`hash_decode`",
            got="both a box and coordinates" if box else "neither a box nor coordinates",
            expected="one of `box` and `coords_xyz`",
            do="Give the box for pixels, coordinates for anything else.",
        )
    if layers.widths[0] != grid.width:
        raise ConfigError.of(
            "`layers` of `hash_decode`",
            got=f"{layers.widths[0]} inputs",
            expected=f"{grid.width}, levels times features of the grid",
            do="Make the first width `grid.width`.",
        )
    if dtype not in (np.uint8, np.float32):
        raise ConfigError.of("`dtype` of `hash_decode`", got=dtype, expected="uint8 or float32", do="Convert it after.")
    need("hash_decode", "weights", weights, dtypes=("float32", "float16"), shape=(layers.parameters,), contiguous=True)
    if coords is not None:
        need("hash_decode", "coords_xyz", coords, dtypes=("float32",), ndim=2, empty=True)
        check_encoding("hash_decode", grid, coords, table, max_level)
        return
    entries = (grid.entries, grid.features)
    need("hash_decode", "table", table, dtypes=("float32", "float16"), shape=entries, contiguous=True)
    if max_level is not None:  # as an array
        raise ConfigError.of(
            "`max_level` of `hash_decode`", got="an array with a box", expected="a number", do="Or give coordinates."
        )
    sides = () if extent_yx is None else numbers_of("hash_decode", "extent_yx", extent_yx, 2)
    sides += numbers_of("hash_decode", "scale_yx", scale_yx, 2)
    if len(sides) != 4 or not all(0 < side < 2**40 for side in sides):
        raise ConfigError.of(
            "`extent_yx` and `scale_yx` of `hash_decode`",
            got=f"{extent_yx} and {scale_yx}",
            expected="two positive numbers each",
            do="Give the level-0 pixels that the grid spans along y and x.",
        )


def _box_on_host(
    here: Any, box: Box, positions: Any, table: Array, weights: Array, grid: HashGrid, layers: MlpLayers, kept: int,
    out: Array,
) -> None:  # fmt: skip
    samples, padded = samples_of(table, np.dtype(np.float32)), pad(weights, layers, np.float32)
    target, codes = outputs_of(out)
    sizes = (grid.dims, grid.features, kept, layers.widest, layers.widths[-1], fraction_bits(grid))
    over_bands(
        lambda start, stop: _decode_box_cpu(
            samples, grid.layout, positions, padded, layers.padded, sizes, (box.y, box.x, box.width), (start, stop),
            target, codes,
        ),
        box.height, threads=here.threads, least=max(1, 4096 // box.width),
    )  # fmt: skip


def _coords_on_host(
    here: Any, coords: Array, table: Array, weights: Array, grid: HashGrid, layers: MlpLayers, kept: Any, out: Array
) -> None:
    samples, padded = samples_of(table, np.dtype(np.float32)), pad(weights, layers, np.float32)
    source, (target, codes) = flat_view(coords), outputs_of(out)
    sizes = (grid.dims, grid.features, layers.widest, layers.widths[-1])
    over_bands(
        lambda start, stop: _decode_coords_cpu(
            source, samples, kept, grid.layout, grid.scales, padded, layers.padded, sizes, (start, stop), target, codes
        ),
        coords.shape[0], threads=here.threads, least=1024, align=BLOCK_PIXELS,
    )  # fmt: skip
