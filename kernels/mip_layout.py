"""Where the pixels of images and their levels lie, and which blocks of them are worked on.

Every array is seen as `n, c, y, x`: a flat run of samples, a start and four steps. A job is a block of 2^levels rows
and at most `TILE_PX` columns of one image, from which a pixel of the last level comes: (image, y, x, x after the last).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.kernels.language import SIMULATED
from tilestream.kernels.place import Array, dtype_of, empty_like
from tilestream.kernels.rows import flat_view
from tilestream.types import Box

TILE_PX = 8192
"""Columns of a job of 16 rows: long rows are cheap, and the sums of RGB still fit the second cache."""

THREADS = 32 if SIMULATED else 256
"""Of a block on a device; fewer in the simulator, where each is one of Python's."""

Frame = tuple[Any, int, tuple[int, ...]]
"""A flat run of samples, where it starts and its steps, as `flat_view` returns them."""


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """Levels that come from the same pixels, with nothing rounded on the way."""

    pixels: Array
    """`(y, x)`, `(c, y, x)` or `(n, c, y, x)`, what is reduced."""
    valid: Array | None
    """`(y, x)` or `(n, y, x)`, False where a pixel enters nothing."""
    nodata: float | None
    """Value that marks pixels that enter nothing."""
    fill: float
    """Value of results under which nothing is valid."""
    outs: Sequence[Array]
    """The levels, finest first, with the axes of `pixels`."""
    valids: Sequence[Array]
    """Their validity, or nothing at all where nobody asks for it."""
    boxes: npt.NDArray[np.int64] | None
    """`(k, 4)` first y, x and the ones after the last of what is recomputed, in `pixels`; None for everything."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Images, channels, height and width of the pixels."""
        return shape_of(self.pixels)


def shape_of(array: Array) -> tuple[int, int, int, int]:
    """Return images, channels, height and width of an array of two to four axes."""
    n, c, y, x = (1,) * (4 - len(array.shape)) + tuple(int(s) for s in array.shape)
    return n, c, y, x


def frame(array: Array, *, axes: int = 4, writable: bool = False) -> Frame:
    """Return an array as a flat run with `axes` steps; steps of axes it does not have are 0."""
    flat, start, steps = flat_view(array, writable=writable)
    return flat, start, (0,) * (axes - len(steps)) + steps


def box_of(array: npt.NDArray[Any], image: int, rows: slice, columns: slice, *, axes: int) -> npt.NDArray[Any]:
    """Return a view of part of one image of a host array that has `axes` axes when it is a batch."""
    one = array[image] if array.ndim == axes else array
    return one[..., rows, columns]


def masks_of(reduction: Reduction) -> tuple[Frame, list[Frame]]:
    """Return the validity of pixels and of each level on a device; bytes that nobody looks at where there is none."""
    source = reduction.valid if reduction.valid is not None else next(iter(reduction.valids), None)
    if source is None:
        source = empty_like(reduction.pixels, (1,), np.uint8)
    nothing = frame(source, axes=3, writable=True)
    oks = [frame(valid, axes=3, writable=True) for valid in reduction.valids]
    return nothing, oks or [nothing] * len(reduction.outs)


