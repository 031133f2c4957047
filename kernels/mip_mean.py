"""Means of valid pixels for several levels at once, on the CPU; see `tilestream.kernels.mip_sums` for the arithmetic.

float16 has no arithmetic on the CPU: a block at a time is widened to float32 and its results rounded once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.kernels.bands import over_bands
from tilestream.kernels.mip_layout import Reduction, box_of, frame, is_interleaved, jobs_of
from tilestream.kernels.mip_sums import reduce_cpu
from tilestream.kernels.rows import no_samples

MAX_LEVELS = 6
"""Most levels from one another without rounding, as many as a block of a device can; sums stay exact as float64."""
_LEAST_PX = 2**15
"""Fewest pixels that are worth a thread."""
_NO_MASK = no_samples(np.uint8)


def sum_type(dtype: npt.DTypeLike, levels: int) -> np.dtype[Any]:
    """Return the type that holds sums of samples over `levels` levels."""
    kind, bits = np.dtype(dtype).kind, 8 * np.dtype(dtype).itemsize
    if kind == "f":
        return np.dtype(np.float64 if bits == 64 else np.float32)
    if kind == "b":
        bits = 8
    held = bits + 2 * levels
    sign = "i" if kind == "i" else "u"
    return np.dtype(f"{sign}{2 if held <= 16 else 4 if held <= 32 else 8}")


def reduce_on_cpu(reduction: Reduction, *, threads: int) -> None:
    """Write the levels of a reduction of arrays on the host.

    Parameters
    ----------
    reduction : Reduction
        At most `MAX_LEVELS` levels.
    threads : int
        Most threads.
    """
    jobs = jobs_of(reduction)
    if len(jobs) == 0:
        return
    work = _half_work(reduction, jobs) if reduction.pixels.dtype == np.float16 else _work(reduction, jobs)
    block = 2 ** len(reduction.outs) * int((jobs[:, 3] - jobs[:, 2]).max())
    over_bands(work, len(jobs), threads=threads, least=max(1, _LEAST_PX // block))


def _work(reduction: Reduction, jobs: npt.NDArray[np.int64]) -> Any:
    """Return what reduces a band of jobs."""
    _, channels, height, _ = reduction.shape
    levels, dtype = len(reduction.outs), reduction.pixels.dtype
    together = channels if is_interleaved(reduction.pixels) else 1
    flat, start, steps = frame(reduction.pixels)
    mask = (_NO_MASK, 0, (0, 0, 0), False) if reduction.valid is None else (*frame(reduction.valid, axes=3), True)
    floating, has_nodata = dtype.kind == "f", reduction.nodata is not None
    nodata = np.array([reduction.nodata if has_nodata else 0], flat.dtype)
    sums = sum_type(dtype, levels)
    scales = np.zeros(0, np.float32 if sums.itemsize == 2 or sums == np.float32 else np.float64)
    runs, geometry = _targets(reduction.outs, 5)
    valids, valid_geometry = _targets(reduction.valids, 4)
    how = (scales, not floating, np.array([reduction.fill], flat.dtype), sums == np.uint16)
    width = int((jobs[:, 3] - jobs[:, 2]).max())
    block = sum(2 ** (levels - k) * -(-width // 2**k) for k in range(1, levels + 1))
    shape = (channels // together, together, height, levels)

    def work(first: int, stop: int) -> None:
        scratch = (
            np.empty(width * together, sums), np.empty(block * together, sums),
            np.empty(width, sums), np.empty(block, sums), np.empty((2**levels, width), np.uint8),
        )  # fmt: skip
        source = (flat, start, steps)
        to = (runs, geometry, valids, valid_geometry, how, np.empty(width * together, flat.dtype))
        reduce_cpu(source, mask, (nodata, has_nodata, floating), shape, jobs, (first, stop), scratch, to)

    return work


def _targets(arrays: Any, axes: int) -> tuple[tuple[Any, ...], npt.NDArray[np.int64]]:
    """Return arrays as as many flat runs as there can be levels, and a row of start and steps for each."""
    if not arrays:
        return (np.zeros(0, np.uint8),) * MAX_LEVELS, np.zeros((0, axes), np.int64)
    frames = [frame(array, axes=axes - 1, writable=True) for array in arrays]
    runs = tuple(run for run, _, _ in frames)
    geometry = np.array([(start, *steps) for _, start, steps in frames], np.int64)
    return runs + runs[-1:] * (MAX_LEVELS - len(runs)), geometry


def _half_work(reduction: Reduction, jobs: npt.NDArray[np.int64]) -> Any:
    """Return what reduces a band of jobs of float16."""
    levels = len(reduction.outs)

    def work(first: int, stop: int) -> None:
        for image, y0, x0, x1 in jobs[first:stop].tolist():
            y1 = min(y0 + 2**levels, reduction.shape[2])
            pixels = box_of(reduction.pixels, image, slice(y0, y1), slice(x0, x1), axes=4).astype(np.float32)
            at = [
                (slice(y0 >> k, -(-y1 >> k)), slice(x0 >> k, -(-x1 >> k))) for k in range(1, levels + 1)
            ]  # fmt: skip
            results = [box_of(out, image, *box, axes=4) for out, box in zip(reduction.outs, at, strict=True)]
            wide = [np.empty(result.shape, np.float32) for result in results]
            part = Reduction(
                pixels=pixels, boxes=None, nodata=reduction.nodata, fill=reduction.fill, outs=wide,
                valid=None if reduction.valid is None
                else box_of(reduction.valid, image, slice(y0, y1), slice(x0, x1), axes=3),
                valids=[box_of(v, image, *box, axes=3) for v, box in zip(reduction.valids, at, strict=False)],
            )  # fmt: skip
            reduce_on_cpu(part, threads=1)
            for result, mean in zip(results, wide, strict=True):
                result[...] = mean

    return work
