"""The regions of a cohort as grids of vectors, for the training of a second stage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from tilestream.errors import ConfigError
from tilestream.sinks.facts import stored_cells
from tilestream.sinks.storerecord import SUFFIX
from tilestream.sinks.tables import feature_dimension
from tilestream.torch.bags import require_finite
from tilestream.types import Array, TileStatus

Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Regions:
    """Which tiles lie where in the regions of a cohort; a few bytes a tile."""

    first: Ints
    """`(regions + 1,)` place of each region's first tile in the arrays below."""
    row: Ints
    """`(tiles,)` position of each tile along `tile`, ascending in a region."""
    cell: npt.NDArray[np.uint16]
    """`(tiles,)` place of each tile in its region, row by row."""
    slide: Ints
    """`(regions,)` number of the slide."""
    left_out: int
    """Regions with too few tiles."""

    @property
    def count(self) -> int:
        """Return the number of regions."""
        return len(self.slide)


class StoredGrids:
    """Feature grids, read when they are wanted and kept as far as they fit.

    Parameters
    ----------
    dataset : Dataset
        What `ts.open_cohort` returned.
    encoder : str
        Whose vectors.
    regions : Regions
        Where they lie.
    cells : int
        Edge of a region in tiles.
    keep_bytes : int
        Memory for vectors that are not read again.
    """

    def __init__(self, dataset: xr.Dataset, *, encoder: str, regions: Regions, cells: int, keep_bytes: int) -> None:
        self._vectors = dataset.variables[encoder]
        self._names = dataset["slide"].values
        self._regions = regions
        self._cells = cells
        self._left_bytes = keep_bytes
        self._kept: dict[int, Array] = {}
        self.dim = int(dataset.sizes[feature_dimension(encoder)])
        self.count = regions.count

    def read(self, numbers: Ints) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return grids `[n, d, cells, cells]` and mask `[n, cells, cells]` of regions."""
        regions, cells = self._regions, self._cells
        found = self._tiles([int(number) for number in numbers])
        grids = np.zeros((len(numbers), cells * cells, self.dim), np.float32)
        mask = np.zeros((len(numbers), cells * cells), np.bool_)
        for place, number in enumerate(numbers):
            own = slice(regions.first[number], regions.first[number + 1])
            grids[place, regions.cell[own]] = found[int(number)]
            mask[place, regions.cell[own]] = True
        shaped = grids.transpose(0, 2, 1).reshape(len(numbers), self.dim, cells, cells)
        return np.ascontiguousarray(shaped), mask.reshape(len(numbers), cells, cells)

    def _tiles(self, numbers: list[int]) -> Mapping[int, Array]:
        """Return the vectors of the tiles of regions; all that are not kept are read at once, stores side by side."""
        regions = self._regions
        missing = sorted(set(numbers) - set(self._kept))
        rows = [regions.row[regions.first[number] : regions.first[number + 1]] for number in missing]
        found = {number: self._kept[number] for number in numbers if number in self._kept}
        if not missing:
            return found
        # one region after the other, but rows of two regions of a store may lie between each other
        at = np.concatenate(rows)
        ascending, back = np.unique(at, return_inverse=True)
        vectors = np.asarray(self._vectors[ascending].values, np.float32)[back]
        done = 0
        for number, own in zip(missing, rows, strict=True):
            part = np.ascontiguousarray(vectors[done : done + len(own)])
            done += len(own)
            require_finite(part, str(self._names[regions.slide[number]]))
            found[number] = part
            if part.nbytes <= self._left_bytes:
                self._kept[number] = part
                self._left_bytes -= part.nbytes
        return found


def find_regions(root: Path, dataset: xr.Dataset, encoder: str, *, cells: int, least_share: float) -> Regions:
    """Return the regions of a cohort's slides: squares of tiles on the grid that each was cut in.

    Parameters
    ----------
    root : Path
        Folder of the stores.
    dataset : Dataset
        What `ts.open_cohort` returned.
    encoder : str
        Whose vectors.
    cells : int
        Edge of a region in tiles.
    least_share : float
        Share of its cells that must have a vector.

    Returns
    -------
    Regions
        In the order of slides, row by row.

    Raises
    ------
    ConfigError
        When none is left, or tiles of a store overlap.
    """
    edges = np.concatenate([[0], np.cumsum(dataset["n"].values, dtype=np.int64)])
    rows, cell, first, slides, left_out = [], [], [0], [], 0
    for number, key in enumerate(map(str, dataset["slide"].values)):
        own = slice(int(edges[number]), int(edges[number + 1]))
        status = dataset.variables[f"{encoder}_status"][own].values
        ok = np.flatnonzero(status == TileStatus.OK)
        cells_yx = _cells(root / f"{key}{SUFFIX}", dataset, own)[ok]
        squares, of = np.unique(cells_yx // cells, axis=0, return_inverse=True)
        inside = cells_yx % cells
        order = np.argsort(of.ravel(), kind="stable")
        ends = np.cumsum(np.bincount(of.ravel(), minlength=len(squares)))
        for members in np.split(order, ends[:-1]):
            if not len(members) or len(members) < least_share * cells * cells:
                left_out += len(members) > 0
                continue
            rows.append(own.start + ok[members])
            cell.append((inside[members, 0] * cells + inside[members, 1]).astype(np.uint16))
            slides.append(number)
            first.append(first[-1] + len(members))
    if not slides:
        raise ConfigError.of(
            f"regions of {cells} x {cells} tiles in `{root}`",
            got=f"none with vectors in {least_share:.0%} of its cells; {left_out} with fewer",
            expected="some to learn from",
            do="Take a lower --least-share, smaller --region-tiles, or more slides.",
        )
    return Regions(
        first=np.array(first, np.int64),
        row=np.concatenate(rows),
        cell=np.concatenate(cell),
        slide=np.array(slides, np.int64),
        left_out=left_out,
    )


def _cells(store: Path, dataset: xr.Dataset, own: slice) -> Ints:
    """Return the place of each tile in the grid of tiles of its plan, `(n, 2)`."""
    plan: dict[str, Any] = json.loads((store / "zarr.json").read_bytes())["attributes"]["plan"]
    if plan["step_px"] != plan["tile_px"]:
        raise ConfigError.of(
            f"tiles of `{store}`",
            got=f"{plan['tile_px']} px at every {plan['step_px']} px",
            expected="tiles side by side",
            do="Run `tilestream embed` without overlapping tiles.",
        )
    if plan.get("depths"):
        raise ConfigError.of(
            f"tiles of `{store}`",
            got="tiles of several sizes, since a budget has decided what was read",
            expected="tiles side by side, of which regions are squares",
            do="Embed the slide without --budget, or move the store away.",
        )
    if plan.get("listed"):
        raise ConfigError.of(
            f"tiles of `{store}`",
            got="patches that lie on no common grid",
            expected="tiles side by side, of which regions are squares",
            do="Embed the slide without --where FILE, or move the store away.",
        )
    px = np.stack([dataset.variables[name][own].values for name in "yx"], 1)
    return stored_cells(px / np.array(plan["scale_yx"]), plan)