def level_shape(shape: tuple[int, ...], level: int) -> tuple[int, ...]:
    """Return the shape of a level: the last two axes halve, and round up."""
    return (*shape[:-2], *(-(-n // 2**level) for n in shape[-2:]))


def empty_level(a: Array, shape: tuple[int, ...]) -> Array:
    """Return an array for a level of `a`, with channels that lie together where they do in `a`."""
    channels = shape[-3] if len(shape) > 2 else 1
    movable = isinstance(a, np.ndarray) or hasattr(a, "permute")
    if channels == 1 or not movable or not is_interleaved(a):
        return empty_like(a, shape, dtype_of(a))
    order = (*range(len(shape) - 3), len(shape) - 1, len(shape) - 3, len(shape) - 2)
    made = empty_like(a, (*shape[:-3], shape[-2], shape[-1], channels), dtype_of(a))
    return made.transpose(order) if isinstance(made, np.ndarray) else made.permute(order)


def is_interleaved(a: Array) -> bool:
    """Return whether the channels of a pixel lie closer together than its neighbours."""
    _, _, (*_, channel_step, _, step) = frame(a)
    return len(a.shape) > 2 and abs(channel_step) < abs(step)


def jobs_of(reduction: Reduction) -> npt.NDArray[np.int64]:
    """Return the blocks of pixels that a reduction works on, without overlap, as `(n, 4)` int64."""
    images, _, height, width = reduction.shape
    edge = 2 ** len(reduction.outs)
    rows, columns = -(-height // edge), -(-width // edge)
    if reduction.boxes is None:
        y = np.arange(rows)
        runs = np.stack([y, np.zeros_like(y), np.full_like(y, columns)], axis=1)
    else:
        runs = _runs(reduction.boxes, rows, columns, edge)
    longest = max(1, TILE_PX * 16 // edge // edge)
    pieces = -(-(runs[:, 2] - runs[:, 1]) // longest)
    row = np.repeat(np.arange(len(runs)), pieces)
    first = np.repeat(np.cumsum(pieces) - pieces, pieces)
    x0 = runs[row, 1] + (np.arange(len(row)) - first) * longest
    x1 = np.minimum(x0 + longest, runs[row, 2])
    one = np.stack([np.zeros_like(x0), runs[row, 0] * edge, x0 * edge, np.minimum(x1 * edge, width)], axis=1)
    jobs = np.tile(one, (images, 1))
    jobs[:, 0] = np.repeat(np.arange(images), len(one))
    return jobs


def _runs(boxes: npt.NDArray[np.int64], rows: int, columns: int, edge: int) -> npt.NDArray[np.int64]:
    """Return the blocks that boxes touch as runs `(row, first column, column after the last)`, each block once."""
    low, high = boxes[:, :2] // edge, np.minimum(-(-boxes[:, 2:] // edge), (rows, columns))
    top, bottom = (int(low[:, 0].min()), int(high[:, 0].max())) if len(boxes) else (0, 0)
    touched = np.zeros((bottom - top, columns + 1), np.bool_)  # the last column ends the runs of each row
    for (y0, x0), (y1, x1) in zip((low - (top, 0)).tolist(), (high - (top, 0)).tolist(), strict=True):
        touched[y0:y1, x0:x1] = True
    flat = touched.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat.size and flat[0]:
        changes = np.concatenate([[0], changes])
    row = changes[::2] // (columns + 1)
    return np.stack(
        [row + top, changes[::2] - row * (columns + 1), changes[1::2] - row * (columns + 1)], axis=1
    )  # fmt: skip


def boxes_in(boxes: Sequence[Box], shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return what of each box lies in an array of this shape: `(k, 4)` first y, x and the ones after the last."""
    corners = np.array([(b.y, b.x, b.y + b.height, b.x + b.width) for b in boxes], np.int64).reshape(-1, 4)
    return _clipped(corners, shape)


def boxes_under(
    boxes: npt.NDArray[np.int64] | None, level: int, shape: tuple[int, ...], *, reach: int = 0
) -> npt.NDArray[np.int64] | None:
    """Return what changes at a coarser level when the pixels in boxes do.

    Parameters
    ----------
    boxes : ndarray of int64 or None
        `(k, 4)` as `boxes_in` returns them; None stands for everything.
    level : int
        How many levels coarser.
    shape : tuple of int
        Of that level; its last two axes are y and x.
    reach : int
        How many pixels of that level further a change is seen.

    Returns
    -------
    ndarray of int64 or None
        `(k, 4)` boxes of that level.
    """
    if boxes is None:
        return None
    found = np.concatenate([(boxes[:, :2] >> level) - reach, -(-boxes[:, 2:] >> level) + reach], axis=1)
    return _clipped(found, shape)


def _clipped(corners: npt.NDArray[np.int64], shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    height, width = shape[-2:]
    found = np.clip(corners, 0, (height, width, height, width))
    return found[(found[:, 0] < found[:, 2]) & (found[:, 1] < found[:, 3])]
