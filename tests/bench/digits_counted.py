"""Blocks that a method asks a source for: what it decodes, and how many bytes of the file these are."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import tifffile

from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.types import Array, Block, ImageInfo, Source

Place = tuple[int, int, int]
_OPENED = count()


@dataclass
class CountedSource:
    """A source that notes each block it is asked for."""

    inner: Source
    """Does the work."""
    asked: list[Place] = field(default_factory=list)
    """Level, row and column of each block, as often as it was decoded."""
    lock: Any = field(default_factory=threading.Lock)
    """Threads of a coarse look share it."""

    @property
    def info(self) -> ImageInfo:
        return self.inner.info

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block | None:
        with self.lock:
            self.asked.append((level, iy, ix))
        return self.inner.read_block(level, iy, ix, out)

    def isel(self, **index: int) -> Source:
        return self.inner.isel(**index)

    def read_associated(self, name: str) -> Array:
        return self.inner.read_associated(name)


@dataclass(frozen=True)
class Counted:
    """A file whose blocks are counted."""

    path: Path
    """TIFF with its levels as SubIFDs."""

    def open(self) -> tuple[Pyramid, CountedSource]:
        """Return the image as it is opened by default, sharing no cached block with earlier ones, and what counts."""
        pyramid = open_pyramid(self.path)
        source = CountedSource(pyramid.source)
        return replace(pyramid, source=source, address=f"{self.path}#{next(_OPENED)}"), source

    @cached_property
    def tables(self) -> list[tuple[int, list[int]]]:
        """Return tiles in a row and bytes of each tile by level, as tifffile reads them."""
        with tifffile.TiffFile(self.path) as tiff:
            levels = tiff.series[0].levels
            return [(-(-level.pages[0].imagewidth // 256), list(level.pages[0].databytecounts)) for level in levels]

    def bytes_of(self, blocks: list[Place]) -> int:
        """Return how many bytes some blocks take in the file."""
        return sum(self.tables[level][1][iy * self.tables[level][0] + ix] for level, iy, ix in blocks)
