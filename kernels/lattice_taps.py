"""Weighted sums of the neighbours of every second pixel of every second row, over several planes, in whole numbers.

    out[y, x] = bias + Σ_t w_t · planes[p_t, 2·y + r_t, 2·x + c_t]

Lossless coders foretell a lattice of pixels so from the lattices that are known: a finite impulse response whose taps
lie in any of the planes. Sums are int64 and exact, so that every form gives the same bits: tolerance of the tests is 0.
Weights below 2^27 and samples below 2^24 leave room for 2^12 taps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need, need_kind, whole, whole_pair
from tilestream.kernels.constants import constant
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.place import Array, empty_like, place
from tilestream.kernels.rows import flat_view

THREADS = 128
MAX_BLOCKS = 2**15
LEAST_PX = 2**13
"""Fewest results that are worth a band."""


@core
def _product_core(weight: Any, sample: Any) -> Any:
    """Return a product of 32 bits each in 64."""
    return np.int64(weight) * np.int64(sample)


@cpu_kernel
def _lattice_taps_cpu(planes: Any, taps: Any, bias: Any, start: int, stop: int, out: Any) -> None:
    width = out.shape[1]
    for y in range(start, stop):
        total = out[y]
        for x in range(width):
            total[x] = bias
        for t in range(taps.shape[0]):
            row = planes[taps[t, 0], 2 * y + taps[t, 1], taps[t, 2] :]
            weight = taps[t, 3]
            for x in range(width):
                total[x] += _product_core(weight, row[2 * x])


@cuda_kernel("void(int32[::1], UniTuple(int64, 2), int32[::1], int64, UniTuple(int64, 2), int64[::1])")
def _lattice_taps_cuda(planes: Any, size: Any, taps: Any, bias: Any, shape: Any, out: Any) -> None:
    """Add all taps of one result a thread; `size` are rows and columns of a plane."""
    step = cuda.gridDim.x * cuda.blockDim.x
    first = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    for k in range(first, shape[0] * shape[1], step):
        y, x = k // shape[1], k % shape[1]
        total = bias
        for t in range(0, taps.size, 4):
            row = taps[t] * size[0] + 2 * y + taps[t + 1]
            total += _product_core(taps[t + 3], planes[row * size[1] + 2 * x + taps[t + 2]])
        out[k] = total


def lattice_taps(
    planes: Array,
    taps: npt.NDArray[np.int32],
    bias: int,
    *,
    shape_yx: tuple[int, int],
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return weighted sums of neighbours on a lattice of step 2.

    Parameters
    ----------
    planes : array of int32
        `(p, y, x)`, contiguous; magnitudes below 2^24.
    taps : ndarray of int32
        `(t, 4)` on the host: plane, first row, first column, and weight of each.
    bias : int
        Added to each sum; within ±2^60.
    shape_yx : pair of int
        Rows and columns of the result; no tap may lie outside of its plane for any of it.
    backend : {"cpu", "cuda"}, optional
        By default where the planes are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array of int64
        `shape_yx`.

    Raises
    ------
    ConfigError
        When types or shapes do not fit, or a tap lies outside.
    """
    name = "lattice_taps"
    here = place(name, backend=backend, stream=stream, threads=threads, planes=planes)
    need(name, "planes", planes, dtypes=("int32",), ndim=3, contiguous=True)
    need_kind(name, "taps", taps, np.ndarray, do="Keep them on the host.")
    need(name, "taps", taps, dtypes=("int32",), ndim=2, empty=True)
    bias = whole(name, "bias", bias, most=2**60)
    height, width = whole_pair(name, "shape_yx", shape_yx, least=0)
    _need_inside(tuple(int(n) for n in planes.shape), taps, height, width)
    out = empty_like(planes, (height, width), np.int64)
    if not height * width:
        return out
    if here.backend == "cuda":
        blocks = min(-(-height * width // THREADS), MAX_BLOCKS)
        here.launch(
            _lattice_taps_cuda, blocks, THREADS, flat_view(planes)[0], tuple(int(n) for n in planes.shape[1:]),
            constant(here, taps), np.int64(bias), (height, width), flat_view(out, writable=True)[0],
        )  # fmt: skip
        return out
    over_bands(
        lambda start, stop: _lattice_taps_cpu(planes, taps, np.int64(bias), start, stop, out),
        height, threads=here.threads, least=max(1, LEAST_PX // width),
    )  # fmt: skip
    return out


def _need_inside(size: tuple[int, ...], taps: Any, height: int, width: int) -> None:
    """Raise unless all taps lie inside planes of a size for a result of a size."""
    if taps.shape[1] != 4:
        raise ConfigError.of(
            "`taps` of `lattice_taps`", got=taps.shape, expected="(t, 4)", do="Give four numbers each."
        )
    if not (height and width and len(taps)):
        return
    limits = np.array([size[0], size[1] - 2 * (height - 1), size[2] - 2 * (width - 1)])
    if (taps[:, :3] < 0).any() or (taps[:, :3] >= limits).any():
        raise ConfigError.of(
            "`taps` of `lattice_taps`",
            got=f"places up to {taps[:, :3].max(axis=0).tolist()} for {height} × {width} of planes {size}",
            expected=f"0 to {(limits - 1).tolist()}",
            do="Pad the planes.",
        )
