"""The steps of a hierarchy above the tiles of one encoder: regions from grids of vectors, the slide from its regions.

A region enters its stage alone, so that its vector is a function of its own tiles: which other regions there are, and
who computes them when, does not change a bit of it. A bag enters its aggregator alone and whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tilestream.errors import ConfigError, StageError
from tilestream.models.gridparts import REGION, SLIDE, Mask, Part, make_part
from tilestream.registry import weights_digest
from tilestream.types import Array, Hierarchy, StageSpec


@dataclass(frozen=True, kw_only=True)
class StageChain:
    """The steps of a hierarchy above the vectors of one encoder's tiles; picklable, makes them where it is used."""

    dim: int
    """Length of a tile's vector."""
    region: StageSpec | None = None
    """Region stage; None = regions are pooled only."""
    slide: StageSpec | None = None
    """Aggregator; None = the mean."""
    region_dim: int | None = None
    """Length of a region's vector; None where regions are pooled only."""
    slide_dim: int = 0
    """Length of the slide's vector."""
    weights: tuple[str | None, str | None] = (None, None)
    """Digest of the weights of both, which are to be the same wherever and whenever they are used."""

    def of_region(self, grid: Array, mask: Mask) -> Array:
        """Return the vector of one region.

        Parameters
        ----------
        grid : ndarray of float32
            `(d, gh, gw)`.
        mask : ndarray of bool
            `(gh, gw)`.

        Returns
        -------
        ndarray of float32
            `(d',)`.

        Raises
        ------
        StageError
            When the stage raises, or gives a vector of another length than for an empty grid.
        """
        if self.region is None:
            raise StageError.of("region", got="no region stage", expected="one", do="Pool the tiles.")
        _require_weights(self.region, self.weights[0])
        part = make_part(REGION, self.region, dim=self.dim)
        return self._of_length(part(grid[None], mask[None])[0], self.region_dim, part)

    @property
    def of_slide(self) -> Callable[[Array], Array] | None:
        """Return what makes the slide's vector `(d',)` of a bag `(n, d)`; None for its mean."""
        return None if self.slide is None else self._aggregated

    def _aggregated(self, bag: Array) -> Array:
        aggregator = self.slide or StageSpec(target="mean")
        _require_weights(aggregator, self.weights[1])
        part = make_part(SLIDE, aggregator, dim=self.region_dim or self.dim)
        return self._of_length(part(bag[None], np.ones((1, len(bag)), np.bool_))[0], self.slide_dim, part)

    def _of_length(self, vector: Array, dim: int | None, part: Part) -> Array:
        if len(vector) == dim:
            return vector
        what = f"vector of the {part.kind.word} `{part.name}`"
        raise StageError.of(what, got=f"{len(vector)} values", expected=f"{dim}, as for zeros", do="Correct it.")


def chain_of(hierarchy: Hierarchy, *, dim: int, cells: int) -> StageChain | None:
    """Return the steps above the tiles, tried on zeros, so that what fits no tile is refused before the first.

    Parameters
    ----------
    hierarchy : Hierarchy
        The chain.
    dim : int
        Length of the tile stage's vectors.
    cells : int
        Edge of a region in tiles.

    Returns
    -------
    StageChain or None
        None where regions and slide are pooled only.

    Raises
    ------
    ConfigError
        When one of them cannot be made.
    StageError
        When one does not take what the one before it gives.
    """
    if hierarchy.region is None and hierarchy.slide is None:
        return None
    region_dim = None
    if hierarchy.region is not None:
        part = make_part(REGION, hierarchy.region, dim=dim)
        grid, mask = np.zeros((1, dim, cells, cells), np.float32), np.ones((1, cells, cells), np.bool_)
        region_dim = part(grid, mask).shape[1]
    slide_dim = last = region_dim or dim
    if hierarchy.slide is not None:
        aggregator = make_part(SLIDE, hierarchy.slide, dim=last)
        slide_dim = aggregator(np.zeros((1, 2, last), np.float32), np.ones((1, 2), np.bool_)).shape[1]
    digests = [None if spec is None else weights_digest(spec.params) for spec in (hierarchy.region, hierarchy.slide)]
    return StageChain(
        dim=dim,
        region=hierarchy.region,
        slide=hierarchy.slide,
        region_dim=region_dim,
        slide_dim=slide_dim,
        weights=(digests[0], digests[1]),
    )


def _require_weights(spec: StageSpec, digest: str | None) -> None:
    """Raise `ConfigError` when a stage has other weights than when it was planned with."""
    found = weights_digest(spec.params)
    if found != digest:
        raise ConfigError.of(
            f"weights of `{spec.target}`",
            got=f"digest {found}",
            expected=f"digest {digest}, which the run began with",
            do="Put the same file in its place on every machine, or start again.",
        )
