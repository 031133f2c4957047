"""Pixels of a box from a network whose first layer is a sum of what columns and what rows give.

    pixel[y, x] = network(φ(columns[:, x] + rows[:, y])),  as float32, or as codes: 255 times it, 0 … 255, ties to even

This is every network of coordinates: inputs that are functions of x alone or of y alone (coordinates themselves, their
sines of many octaves) and of what a box shares (its level). The first layer, often the widest, then costs one addition
a unit and pixel, positions are as exact as whoever made `columns` and `rows`, and nothing but pixels is stored. Both
are tested against float64: 1e-5 of the sum of absolute terms, as `tilestream.kernels.mlp`; codes differ from exact ones
by 1 where these are that close to a tie.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need, need_kind
from tilestream.kernels.decoded import outputs_of, room_for, write_codes, write_values
from tilestream.kernels.hash_raster import code_core
from tilestream.kernels.language import CudaKernel, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.mlp_cuda import (
    ALIGNED,
    STRIP,
    WIDTHS,
    fused_width,
    hold_activated,
    layout_on_device,
    threads_of,
    through_layers,
)
from tilestream.kernels.mlp_layers import ACTIVATIONS, ZERO, MlpLayers, activate, forward_block, pad
from tilestream.kernels.place import Array, Place, dtype_of, place
from tilestream.kernels.product_tile import COLUMNS
from tilestream.kernels.rows import flat_samples, flat_view

BLOCK_PIXELS = 128
"""Of a row, taken through all layers at once."""
_SIGNATURE = (
    "void(float32[::1], float32[::1], UniTuple(int64, 5), float32[::1], int64[::1], int64, {}[::1], int64, "
    "UniTuple(int64, 3))"
)


@cpu_kernel
def _raster_cpu(
    columns: Any, rows: Any, weights: Any, layers: Any, sizes: Any, band: Any, out: Any, codes: Any
) -> None:
    widest, channels, ending = sizes
    values, pixels, start, steps = out
    features, width = columns.shape
    blocks = np.zeros((2, widest, BLOCK_PIXELS), np.float32)
    for first in range(0, width, BLOCK_PIXELS):
        n = min(BLOCK_PIXELS, width - first)
        lanes = n + -n % COLUMNS
        for y in range(band[0], band[1]):
            blocks[0, features : layers[0, 0]] = 0  # what the row before left there may not be finite
            for j in range(features):
                line, of_columns, of_row = blocks[0, j], columns[j], rows[j, y]
                for p in range(n):
                    line[p] = of_columns[first + p] + of_row
            activate(blocks[0], features, n, ending)
            found = blocks[forward_block(weights, layers, blocks, lanes)]
            to = start + y * steps[1] + first * steps[2]
            if codes:
                write_codes(found, channels, n, pixels, to, (steps[0], steps[2]))
            else:
                write_values(found, channels, n, values, to, (steps[0], steps[2]))


@functools.cache
def raster_kernel(width: int, codes: bool) -> CudaKernel:
    """Return the CUDA kernel for layers of up to `width`."""
    threads = threads_of(width)
    held_size, strip_size = width * threads, STRIP * width

    def decode(
        columns: Any, rows: Any, shape: Any, weights: Any, layout: Any, layers: Any, out: Any, to: Any, steps: Any
    ) -> None:
        """Decode one pixel a thread; `shape` is features, height, width, channels and what ends the first layer."""
        held = cuda.shared.array(held_size, np.float32)
        strip = cuda.shared.array(strip_size, np.float32, alignment=ALIGNED)
        sums = cuda.local.array(width, np.float32)
        p = cuda.blockIdx.x * threads + cuda.threadIdx.x
        y, x = p // shape[2], p % shape[2]
        inside = p < shape[1] * shape[2]
        if inside:
            for i in range(width):
                sums[i] = columns[i * shape[2] + x] + rows[i * shape[1] + y] if i < shape[0] else ZERO
            hold_activated(sums, shape[4], width, threads, held)
        through_layers(weights, layout, layers, inside, width, threads, held, strip, sums)
        if inside:
            for i in range(width):
                if i < shape[3]:
                    value = code_core(sums[i]) if codes else sums[i]
                    out[to + i * steps[0] + y * steps[1] + x * steps[2]] = value

    decode.__qualname__ = f"raster_mlp_{width}_{'codes' if codes else 'values'}"
    return cuda_kernel(_SIGNATURE.format("uint8" if codes else "float32"))(decode)


raster_kernel(32, True)  # known to the tests from now on; all are compiled when they are launched


def raster_mlp(
    columns: Array,
    rows: Array,
    weights: Array,
    *,
    layers: MlpLayers,
    dtype: npt.DTypeLike = np.uint8,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return the pixels of a box, given the sums of a network's first layer in two parts.

    Parameters
    ----------
    columns : array of float32
        `(layers.widths[0], width)`, contiguous: what each column of pixels adds to each unit of the first layer.
    rows : array of float32
        `(layers.widths[0], height)`, contiguous: what each row adds.
    weights : array of float32 or float16
        `(layers.parameters,)`, contiguous; of the layers after the first.
    layers : MlpLayers
        Their sizes; its activation follows the first layer too. On CUDA at most 128 wide.
    dtype : dtype
        uint8 for codes, of outputs of 0 to 1, or float32 for the outputs as they are.
    out : array of `dtype`, optional
        `(c, y, x)`, any strides; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array
        `(c, y, x)`, a view of interleaved memory: `out`, or a new array of the kind of `columns`.

    Raises
    ------
    ConfigError
        When types or shapes do not fit the layers, or the arrays are not in one place.
    """
    here = place(
        "raster_mlp", backend=backend, stream=stream, threads=threads,
        columns=columns, rows=rows, weights=weights, out=out,
    )  # fmt: skip
    need_kind("raster_mlp", "layers", layers, MlpLayers, do="Make them of their widths.")
    wanted = _codes_or_values(dtype)
    for name, array in (("columns", columns), ("rows", rows)):
        need("raster_mlp", name, array, dtypes=("float32",), ndim=2, empty=True)
        shape = (layers.widths[0], int(array.shape[1]))
        need("raster_mlp", name, array, dtypes=("float32",), shape=shape, contiguous=True, empty=True)
    allowed = ("float32", "float16")
    need("raster_mlp", "weights", weights, dtypes=allowed, shape=(layers.parameters,), contiguous=True)
    shape_cyx = (layers.widths[-1], int(rows.shape[1]), int(columns.shape[1]))
    need("raster_mlp", "out", out, dtypes=(wanted.name,), shape=shape_cyx, empty=True)
    found = room_for(columns, shape_cyx, wanted) if out is None else out
    if 0 not in shape_cyx:
        work = _on_device if here.backend == "cuda" else _on_host
        work(here, columns, rows, weights, layers, found)
    return found


