"""Gradients of an image by 3×3 derivative filters, in samples a pixel.

    Ix(y, x) = (1/n) Σ_{j = −1, 0, 1} s_j (I(y + j, x + 1) − I(y + j, x − 1))        Iy: the same with y and x swapped

    operator   s            n      what for
    sobel      1, 2, 1      8      the field's standard: scipy.ndimage.sobel / 8              Sobel & Feldman 1968
    scharr     3, 10, 3     32     least error of the direction among 3×3 filters             Scharr, thesis, 2000
    central    0, 1, 0      2      narrowest: numpy.gradient inside an image                  textbook

n makes the gradient of a ramp its slope, so operators can be exchanged. Beyond the image its edge pixels are repeated
(scipy's "nearest", which for these filters is "reflect" too); a cut with a halo of 1 px gives the bits of the whole.
float32 throughout: for integers of 8 and 16 bits every sum is exact and n is a power of two, so the result is exact,
tolerance 0; for float32 samples 1e-6 of the largest of them against NumPy in float64.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.place import Array, empty_like, place
from tilestream.kernels.rows import flat_view

Operator = Literal["sobel", "scharr", "central"]

WEIGHTS: dict[str, tuple[float, float, float]] = {"sobel": (1, 2, 8), "scharr": (3, 10, 32), "central": (0, 1, 2)}
"""Outer weight, inner weight and n of each operator."""

DTYPES = ("uint8", "uint16", "int16", "float32")
"""Types of samples."""

BLOCK_YX = (4, 32)
"""Threads of a block."""
MAX_GRID_Y = 65_535

_f32 = np.float32


@core
def smooth_core(p: Any, q: Any, r: Any, filters: Any) -> Any:
    """Return the weighted sum of three neighbours across the derivative."""
    return filters[0] * (p + r) + filters[1] * q


@core
def slope_core(low: Any, high: Any, filters: Any) -> Any:
    """Return the derivative from the sums on either side."""
    return (high - low) * filters[2]


def filters_of(operation: str, operator: str) -> tuple[np.float32, np.float32, np.float32]:
    """Return outer weight, inner weight and 1/n of an operator.

    Parameters
    ----------
    operation : str
        Who asks, for errors.
    operator : str
        Name.

    Returns
    -------
    tuple of float32
        As cores take them.

    Raises
    ------
    ConfigError
        When there is no such operator.
    """
    if operator not in WEIGHTS:
        raise ConfigError.of(
            f"`operator` of `{operation}`", got=repr(operator), expected=" or ".join(map(repr, get_args(Operator))),
            do="Choose one of them.",
        )  # fmt: skip
    outer, inner, n = WEIGHTS[operator]
    return _f32(outer), _f32(inner), _f32(1 / n)


@cpu_kernel
def load_row_cpu(flat: Any, first: int, step: int, row: Any) -> None:
    """Write a row of samples as float32 with its first and last repeated once."""
    width = row.shape[0] - 2
    inner = row[1 : width + 1]
    if step == 1:
        samples = flat[first : first + width]
        for x in range(width):
            inner[x] = _f32(samples[x])
    elif step == 3:
        samples = flat[first : first + 3 * width - 2]
        for x in range(width):
            inner[x] = _f32(samples[3 * x])
    else:
        for x in range(width):
            inner[x] = _f32(flat[first + x * step])
    row[0], row[width + 1] = row[1], row[width]


@cpu_kernel
def slopes_row_cpu(up: Any, middle: Any, down: Any, filters: Any, iy: Any, ix: Any) -> None:
    """Write both derivatives of a row from three rows with repeated ends."""
    for x in range(ix.shape[0]):
        left = smooth_core(up[x], middle[x], down[x], filters)
        right = smooth_core(up[x + 2], middle[x + 2], down[x + 2], filters)
        ix[x] = slope_core(left, right, filters)
        above = smooth_core(up[x], up[x + 1], up[x + 2], filters)
        below = smooth_core(down[x], down[x + 1], down[x + 2], filters)
        iy[x] = slope_core(above, below, filters)


@cpu_kernel
def _gradient_cpu(pixels: Any, shape: Any, filters: Any, band: Any, out: Any) -> None:
    flat, start, steps = pixels
    channels, height, width = shape
    rows = np.empty((3, width + 2), np.float32)
    for ch in range(channels):
        for y in range(band[0] - 2, band[1]):
            # the row below y; those above are there already
            below = min(max(y + 1, 0), height - 1)
            load_row_cpu(flat, start + ch * steps[0] + below * steps[1], steps[2], rows[(y + 4) % 3])
            if y >= band[0]:
                up, middle, down = rows[(y + 2) % 3], rows[(y + 3) % 3], rows[(y + 4) % 3]
                slopes_row_cpu(up, middle, down, filters, out[0, ch, y], out[1, ch, y])


@cuda_kernel(
    "void(uint8[::1], int64, UniTuple(int64, 3), UniTuple(int64, 2), UniTuple(float32, 3), float32[::1])",
    "void(float32[::1], int64, UniTuple(int64, 3), UniTuple(int64, 2), UniTuple(float32, 3), float32[::1])",
)
def _gradient_cuda(flat: Any, start: Any, steps: Any, shape: Any, filters: Any, out: Any) -> None:
    """Write both derivatives of one pixel a thread, and of those whole grids below."""
    height, width = shape
    x = cuda.blockIdx.x * BLOCK_YX[1] + cuda.threadIdx.x
    if x >= width:
        return
    ch = cuda.blockIdx.z
    first, left, right = start + ch * steps[0], max(x - 1, 0) * steps[2], min(x + 1, width - 1) * steps[2]
    middle = x * steps[2]
    for y in range(cuda.blockIdx.y * BLOCK_YX[0] + cuda.threadIdx.y, height, cuda.gridDim.y * BLOCK_YX[0]):
        up, here, down = (
            first + max(y - 1, 0) * steps[1],
            first + y * steps[1],
            first + min(y + 1, height - 1) * steps[1],
        )
        a, b, c = _f32(flat[up + left]), _f32(flat[up + middle]), _f32(flat[up + right])
        d, f = _f32(flat[here + left]), _f32(flat[here + right])
        g, h, i = _f32(flat[down + left]), _f32(flat[down + middle]), _f32(flat[down + right])
        at = (ch * height + y) * width + x
        out[at] = slope_core(smooth_core(a, b, c, filters), smooth_core(g, h, i, filters), filters)
        at += cuda.gridDim.z * height * width
        out[at] = slope_core(smooth_core(a, d, g, filters), smooth_core(c, f, i, filters), filters)


def pixel_grid(height: int, width: int, layers: int) -> tuple[int, int, int]:
    """Return the blocks of `BLOCK_YX` threads that cover an image; rows beyond the largest grid are taken in turns."""
    return -(-width // BLOCK_YX[1]), min(-(-height // BLOCK_YX[0]), MAX_GRID_Y), layers


def gradient(
    image: Array,
    *,
    operator: Operator = "sobel",
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return the derivatives of an image along y and along x, by channel.

    Parameters
    ----------
    image : array of uint8, uint16, int16 or float32
        `(y, x)` or `(c, y, x)`, on the host or a device; any strides.
    operator : {"sobel", "scharr", "central"}
        Derivative filter; see the table at the top of the file.
    out : array of float32, optional
        `(2, y, x)` or `(2, c, y, x)`, contiguous; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array of float32
        `(2, y, x)` or `(2, c, y, x)`: Iy, then Ix, in samples a pixel. `out`, or a new array of the kind of `image`.

    Raises
    ------
    ConfigError
        When type, shapes or operator are others, or the arrays are not in one place.
    """
    here = place("gradient", backend=backend, stream=stream, threads=threads, image=image, out=out)
    need("gradient", "image", image, dtypes=DTYPES, ndim=(2, 3))
    filters = filters_of("gradient", operator)
    shape = (2, *(int(n) for n in image.shape))
    need("gradient", "out", out, dtypes=("float32",), shape=shape, contiguous=True)
    found = empty_like(image, shape, np.float32) if out is None else out
    flat, start, steps = flat_view(image)
    pixels = (flat, start, steps if len(steps) == 3 else (0, *steps))
    height, width = shape[-2:]
    channels = shape[1] if len(shape) == 4 else 1
    if here.backend == "cuda":
        run, _, _ = flat_view(found, writable=True)
        grid = pixel_grid(height, width, channels)
        here.launch(_gradient_cuda, grid, BLOCK_YX[::-1], *pixels, (height, width), filters, run)
        return found
    target = found.reshape(2, channels, height, width)
    over_bands(
        lambda first, last: _gradient_cpu(pixels, (channels, height, width), filters, (first, last), target),
        height, threads=here.threads, least=max(8, 2**16 // (channels * width)),
    )  # fmt: skip
    return found
