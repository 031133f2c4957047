"""The foveated quadtree: which squares are read from which level, around where one looks.

A node of level l, which covers patch_px · 2^l level-0 pixels, is split while L(e) < l at its point nearest to a
fixation, with L of `tilestream.kernels.fovea`: e < e0 · (2^l - 1). Any other law that rises with e is given as the
radius at which it reaches each level. Computed in float64 on the host, level by level on the nodes that are reached
only, so the cost is that of the tokens and not of the image.

Hysteresis: a node that was split stays so while L < l + 0.25, one that was not is split when L < l - 0.25.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need, need_kind, number_of, whole, whole_pair
from tilestream.kernels.fovea import HYSTERESIS

_PAIRS = 1 << 20
"""Nodes × fixations looked at together."""


def _inverse_linear(level: float) -> float:
    return float(2.0**level - 1)


def fovea_tokens(
    fixations: npt.NDArray[np.floating],
    size_px: tuple[int, int],
    *,
    e0_px: float,
    patch_px: int,
    max_level: int,
    previous: npt.NDArray[np.int64] | None = None,
    hysteresis: float = HYSTERESIS,
    reach: Callable[[float], float] = _inverse_linear,
) -> npt.NDArray[np.int64]:
    """Return the tokens of an image seen from fixations: no more detail anywhere than L(e) asks for.

    Parameters
    ----------
    fixations : ndarray of float32 or float64
        `(n, 2)`: y, x in level-0 pixels; finite.
    size_px : tuple of int
        Height and width of the image.
    e0_px : float
        Radius of the fovea: eccentricity at which the level is 1.
    patch_px : int
        Edge of a token at level 0.
    max_level : int
        Coarsest level, that of the roots.
    previous : ndarray of int64, optional
        What an earlier call returned for the same image, patch and coarsest level.
    hysteresis : float
        In levels, less than 1.
    reach : callable
        Eccentricity, in units of `e0_px`, at which L is a level above 0; rises with it. By default 2^l - 1.

    Returns
    -------
    ndarray of int64
        `(n, 4)`: level, y, x, size in level-0 pixels; coarsest first, row by row. They tile the image once; those at
        the edges may reach out of it.

    Raises
    ------
    ConfigError
        When the fixations are not as described or a number is out of range.
    """
    _check(fixations, size_px, e0_px, patch_px, max_level, previous, hysteresis)
    points = np.asarray(fixations, np.float64)
    cells = [
        (-(-size_px[0] // (patch_px << level)), -(-size_px[1] // (patch_px << level))) for level in range(max_level + 1)
    ]
    y, x = (axis.ravel() for axis in np.indices(cells[-1], np.int64))
    found = []
    for level in range(max_level, -1, -1):
        edge_px = patch_px << level
        split = np.zeros(len(y), np.bool_)
        if level:
            least, most = (e0_px * reach(level + sign * hysteresis) for sign in (-1, 1))
            e = _eccentricity(points, y * edge_px, x * edge_px, edge_px)
            if previous is None:
                split = e < e0_px * reach(level)
            else:
                split = np.where(_was_split(previous, level, edge_px, y, x), e < most, e < least)
        leaf = np.column_stack([np.full(len(y), level), y * edge_px, x * edge_px, np.full(len(y), edge_px)])
        found.append(leaf[~split])
        y, x = _children(y[split], x[split], cells[level - 1])
    return np.concatenate(found).astype(np.int64, copy=False)


def _children(
    y: npt.NDArray[np.int64], x: npt.NDArray[np.int64], cells: tuple[int, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the children that exist, row by row."""
    y = (2 * y[:, None] + np.array([0, 0, 1, 1])).ravel()
    x = (2 * x[:, None] + np.array([0, 1, 0, 1])).ravel()
    inside = (y < cells[0]) & (x < cells[1])
    y, x = y[inside], x[inside]
    order = np.lexsort((x, y))
    return y[order], x[order]


def _eccentricity(
    points: npt.NDArray[np.float64], y: npt.NDArray[np.int64], x: npt.NDArray[np.int64], edge_px: int
) -> npt.NDArray[np.float64]:
    """Return the distance of squares from the nearest fixation."""
    found = np.empty(len(y))
    step = max(1, _PAIRS // len(points))
    for start in range(0, len(y), step):
        part = slice(start, start + step)
        dy = np.maximum(np.maximum(y[part, None] - points[:, 0], points[:, 0] - (y[part, None] + edge_px)), 0)
        dx = np.maximum(np.maximum(x[part, None] - points[:, 1], points[:, 1] - (x[part, None] + edge_px)), 0)
        found[part] = np.hypot(dy, dx).min(axis=1)
    return found


def _was_split(
    previous: npt.NDArray[np.int64], level: int, edge_px: int, y: npt.NDArray[np.int64], x: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Return which nodes had finer tokens inside."""
    finer = previous[previous[:, 0] < level]
    key = (finer[:, 1] // edge_px << 31) | finer[:, 2] // edge_px
    return np.isin((y << 31) | x, key)


def _check(
    fixations: npt.NDArray[np.floating],
    size_px: tuple[int, int],
    e0_px: float,
    patch_px: int,
    max_level: int,
    previous: npt.NDArray[np.int64] | None,
    hysteresis: float,
) -> None:
    if not isinstance(fixations, np.ndarray):
        raise ConfigError.of(
            "`fixations` of `fovea_tokens`", got=type(fixations).__name__, expected="a NumPy array of (n, 2)",
            do="Move it to the host: the tree is made there.",
        )  # fmt: skip
    need("fovea_tokens", "fixations", fixations, dtypes=("float32", "float64"), ndim=2, finite=True)
    need("fovea_tokens", "fixations", fixations, dtypes=(fixations.dtype.name,), shape=(len(fixations), 2))
    name = "fovea_tokens"
    whole_pair(name, "size_px", size_px, least=1)
    whole(name, "patch_px", patch_px, least=1, most=2**31)
    whole(name, "max_level", max_level, least=0, most=40)
    number_of(name, "e0_px", e0_px)
    number_of(name, "hysteresis", hysteresis)
    if previous is not None:
        need_kind(name, "previous", previous, np.ndarray, do="Use an earlier result.")
    need("fovea_tokens", "previous", previous, dtypes=("int64",), ndim=2)
    ranges = (("e0_px", e0_px, np.nextafter(0, 1), 1e30), ("hysteresis", hysteresis, 0, 1))
    for name, number, least, most in ranges:
        if not least <= number <= most:
            expected = f"from {least:g} to {most:g}"
            raise ConfigError.of(f"`{name}` of `fovea_tokens`", got=number, expected=expected, do="Correct it.")
