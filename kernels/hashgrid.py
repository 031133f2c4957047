"""The multiresolution hash grid of Instant-NGP as a record: which vertices each level has and where they are stored.

    s_l = 2^(l · log2 b) · N_min − 1        scale: the − 1 makes N_min count vertices
    R_l = ceil(s_l) + 1                     vertices along an axis
    size_l = min(next_multiple(R_l^d, 8), 2^T)      entries, F features each
    dense_l = R_l^d ≤ size_l                stored one to one; else by hash

Scales are float32, as in tiny-cuda-nn: a level lies where float32 puts it, also where ceil is sensitive to that.

Source: Müller, Evans, Schied, Keller, "Instant neural graphics primitives", ACM TOG 41(4), 2022,
doi:10.1145/3528223.3530127; the exact rules are those of NVlabs/tiny-cuda-nn, encodings/grid.h at 6ee3546.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError

ALIGNED_ENTRIES = 8
MAX_LOG2_TABLE = 30
"""Entries of a level are counted in 32 bits."""
MAX_RESOLUTION = 2**30
"""Vertices along an axis are counted in 32 bits, signed."""


@dataclass(frozen=True, kw_only=True)
class HashGrid:
    """Levels of vertices over the unit square or cube, each with features at its vertices."""

    levels: int = 16
    """L."""
    features: int = 2
    """F, of an entry."""
    log2_table: int = 19
    """T: binary logarithm of the most entries of a level."""
    n_min: int = 16
    """Vertices along an axis of the coarsest level."""
    growth: float = 2.0
    """b, from one level to the next."""
    dims: int = 2
    """2: coordinates are x, y; 3: x, y, z."""
    capped: tuple[int, float, int] | None = None
    """First level of those, to the finest, that all have one scale and so many vertices along an axis, and these two:
    what finer levels are reduced to for a coarser image."""

    def __post_init__(self) -> None:
        checks: tuple[tuple[str, object, bool, str], ...] = (
            ("levels", self.levels, self.levels >= 1, "at least 1"),
            ("features", self.features, self.features >= 1, "at least 1"),
            ("log2_table", self.log2_table, 3 <= self.log2_table <= MAX_LOG2_TABLE, f"3 to {MAX_LOG2_TABLE}"),
            ("n_min", self.n_min, self.n_min >= 2, "at least 2"),
            ("growth", self.growth, math.isfinite(self.growth) and self.growth >= 1, "a number of at least 1"),
            ("dims", self.dims, self.dims in (2, 3), "2 or 3"),
        )
        if self.capped is not None:
            first, scale, vertices = self.capped
            good = 0 <= first < self.levels and 0 < scale < MAX_RESOLUTION and 2 <= vertices <= MAX_RESOLUTION
            checks += (("capped", self.capped, good, "a level, a positive scale, and at least 2 vertices"),)
        for name, got, good, expected in checks:
            if not good:
                raise ConfigError.of(f"`{name}` of `HashGrid`", got=got, expected=expected, do="Choose another.")
        finest = self.n_min * self.growth ** (self.levels - 1)
        if finest > MAX_RESOLUTION:
            raise ConfigError.of(
                "`HashGrid`",
                got=f"{finest:.3g} vertices along an axis of the finest level",
                expected=f"at most {MAX_RESOLUTION:,}",
                do="Use fewer levels or a smaller growth factor.",
            )

    @classmethod
    def spanning(
        cls, *, n_min: int = 16, n_max: float, levels: int = 16, features: int = 2, log2_table: int = 19, dims: int = 2
    ) -> HashGrid:
        """Return the grid whose finest level has `n_max` vertices along an axis.

        Parameters
        ----------
        n_min, n_max : int or float
            Vertices of the coarsest and the finest level. Instant-NGP takes half the longer edge of an image.
        levels, features, log2_table, dims : int
            As in the record.

        Returns
        -------
        HashGrid
            With growth = exp(ln(n_max / n_min) / (levels − 1)).
        """
        growth = math.exp(math.log(n_max / n_min) / (levels - 1)) if levels > 1 else 1.0
        return cls(
            levels=levels, features=features, log2_table=log2_table, n_min=n_min, growth=growth, dims=dims
        )  # fmt: skip

    @cached_property
    def scales(self) -> npt.NDArray[np.float32]:
        """Return s_l of every level."""
        exponents = np.arange(self.levels, dtype=np.float32) * np.float32(math.log2(self.growth))
        powers = np.exp2(exponents.astype(np.float64)).astype(np.float32)
        found = powers * np.float32(self.n_min) - np.float32(1)
        if self.capped is not None:
            found[self.capped[0] :] = self.capped[1]
        return found

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """Return R_l of every level."""
        found = [math.ceil(float(scale)) + 1 for scale in self.scales]
        if self.capped is not None:
            found[self.capped[0] :] = [self.capped[2]] * (self.levels - self.capped[0])
        return tuple(found)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Return how many entries each level has."""
        full = [r**self.dims for r in self.resolutions]
        return tuple(min(n + -n % ALIGNED_ENTRIES, 2**self.log2_table) for n in full)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Return the first entry of every level, and the number of all entries."""
        found = [0]
        for size in self.sizes:
            found.append(found[-1] + size)
        return tuple(found)

    @cached_property
    def dense(self) -> tuple[bool, ...]:
        """Return whether each level is stored one to one."""
        return tuple(r**self.dims <= size for r, size in zip(self.resolutions, self.sizes, strict=True))

    @property
    def entries(self) -> int:
        """Return how many entries the table has; its shape is `(entries, features)`."""
        return self.offsets[-1]

    @property
    def width(self) -> int:
        """Return how many features a position has: L · F, those of the coarsest level first."""
        return self.levels * self.features

    @cached_property
    def layout(self) -> npt.NDArray[np.int64]:
        """Return `(levels, 4)`: first entry, entries, vertices along an axis, whether it is hashed; for kernels."""
        columns = (self.offsets[:-1], self.sizes, self.resolutions, [not dense for dense in self.dense])
        return np.stack([np.array(column, np.int64) for column in columns], axis=1)
