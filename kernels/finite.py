"""Which pixels count: the valid ones whose samples are finite in every channel, on the CPU.

Exact: tolerance 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.bands import over_bands
from tilestream.kernels.language import cpu_kernel
from tilestream.kernels.place import Array, Place
from tilestream.kernels.rows import flat_view, no_samples

LEAST_PX = 2**16
"""Fewest pixels that are worth a band."""
INFINITY = np.float32(np.inf)


@cpu_kernel
def _run_cpu(run: Any) -> bool:
    """Return whether samples that lie side by side are all finite."""
    bad = 0
    for k in range(run.shape[0]):
        bad |= not abs(run[k]) < INFINITY
    return bad == 0


@cpu_kernel
def _finite_cpu(flat: Any, start: int, steps: Any, shape: Any, band: Any) -> bool:
    """Return whether every sample of a band of rows is finite."""
    _, width, channels = shape
    for y in range(band[0], band[1]):
        at = start + y * steps[0]
        if steps[1] == channels and (channels == 1 or steps[2] == 1):
            if not _run_cpu(flat[at : at + width * channels]):
                return False
            continue
        for ch in range(channels):
            first = at + ch * steps[2]
            if steps[1] == 1:
                if not _run_cpu(flat[first : first + width]):
                    return False
                continue
            for x in range(width):
                if not abs(flat[first + x * steps[1]]) < INFINITY:
                    return False
    return True


@cpu_kernel
def _mask_cpu(source: Any, valid: Any, shape: Any, band: Any, out: Any) -> None:
    """Write which pixels of a band of rows are valid and finite in every channel."""
    flat, start, steps = source
    known, known_start, known_steps, masked = valid
    for y in range(band[0], band[1]):
        for x in range(shape[1]):
            good = not masked or known[known_start + y * known_steps[0] + x * known_steps[1]] != 0
            for ch in range(shape[2]):
                value = flat[start + y * steps[0] + x * steps[1] + ch * steps[2]]
                good = good and abs(value) < INFINITY
            out[y, x] = good


def needed_mask(here: Place, pixels: Array, valid: Array | None) -> Array | None:
    """Return which pixels count, or None when all of them do.

    Parameters
    ----------
    here : Place
        On the CPU.
    pixels : ndarray
        `(y, x, c)` of any type and strides.
    valid : ndarray of bool or None
        `(y, x)`; None when all are valid.

    Returns
    -------
    ndarray of bool or None
        `valid` itself where every sample is finite.
    """
    if valid is not None and valid.all():
        valid = None
    if pixels.dtype.kind != "f":
        return valid
    source, shape = flat_view(pixels), pixels.shape
    least = max(1, LEAST_PX // max(1, shape[1]))
    finite: list[bool] = []
    over_bands(
        lambda start, stop: finite.append(_finite_cpu(*source, shape, (start, stop))),
        shape[0], threads=here.threads, least=least,
    )  # fmt: skip
    if all(finite):
        return valid
    found = np.empty(shape[:2], np.bool_)
    known = (no_samples(np.uint8), 0, (0, 0), False) if valid is None else (*flat_view(valid), True)
    over_bands(
        lambda start, stop: _mask_cpu(source, known, shape, (start, stop), found),
        shape[0], threads=here.threads, least=least,
    )  # fmt: skip
    return found
