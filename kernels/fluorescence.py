"""Signal on a black background, by the brightest channel v of each pixel.

    m, σ      median of the shortest quarter of all values, which is the background, since light varies more than its
              absence; 1.4826 times the median distance of the values below m from it: signal only adds light
    tissue    v > m + max(5 σ, 8 steps of an integer type)

Otsu's threshold was tried first: it cuts the noise of a blank slide through its middle, and stained nuclei from the
tissue that they lie in. Shortest half: Rousseeuw & Leroy, Robust Regression and Outlier Detection, 1987, 4.4.

m and σ are found on the host in float64, from one value a pixel. The comparison is made in the type of the samples
(float32 for float16): integers against the threshold rounded down, which is the same, floats against the threshold
rounded to their type. The same pixels on CPU and CUDA: tolerance of the tests is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need
from tilestream.kernels.constants import constant
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.pixelwise import batch_shape, batch_view, mask_view, over_rows, pixel_grid
from tilestream.kernels.place import Array, Place, dtype_of, empty_like, place
from tilestream.kernels.rows import flat_view
from tilestream.kernels.scratch import fetched

BACKGROUND_SIGMAS = 5.0
"""Least distance of signal from the background in standard deviations of the background."""

LEAST_STEPS = 8
"""Least distance of signal from the background in steps of an integer type: a JPEG-coded black ground is noisier."""


@core
def _brighter_core(a: Any, b: Any) -> Any:
    """Return the larger of two values, or NaN where one is."""
    return b if b > a or b != b else a


@core
def _above_core(value: Any, threshold: Any) -> Any:
    return value > threshold and value - value == value - value


@cuda_kernel(
    "void(float32[::1], int64, UniTuple(int64, 4), UniTuple(int64, 4), float32[::1])",
)
def _brightest_cuda(flat: Any, start: Any, steps: Any, shape: Any, out: Any) -> None:
    """Write the largest channel of a pixel of each so-manieth row and image a thread."""
    x = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    n, channels, height, width = shape
    if x >= width:
        return
    for i in range(cuda.blockIdx.z, n, cuda.gridDim.z):
        for y in range(cuda.blockIdx.y, height, cuda.gridDim.y):
            at = start + i * steps[0] + y * steps[2] + x * steps[3]
            best = flat[at]
            for ch in range(1, channels):
                best = _brighter_core(best, flat[at + ch * steps[1]])
            out[(i * height + y) * width + x] = best


@cpu_kernel
def _above_cpu(values: Any, valid: Any, masked: bool, threshold: Any, band: Any, out: Any) -> None:
    seen, seen_start, seen_steps = valid
    height, width = out.shape[1], out.shape[2]
    for row in range(band[0], band[1]):
        i, y = row // height, row % height
        seen_first = seen_start + i * seen_steps[0] + y * seen_steps[1]
        for x in range(width):
            good = not masked or seen[seen_first + x * seen_steps[2]] != 0
            out[i, y, x] = good and _above_core(values[i, y, x], threshold)


@cuda_kernel(
    "void(float32[::1], UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean, float32, uint8[::1])",
)
def _above_cuda(
    values: Any, shape: Any, seen: Any, seen_start: Any, seen_steps: Any, masked: Any, threshold: Any, out: Any
) -> None:
    """Judge a pixel of each so-manieth row and image a thread."""
    x = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    n, _, height, width = shape
    if x >= width:
        return
    for i in range(cuda.blockIdx.z, n, cuda.gridDim.z):
        for y in range(cuda.blockIdx.y, height, cuda.gridDim.y):
            k = (i * height + y) * width + x
            good = not masked or seen[seen_start + i * seen_steps[0] + y * seen_steps[1] + x * seen_steps[2]] != 0
            out[k] = 1 if good and _above_core(values[k], threshold) else 0


def background(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Return level and spread of the background of a picture with light on black.

    Parameters
    ----------
    values : ndarray
        One-dimensional, finite, at least one.

    Returns
    -------
    level, sigma : float
        Median of the shortest quarter, and the robust standard deviation of what is darker.
    """
    ordered = np.sort(values).astype(np.float64)
    quarter = len(ordered) // 4
    widths = ordered[quarter:] - ordered[: len(ordered) - quarter]
    # integers leave many quarters equally short: the first one alone would be too dark
    shortest = np.flatnonzero(widths == widths.min())
    level = float(ordered[shortest[len(shortest) // 2] + quarter // 2])
    darker = level - ordered[ordered < level]
    return level, 1.4826 * float(np.median(darker)) if darker.size else 0.0


def tissue_fluorescence(
    pixels: Array,
    valid: Array | None = None,
    *,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return which pixels of a slide with a black background hold signal.

    Parameters
    ----------
    pixels : array
        `(c, y, x)` of any type that counts or measures (float16 on the host only), on the host or a device; any
        strides. The brightest channel decides.
    valid : array of bool, optional
        `(y, x)`; what is False is no tissue and enters no statistic.
    out : array of bool, optional
        `(y, x)`, contiguous; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one. The background is found on the host: the call waits,
        and one value a pixel and the mask are copied there.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array of bool
        `(y, x)`: `out`, or a new array of the kind of `pixels`; False where signal does not stand out of the
        background or a channel is not a number.

    Raises
    ------
    ConfigError
        When the arrays do not belong together or are not numbers.
    """
    name = "tissue_fluorescence"
    here = place(name, backend=backend, stream=stream, threads=threads, pixels=pixels, valid=valid, out=out)
    dtype = dtype_of(pixels)
    if dtype.kind not in "biuf" or (here.backend == "cuda" and dtype == np.float16):
        raise ConfigError.of(
            f"`pixels` of `{name}`", got=f"samples of type {dtype}", expected="numbers", do="Convert the image first."
        )
    need(name, "pixels", pixels, dtypes=(dtype.name,), ndim=3)
    size = tuple(int(v) for v in pixels.shape[1:])
    need(name, "valid", valid, dtypes=("bool",), shape=size)
    need(name, "out", out, dtypes=("bool",), shape=size, contiguous=True)
    found = empty_like(pixels, size, np.bool_) if out is None else out
    brightest = _brightest(here, pixels)
    values = fetched(here, brightest)
    mask = np.isfinite(values)
    if valid is not None:
        mask &= _on_host(here, valid)
    level, sigma = background(values[mask]) if mask.any() else (0.0, 0.0)
    least = LEAST_STEPS if dtype.kind in "iu" else 0.0
    _above(here, brightest, valid, _typed(level + max(BACKGROUND_SIGMAS * sigma, least), values.dtype), found)
    return found


def _brightest(here: Place, pixels: Array) -> Array:
    """Return the brightest channel of each pixel: contiguous, bool as uint8, float16 as float32."""
    dtype = {"bool": "uint8", "float16": "float32"}.get(dtype_of(pixels).name, dtype_of(pixels).newbyteorder("=").name)
    found = empty_like(pixels, tuple(pixels.shape[1:]), dtype)
    if here.backend == "cuda":
        shape = batch_shape(pixels)
        run = flat_view(found, writable=True)[0]
        here.launch(_brightest_cuda, *pixel_grid(1, *shape[2:]), *batch_view(pixels), shape, run)
        return found
    found[...] = pixels[0]
    for channel in pixels[1:]:
        np.maximum(found, channel, out=found)
    return found


def _on_host(here: Place, valid: Array) -> npt.NDArray[np.bool_]:
    if here.backend == "cpu":
        return np.asarray(valid)
    same = empty_like(valid, tuple(valid.shape), np.bool_)
    shape = batch_shape(same)
    run = flat_view(same, writable=True)[0]
    # the mask may have any strides: its values come as the brightest of one channel
    here.launch(_brightest_cuda, *pixel_grid(1, *shape[2:]), *batch_view(valid), shape, run)
    return np.asarray(fetched(here, same), np.bool_)


def _typed(threshold: float, dtype: np.dtype[Any]) -> Any:
    """Return the threshold in the type of the samples, such that the same samples lie above it."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return dtype.type(threshold)
    limits = np.iinfo(dtype)
    return dtype.type(min(max(int(np.floor(threshold)), int(limits.min)), int(limits.max)))


def _above(here: Place, brightest: Array, valid: Array | None, threshold: Any, out: Array) -> None:
    shape = batch_shape(brightest)
    mask = mask_view(valid, constant(here, np.zeros(1, np.uint8)))
    if here.backend == "cuda":
        runs = flat_view(brightest)[0], flat_view(out, writable=True)[0]
        here.launch(
            _above_cuda, *pixel_grid(1, *shape[2:]), runs[0], shape, *mask, valid is not None, threshold, runs[1]
        )
        return
    values, target = brightest.reshape(shape[1:]), out.reshape(shape[1:])
    over_rows(
        here, lambda a, b: _above_cpu(values, mask, valid is not None, threshold, (a, b), target), *shape[1:]
    )  # fmt: skip
