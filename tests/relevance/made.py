"""Images that the tests of relevance share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.plan.build import pyramid
from tilestream.errors import DamagedError
from tilestream.pyramid import Pyramid
from tilestream.types import Block, ImageInfo, Shape, Source


def texture(height: int, width: int, *, seed: int = 0, channels: int = 3) -> np.ndarray:
    """8-bit noise around 128, `(y, x, c)`."""
    noise = np.random.default_rng(seed).normal(128, 20, (height, width, channels))
    return np.clip(noise, 0, 255).astype(np.uint8)


def slide(picture: np.ndarray, **fields: Any) -> Pyramid:
    """A picture whose coarse level it is itself."""
    return pyramid(picture, mpp=8.0, modality="brightfield", **fields)


def glass(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Glass as a camera sees it, `(y, x, 3)`."""
    noise = np.random.default_rng(seed).normal(242, 1.0, (height, width, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


def as_floats(picture: np.ndarray, hole: tuple[slice, slice] | None = None) -> Pyramid:
    """A picture as float32, with NaN in a hole."""
    values = picture.astype(np.float32)
    if hole is not None:
        values[hole] = np.nan
    return pyramid(values, mpp=8.0)


@dataclass(frozen=True, kw_only=True)
class Flawed:
    """An image of which one block cannot be decoded."""

    inner: Source
    block_px: int

    @property
    def info(self) -> ImageInfo:
        (level,) = self.inner.info.levels
        block = Shape(y=self.block_px, x=self.block_px)
        return replace(self.inner.info, levels=(replace(level, block=block),))

    def read_block(self, level: int, iy: int, ix: int, out: Any = None) -> Block | None:
        if (iy, ix) == (1, 1):
            raise DamagedError("a cut stream")
        (y, x), px = (iy * self.block_px, ix * self.block_px), self.block_px
        whole = self.inner.read_block(0, 0, 0)
        assert whole is not None
        return Block(pixels=whole.pixels[y : y + px, x : x + px])


def flawed(picture: np.ndarray, block_px: int = 64) -> Pyramid:
    """A picture of which block y=1 x=1 is damaged."""
    return Pyramid(source=Flawed(inner=slide(picture).source, block_px=block_px), cache_bytes=0)  # type: ignore[arg-type]
