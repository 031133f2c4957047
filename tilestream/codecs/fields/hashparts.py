"""What a hash field is made of, and how a whole level of the picture changes it.

Level k is decoded with a table of its own, in which features that are finer than its pixels are means
(`hashlevels`), and with a first layer of its own:

    W'[:, l] = W[:, l] · w_l(k) · g_l(k),    b' = b + b(k)

with gains g of grid levels and shifts b of hidden units that are learned, but for level 0, where they are 1 and 0. w_l
is 1 where features are means. Elsewhere it is the share of a Gaussian as wide as a pixel that lies within a cell of the
grid, along both axes:

    w_l(k) = erf(1 / √(8 σ² s_l²))²,    σ = 2^k / (extent · √12)

and grid levels of less weight than `LEAST_WEIGHT` are not read at all. Between two whole levels values are linear. So
any level is one query of the same kernel, or two, at the price of level 0 a pixel.

Source: Barron et al., "Zip-NeRF", ICCV 2023, arXiv:2304.06706, for the weight along one axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tilestream.codecs.fields.hashlevels import level_tables
from tilestream.codecs.fields.probing import ProbedEntries
from tilestream.codecs.quantise import Lattice, Quantised
from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.mlp_layers import MlpLayers

LEAST_WEIGHT = 2.0**-9
NETWORK_BITS = 8
STEP = 0.125
"""Of codes of a table that is fitted with λ: its entries are then whole numbers of it."""


def footprint_weights(grid: HashGrid, *, level: int, extent_px: int) -> npt.NDArray[np.float32]:
    """Return w_l of every level of a grid.

    Parameters
    ----------
    grid : HashGrid
        That of the level, see `level_grid`.
    level : int
        Of the picture.
    extent_px : int
        Level-0 pixels that the grid spans.

    Returns
    -------
    ndarray of float32
        `(grid.levels,)`, each 0 to 1.
    """
    spread = 2.0**level / (extent_px * math.sqrt(12))
    cells = [max(1.0, float(scale)) for scale in grid.scales]
    found = np.array([math.erf(1 / math.sqrt(8 * (spread * n) ** 2)) ** 2 for n in cells], np.float32)
    if grid.capped is not None:
        found[grid.capped[0] :] = 1
    return found


@dataclass(frozen=True, kw_only=True)
class AtLevel:
    """What a whole level of the picture is decoded with."""

    grid: HashGrid
    """What the table holds."""
    table: npt.NDArray[np.float32]
    """`(grid.entries, grid.features)`."""
    network: npt.NDArray[np.float32]
    """`(layers.parameters,)`."""
    kept: int
    """Levels of the grid that are looked at, the coarsest first."""


@dataclass(frozen=True, kw_only=True)
class HashParts:
    """Table and network of a field, as numbers."""

    grid: HashGrid
    """What the table holds."""
    layers: MlpLayers
    """Sizes of the network: `grid.width` inputs, one output a channel; with biases."""
    extent_px: int
    """Level-0 pixels that the grid spans."""
    levels: int
    """Of the picture, for which there are gains and shifts but for the first."""
    table: npt.NDArray[np.float32]
    """`(grid.entries, grid.features)`."""
    network: npt.NDArray[np.float32]
    """`(n,)`: weights in the order of the kernel; then for each level of the picture from 1 on gains − 1 and shifts."""
    coded: tuple[Quantised, Quantised] | None = None
    """Codes whose values entries (see `by_group`) and network are; None where they were never quantised."""
    probed: ProbedEntries | None = None
    """What is stored where the table is one of learned probing; else the table itself is."""

    @property
    def stored_grid(self) -> HashGrid:
        """Return the grid of the entries that are stored."""
        return self.grid if self.probed is None else self.probed.grid.narrow

    @property
    def stored(self) -> npt.NDArray[np.float32]:
        """Return the entries that are stored, `(stored_grid.entries, features)`."""
        return self.table if self.probed is None else self.probed.entries

    def with_stored(self, entries: npt.NDArray[np.float32], choices: npt.NDArray[np.int16] | None = None) -> HashParts:
        """Return it with other entries, and choices where it is probed; never quantised."""
        if self.probed is None:
            return replace(self, table=entries, coded=None)
        probed = replace(self.probed, entries=entries, choices=self.probed.choices if choices is None else choices)
        return replace(self, table=probed.table(), probed=probed, coded=None)

    @cached_property
    def table_starts(self) -> tuple[int, ...]:
        """Return where each feature of each level begins among what `by_group` gives of what is stored."""
        return feature_starts(self.stored_grid)

    @cached_property
    def network_starts(self) -> tuple[int, ...]:
        """Return where each matrix, vector of biases, and gains and shifts of a level begin."""
        return network_starts(self.layers, self.grid.levels, self.levels)

    @cached_property
    def _at_levels(self) -> dict[int, AtLevel]:
        """Return what was made for levels before."""
        return {}

    def at_level(self, level: int) -> AtLevel:
        """Return what a whole level of the picture is decoded with; made once, and kept.

        Parameters
        ----------
        level : int
            At least 0; beyond the last one that was fitted gains and shifts are those of the last.

        Returns
        -------
        AtLevel
            Table and network.
        """
        if level not in self._at_levels:
            tables = level_tables(self.table, self.grid, levels=level + 1, extent_px=self.extent_px)
            for number, (grid, table) in enumerate(tables):
                self._at_levels[number] = self._made(number, grid, table)
        return self._at_levels[level]

    def _made(self, level: int, grid: HashGrid, table: npt.NDArray[np.float32]) -> AtLevel:
        weights = footprint_weights(grid, level=level, extent_px=self.extent_px)
        found = self.network[: self.layers.parameters].copy()
        inputs, hidden, start, bias = (int(number) for number in self.layers.layout[0, :4])
        columns = weights
        if level and self.levels > 1:
            rows = self.network[self.layers.parameters :].reshape(-1, grid.levels + hidden)
            row = rows[min(level, self.levels - 1) - 1]
            columns = weights * (1 + row[: grid.levels])
            found[bias : bias + hidden] += row[grid.levels :]
        found[start:bias].reshape(hidden, inputs)[...] *= np.repeat(columns, grid.features)
        kept = max(1, int((weights >= LEAST_WEIGHT).sum()))
        return AtLevel(grid=grid, table=table, network=found, kept=kept)


def level_parameters(grid_levels: int, hidden: int, levels: int) -> int:
    """Return how many gains and shifts a picture of so many levels has."""
    return (levels - 1) * (grid_levels + hidden)


def feature_starts(grid: HashGrid) -> tuple[int, ...]:
    """Return where each feature of each level begins when a table is laid out by `by_group`."""
    return tuple(
        first * grid.features + feature * size
        for first, size in zip(grid.offsets, grid.sizes, strict=False)
        for feature in range(grid.features)
    )


def feature_lattices(grid: HashGrid) -> tuple[Lattice, ...]:
    """Return rows and columns of each feature of each dense level in two dimensions, None for hashed ones."""
    return tuple(
        (resolution, resolution) if dense and grid.dims == 2 else None
        for resolution, dense in zip(grid.resolutions, grid.dense, strict=True)
        for _ in range(grid.features)
    )


def network_starts(layers: MlpLayers, grid_levels: int, levels: int) -> tuple[int, ...]:
    """Return where each matrix, vector of biases, and gains and shifts of a level begin."""
    starts = [int(start) for row in layers.layout for start in row[2:4]]
    width = grid_levels + layers.widths[1]
    for level in range(levels - 1):
        first = layers.parameters + level * width
        starts += [first, first + grid_levels]
    return tuple(starts)


def by_group(table: npt.NDArray[np.float32], grid: HashGrid) -> npt.NDArray[np.float32]:
    """Return a table as one run: level by level, in each feature by feature."""
    return np.concatenate([table[first:last].T.ravel() for first, last in _spans(grid)])


def from_groups(run: npt.NDArray[np.float32], grid: HashGrid) -> npt.NDArray[np.float32]:
    """Return the table whose run `by_group` gave."""
    table = np.empty((grid.entries, grid.features), np.float32)
    for first, last in _spans(grid):
        part = run[first * grid.features : last * grid.features]
        table[first:last] = part.reshape(grid.features, last - first).T
    return table


def _spans(grid: HashGrid) -> list[tuple[int, int]]:
    return list(zip(grid.offsets, grid.offsets[1:], strict=False))
