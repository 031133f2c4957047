"""The vectors of a cohort's slides as bags: of their tiles, of their regions, or the one mean of each."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from tilestream.errors import ConfigError, DamagedError
from tilestream.sinks.rowsread import RowLayout, read_rows
from tilestream.sinks.storerecord import SUFFIX
from tilestream.sinks.tables import feature_dimension
from tilestream.types import Array, TileStatus

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

READERS = 4
"""Threads that decode the vectors of one slide."""
PIECE_ROWS = 2048
"""Fewest rows that are worth a thread of their own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TileBags:
    """The tiles of each slide that have a vector; read when they are wanted."""

    dataset: xr.Dataset
    """What `ts.open_cohort` returned."""
    encoder: str
    """Whose vectors."""

    @property
    def dim(self) -> int:
        """Return the length of a vector."""
        return int(self.dataset.sizes[feature_dimension(self.encoder)])

    @property
    def count(self) -> int:
        """Return the number of slides."""
        return int(self.dataset.sizes["slide"])

    def name(self, number: int) -> str:
        """Return the slide's path in the cohort."""
        return str(self.dataset["slide"].values[number])

    def size(self, number: int) -> int:
        """Return the number of tiles that have a vector."""
        return int(self._sizes[number])

    def read(self, number: int, chosen: Ints | None = None) -> Array:
        """Return the vectors of a slide, or those at some places among them."""
        start, stop = int(self._first[number]), int(self._first[number + 1])
        status = self.dataset.variables[f"{self.encoder}_status"][start:stop].values
        ok = np.flatnonzero(status == TileStatus.OK)
        if "opened" in self.dataset.variables:  # finer tokens have taken their place
            ok = ok[self.dataset.variables["opened"][start:stop].values[ok] == 0]
        if len(ok) != self.size(number):
            raise DamagedError(
                f"slide `{self.name(number)}`: {len(ok)} tiles with a vector, {self.size(number)} counted"
            )
        rows = start + (ok if chosen is None else ok[chosen])
        found = np.empty((len(rows), self.dim), np.float32)
        vectors = self.dataset.variables[self.encoder]
        pieces = np.array_split(np.arange(len(rows)), max(1, min(READERS, len(rows) // PIECE_ROWS)))

        def fill(own: Ints) -> None:
            if not len(own):
                return
            part = rows[own]
            is_run = int(part[-1] - part[0]) + 1 == len(part)  # a slice is read without an index of each row
            found[own[0] : own[-1] + 1] = vectors[slice(part[0], part[-1] + 1) if is_run else part].values

        if len(pieces) == 1:
            fill(pieces[0])
        else:
            with ThreadPoolExecutor(len(pieces)) as pool:
                list(pool.map(fill, pieces))
        return found

    def moments(self, number: int) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the vectors, as the store has them."""
        return self._moments[0][number], self._moments[1][number]

    @cached_property
    def _sizes(self) -> Ints:
        return np.asarray(self.dataset[f"{self.encoder}_n_ok"].values, np.int64)

    @cached_property
    def _first(self) -> Ints:
        return np.concatenate([[0], np.cumsum(self.dataset["n"].values, dtype=np.int64)])

    @cached_property
    def _moments(self) -> tuple[Floats, Floats]:
        mean, std = (self.dataset[f"{self.encoder}_{name}"].values.astype(np.float64) for name in ("mean", "std"))
        return mean, std


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldBags:
    """Bags that are small enough to be held: vectors of regions, or one mean a slide."""

    names: tuple[str, ...]
    """Name of each slide."""
    vectors: tuple[Array, ...]
    """`(n, d)` float32 of each slide."""
    spread: tuple[tuple[Floats, Floats], ...] = ()
    """Mean and standard deviation of each slide where they are not those of its vectors."""

    @property
    def dim(self) -> int:
        """Return the length of a vector."""
        return int(self.vectors[0].shape[1])

    @property
    def count(self) -> int:
        """Return the number of slides."""
        return len(self.vectors)

    def name(self, number: int) -> str:
        """Return the slide's path in the cohort."""
        return self.names[number]

    def size(self, number: int) -> int:
        """Return the number of vectors."""
        return len(self.vectors[number])

    def read(self, number: int, chosen: Ints | None = None) -> Array:
        """Return the vectors of a slide, or those at some places among them."""
        return self.vectors[number] if chosen is None else self.vectors[number][chosen]

    def moments(self, number: int) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the vectors."""
        if self.spread:
            return self.spread[number]
        vectors = self.vectors[number].astype(np.float64)
        return vectors.mean(0), vectors.std(0)


def mean_bags(bags: TileBags) -> HeldBags:
    """Return bags of one vector, the mean of a slide's tiles: all that an aggregator needs that begins with it.

    Parameters
    ----------
    bags : TileBags
        Their stores hold the means.

    Returns
    -------
    HeldBags
        With the spread of the tiles, so that a head trained on these is the same function of all tiles.
    """
    numbers = range(bags.count)
    spread = tuple(bags.moments(number) for number in numbers)
    names = tuple(map(bags.name, numbers))
    return HeldBags(names=names, vectors=tuple(mean[None].astype(np.float32) for mean, _ in spread), spread=spread)


def region_bags(root: Path, dataset: xr.Dataset, encoder: str) -> HeldBags:
    """Return the vectors of the regions of each slide that has tiles with one.

    Parameters
    ----------
    root : Path
        Folder of the stores.
    dataset : Dataset
        What `ts.open_cohort` returned.
    encoder : str
        Whose vectors.

    Returns
    -------
    HeldBags
        In memory: a slide has some dozens.

    Raises
    ------
    ConfigError
        When vectors of regions differ in length, or stores have none.
    """
    names = tuple(map(str, dataset["slide"].values))
    with ThreadPoolExecutor(2 * READERS) as pool:
        vectors = tuple(pool.map(lambda key: _regions(root / f"{key}{SUFFIX}", encoder), names))
    dims = sorted({one.shape[1] for one in vectors})
    if len(dims) > 1:
        raise ConfigError.of(
            f"regions of `{encoder}`",
            got=f"vectors of {' and '.join(map(str, dims))} values",
            expected="one length",
            do="Run `tilestream embed` with the same options on all slides.",
        )
    return HeldBags(names=names, vectors=vectors)


def _regions(store: Path, encoder: str) -> Array:
    nodes: dict[str, Any] = json.loads((store / "zarr.json").read_bytes())["consolidated_metadata"]["metadata"]
    path = f"region/{encoder}"
    if path not in nodes:
        raise ConfigError.of(
            f"`{store}`",
            got=f"no `{path}`",
            expected="vectors of regions",
            do="Make the store again, or `--level tile`.",
        )
    found = read_rows(store / path, RowLayout.of(nodes[path]))
    # NaN where no tile counts, and where a region stage has failed
    return np.ascontiguousarray(found[np.isfinite(found).all(axis=1)], np.float32)
