"""Images and selections that the tests of plans share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tilestream.plan import Selection
from tilestream.pyramid import Pyramid
from tilestream.sources.array import array_source
from tilestream.types import Channel, ImageInfo, Level, Shape


def info(height_px: int, width_px: int, *, scales: tuple[float, ...] = (1,), **fields: Any) -> ImageInfo:
    """An image that nobody reads."""
    levels = tuple(
        Level(
            index=index,
            shape=Shape(y=-int(-height_px // scale), x=-int(-width_px // scale)),
            block=Shape(y=256, x=256),
            scale_yx=(scale, scale),
        )
        for index, scale in enumerate(scales)
    )
    given = {"format": "test", "dtype": np.dtype("u1"), "channels": (Channel(name="g"),), "fingerprint": "ab", **fields}
    return ImageInfo(levels=levels, **given)


def pyramid(array: np.ndarray, *, mpp: float | None = None, **fields: Any) -> Pyramid:
    """An array as an image, with some of its description replaced."""
    source = array_source(array, mpp=mpp)
    return Pyramid(source=replace(source, info=replace(source.info, **fields)))


def blank(shape: Shape, **fields: Any) -> Pyramid:
    """An image of nothing but zeros that takes no memory."""
    return pyramid(np.broadcast_to(np.uint8(0), shape.yx), **fields)


def described(height_px: int, width_px: int, *, scales: tuple[float, ...] = (1,), **fields: Any) -> Pyramid:
    """An image of which there is only a description: no pixel of a large one is made, nor looked at for a digest."""
    known = info(height_px, width_px, scales=scales, **fields)
    return pyramid(np.zeros((1, 1), np.uint8), levels=known.levels, mpp_yx=known.mpp_yx, content=known.content)


def blobs(shape: Shape, area: Shape, *, seed: int = 0, cell: int = 3) -> Selection:
    """A selection with pieces, holes and corners that touch."""
    small = np.random.default_rng(seed).random((-(-shape.y // cell), -(-shape.x // cell))) > 0.5
    mask = np.kron(small, np.ones((cell, cell), bool))[: shape.y, : shape.x]
    return Selection(name="blobs", mask=mask, scale_yx=(area.y / shape.y, area.x / shape.x), area=area)
