"""Sources that remember which blocks they were asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.types import Block, Channel, ImageInfo, Level, Shape, Source

BLOCK_PX = 512


class Recording:
    """Hands on everything to another source."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.blocks: set[tuple[int, int, int]] = set()

    @property
    def info(self) -> ImageInfo:
        return self.source.info

    def read_block(self, level: int, iy: int, ix: int, out: Any = None) -> Block | None:
        self.blocks.add((level, iy, ix))
        return self.source.read_block(level, iy, ix, out)

    def isel(self, **index: int) -> Source:
        return self.source.isel(**index)

    def read_associated(self, name: str) -> Any:
        return self.source.read_associated(name)


class Described:
    """A slide of gigapixels that is painted as it is read: stripes on glass, levels that halve."""

    def __init__(self, edge_px: int, levels: int, mpp: float = 0.25) -> None:
        self.info = ImageInfo(
            format="described",
            levels=tuple(
                Level(
                    index=number,
                    shape=Shape(y=edge_px >> number, x=edge_px >> number),
                    block=Shape(y=BLOCK_PX, x=BLOCK_PX),
                    scale_yx=(float(2**number), float(2**number)),
                )
                for number in range(levels)
            ),
            dtype=np.dtype("u1"),
            channels=tuple(Channel(name=name) for name in "RGB"),
            fingerprint=f"described{edge_px}",
            modality="brightfield",
            mpp_yx=(mpp, mpp),
        )

    def read_block(self, level: int, iy: int, ix: int, out: Any = None) -> Block | None:
        edge_px = self.info.levels[level].shape.x
        y, x = ((at * BLOCK_PX + np.arange(BLOCK_PX)) / edge_px for at in (iy, ix))
        inside = np.logical_and.outer(abs(y - 0.5) < 0.2, abs(x - 0.5) < 0.3)
        purple = inside & (np.arange(BLOCK_PX) % 9 < 5)
        pixels = np.full((BLOCK_PX, BLOCK_PX, 3), 244, np.uint8)
        pixels[inside], pixels[purple] = (220, 150, 190), (110, 60, 140)
        return Block(pixels=pixels)

    def isel(self, **index: int) -> Source:
        return self

    def read_associated(self, name: str) -> Any:
        raise KeyError(name)
