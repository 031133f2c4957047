"""Structure tensor: which way an image changes around each pixel, and how much in each direction.

    J = G_σ * Σ_ch [Iy²  Ix·Iy; Ix·Iy  Ix²]                      Iy, Ix: `tilestream.kernels.gradient`
    G_σ(k) ∝ exp(−k² / 2σ²),  |k| ≤ R = ⌊truncate · σ + ½⌋,  Σ G_σ = 1, along x, then along y

The tensors of all channels are added up (Di Zenzo, CVGIP 33, 1986), so a colour edge without a grey one counts; hand in
luma for the tensor of luma. Beyond the image the tensors at its edge are repeated. That is
`scipy.ndimage.gaussian_filter(Iy * Ix, sigma, truncate=truncate, mode="nearest")`, and 1/64 of
`skimage.feature.structure_tensor(image, sigma, mode="nearest")`, which does not normalise its Sobel filters. Bigün &
Granlund, ICCV 1987; Förstner & Gülch 1987.

A cut with a halo of R + 1 px (`halo_px`) gives the bits of the whole on the same backend. float32 with taps added from
the middle outwards; tolerance of the tests: 1e-5 of the largest Iy² or Ix² against SciPy in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need
from tilestream.kernels.gradient import (
    DTYPES,
    MAX_GRID_Y,
    Operator,
    filters_of,
    load_row_cpu,
    slope_core,
    slopes_row_cpu,
    smooth_core,
)
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.place import Array, empty_like, place
from tilestream.kernels.rows import flat_view

MAX_RADIUS_PX = 16
"""Longest reach of the Gaussian, σ = 4 at the default truncation; larger structures are found on a coarser level."""

THREADS = 256
OUT_YX = (16, 32)
"""Pixels of a block."""

_f32 = np.float32
_TAPS = MAX_RADIUS_PX + 1
_PRODUCTS = (OUT_YX[0] + 2 * MAX_RADIUS_PX) * (OUT_YX[1] + 2 * MAX_RADIUS_PX)
_SMOOTHED = (OUT_YX[0] + 2 * MAX_RADIUS_PX) * OUT_YX[1]


@core
def _pair_core(total: Any, weight: Any, low: Any, high: Any) -> Any:
    """Return the sum with the two taps of one weight added."""
    return total + weight * (low + high)


@core
def _weight_core(k: Any, exponent: Any, unit: Any) -> Any:
    """Return a tap of the Gaussian: `exponent` is −1 / 2σ², `unit` 1 over the sum of all taps."""
    return _f32(math.exp(_f32(_f32(k * k) * exponent))) * unit


def _radius_px(sigma: float, truncate: float) -> int:
    return int(truncate * sigma + 0.5)


def halo_px(sigma: float, *, truncate: float = 4.0) -> int:
    """Return how much further than its result a structure tensor looks.

    Parameters
    ----------
    sigma : float
        Standard deviation of the Gaussian in px.
    truncate : float
        Where it ends, in standard deviations.

    Returns
    -------
    int
        Halo in px: that of the Gaussian and 1 for the derivatives.
    """
    return _radius_px(sigma, truncate) + 1


@cpu_kernel
def _products_cpu(rings: Any, slots: Any, filters: Any, slopes: Any, padded: Any) -> None:
    """Write the products of a row, summed over channels, with `padded` pixels around them repeated."""
    iy, ix = slopes[0], slopes[1]
    width = ix.shape[0]
    reach = (padded.shape[1] - width) // 2
    yy, xy, xx = padded[0], padded[1], padded[2]
    padded[:] = 0
    for ch in range(rings.shape[0]):
        ring = rings[ch]
        slopes_row_cpu(ring[slots[0]], ring[slots[1]], ring[slots[2]], filters, iy, ix)
        a, b, c = yy[reach : reach + width], xy[reach : reach + width], xx[reach : reach + width]
        for x in range(width):
            a[x] += iy[x] * iy[x]
            b[x] += iy[x] * ix[x]
            c[x] += ix[x] * ix[x]
    for k in range(3):
        row = padded[k]
        row[:reach] = row[reach]
        row[reach + width :] = row[reach + width - 1]


@cpu_kernel
def _along_x_cpu(padded: Any, taps: Any, out: Any) -> None:
    width, reach = out.shape[0], taps.shape[0] - 1
    middle = padded[reach : reach + width]
    for x in range(width):
        out[x] = taps[0] * middle[x]
    for k in range(1, reach + 1):
        weight, low, high = taps[k], padded[reach - k : reach - k + width], padded[reach + k : reach + k + width]
        for x in range(width):
            out[x] = _pair_core(out[x], weight, low[x], high[x])


@cpu_kernel
def _along_y_cpu(ring: Any, y: int, height: int, taps: Any, out: Any) -> None:
    """Smooth down the columns of a ring of rows in which row y is at y modulo its length."""
    width, size = out.shape[0], ring.shape[0]
    middle = ring[y % size]
    for x in range(width):
        out[x] = taps[0] * middle[x]
    for k in range(1, taps.shape[0]):
        weight, low, high = taps[k], ring[max(y - k, 0) % size], ring[min(y + k, height - 1) % size]
        for x in range(width):
            out[x] = _pair_core(out[x], weight, low[x], high[x])


@cpu_kernel
def _tensor_cpu(pixels: Any, shape: Any, filters: Any, taps: Any, band: Any, out: Any) -> None:
    flat, start, steps = pixels
    channels, height, width = shape
    reach = taps.shape[0] - 1
    rings = np.empty((channels, 3, width + 2), np.float32)
    slopes = np.empty((2, width), np.float32)
    padded = np.empty((3, width + 2 * reach), np.float32)
    smoothed = np.empty((3, 2 * reach + 1, width), np.float32)
    first, last = max(band[0] - reach, 0), min(band[1] + reach, height)
    for y in range(first - 2, last + reach):
        if y < last:
            # the row below y; those above are there already
            below = min(max(y + 1, 0), height - 1)
            for ch in range(channels):
                load_row_cpu(flat, start + ch * steps[0] + below * steps[1], steps[2], rings[ch, (y + 4) % 3])
        if first <= y < last:
            _products_cpu(rings, ((y + 2) % 3, (y + 3) % 3, (y + 4) % 3), filters, slopes, padded)
            for k in range(3):
                _along_x_cpu(padded[k], taps, smoothed[k, y % (2 * reach + 1)])
        done = y - reach
        if band[0] <= done < band[1]:
            for k in range(3):
                _along_y_cpu(smoothed[k], done, height, taps, out[k, done])


@cuda_kernel(
    "void(uint8[::1], int64, UniTuple(int64, 3), UniTuple(int64, 4), UniTuple(float32, 3), UniTuple(float32, 2), "
    "float32[::1])",
)
def _tensor_cuda(flat: Any, start: Any, steps: Any, shape: Any, filters: Any, gauss: Any, out: Any) -> None:
    """Write a piece of one component a block."""
    products = cuda.shared.array(_PRODUCTS, np.float32)
    smoothed = cuda.shared.array(_SMOOTHED, np.float32)
    taps = cuda.shared.array(_TAPS, np.float32)
    channels, height, width, reach = shape
    me, part = cuda.threadIdx.x, cuda.blockIdx.z
    top, left = cuda.blockIdx.y * OUT_YX[0], cuda.blockIdx.x * OUT_YX[1]
    rows, columns = OUT_YX[0] + 2 * reach, OUT_YX[1] + 2 * reach
    if me <= reach:
        taps[me] = _weight_core(me, gauss[0], gauss[1])
    for k in range(me, rows * columns, THREADS):
        # tensors beyond the image are those at its edge
        y = min(max(top + k // columns - reach, 0), height - 1)
        x = min(max(left + k % columns - reach, 0), width - 1)
        west, here, east = max(x - 1, 0) * steps[2], x * steps[2], min(x + 1, width - 1) * steps[2]
        up, middle, down = max(y - 1, 0) * steps[1], y * steps[1], min(y + 1, height - 1) * steps[1]
        total, first = _f32(0.0), start
        for _ in range(channels):
            a, b, c = _f32(flat[first + up + west]), _f32(flat[first + up + here]), _f32(flat[first + up + east])
            d, f = _f32(flat[first + middle + west]), _f32(flat[first + middle + east])
            g, h = _f32(flat[first + down + west]), _f32(flat[first + down + here])
            i = _f32(flat[first + down + east])
            iy = slope_core(smooth_core(a, b, c, filters), smooth_core(g, h, i, filters), filters)
            ix = slope_core(smooth_core(a, d, g, filters), smooth_core(c, f, i, filters), filters)
            total += (ix if part == 2 else iy) * (iy if part == 0 else ix)
            first += steps[0]
        products[k] = total
    cuda.syncthreads()
    for k in range(me, rows * OUT_YX[1], THREADS):
        at = k // OUT_YX[1] * columns + k % OUT_YX[1] + reach
        total = taps[0] * products[at]
        for j in range(1, reach + 1):
            total = _pair_core(total, taps[j], products[at - j], products[at + j])
        smoothed[k] = total
    cuda.syncthreads()
    for k in range(me, OUT_YX[0] * OUT_YX[1], THREADS):
        y, x = top + k // OUT_YX[1], left + k % OUT_YX[1]
        at = k + reach * OUT_YX[1]
        total = taps[0] * smoothed[at]
        for j in range(1, reach + 1):
            total = _pair_core(total, taps[j], smoothed[at - j * OUT_YX[1]], smoothed[at + j * OUT_YX[1]])
        if y < height and x < width:
            out[(part * height + y) * width + x] = total


def _taps(sigma: float, reach: int) -> npt.NDArray[np.float32]:
    """Return the Gaussian from its middle outwards."""
    taps = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    return np.asarray(taps / (2 * taps.sum() - taps[0]), np.float32)


def structure_tensor(
    image: Array,
    sigma: float = 1.0,
    *,
    operator: Operator = "sobel",
    truncate: float = 4.0,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return the structure tensor around each pixel, over all channels.

    Parameters
    ----------
    image : array of uint8, uint16, int16 or float32
        `(y, x)` or `(c, y, x)`, on the host or a device; any strides.
    sigma : float
        Standard deviation in px of the Gaussian that tensors are averaged with; its reach is at most 16 px.
    operator : {"sobel", "scharr", "central"}
        Derivative filter; see `tilestream.kernels.gradient`.
    truncate : float
        Where the Gaussian ends, in standard deviations.
    out : array of float32, optional
        `(3, y, x)`, contiguous; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array of float32
        `(3, y, x)`: Jyy, Jxy, Jxx in (samples a pixel)², the order of scikit-image. `out`, or a new array of the kind
        of `image`.

    Raises
    ------
    ConfigError
        When type, shapes, operator or Gaussian are others, or the arrays are not in one place.
    """
    name = "structure_tensor"
    here = place(name, backend=backend, stream=stream, threads=threads, image=image, out=out)
    need(name, "image", image, dtypes=DTYPES, ndim=(2, 3))
    filters = filters_of(name, operator)
    if not (math.isfinite(sigma * truncate) and sigma > 0 and 0 <= _radius_px(sigma, truncate) <= MAX_RADIUS_PX):
        raise ConfigError.of(
            f"`sigma` of `{name}`", got=f"{sigma} px truncated at {truncate}",
            expected=f"a positive number that reaches at most {MAX_RADIUS_PX} px",
            do="Look at a coarser level of the pyramid for larger structures.",
        )  # fmt: skip
    *outer, height, width = (int(n) for n in image.shape)
    need(name, "out", out, dtypes=("float32",), shape=(3, height, width), contiguous=True)
    found = empty_like(image, (3, height, width), np.float32) if out is None else out
    flat, start, steps = flat_view(image)
    pixels = (flat, start, steps if outer else (0, *steps))
    channels, reach = outer[0] if outer else 1, _radius_px(sigma, truncate)
    taps = _taps(sigma, reach)
    if here.backend == "cuda":
        run, _, _ = flat_view(found, writable=True)
        gauss = (_f32(-0.5 / (sigma * sigma)), taps[0])
        grid = (-(-width // OUT_YX[1]), -(-height // OUT_YX[0]), 3)
        if grid[1] > MAX_GRID_Y:
            do = "Hand in pieces with a halo of `halo_px`."
            raise ConfigError.of(f"`image` of `{name}`", got=f"{height} rows", expected="up to 1,048,560", do=do)
        here.launch(_tensor_cuda, grid, THREADS, *pixels, (channels, height, width, reach), filters, gauss, run)
        return found
    over_bands(
        lambda first, last: _tensor_cpu(pixels, (channels, height, width), filters, taps, (first, last), found),
        height, threads=here.threads, least=max(8 * (reach + 1), 2**16 // (channels * width)),
    )  # fmt: skip
    return found
