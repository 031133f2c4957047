"""Plans of tokens: squares of different sizes, each read with the same number of pixels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.grid import Ints, hilbert_index
from tilestream.plan.blocksread import pixels_of_blocks, stored_span
from tilestream.plan.selection import Selection
from tilestream.plan.tokenjson import Coordinates, squares_geojson
from tilestream.pyramid import Pyramid
from tilestream.types import ImageInfo, PlanLevel, Receipt, SuperTile

FORMAT = 1
"""Version of what a digest is made of; to be raised when the same arguments give other tokens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenPlan:
    """Which squares of one image are read, and at which level each; never an object a token."""

    image: str
    """Fingerprint and selection of the image."""
    base: PlanLevel
    """Resolution of level 0 of the plan; level 0 of the image unless another was asked for."""
    levels: tuple[PlanLevel, ...]
    """Resolution of each token level from 0 to the coarsest that has a token."""
    patch_px: int
    """Edge of a token as a stage sees it."""
    tokens: Ints
    """`(n, 4)`: level, y, x, size; corner and edge in pixels of `base`. A token's row here is its feature row: the
    coarsest level first, in it unit by unit and tile by tile, each row by row."""
    is_leaf: npt.NDArray[np.bool_]
    """`(n,)` whether the place of a token is covered by no finer one; all, unless nodes or levels were counted."""
    is_cut: bool = True
    """Whether the leaves cover all that is wanted, each place once; False where only the best places are read."""
    super_tile_px: int
    """Edge of a unit of work, pixels of the level that it lies on."""
    mpp_yx: tuple[float, float] | None = None
    """Micrometres per pixel of `base`."""
    where: str = "all"
    """What selected the part of the image that is wanted."""
    scores: npt.NDArray[np.float32]
    """`(n,)` mean relevance of each token's part inside the image; 1 without a relevance."""
    share: npt.NDArray[np.float32] | None = None
    """`(n,)` share of each token's part inside the image that `where` selected; None = all of it."""
    selection: Selection | None = None
    """The mask behind `share`, for outlines and reports; None with `all`."""
    notes: tuple[str, ...] = ()
    """What a user should know."""
    begin_at: float = 0.0
    """Share of the way along each level's curve at which `start` begins, for runs that share the work."""

    @cached_property
    def digest(self) -> str:
        """Return the hex digest of all that decides tokens, rows, units and what is known of them."""
        known = {
            "format": FORMAT,
            "image": self.image,
            "levels": [asdict(level) for level in self.levels],
            "patch_px": self.patch_px,
            "super_tile_px": self.super_tile_px,
            "where": self.where,
        }
        text = json.dumps(known, sort_keys=True, separators=(",", ":"), default=str)
        digest = blake2b(text.encode(), digest_size=16)
        digest.update(self.tokens.astype("<i8").tobytes())
        digest.update(np.packbits(self.is_leaf).tobytes())
        digest.update(self.scores.astype("<f4").tobytes())  # stored beside the features
        if self.share is not None:
            digest.update(self.share.astype("<f4").tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.tokens)

    @property
    def units(self) -> int:
        """Return the number of units."""
        return len(self._units)

    def level_of(self, depth: int) -> PlanLevel:
        """Return the resolution of the tokens of a level."""
        return self.levels[depth]

    def start(self) -> Iterator[SuperTile]:
        """Yield all units, the coarsest level first and each along a Hilbert curve."""
        depth, iy, ix = (self._units[:, column] for column in range(3))
        for level in np.unique(depth)[::-1].tolist():
            here = np.flatnonzero(depth == level)
            order = max(1, int(max(iy[here].max(), ix[here].max())).bit_length())
            curve = here[np.argsort(hilbert_index(iy[here], ix[here], order=order), kind="stable")]
            for number in np.roll(curve, -int(self.begin_at * len(curve))).tolist():
                yield self._unit(number)

    def after(self, receipt: Receipt) -> Iterable[SuperTile]:
        """Return nothing: all tokens are known from the start."""
        return ()

    def in_row_order(self) -> Iterator[SuperTile]:
        """Yield all units in the order of their rows."""
        return self.units_within(range(len(self)))

    def units_within(self, rows: range) -> Iterator[SuperTile]:
        """Yield the units that own some of the rows of a range, in the order of their rows."""
        first = np.searchsorted(self._units[:, 4], rows.start, side="right")
        for number in range(int(first), int(np.searchsorted(self._units[:, 3], rows.stop))):
            yield self._unit(number)

    def pixels_read(self, pyr: Pyramid) -> int:
        """Return how many stored pixels reading the tokens takes: those of all blocks that they touch, each once.

        Parameters
        ----------
        pyr : Pyramid
            The image.

        Returns
        -------
        int
            To be compared with `pyr.levels[0].shape.area`.
        """
        return sum(
            pixels_of_blocks(pyr.levels[stored], self.stored_boxes(stored))
            for stored in sorted({level.stored for level in self.levels})
        )

    def stored_boxes(self, stored: int) -> Ints:
        """Return what the tokens read of a stored level.

        Parameters
        ----------
        stored : int
            Number of the level.

        Returns
        -------
        ndarray of int64
            `(n, 4)`: first and last row, first and last column of each token that is read from there.
        """
        found = [np.empty((0, 4), np.int64)]
        for depth, level in enumerate(self.levels):
            if level.stored == stored:
                low = self.tokens[self.tokens[:, 0] == depth][:, 1:3] >> depth
                spans = [stored_span(low[:, axis], self.patch_px, level.ratio_yx[axis]) for axis in (0, 1)]
                found.append(np.concatenate(spans, axis=1))
        return np.concatenate(found)

    def to_geojson(self, info: ImageInfo, *, coordinates: Coordinates = "pixels") -> dict[str, Any]:
        """Return the tokens as squares that QuPath imports, or a GIS.

        Parameters
        ----------
        info : ImageInfo
            The image.
        coordinates : str
            `pixels` of level 0 as QuPath counts them, or `crs` of a georeferenced image.

        Returns
        -------
        dict
            A FeatureCollection for `json.dump`; see `tilestream.plan.tokenjson`.
        """
        level, y, x, size = self.tokens.T
        values = {"level": level, "relevance": self.scores, "opened": ~self.is_leaf}
        if self.share is not None:
            values["selected"] = self.share
        squares = np.column_stack([y, x, y + size, x + size]) * np.tile(self.base.scale_yx, 2)
        return squares_geojson(squares, values, info, digest=self.digest, coordinates=coordinates)

    def _unit(self, number: int) -> SuperTile:
        depth, iy, ix, first, stop = self._units[number].tolist()
        return SuperTile(
            plan=self.digest,
            level=self.level_of(depth),
            iy=iy,
            ix=ix,
            first_row=first,
            tile_yx=self.tokens[first:stop, 1:3] >> depth,
            tile_px=self.patch_px,
            share=None if self.share is None else self.share[first:stop],
            depth=depth,
            known={"relevance": self.scores[first:stop]},
        )

    @cached_property
    def _units(self) -> Ints:
        """Return level, place and first and last row of each unit, `(units, 5)` in the order of their rows."""
        places = unit_places(self.tokens, self.super_tile_px)
        changes = (places[1:] != places[:-1]).any(axis=1)
        first = np.flatnonzero(np.concatenate([np.ones(min(1, len(places)), np.bool_), changes]))
        return np.column_stack([places[first], first, np.append(first, len(places))[1:]])


def unit_places(tokens: Ints, super_tile_px: int) -> Ints:
    """Return in which unit each token lies: `(n, 3)` level, row and column.

    Parameters
    ----------
    tokens : ndarray of int64
        `(n, 4)`: level, y, x, size.
    super_tile_px : int
        Edge of a unit, pixels of its level.

    Returns
    -------
    ndarray of int64
        Places.
    """
    level = tokens[:, 0]
    return np.column_stack([level, *((tokens[:, axis] >> level) // super_tile_px for axis in (1, 2))])


def row_order(tokens: Ints, super_tile_px: int) -> Ints:
    """Return the order of tokens in a plan: the coarsest level first, unit by unit, in each row by row.

    Parameters
    ----------
    tokens : ndarray of int64
        `(n, 4)`: level, y, x, size.
    super_tile_px : int
        Edge of a unit, pixels of its level.

    Returns
    -------
    ndarray of int64
        `(n,)` positions.
    """
    level, iy, ix = unit_places(tokens, super_tile_px).T
    return np.lexsort((tokens[:, 2], tokens[:, 1], ix, iy, -level))
