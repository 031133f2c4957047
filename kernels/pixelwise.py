"""Images of two to four axes as batches, one CUDA thread a pixel: what operations on single pixels share.

`(y, x)`, `(c, y, x)` and `(n, c, y, x)` differ in missing axes of length 1 whose step does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tilestream.kernels.bands import over_bands
from tilestream.kernels.place import Array, Place
from tilestream.kernels.rows import flat_view

THREADS = 128
"""Most of a block, which lies along a row."""
MAX_BLOCKS = 2**15
"""Most blocks along y and along the batch; a thread goes on to the row or image that many further on."""
LEAST_PX = 2**16
"""Fewest pixels that are worth a band."""


def batch_shape(array: Array, axes: int = 4) -> tuple[int, ...]:
    """Return the shape of an array with leading axes of length 1 put in.

    Parameters
    ----------
    array : array
        Of at most `axes` axes.
    axes : int
        4 for `(n, c, y, x)`, 3 for `(n, y, x)`.

    Returns
    -------
    tuple of int
        `axes` lengths.
    """
    shape = tuple(int(n) for n in array.shape)
    return (1,) * (axes - len(shape)) + shape


def batch_view(array: Array, axes: int = 4, *, writable: bool = False) -> tuple[Any, int, tuple[int, ...]]:
    """Return the memory of an array as one run, where it starts, and `axes` steps; see `flat_view`.

    Parameters
    ----------
    array : array
        Of at most `axes` axes and any strides.
    axes : int
        4 for `(n, c, y, x)`, 3 for `(n, y, x)`.
    writable : bool
        Whether a kernel writes to it.

    Returns
    -------
    flat : array
        One-dimensional, contiguous.
    start : int
        Where the sample at index 0 of every axis is.
    steps : tuple of int
        In samples; 0 for an axis put in.
    """
    flat, start, steps = flat_view(array, writable=writable)
    return flat, start, (0,) * (axes - len(steps)) + steps


def mask_view(valid: Array | None, unused: Any) -> tuple[Any, int, tuple[int, ...]]:
    """Return the view of a mask `(y, x)` or `(n, y, x)`; where there is none, `unused` bytes, which are not looked at.

    Parameters
    ----------
    valid : array of bool or None
        None when every pixel is valid.
    unused : array of uint8
        One-dimensional, where the kernel runs.

    Returns
    -------
    tuple
        As of `batch_view`.
    """
    return (unused, 0, (0, 0, 0)) if valid is None else batch_view(valid, 3)


def pixel_grid(n: int, height: int, width: int) -> tuple[tuple[int, int, int], int]:
    """Return blocks and threads for a kernel with a pixel of each so-manieth row and image a thread."""
    threads = min(THREADS, width)
    return (-(-width // threads), min(height, MAX_BLOCKS), min(n, MAX_BLOCKS)), threads


def over_rows(here: Place, work: Callable[[int, int], object], n: int, height: int, width: int) -> None:
    """Call `work(start, stop)` on bands of all rows of a batch, numbered on from image to image.

    Parameters
    ----------
    here : Place
        On the CPU.
    work : callable
        As in `over_bands`.
    n, height, width : int
        Images, and the size of each.
    """
    over_bands(work, n * height, threads=here.threads, least=max(1, LEAST_PX // width))
