"""Fixations found in a score map: the best places, each keeping the next one at a distance."""

from __future__ import annotations

from math import ceil

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.fovea.degrees import positive
from tilestream.kernels.checks import need_kind, whole
from tilestream.types import ScoreMap

INHIBITION_SHARE = 1 / 6
"""Of an image's shorter edge: radius within which no second fixation is found unless the caller says otherwise (Itti,
Koch & Niebur 1998, IEEE PAMI 20:1254, §2.3)."""


def fixations_of(scores: ScoreMap, n: int, *, inhibition_px: float | None = None) -> tuple[tuple[float, float], ...]:
    """Return the places of a score map that one would look at, best first: peaks with inhibition of return.

    Parameters
    ----------
    scores : ScoreMap
        Such as how well each place answers a query.
    n : int
        Most fixations, at least 1.
    inhibition_px : float, optional
        Level-0 pixels: nothing this near to a fixation is looked at again. By default a sixth of the shorter edge.

    Returns
    -------
    tuple of pair of float
        y, x in level-0 pixels, centres of cells as far as those are in the image; fewer than `n` where no place is
        left. Of equal scores the one further up, then further left, goes first.

    Raises
    ------
    ConfigError
        When nothing in the map is valid, or a number is not positive.
    """
    need_kind("fixations_of", "scores", scores, ScoreMap, do="Let a `Relevance` make one: `relevance(pyramid)`.")
    n = whole("fixations_of", "n", n, least=1)
    if inhibition_px is None:
        inhibition_px = max(1.0, INHIBITION_SHARE * min(scores.shape.yx))
    radius_px = positive("inhibition_px", inhibition_px, "`fixations_of`")
    if not scores.valid.any():
        raise ConfigError.of(
            f"score map `{scores.name}`", got="no valid cell", expected="a place to look at",
            do="Name a fixation yourself, or score the image by something that it holds.",
        )  # fmt: skip
    left = np.where(scores.valid, scores.values, -np.inf).astype(np.float32)
    y_px, x_px = (
        _centres(count, cell, edge)
        for count, cell, edge in zip(left.shape, scores.cell_yx, scores.shape.yx, strict=True)
    )
    reach_y, reach_x = (ceil(radius_px / cell) for cell in scores.cell_yx)
    found: list[tuple[float, float]] = []
    while len(found) < n:
        y, x = divmod(int(np.argmax(left)), left.shape[1])
        if left[y, x] == -np.inf:
            break
        found.append((float(y_px[y]), float(x_px[x])))
        near = slice(max(0, y - reach_y), y + reach_y + 1), slice(max(0, x - reach_x), x + reach_x + 1)
        away = np.hypot((y_px[near[0]] - y_px[y])[:, None], x_px[near[1]] - x_px[x])
        left[near][away <= radius_px] = -np.inf
    return tuple(found)


def _centres(count: int, cell_px: float, edge_px: int) -> npt.NDArray[np.float64]:
    """Return the centres of what each cell along an axis has of the image."""
    first = np.arange(count) * cell_px
    return np.asarray((first + np.minimum(first + cell_px, edge_px)) / 2)
