"""Vectors of regions and of the slide by the stages of a hierarchy, from the tiles' vectors as they come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from tilestream.errors import StageError
from tilestream.sinks.pooling import NewPooler, Pooler
from tilestream.types import Array, TileStatus

Mask: TypeAlias = npt.NDArray[np.bool_]
FAILED_CHARS = 200
"""Of a reason that is kept."""


class Chain(Protocol):
    """What a hierarchy has above the vectors of the tiles; picklable, computes where the store is written."""

    @property
    def region_dim(self) -> int | None:
        """Return the length of a region's vector, None where regions are pooled only."""

    @property
    def slide_dim(self) -> int:
        """Return the length of the slide's vector."""

    def of_region(self, grid: Array, mask: Mask) -> Array:
        """Return the vector `(d',)` of a region of `(d, gh, gw)` float32 and `mask` `(gh, gw)`; raise `StageError`."""

    @property
    def of_slide(self) -> Callable[[Array], Array] | None:
        """Return what makes `(d',)` of vectors `(n, d)` and raises `StageError`; None for their mean."""


@dataclass(frozen=True, kw_only=True)
class ChainVector:
    """A vector of a region or a slide, or why there is none."""

    vector: Array
    """`(d,)` float32; NaN where there is none."""
    status: TileStatus
    """`OK`; what its tiles are where none counts; `FAILED` where the stage is to blame."""
    reason: str = ""
    """What a stage that failed has said."""


class ChainRun:
    """One hierarchy on one image: takes regions in the order of the plan, then gives the slide.

    Parameters
    ----------
    chain : Chain
        The stages.
    new_pooler : callable
        Makes the pooler of a slide that is a mean.

    Notes
    -----
    Memory is one grid, and for an aggregator the vectors of its bag: regions, or tiles where regions are pooled only.
    """

    def __init__(self, chain: Chain, new_pooler: NewPooler) -> None:
        self.chain = chain
        self._pooler: Pooler | None = None
        self._bag: list[Array] = []
        self._regions = 0
        self._failed: dict[str, list[int]] = {}
        self._ok = 0
        if chain.of_slide is None:
            self._pooler = new_pooler(chain.slide_dim)

    def add_region(self, vectors: Array, cells: npt.NDArray[np.int64], status: Array, *, edge: int) -> ChainVector:
        """Return the vector of a region, which counts for the slide too.

        Parameters
        ----------
        vectors : ndarray of float32
            `(n, d)` of its tiles.
        cells : ndarray of int64
            `(n, 2)` row and column of each in the region.
        status : ndarray of uint8
            `(n,)` what became of each.
        edge : int
            Cells along the region; those outside the image are there, and do not count.

        Returns
        -------
        ChainVector
            Its vector.
        """
        row, self._regions = self._regions, self._regions + 1
        ok = status == TileStatus.OK
        mask = np.zeros((edge, edge), np.bool_)
        grid = np.zeros((vectors.shape[1], edge, edge), np.float32)
        y, x = cells[ok].T
        mask[y, x] = True
        grid[:, y, x] = vectors[ok].T
        if not mask.any():
            return self._nothing(self.chain.region_dim or 0, _without_one(status))
        found = _tried(lambda: self.chain.of_region(grid, mask), self.chain.region_dim or 0)
        if found.reason:
            self._failed.setdefault(found.reason, []).append(row)
        else:
            self._ok += 1
            self.add_rows(found.vector[None], np.ones(1, np.bool_))
        return found

    def add_rows(self, vectors: Array, ok: Mask) -> None:
        """Take rows of the slide's bag: `(n, d)` of which those count where `ok` holds."""
        if self._pooler is not None:
            self._pooler.add(vectors, ok)
        elif ok.any():
            self._bag.append(vectors[ok])

    @property
    def failed(self) -> dict[str, list[int]]:
        """Return the rows of regions on which the stage has failed by reason; all that came so far."""
        return self._failed

    @property
    def n(self) -> int:
        """Return the number of regions that came so far."""
        return self._regions

    @property
    def n_ok(self) -> int:
        """Return the number of regions that have a vector."""
        return self._ok

    def require_a_region(self) -> None:
        """Raise `StageError` when the stage has failed on every region that has a tile: then it is the stage."""
        if self._failed and not self._ok:
            reason = max(self._failed, key=lambda reason: len(self._failed[reason]))
            raise StageError.of(
                "every region that has a tile",
                got=f"{reason} ({len(self._failed[reason])} regions)",
                expected="vectors for some of them",
                do="Correct the region stage; then give --no-resume, or another --out.",
            )

    def slide(self) -> ChainVector:
        """Return the vector of the slide when all regions, or rows, were added."""
        if self._pooler is not None:
            vector = next(iter(self._pooler.result().values()))
            return ChainVector(vector=vector, status=TileStatus.EMPTY if np.isnan(vector).all() else TileStatus.OK)
        of_slide = self.chain.of_slide
        if of_slide is None or not self._bag:
            return self._nothing(self.chain.slide_dim, TileStatus.EMPTY)
        bag = np.concatenate(self._bag)
        return _tried(lambda: of_slide(bag), self.chain.slide_dim)

    def _nothing(self, dim: int, status: TileStatus) -> ChainVector:
        return ChainVector(vector=np.full(dim, np.nan, np.float32), status=status)


def _tried(make: Callable[[], Array], dim: int) -> ChainVector:
    """Return what a stage makes, or what it says when it fails; values that are not finite are a failure."""
    reason = "values that are not finite"
    try:
        vector = make()
    except StageError as error:
        vector, reason = np.full(dim, np.nan, np.float32), _line(error)
    if np.isfinite(vector).all():
        return ChainVector(vector=vector, status=TileStatus.OK)
    return ChainVector(vector=np.full(dim, np.nan, np.float32), status=TileStatus.FAILED, reason=reason)


def _line(error: StageError) -> str:
    line = " ".join(str(error).partition(". ")[0].split())
    return line if len(line) <= FAILED_CHARS else line[: FAILED_CHARS - 1] + "…"


def _without_one(status: Array) -> TileStatus:
    """Return the status of a region without a tile that counts: the worst that its tiles have met."""
    for kind in (TileStatus.FAILED, TileStatus.DAMAGED):
        if (status == kind).any():
            return kind
    return TileStatus.EMPTY
