"""Histograms of 8-bit codes, one a tile and channel, over valid pixels only.

    histogram[n, ch, v] = #{pixels of tile n with code v in channel ch}

Integer counts: tolerance of the tests is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need
from tilestream.kernels.language import cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.place import Array, Place, empty_like, place
from tilestream.kernels.rows import flat_view

CODES = 256
THREADS = 256
"""Of a block, which owns one histogram in shared memory; as many as there are codes."""


@cpu_kernel
def _histogram_cpu(pixels: Any, valid: Any, masked: bool, shape: Any, band: Any, out: Any) -> None:
    flat, start, steps = pixels
    valid_flat, valid_start, valid_steps = valid
    channels, height, width = shape
    for i in range(band[0], band[1]):
        for y in range(height):
            for ch in range(channels):
                table = out[i, ch]
                first = start + i * steps[0] + ch * steps[1] + y * steps[2]
                if not masked:
                    for x in range(width):
                        table[flat[first + x * steps[3]]] += 1
                    continue
                valid_first = valid_start + i * valid_steps[0] + y * valid_steps[1]
                for x in range(width):
                    table[flat[first + x * steps[3]]] += valid_flat[valid_first + x * valid_steps[2]]


@cuda_kernel(
    "void(uint8[::1], int64, UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean, UniTuple(int64, 3), "
    "uint32[::1])"
)
def _histogram_cuda(
    flat: Any, start: Any, steps: Any, valid: Any, valid_start: Any, valid_steps: Any, masked: Any, shape: Any, out: Any
) -> None:
    """Count one tile and channel a block."""
    table = cuda.shared.array(CODES, np.uint32)
    channels, height, width = shape
    tile, ch, me = cuda.blockIdx.x // channels, cuda.blockIdx.x % channels, cuda.threadIdx.x
    table[me] = 0
    cuda.syncthreads()
    first = start + tile * steps[0] + ch * steps[1]
    valid_first = valid_start + tile * valid_steps[0]
    for k in range(me, height * width, THREADS):
        y, x = k // width, k % width
        if not masked or valid[valid_first + y * valid_steps[1] + x * valid_steps[2]]:
            cuda.atomic.add(table, flat[first + y * steps[2] + x * steps[3]], 1)
    cuda.syncthreads()
    out[cuda.blockIdx.x * CODES + me] = table[me]


def histogram(
    pixels: Array,
    valid: Array | None = None,
    *,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return how many valid pixels of each tile have each code, by channel.

    Parameters
    ----------
    pixels : array of uint8
        `(n, c, h, w)` codes, on the host or a device; any strides.
    valid : array of bool, optional
        `(n, h, w)`; by default every pixel is valid.
    out : array of uint32, optional
        `(n, c, 256)`, contiguous; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array of uint32
        `(n, c, 256)`: `out`, or a new array of the kind of `pixels`.

    Raises
    ------
    ConfigError
        When the samples are not 8-bit codes, the shapes do not belong together or the arrays are not in one place.
    """
    here = place("histogram", backend=backend, stream=stream, threads=threads, pixels=pixels, valid=valid, out=out)
    need("histogram", "pixels", pixels, dtypes=("uint8",), ndim=4, empty=True)
    n, channels, height, width = pixels.shape
    need("histogram", "valid", valid, dtypes=("bool",), shape=(n, height, width))
    need("histogram", "out", out, dtypes=("uint32",), shape=(n, channels, CODES), contiguous=True)
    found = empty_like(pixels, (n, channels, CODES), np.uint32) if out is None else out
    if 0 not in found.shape:
        _count(here, pixels, valid, found)
    return found


def _count(here: Place, pixels: Array, valid: Array | None, out: Array) -> None:
    n, channels, height, width = pixels.shape
    codes = flat_view(pixels)
    # where every pixel is valid the mask is not looked at: any bytes will do
    mask = (codes[0], 0, (0, 0, 0)) if valid is None else flat_view(valid)
    if here.backend == "cuda":
        run, _, _ = flat_view(out, writable=True)
        shape = (channels, height, width)
        here.launch(_histogram_cuda, n * channels, THREADS, *codes, *mask, valid is not None, shape, run)
        return
    out[...] = 0
    least = max(1, 2**16 // (height * width))
    over_bands(
        lambda start, stop: _histogram_cpu(
            codes, mask, valid is not None, (channels, height, width), (start, stop), out
        ),
        n, threads=here.threads, least=least,
    )  # fmt: skip
