"""A source that remembers which blocks it was asked for."""

from __future__ import annotations

from typing import Any

from tilestream.types import Block, ImageInfo, Source


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
