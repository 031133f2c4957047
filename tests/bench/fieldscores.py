"""How well a score map finds what is known to lie in an image, and what is read where it sends the eye."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.metrics import collect
from tilestream.pyramid import Pyramid
from tilestream.relevance import regrid
from tilestream.types import Box, ScoreMap

BUDGETS = (0.01, 0.05, 0.1, 0.2)
"""Shares of the tiles that are chosen."""

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What the best tiles of one score hold, at each of `BUDGETS`."""

    name: str
    """Of the score."""
    recall: tuple[float, ...]
    """Share of the area that was to be found which lies in the chosen tiles."""
    others: Mapping[str, tuple[float, ...]]
    """Share of the chosen area that is of another kind, such as pen, by kind."""
    rank: float
    """Median place, as a share of all tiles, of those that are to be found by half at least; 0.5 is chance."""

    @property
    def enrichment(self) -> tuple[float, ...]:
        """Return recall over budget: 1 is chance."""
        return tuple(recall / budget for recall, budget in zip(self.recall, BUDGETS, strict=True))


def tile_scores(found: ScoreMap, tile_px: int) -> Scores:
    """Return the mean score of each tile, `(y, x)`; -inf where nothing is known of it."""
    placed = regrid(found, (float(tile_px), float(tile_px)))
    return np.where(placed.valid, placed.values, -np.inf).astype(np.float64)


def chosen(scores: Scores, budget: float, wanted: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.bool_]:
    """Return which tiles are the best of those that may be chosen, `(y, x)`; of equal ones those further up.

    Parameters
    ----------
    scores : ndarray of float64
        `(y, x)`; -inf is chosen last.
    budget : float
        Share of the tiles that may be chosen, 0 to 1.
    wanted : ndarray of bool, optional
        Tiles that count at all; others are neither chosen nor counted.

    Returns
    -------
    ndarray of bool
        True for `round(budget * tiles)`, one at least.
    """
    counted = np.ones(scores.size, np.bool_) if wanted is None else wanted.ravel()
    count = max(1, round(budget * int(counted.sum())))
    order = np.argsort(np.where(counted, -scores.ravel(), np.inf), kind="stable")
    mask = np.zeros(scores.size, np.bool_)
    mask[order[:count]] = True
    return mask.reshape(scores.shape)


def judge(
    name: str,
    scores: Scores,
    target: npt.NDArray[np.float64],
    *,
    others: Mapping[str, npt.NDArray[np.float64]] | None = None,
    wanted: npt.NDArray[np.bool_] | None = None,
) -> Found:
    """Return how well scores find a target.

    Parameters
    ----------
    name : str
        Of the score.
    scores : ndarray of float64
        `(y, x)`, one a tile.
    target : ndarray of float64
        `(y, x)` share of each tile that is to be found.
    others : Mapping, optional
        Shares of other kinds, by name.
    wanted : ndarray of bool, optional
        Tiles that count.

    Returns
    -------
    Found
        At each of `BUDGETS`.
    """
    counted = np.ones(scores.shape, np.bool_) if wanted is None else wanted
    masks = [chosen(scores, budget, wanted) for budget in BUDGETS]
    order = np.argsort(np.where(counted, -scores, np.inf).ravel(), kind="stable")
    place = np.empty(scores.size)
    place[order] = (np.arange(scores.size) + 0.5) / counted.sum()
    total = float(target[counted].sum())
    return Found(
        name=name,
        recall=tuple(float(target[mask].sum()) / total for mask in masks),
        others={kind: tuple(float(share[mask].mean()) for mask in masks) for kind, share in (others or {}).items()},
        rank=float(np.median(place.reshape(scores.shape)[(target >= 0.5) & counted])),
    )


def judge_random(
    target: npt.NDArray[np.float64], *, seeds: int = 20, wanted: npt.NDArray[np.bool_] | None = None
) -> tuple[Found, tuple[float, ...]]:
    """Return the mean over seeds of what tiles drawn at random find, and the standard deviation of its recalls."""
    return _mean("random", [np.random.default_rng(seed).random(target.shape) for seed in range(seeds)], target, wanted)


def judge_even(
    target: npt.NDArray[np.float64], *, phases: int = 20, wanted: npt.NDArray[np.bool_] | None = None
) -> Found:
    """Return the mean over starts of what tiles spread evenly over the image find."""
    scores = [even_scores(target.shape, phase / phases) for phase in range(phases)]
    return _mean("even", scores, target, wanted)[0]


def _mean(
    name: str, scores: Sequence[Scores], target: npt.NDArray[np.float64], wanted: npt.NDArray[np.bool_] | None
) -> tuple[Found, tuple[float, ...]]:
    draws = [judge(name, one, target, wanted=wanted) for one in scores]
    recalls = np.array([draw.recall for draw in draws])
    rank = float(np.mean([draw.rank for draw in draws]))
    mean = Found(name=name, recall=tuple(recalls.mean(axis=0).tolist()), others={}, rank=rank)
    return mean, tuple(recalls.std(axis=0, ddof=1).tolist())


def even_scores(shape: tuple[int, ...], phase: float = 0.0) -> Scores:
    """Return scores that choose tiles evenly over a grid, whatever the budget: a Kronecker sequence in two dimensions.

    The score of tile (y, x) is the fractional part of y·a + x·b with the plastic number's a and b, whose best `k` are
    spread as evenly as any `k` (M. Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018).
    """
    plastic = 1.32471795724474602596
    y, x = np.indices(shape)
    scores: Scores = (phase + y / plastic + x / plastic**2) % 1.0
    return scores


def bytes_of(work: Callable[[], object]) -> int:
    """Return the bytes that came from the source while some work was done in this thread, with nothing cached."""
    with collect() as meter:
        work()
    return meter.counts.get("bytes_read", 0)


def read_tiles(pyr: Pyramid, mask: npt.NDArray[np.bool_], tile_px: int) -> int:
    """Read the tiles of level 0 that a mask names, one after the other, and return how many pixels those are."""
    area = 0
    for iy, ix in np.argwhere(mask):
        height, width = min(tile_px, pyr.info.shape.y - iy * tile_px), min(tile_px, pyr.info.shape.x - ix * tile_px)
        box = Box(y=int(iy) * tile_px, x=int(ix) * tile_px, height=int(height), width=int(width))
        area += pyr.read(box).shape[1] * box.width
    return area


def percents(shares: tuple[float, ...]) -> str:
    """Return shares as text: `1/20/99 %`."""
    return "/".join(f"{100 * share:.0f}" for share in shares) + " %"
