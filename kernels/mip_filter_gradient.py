"""The exact adjoint of one filtered level: what its gradient comes to at the pixels.

    out[i, j] = Σ_y Σ_x w_{i−2y} w_{j−2x} g[y, x] / (W_y W_x),   W_y = Σ weights of the rows that pixel y finds

the transpose of the matrix that `tilestream.kernels.mip_filter` multiplies with where everything is valid, edges and
odd sizes included. At most `radius` rows and columns of the level see a pixel; rows are added first, then columns, in
the type of the gradient. Tolerance of the tests: 1e-6 (float32), 1e-12 (float64), relative to the largest gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need, need_kind
from tilestream.kernels.constants import constant
from tilestream.kernels.fir import Fir, tap_core
from tilestream.kernels.language import cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.mip_layout import THREADS, frame, level_shape, shape_of
from tilestream.kernels.place import Array, dtype_of, place

_LEAST_PX = 2**14


@cpu_kernel
def _spread_cpu(source: Any, weights: Any, shares: Any, shape: Any, band: Any, line: Any, target: Any) -> None:
    flat, start, steps = source
    out, to, to_steps = target
    channels, height, width = shape
    down, across = shares
    radius, columns = weights.size, line.size
    for row in range(band[0], band[1]):
        i, ch, image = row % height, row // height % channels, row // height // channels
        line[:] = 0
        for y in range(max((i - radius + 1) >> 1, 0), min((i + radius - 1) >> 1, down.size - 1) + 1):
            w = weights[tap_core(i - 2 * y)] * down[y]
            first = start + image * steps[0] + ch * steps[1] + y * steps[2]
            for x in range(columns):
                line[x] += w * flat[first + x * steps[3]]
        for x in range(columns):
            line[x] *= across[x]
        at = to + image * to_steps[0] + ch * to_steps[1] + i * to_steps[2]
        for j in range(width):
            total = line[0] * 0
            for x in range(max((j - radius + 1) >> 1, 0), min((j + radius - 1) >> 1, columns - 1) + 1):
                total += weights[tap_core(j - 2 * x)] * line[x]
            out[at + j * to_steps[3]] = total


def _spread(sample: str, kind: Any) -> Any:
    """Return the kernel for one type of gradients."""

    def kernel(
        flat: Any, start: Any, steps: Any, weights: Any, radius: Any, shares: Any, shape: Any, out: Any, to: Any,
        to_steps: Any,
    ) -> None:  # fmt: skip
        """Gather what reaches one pixel and channel a thread."""
        images, channels, height, width = shape
        index = cuda.blockIdx.x * np.int64(THREADS) + cuda.threadIdx.x
        if index >= images * channels * height * width:
            return
        j, i = index % width, index // width % height
        ch, image = index // width // height % channels, index // width // height // channels
        rows, columns = (height + 1) // 2, (width + 1) // 2
        first = start + image * steps[0] + ch * steps[1]
        total = kind(0)
        for x in range(max((j - radius + 1) >> 1, 0), min((j + radius - 1) >> 1, columns - 1) + 1):
            column = kind(0)
            for y in range(max((i - radius + 1) >> 1, 0), min((i + radius - 1) >> 1, rows - 1) + 1):
                column += weights[tap_core(i - 2 * y)] * shares[y] * flat[first + y * steps[2] + x * steps[3]]
            total += weights[tap_core(j - 2 * x)] * (column * shares[rows + x])
        out[to + image * to_steps[0] + ch * to_steps[1] + i * to_steps[2] + j * to_steps[3]] = total

    kernel.__name__ = kernel.__qualname__ = f"_filter_gradient_{sample}_cuda"
    return cuda_kernel(
        f"void({sample}[::1], int64, UniTuple(int64, 4), {sample}[::1], int64, {sample}[::1], UniTuple(int64, 4), "
        f"{sample}[::1], int64, UniTuple(int64, 4))"
    )(kernel)


_KERNELS = {"float32": _spread("float32", np.float32), "float64": _spread("float64", np.float64)}


def filter_gradient(
    gradient: Array,
    *,
    fir: Fir,
    out: Array,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return the gradient at the pixels from that of the level that a filter makes of them.

    Parameters
    ----------
    gradient : array
        float32 or float64, of level 1, on the host or a device; any strides.
    fir : Fir
        The filter.
    out : array
        `(y, x)`, `(c, y, x)` or `(n, c, y, x)` of the same type, as the pixels; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array
        `out`.

    Raises
    ------
    ConfigError
        When the gradient is not that of a level of such an array.
    """
    here = place("filter_gradient", backend=backend, stream=stream, threads=threads, gradient=gradient, out=out)
    need_kind("filter_gradient", "fir", fir, Fir, do="Take one from `tilestream.kernels.fir.fir_of`.")
    need("filter_gradient", "out", out, dtypes=("float32", "float64"), ndim=(2, 3, 4))
    shape = tuple(int(n) for n in out.shape)
    need("filter_gradient", "gradient", gradient, dtypes=(dtype_of(out).name,), shape=level_shape(shape, 1))
    images, channels, height, width = shape_of(out)
    dtype = dtype_of(out)
    source, target = frame(gradient), frame(out, writable=True)
    down, across = (shares_of(fir, length).astype(dtype) for length in (height, width))
    weights = np.array(fir.weights, dtype)
    if here.backend == "cuda":
        grid = -(-images * channels * height * width // THREADS)
        shares = constant(here, np.concatenate([down, across]))
        how = (constant(here, weights), fir.radius, shares, (images, channels, height, width))
        here.launch(_KERNELS[dtype.name], grid, THREADS, *source, *how, *target)
        return out

    def work(first: int, stop: int) -> None:
        line = np.empty(across.size, dtype)
        shape = channels, height, width
        _spread_cpu(source, weights, (down, across), shape, (first, stop), line, target)

    over_bands(work, images * channels * height, threads=here.threads, least=max(1, _LEAST_PX // width))
    return out


def shares_of(fir: Fir, length: int) -> npt.NDArray[np.float64]:
    """Return one over the weight that each pixel of a level finds along an axis.

    Parameters
    ----------
    fir : Fir
        The filter.
    length : int
        Of the axis, in pixels of the finer level.

    Returns
    -------
    ndarray of float64
        `(ceil(length / 2),)`.
    """
    taps = np.array([*fir.weights[::-1], *fir.weights], np.int64)
    at = 2 * np.arange(-(-length // 2))[:, None] + np.arange(1 - fir.radius, fir.radius + 1)
    found: npt.NDArray[np.float64] = 1.0 / np.where((at >= 0) & (at < length), taps, 0).sum(axis=1)
    return found
