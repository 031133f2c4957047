"""The tiles of a store of fields as units of work, and what each is read from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from tilestream.errors import ConfigError
from tilestream.grid import hilbert_order
from tilestream.pipelines.level_plan import CLOSE
from tilestream.sinks.layout import StoreLevel, halved
from tilestream.sinks.members import StorePlan, StoreUnit
from tilestream.types import Box, ImageInfo, PlanLevel


@dataclass(frozen=True, kw_only=True)
class FieldPlan(StorePlan):
    """A unit of work for each tile of each array: a fit takes seconds to minutes, and that is all a kill may cost."""

    def __len__(self) -> int:
        """Return the number of tiles."""
        return sum(level.shards.area for level in self.layout.levels)

    def start(self) -> Iterator[StoreUnit]:
        """Yield all tiles along Hilbert curves, those of the coarse arrays first: they are few, and read the most."""
        for level in reversed(self.layout.levels):
            for iy, ix in hilbert_order(level.shards).tolist():
                yield StoreUnit(step="make", level=level.index, iy=iy, ix=ix)

    @property
    def tiers(self) -> range:
        """Return the one tier there is: every array is made of the source."""
        return range(1)

    def level(self, unit: StoreUnit) -> StoreLevel:
        """Return the array that a tile lies in."""
        return next(one for one in self.layout.levels if one.index == unit.level)

    def box(self, unit: StoreUnit) -> Box:
        """Return the pixels of a tile, cut to the image, as a box of its level."""
        level = self.level(unit)
        corner = {"y": unit.iy * level.chunk.y, "x": unit.ix * level.chunk.x}
        tile = Box(level=level.index, **corner, height=level.chunk.y, width=level.chunk.x)
        return tile.intersect(Box(level=level.index, y=0, x=0, height=level.shape.y, width=level.shape.x))

    def row(self, unit: StoreUnit) -> int:
        """Return the number of a tile: array by array, in each row by row."""
        before = sum(level.shards.area for level in self.layout.levels if level.index < unit.level)
        return before + unit.iy * self.level(unit).shards.x + unit.ix


def reduced_level(info: ImageInfo, times: int) -> PlanLevel:
    """Return what an image halved some times is read from.

    Parameters
    ----------
    info : ImageInfo
        The image.
    times : int
        Halvings of level 0.

    Returns
    -------
    PlanLevel
        Of ceil(s / 2^times) pixels: the coarsest stored level that is level 0 halved so often or less, reduced by
        areas. One that a scanner has cut instead of rounded up is none.

    Raises
    ------
    ConfigError
        When the image has no level of its own size.
    """
    shape, scale = halved(info.shape, times), 2.0**times
    for done in range(times, -1, -1):
        for level in info.levels:
            is_close = all(abs(own / 2**done - 1) < CLOSE for own in level.scale_yx)
            if is_close and level.shape == halved(info.shape, done):
                ratio = Fraction(2 ** (times - done))
                return PlanLevel(stored=level.index, ratio_yx=(ratio, ratio), shape=shape, scale_yx=(scale, scale))
    raise ConfigError.of(
        "levels of the image", got="none at full size", expected="level 0", do="Look at `tilestream info`."
    )
