"""An image from one of its levels on, whole or between two, as an image of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from tilestream.errors import ConfigError, DamagedError
from tilestream.kernels.taps import MAX_TERM
from tilestream.pyramid.pyramid import Pyramid
from tilestream.sinks.store import scaled_affine
from tilestream.sources.extras import Extras, read_extras
from tilestream.sources.fingerprint import digest
from tilestream.types import Array, Block, Box, ImageInfo, Level, PlanLevel, Shape

BLOCK_PX = 512
"""Edge of a block of levels that are resampled."""


@dataclass(frozen=True, kw_only=True)
class CoarserSource:
    """The levels of an image from `first` on; between two levels pixels are means of those of the finer one."""

    pyramid: Pyramid
    """The image."""
    first: float
    """Which level is level 0."""
    info: ImageInfo
    """Description of what is read."""
    plans: tuple[PlanLevel, ...]
    """What each level is read from."""

    @classmethod
    def of(cls, pyramid: Pyramid, first: float) -> CoarserSource:
        """Return an image from a level on.

        Parameters
        ----------
        pyramid : Pyramid
            An image whose levels halve.
        first : float
            0 to its coarsest level.

        Returns
        -------
        CoarserSource
            With its place and resolution, its fingerprint and as many levels as there are.

        Raises
        ------
        ConfigError
            When there is no such level.
        """
        most = len(pyramid.levels) - 1
        if not 0 <= first <= most:
            raise ConfigError.of(
                "`--level`", got=f"{first:g}", expected=f"0 to {most}, the coarsest there is", do="Choose another."
            )
        whole, part = int(first), first - int(first)
        # 2^part to 1 in 10^8, so that no pixel of any image lies elsewhere
        ratio = Fraction(2**part).limit_denominator(MAX_TERM // 2)
        plans = tuple(_plan(pyramid.levels[stored], ratio) for stored in range(whole, most + 1))
        levels = tuple(_level(index, plan, pyramid) for index, plan in enumerate(plans))
        return cls(pyramid=pyramid, first=first, info=_info(pyramid.info, first, levels), plans=plans)

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block | None:
        """Return one block.

        Parameters
        ----------
        level, iy, ix : int
            Level, and row and column in its grid of blocks.
        out : ndarray, optional
            Memory of a block `(y, x, c)` that may be used.

        Returns
        -------
        Block or None
            As the image itself gives it where the level is one of its own.

        Raises
        ------
        DamagedError
            When any of the pixels under it cannot be decoded.
        """
        plan, block = self.plans[level], self.info.levels[level].block
        if plan.is_stored:
            return self.pyramid.source.read_block(plan.stored, iy, ix, out)
        y, x = iy * block.y, ix * block.x
        height, width = min(block.y, plan.shape.y - y), min(block.x, plan.shape.x - x)
        pixels = np.empty((height, width, len(self.pyramid.channels)), self.pyramid.dtype)
        valid = np.ones((height, width), np.bool_)
        box = Box(level=plan.stored, y=y, x=x, height=height, width=width)
        filled = self.pyramid.read_plan(plan, box, pixels, valid)
        if filled.damage:
            raise DamagedError("; ".join(filled.damage))
        return Block(pixels=pixels, valid=None if filled.is_whole else valid)

    def isel(self, **index: int) -> CoarserSource:
        """Return the same of another choice on the image's extra axes."""
        return CoarserSource.of(self.pyramid.isel(**index), self.first)

    def read_associated(self, name: str) -> Array:
        """Return an associated image `(y, x, c)` of the image."""
        return self.pyramid.source.read_associated(name)

    def read_extras(self) -> Extras:
        """Return what the image's headers say."""
        return read_extras(self.pyramid.source)


def _plan(level: Level, ratio: Fraction) -> PlanLevel:
    shape = Shape(y=-(-level.shape.y // ratio), x=-(-level.shape.x // ratio))
    scale_yx = level.scale_yx[0] * float(ratio), level.scale_yx[1] * float(ratio)
    return PlanLevel(stored=level.index, ratio_yx=(ratio, ratio), shape=shape, scale_yx=scale_yx)


def _level(index: int, plan: PlanLevel, pyramid: Pyramid) -> Level:
    stored = pyramid.levels[plan.stored].block
    block = stored if plan.is_stored else Shape(y=min(BLOCK_PX, plan.shape.y), x=min(BLOCK_PX, plan.shape.x))
    return Level(index=index, shape=plan.shape, block=block, scale_yx=(2.0**index, 2.0**index))


def _info(info: ImageInfo, first: float, levels: Sequence[Level]) -> ImageInfo:
    scale = 2.0**first
    content = info.content
    if content is not None:
        y, x = int(content.y / scale), int(content.x / scale)
        y_stop, x_stop = math.ceil(content.y_stop / scale), math.ceil(content.x_stop / scale)
        content = Box(y=y, x=x, height=y_stop - y, width=x_stop - x).intersect(levels[0].box)
    return replace(
        info,
        levels=tuple(levels),
        fingerprint=info.fingerprint if first == 0 else digest("level", info.fingerprint, first),
        mpp_yx=None if info.mpp_yx is None else (info.mpp_yx[0] * scale, info.mpp_yx[1] * scale),
        affine=None if info.affine is None else scaled_affine(info.affine, (scale, scale)),
        gcps=tuple((row / scale, column / scale, *place) for row, column, *place in info.gcps),
        axes={**info.axes, "y": levels[0].shape.y, "x": levels[0].shape.x} if info.axes else info.axes,
        content=content,
    )
