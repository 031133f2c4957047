"""What a hash field is made with, and how a quality chooses it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tilestream.codecs.fields.probing import ProbedGrid, Probing
from tilestream.errors import ConfigError
from tilestream.kernels.hashgrid import HashGrid


@dataclass(frozen=True, kw_only=True)
class HashSettings:
    """What a hash field is made with; see `HashField`."""

    levels: int
    """L."""
    features: int
    """F."""
    log2_table: int
    """T."""
    n_min: int
    """Vertices of the coarsest level along an axis."""
    n_max: float | None
    """Of the finest; None is half the longer edge of the picture."""
    hidden: int
    """Units of a hidden layer."""
    layers: int
    """Hidden layers."""
    lmbda: float
    """MSE on 0 to 1 that a bit a pixel may cost."""
    bits: int | None
    """Of an entry of the table after `quantize`."""
    batch_px: int
    """Pixels of a step."""
    seed: int
    """Of all chance."""
    probing: Probing | None = None
    """How much is chosen in levels of more vertices than entries; None is by hash alone."""

    def __post_init__(self) -> None:
        checks = (
            ("hidden", self.hidden, 1 <= self.hidden <= 128, "1 to 128"),
            ("layers", self.layers, 1 <= self.layers <= 8, "1 to 8"),
            ("lmbda", self.lmbda, math.isfinite(self.lmbda) and self.lmbda >= 0, "a number of at least 0"),
            ("bits", self.bits, self.bits is None or 2 <= self.bits <= 16, "2 to 16, or None"),
            ("batch", self.batch_px, self.batch_px >= 1, "at least 1 pixel"),
            ("n_max", self.n_max, self.n_max is None or self.n_max >= self.n_min, "None, or at least `n_min`"),
        )
        for name, got, good, expected in checks:
            if not good:
                raise ConfigError.of(f"`{name}` of a hash field", got=got, expected=expected, do="Choose another.")
        grid = self.grid(self.n_min if self.n_max is None else self.n_max)
        if self.probing is not None:
            ProbedGrid(narrow=grid, probing=self.probing)

    def grid(self, n_max: float) -> HashGrid:
        """Return the grid up to so many vertices."""
        return HashGrid.spanning(
            n_min=self.n_min, n_max=n_max, levels=self.levels, features=self.features, log2_table=self.log2_table
        )


def quality_settings(quality: float, extent_px: int) -> dict[str, Any]:
    """Return the settings with which a field takes few bytes.

    Parameters
    ----------
    quality : float
        1 to 100; λ is 10^(−2.2 − quality / 50).
    extent_px : int
        The longer edge of the picture.

    Returns
    -------
    dict
        Keywords of `HashField`. Levels double up to a vertex a pixel, one feature each, none hashed: entries that share
        a slot cost more than the bits that they save, since λ makes the bits of unused entries few.

    Raises
    ------
    ConfigError
        When `quality` is out of range.
    """
    if not 1 <= quality <= 100:
        raise ConfigError.of("`quality`", got=quality, expected="a number of 1 to 100", do="50 is a middle one.")
    levels = max(1, math.floor(math.log2(extent_px / 8)) + 1) if extent_px >= 8 else 1
    n_min = max(2, round(extent_px / 2 ** (levels - 1)) + 1)
    return {
        "levels": levels,
        "features": 1,
        "log2_table": max(3, math.ceil(2 * math.log2(extent_px + 2))),
        "n_min": n_min,
        "n_max": max(n_min, (extent_px + 1) * (1 - 1e-6)),  # a hair above would be a row of vertices more
        "hidden": 64 if extent_px > 128 else 32,
        "layers": 1,
        "lmbda": 10 ** (-2.2 - quality / 50),
    }
