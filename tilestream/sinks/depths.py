"""Tokens of several sizes in one store: the levels of their quadtree, and what each of them weighs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.types import Array, PlanLevel


@dataclass(frozen=True, kw_only=True)
class DepthFacts:
    """What a sink has to know of one level of a quadtree; the finest is number 0, and each next one half as fine."""

    level: PlanLevel
    """Resolution of its tokens."""
    tokens: int
    """Tokens of it in the plan."""
    leaves: int
    """Those whose place no finer ones have taken."""


def depth_facts(depth: DepthFacts) -> dict[str, Any]:
    """Return a level of a quadtree as JSON values; ratios as text such as `3/2`, since they are exact."""
    level = depth.level
    return {
        "level": level.stored,
        "ratio_yx": [str(ratio) for ratio in level.ratio_yx],
        "shape_yx": list(level.shape.yx),
        "scale_yx": list(level.scale_yx),
        "tokens": depth.tokens,
        "leaves": depth.leaves,
    }


def leaf_weights(
    depths: tuple[DepthFacts, ...], part: Mapping[str, Array], opened: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64] | None:
    """Return what each row of a part weighs in the mean of the slide, None where all of them weigh the same.

    Parameters
    ----------
    depths : tuple of DepthFacts
        Levels of the quadtree; none for tiles.
    part : Mapping
        Arrays of `parts.iter_parts`.
    opened : ndarray of bool
        `(n,)` rows whose place finer ones have taken: they weigh 0.

    Returns
    -------
    ndarray of float64 or None
        `(n,)` valid area in tokens of the finest level. Where all leaves are of one level each counts once, as tiles
        do, however much of it is valid.
    """
    if "depth" not in part:
        return None
    if sum(depth.leaves > 0 for depth in depths) > 1:
        area = part["scalar/valid"].astype(np.float64) * 4.0 ** int(part["depth"])
    else:
        area = np.ones(len(opened), np.float64)
    return np.where(opened, 0.0, area)
