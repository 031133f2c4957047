"""An image of which parts were not measured, said by a mask beside its pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

import tilestream as ts
from tilestream.errors import DamagedError
from tilestream.pyramid.pyramid import Pyramid
from tilestream.types import Array, Block, Channel, ImageInfo, Shape


@dataclass(frozen=True, kw_only=True, eq=False)
class HoledSource:
    """One level of one array; pixels that are not valid are 0 or, where they say it themselves, nodata."""

    pixels: Array
    """`(y, x, c)`."""
    valid: npt.NDArray[np.bool_]
    """`(y, x)`."""
    info: ImageInfo
    """Its description."""
    damaged: tuple[tuple[int, int], ...] = ()
    """Row and column of blocks that cannot be decoded."""

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block:
        """Return one block."""
        if (iy, ix) in self.damaged:
            raise DamagedError("made so")
        block = self.info.levels[level].block
        part = slice(iy * block.y, (iy + 1) * block.y), slice(ix * block.x, (ix + 1) * block.x)
        valid = self.valid[part]
        return Block(pixels=np.where(valid[..., None], self.pixels[part], 0).astype(self.pixels.dtype), valid=valid)

    def isel(self, **index: int) -> HoledSource:
        """Return the source itself."""
        return self

    def read_associated(self, name: str) -> Array:
        """Never called."""
        raise AssertionError(name)


def holed(
    pixels: Array,
    valid: npt.NDArray[np.bool_],
    *,
    names: tuple[str, ...] = (),
    damaged: tuple[tuple[int, int], ...] = (),
    block_px: int = 256,
    **more: Any,
) -> Pyramid:
    """Return the pyramid of pixels `(y, x, c)`, with fields of its description."""
    info = ts.open_pyramid(np.ascontiguousarray(pixels.transpose(2, 0, 1))).info
    channels = tuple(Channel(name=name) for name in names) or info.channels
    level = replace(info.levels[0], block=Shape(y=block_px, x=block_px))
    info = replace(info, levels=(level,), channels=channels, validity="mask", **more)
    return Pyramid(source=HoledSource(pixels=pixels, valid=valid, info=info, damaged=damaged), cache_bytes=0)
