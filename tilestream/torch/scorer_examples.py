"""What a scorer is trained on: tiles, or bags of them with a closer look at a few, and what is held out of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.models.scorer import LEAST_PX

Tiles: TypeAlias = npt.NDArray[Any]
Look: TypeAlias = Callable[[npt.NDArray[np.int64]], npt.NDArray[Any]]
"""Returns the closer look at tiles of a bag, by their numbers `(k,)` in ascending order."""
SEEN = 4096
"""Most tiles by which samples are standardised."""
LEAST_GROUPS = 5
"""Images from which on whole ones are held out."""


class Bag(Protocol):
    """One image in training; what is in a store is read whenever it is asked for."""

    @property
    def tiles(self) -> Tiles:
        """Return `(n, d)` vectors or `(n, c, h, w)` pixels of all tiles of a coarse level."""

    @property
    def look(self) -> Look | None:
        """Return what decodes the tiles that are chosen; None = what the scorer sees is all there is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ScorerBag:
    """One image in training: what the scorer sees of all tiles, and how to look at a few of them closely."""

    tiles: npt.NDArray[Any]
    """`(n, d)` vectors or `(n, c, h, w)` pixels, of a coarse level."""
    look: Look | None = None
    """Decodes what is chosen, `(k, d')` or `(k, c, h', w')`; None = what the scorer sees is all there is."""


def moments(samples: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and standard deviation of each value of vectors, or of each channel of pixels."""
    axes = (0,) if samples.ndim == 2 else (0, 2, 3)
    return samples.mean(axes, dtype=np.float64), samples.std(axes, dtype=np.float64)


def held_out_of(
    classes: npt.NDArray[Any], share: float, *, seed: int, groups: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.bool_]:
    """Return what is not learned from.

    Parameters
    ----------
    classes : ndarray
        `(n,)` class of each example.
    share : float
        How much of each class is held out; of a class with less than two examples nothing is.
    seed : int
        What the choice follows from.
    groups : ndarray of int64, optional
        `(n,)` image of each tile; of five images or more whole ones are held out, since tiles of one image are alike.

    Returns
    -------
    ndarray of bool
        `(n,)`.
    """
    held = np.zeros(len(classes), np.bool_)
    names = np.unique(classes if groups is None else groups)
    if groups is not None and len(names) >= LEAST_GROUPS:
        left_out = np.random.default_rng((seed, 1)).permutation(names)[: max(1, round(len(names) * share))]
        held = np.isin(groups, left_out) if share else held
        if all(len(np.unique(classes[part])) == len(np.unique(classes)) for part in (held, ~held)):
            return held
        held = np.zeros(len(classes), np.bool_)
    for number, name in enumerate(np.unique(classes)):
        rows = np.random.default_rng((seed, 1, number)).permutation(np.flatnonzero(classes == name))
        held[rows[: min(round(len(rows) * share), len(rows) - 1)]] = True
    return held


def spread_over(tiles: Tiles, most: int) -> Tiles:
    """Return at most so many tiles, evenly spread over all of them."""
    return np.asarray(tiles[np.linspace(0, len(tiles) - 1, min(len(tiles), most)).astype(np.int64)])


def some_of(bags: Sequence[Bag]) -> Tiles:
    """Return tiles spread over all bags, to learn of what kind they are."""
    each = max(1, SEEN // len(bags))
    return np.concatenate([spread_over(bag.tiles, each) for bag in bags])


def require_tiles(tiles: Tiles, labels: npt.NDArray[np.float32]) -> None:
    """Raise `ConfigError` unless tiles and labels of their own belong together, and there are two kinds."""
    _require_samples(tiles)
    if labels.shape != (len(tiles),) or not np.isfinite(labels).all() or labels.min() < 0 or labels.max() > 1:
        raise _refused(f"labels {labels.shape}", f"({len(tiles)},) shares in 0 to 1, one a tile")
    if (labels > 0.5).all() or not (labels > 0.5).any():
        raise _refused("labels of one kind only", "tiles that matter, and tiles that do not")


def require_bags(bags: Sequence[Bag], labels: npt.NDArray[np.int64]) -> None:
    """Raise `ConfigError` unless bags and labels belong together, and there are two classes."""
    kinds = set()
    for bag in bags:
        tiles = bag.tiles
        _require_samples(tiles)
        kinds.add((tiles.shape[1:], str(tiles.dtype)))
    if labels.shape != (len(bags),) or len(np.unique(labels)) < 2 or labels.min() < 0:
        raise _refused(
            f"labels {labels.tolist()[:8]} for {len(bags)} bags", "one a bag, from 0, of at least two classes"
        )
    if len(kinds) > 1:
        raise _refused(f"bags of {sorted(map(str, kinds))}", "tiles of one shape and type")


def _require_samples(tiles: Tiles) -> None:
    is_vectors, is_pixels = tiles.ndim == 2, tiles.ndim == 4
    if len(tiles) and (is_vectors or (is_pixels and tiles.shape[2] == tiles.shape[3] >= LEAST_PX)):
        if tiles.dtype.kind != "f" or np.isfinite(tiles).all():
            return
        raise _refused("values that are not finite", "finite ones")
    raise _refused(
        f"{tiles.dtype} {tiles.shape}", f"(n, d) vectors, or (n, c, px, px) pixels of at least {LEAST_PX} px"
    )


def _refused(got: str, expected: str) -> ConfigError:
    return ConfigError.of("tiles to train a scorer on", got=got, expected=expected, do="Correct them.")
