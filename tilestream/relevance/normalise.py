"""Scores of any unit in 0 to 1, by image, so that terms can be added up.

    robust    s(x) = 1 / (1 + exp(−(x − median) / (upper quartile − lower quartile)));
              with a floor f: (s(x) − s(f)) / (1 − s(f)), and 0 below it
    rank      (rank − ½) / n, equal values sharing the mean of their ranks
    none      as they are; refused outside 0 to 1

Of valid cells alone. Most of a slide is glass: median and quartiles of all cells would be those of glass, the distance
of its quartiles would be noise, and every piece of tissue would lie so many of these distances away that all come out
as 1. So a map states the value up to which there is nothing to see, its `floor`, and cells up to it have no part in
median, quartiles and ranks and become 0: nothing to see is not relevant. A map of which no cell exceeds the floor, an
empty slide, is 0 everywhere. A map of one value and no floor is ½.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.types import ScoreMap

Normalisation: TypeAlias = Literal["robust", "rank", "none"]

ROUNDING = 1e-6
"""Share of the largest value below which a difference is rounding of float32."""

_MOST = 40.0
"""Distances from the median beyond which the sigmoid is 0 or 1."""

Values = npt.NDArray[np.float64]


def check_normalisation(how: str) -> None:
    """Raise `ConfigError` for the name of no normalisation."""
    if how not in get_args(Normalisation):
        raise ConfigError.of(
            "`normalise`", got=repr(how), expected=" or ".join(map(repr, get_args(Normalisation))),
            do="Choose one of them.",
        )  # fmt: skip


def normalised(scores: ScoreMap, how: Normalisation) -> npt.NDArray[np.float32]:
    """Return the values of a map in 0 to 1.

    Parameters
    ----------
    scores : ScoreMap
        The map; one that is `absolute` stays as it is.
    how : {"robust", "rank", "none"}
        See the top of this file.

    Returns
    -------
    ndarray of float32
        `(y, x)`, 0 where not valid.

    Raises
    ------
    ConfigError
        When values that nothing is to normalise lie outside 0 to 1.
    """
    out = np.zeros(scores.values.shape, np.float32)
    known = scores.values[scores.valid].astype(np.float64)
    if known.size:
        out[scores.valid] = _as_is(scores.name, known) if scores.absolute or how == "none" else _BY_NAME[how](
            known, scores.floor
        )  # fmt: skip
    return out


def _as_is(name: str, known: Values) -> Values:
    low, high = known.min(), known.max()
    if low < 0 or high > 1:
        raise ConfigError.of(
            f"score map `{name}`", got=f"values from {low:g} to {high:g} that are not normalised",
            expected="values in 0 to 1", do="Normalise them: `normalise='robust'` or `normalise='rank'`.",
        )  # fmt: skip
    return known


def _robust(known: Values, floor: float | None) -> Values:
    crowd = known if floor is None else known[known > floor]
    if not crowd.size:
        return np.zeros_like(known)
    least = ROUNDING * float(np.abs(known).max())
    low, median, high = np.percentile(crowd, (25, 50, 75))
    scale = float(high - low)
    if scale <= least:  # more than half of the cells are alike: measure by those that are not
        away = np.abs(known - median)
        away = away[away > least]
        if not away.size:
            return np.full_like(known, 0.5)
        scale = float(np.median(away))

    def sigmoid(values: Any) -> Values:
        return np.asarray(1 / (1 + np.exp(-np.clip((values - median) / scale, -_MOST, _MOST))))

    if floor is None:
        return sigmoid(known)
    least = float(sigmoid(floor))
    return np.where(known > floor, (sigmoid(known) - least) / (1 - least), 0)


def _rank(known: Values, floor: float | None) -> Values:
    crowd = known if floor is None else known[known > floor]
    if not crowd.size:
        return np.zeros_like(known)
    values, counts = np.unique(crowd, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / crowd.size
    at = np.searchsorted(values, known)
    found = at < values.size
    ranks = np.zeros_like(known)
    same = found & (values[np.minimum(at, values.size - 1)] == known)
    ranks[same] = middle[at[same]]
    return ranks


_BY_NAME: dict[str, Any] = {"robust": _robust, "rank": _rank}
