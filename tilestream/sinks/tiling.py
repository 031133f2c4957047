"""Which levels of an image lie in which array of a store of tiles that answer at more than one level."""

from __future__ import annotations

from dataclasses import dataclass

from tilestream.codecs.tilecodec import LEVELS
from tilestream.errors import ConfigError
from tilestream.sinks.layout import LAST_PX, halved
from tilestream.types import Shape

TILE_PX = 512
"""Edge of a tile when nothing is said: smaller ones pay for their network, larger ones are slow to look into."""
LEAST_TILE_PX, MOST_TILE_PX = 16, 4096
STEP = LEVELS
"""Levels from one array to the next when nothing is said."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How the levels of one image fall into arrays, and these into tiles."""

    tile_px: int
    """Edge of a tile of any array."""
    step: int
    """Levels that a tile answers: arrays hold levels 0, `step`, 2 `step` … ."""
    levels: int
    """Levels of the image."""

    @classmethod
    def of(cls, shape: Shape, *, tile_px: int = TILE_PX, step: int | None = STEP) -> Tiling:
        """Return the tiling of an image.

        Parameters
        ----------
        shape : Shape
            Of level 0, px.
        tile_px : int
            Edge of a tile.
        step : int, optional
            Levels that a tile answers; None = all there are, so that level 0 is the one array.

        Returns
        -------
        Tiling
            With one array, levels end where a tile is no whole number of pixels.

        Raises
        ------
        ConfigError
            When tiles of that edge do not halve.
        """
        levels = level_count(shape, check_tile(tile_px))
        if step is not None:
            return cls(tile_px=tile_px, step=step, levels=levels)
        levels = min(levels, halvings(tile_px) + 1)
        return cls(tile_px=tile_px, step=levels, levels=levels)

    @property
    def arrays(self) -> range:
        """Return the levels that are stored."""
        return range(0, self.levels, self.step)

    @property
    def masks(self) -> range:
        """Return the levels that have a mask where something is not valid: each, but of one array only its own.

        A mask halves as exactly as it is stored; that of one array would have as many files as tiles on each level.
        """
        return range(1) if self.is_single else range(self.levels)

    @property
    def is_single(self) -> bool:
        """Return whether all levels come from level 0, and more of them than tiles of several levels would answer."""
        return self.step == self.levels and self.step > STEP

    def answered(self, array: int) -> int:
        """Return how many levels the tiles of an array answer."""
        return min(self.step, self.levels - array)


def level_count(shape: Shape, tile_px: int) -> int:
    """Return how many levels an image has in a store of fields.

    Parameters
    ----------
    shape : Shape
        Of level 0, px.
    tile_px : int
        Edge of a tile.

    Returns
    -------
    int
        Halvings until one tile, and at most 256 px, hold all of it, and level 0.
    """
    last_px = min(tile_px, LAST_PX)
    return next(times for times in range(64) if max(halved(shape, times).yx) <= last_px) + 1


def halvings(tile_px: int) -> int:
    """Return how often the edge of a tile is halved to whole pixels."""
    return (tile_px & -tile_px).bit_length() - 1


def check_tile(tile_px: int) -> int:
    """Return the edge of a tile; raise `ConfigError` unless each of its levels has whole pixels."""
    if not LEAST_TILE_PX <= tile_px <= MOST_TILE_PX or tile_px % 2 ** (STEP - 1):
        raise ConfigError.of(
            "`tile`",
            got=f"{tile_px} px",
            expected=f"a multiple of {2 ** (STEP - 1)} from {LEAST_TILE_PX} to {MOST_TILE_PX}",
            do=f"Take {TILE_PX}.",
        )
    return tile_px
