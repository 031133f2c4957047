"""How strongly an image changes at each pixel: the length of its gradient over all channels.

    |∇I| = √( Σ_ch (Iy² + Ix²) )          Iy, Ix: `tilestream.kernels.gradient`

The root of the trace of the structure tensor before it is smoothed (Di Zenzo, CVGIP 33, 1986). float32; tolerance of
the tests: 1e-6 of the largest sample against NumPy in float64. A cut with a halo of 1 px gives the bits of the whole on
the same backend.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need
from tilestream.kernels.gradient import (
    BLOCK_YX,
    DTYPES,
    Operator,
    filters_of,
    load_row_cpu,
    pixel_grid,
    slope_core,
    slopes_row_cpu,
    smooth_core,
)
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.place import Array, empty_like, place
from tilestream.kernels.rows import flat_view

_f32 = np.float32


@core
def _length_core(energy: Any) -> Any:
    """Return the root in float32."""
    return _f32(math.sqrt(_f32(energy)))


@cpu_kernel
def _magnitude_cpu(pixels: Any, shape: Any, filters: Any, band: Any, out: Any) -> None:
    flat, start, steps = pixels
    channels, height, width = shape
    rows = np.empty((channels, 3, width + 2), np.float32)
    slopes = np.empty((2, width), np.float32)
    iy, ix = slopes[0], slopes[1]
    for y in range(band[0] - 2, band[1]):
        below = min(max(y + 1, 0), height - 1)
        for ch in range(channels):
            load_row_cpu(flat, start + ch * steps[0] + below * steps[1], steps[2], rows[ch, (y + 4) % 3])
        if y < band[0]:
            continue
        energy = out[y]
        energy[:] = 0
        for ch in range(channels):
            ring = rows[ch]
            slopes_row_cpu(ring[(y + 2) % 3], ring[(y + 3) % 3], ring[(y + 4) % 3], filters, iy, ix)
            for x in range(width):
                energy[x] += iy[x] * iy[x] + ix[x] * ix[x]
        for x in range(width):
            energy[x] = _length_core(energy[x])


@cuda_kernel(
    "void(float32[::1], int64, UniTuple(int64, 3), UniTuple(int64, 3), UniTuple(float32, 3), float32[::1])",
)
def _magnitude_cuda(flat: Any, start: Any, steps: Any, shape: Any, filters: Any, out: Any) -> None:
    """Write one pixel a thread, and those whole grids below."""
    channels, height, width = shape
    x = cuda.blockIdx.x * BLOCK_YX[1] + cuda.threadIdx.x
    if x >= width:
        return
    left, middle, right = max(x - 1, 0) * steps[2], x * steps[2], min(x + 1, width - 1) * steps[2]
    for y in range(cuda.blockIdx.y * BLOCK_YX[0] + cuda.threadIdx.y, height, cuda.gridDim.y * BLOCK_YX[0]):
        up, here, down = max(y - 1, 0) * steps[1], y * steps[1], min(y + 1, height - 1) * steps[1]
        energy, first = _f32(0.0), start
        for _ in range(channels):
            a, b, c = _f32(flat[first + up + left]), _f32(flat[first + up + middle]), _f32(flat[first + up + right])
            d, f = _f32(flat[first + here + left]), _f32(flat[first + here + right])
            g, h = _f32(flat[first + down + left]), _f32(flat[first + down + middle])
            i = _f32(flat[first + down + right])
            iy = slope_core(smooth_core(a, b, c, filters), smooth_core(g, h, i, filters), filters)
            ix = slope_core(smooth_core(a, d, g, filters), smooth_core(c, f, i, filters), filters)
            energy += iy * iy + ix * ix
            first += steps[0]
        out[y * width + x] = _length_core(energy)


def gradient_magnitude(
    image: Array,
    *,
    operator: Operator = "sobel",
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return the length of the gradient at each pixel, over all channels.

    Parameters
    ----------
    image : array of uint8, uint16, int16 or float32
        `(y, x)` or `(c, y, x)`, on the host or a device; any strides.
    operator : {"sobel", "scharr", "central"}
        Derivative filter; see `tilestream.kernels.gradient`.
    out : array of float32, optional
        `(y, x)`, contiguous; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array of float32
        `(y, x)` in samples a pixel: `out`, or a new array of the kind of `image`.

    Raises
    ------
    ConfigError
        When type, shapes or operator are others, or the arrays are not in one place.
    """
    name = "gradient_magnitude"
    here = place(name, backend=backend, stream=stream, threads=threads, image=image, out=out)
    need(name, "image", image, dtypes=DTYPES, ndim=(2, 3))
    filters = filters_of(name, operator)
    *outer, height, width = (int(n) for n in image.shape)
    need(name, "out", out, dtypes=("float32",), shape=(height, width), contiguous=True)
    found = empty_like(image, (height, width), np.float32) if out is None else out
    flat, start, steps = flat_view(image)
    pixels = (flat, start, steps if outer else (0, *steps))
    shape = (outer[0] if outer else 1, height, width)
    if here.backend == "cuda":
        run, _, _ = flat_view(found, writable=True)
        grid = pixel_grid(height, width, 1)
        here.launch(_magnitude_cuda, grid, BLOCK_YX[::-1], *pixels, shape, filters, run)
        return found
    over_bands(
        lambda first, last: _magnitude_cpu(pixels, shape, filters, (first, last), found),
        height, threads=here.threads, least=max(8, 2**16 // (shape[0] * width)),
    )  # fmt: skip
    return found