def _codes_or_values(dtype: npt.DTypeLike) -> np.dtype[Any]:
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = np.dtype(object)
    if found not in (np.uint8, np.float32):
        raise ConfigError.of(
            "`dtype` of `raster_mlp`", got=repr(dtype), expected="uint8 or float32", do="Convert it after."
        )
    return found


def _on_host(here: Place, columns: Array, rows: Array, weights: Array, layers: MlpLayers, out: Array) -> None:
    padded, (target, codes) = pad(weights, layers, np.float32), outputs_of(out)
    sizes = (layers.widest, layers.widths[-1], ACTIVATIONS[layers.activation])
    native = (np.asarray(part, np.float32) for part in (columns, rows))
    of_columns, of_rows = native
    over_bands(
        lambda start, stop: _raster_cpu(
            of_columns, of_rows, padded, layers.padded, sizes, (start, stop), target, codes
        ),
        rows.shape[1], threads=here.threads, least=max(1, 4096 // columns.shape[1]),
    )  # fmt: skip


def _on_device(here: Place, columns: Array, rows: Array, weights: Array, layers: MlpLayers, out: Array) -> None:
    width = fused_width(layers)
    if width is None:
        raise ConfigError.of(
            "`layers` of `raster_mlp`",
            got=f"a width of {max(layers.widths)}",
            expected=f"at most {WIDTHS[-1]} on CUDA",
            do="Use `mlp` on the inputs of the network.",
        )
    run, start, steps = flat_view(out, writable=True)
    channels, high, wide = (int(n) for n in out.shape)
    shape = (layers.widths[0], high, wide, channels, ACTIVATIONS[layers.activation])
    threads = threads_of(width)
    here.launch(
        raster_kernel(width, dtype_of(out) == np.uint8), -(-high * wide // threads), threads, flat_samples(columns),
        flat_samples(rows), shape, flat_samples(weights), layout_on_device(layers, here.device, os.getpid()),
        len(layers.widths) - 1, run, start, steps,
    )  # fmt: skip
