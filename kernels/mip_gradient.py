"""What the gradients of levels come to at the pixels that they are means of: the way back of `mip`.

    out[y, x] = Σ_l g_l[⌊y/2^l⌋, ⌊x/2^l⌋] / count_l[⌊y/2^l⌋, ⌊x/2^l⌋],   count_l = pixels that exist under that one

Each level adds its share to the pixels it stands for, coarsest first, in the type of the gradients: the same bits on
CPU and CUDA. Tolerance of the tests: 1e-6 (float32), 1e-12 (float64), relative to the largest gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.mip_layout import THREADS, frame, level_shape, shape_of
from tilestream.kernels.place import Array, Place, dtype_of, place

MAX_LEVELS = 6
"""Most levels from the same pixels, as in `mip`."""
_LEAST_PX = 2**15


@core
def _under_core(index: Any, level: Any, size: Any) -> Any:
    """Return how many of `size` positions lie under one of a level."""
    return min((index + 1) << level, size) - (index << level)


@cpu_kernel
def _sweep_cpu(runs: Any, geometry: Any, shape: Any, band: Any, line: Any, out: Any, at: Any) -> None:
    channels, height, width, levels = shape
    for row in range(band[0], band[1]):
        y = row % height
        ch = row // height % channels
        image = row // height // channels
        line[:] = 0
        for level in range(levels, 0, -1):
            g = geometry[level - 1]
            run = runs[level - 1]
            first = g[0] + image * g[1] + ch * g[2] + (y >> level) * g[3]
            rows = _under_core(y >> level, level, height)
            for x in range((width - 1) >> level, -1, -1):  # backwards, since the line is stretched where it lies
                count = line.dtype.type(rows * _under_core(x, level, width))
                above = line[x >> 1] if level < levels else line.dtype.type(0)
                line[x] = above + run[first + x * g[4]] / count
        to = at[0] + image * at[1] + ch * at[2] + y * at[3]
        for x in range(width):
            out[to + x * at[4]] = line[x >> 1]


def _sweep(sample: str, kind: Any) -> Any:
    """Return the kernel for one type of gradients."""

    def kernel(
        runs: Any, geometry: Any, shape: Any, levels: Any, out: Any, out_start: Any, out_steps: Any
    ) -> None:  # fmt: skip
        """Add the shares of all levels at one pixel and channel a thread."""
        images, channels, height, width = shape
        index = cuda.blockIdx.x * np.int64(THREADS) + cuda.threadIdx.x
        if index >= images * channels * height * width:
            return
        x, y = index % width, index // width % height
        ch, image = index // width // height % channels, index // width // height // channels
        total = kind(0)
        for level in range(levels, 0, -1):
            at, run = geometry[level - 1], runs[level - 1]
            count = _under_core(y >> level, level, height) * _under_core(x >> level, level, width)
            total += run[at[0] + image * at[1] + ch * at[2] + (y >> level) * at[3] + (x >> level) * at[4]] / kind(count)
        out[out_start + image * out_steps[0] + ch * out_steps[1] + y * out_steps[2] + x * out_steps[3]] = total

    kernel.__name__ = kernel.__qualname__ = f"_mip_gradient_{sample}_cuda"
    return cuda_kernel(
        f"void(UniTuple({sample}[::1], 6), UniTuple(UniTuple(int64, 5), 6), UniTuple(int64, 4), int64, {sample}[::1], "
        "int64, UniTuple(int64, 4))"
    )(kernel)


_KERNELS = {"float32": _sweep("float32", np.float32), "float64": _sweep("float64", np.float64)}


def mip_gradient(
    gradients: Sequence[Array],
    *,
    out: Array,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return the gradient at the pixels from those of the levels that are their means.

    Parameters
    ----------
    gradients : sequence of array
        float32 or float64, of levels 1, 2, … up to 6, on the host or a device; any strides.
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
        When the gradients are not those of levels of such an array.
    """
    arrays = {f"gradients_{index}": array for index, array in enumerate(gradients)}
    here = place("mip_gradient", backend=backend, stream=stream, threads=threads, out=out, **arrays)
    need("mip_gradient", "out", out, dtypes=("float32", "float64"), ndim=(2, 3, 4))
    if not 1 <= len(gradients) <= MAX_LEVELS:
        raise ConfigError.of(
            "`gradients` of `mip_gradient`",
            got=f"{len(gradients)} arrays",
            expected=f"1 to {MAX_LEVELS}, one a level",
            do="Bring further levels down first.",
        )
    shape = tuple(int(n) for n in out.shape)
    for level, array in enumerate(gradients, 1):
        expected = level_shape(shape, level)
        need("mip_gradient", f"gradients[{level - 1}]", array, dtypes=(dtype_of(out).name,), shape=expected)
    _run(here, gradients, out)
    return out


def _run(here: Place, gradients: Sequence[Array], out: Array) -> None:
    images, channels, height, width = shape_of(out)
    levels = len(gradients)
    frames = [frame(g) for g in gradients]
    frames += frames[-1:] * (MAX_LEVELS - levels)
    runs = tuple(run for run, _, _ in frames)
    at = tuple((start, *steps) for _, start, steps in frames)
    run, out_start, out_steps = frame(out, writable=True)
    if here.backend == "cuda":
        grid = -(-images * channels * height * width // THREADS)
        shape = (images, channels, height, width)
        kernel = _KERNELS[dtype_of(out).name]
        here.launch(kernel, grid, THREADS, runs, at, shape, levels, run, out_start, out_steps)
        return
    geometry, target = np.array(at, np.int64), np.array((out_start, *out_steps), np.int64)

    def work(first: int, stop: int) -> None:
        line = np.empty((width + 1) // 2 + 1, out.dtype)
        _sweep_cpu(runs, geometry, (channels, height, width, levels), (first, stop), line, run, target)

    over_bands(work, images * channels * height, threads=here.threads, least=max(1, _LEAST_PX // width))
