"""The tiles of all levels of a pyramid in one pass over it, in bounded memory, coded in threads.

Squares of pixels come along a Z-order curve. Levels 1 to 4 of a square are exact sums of its pixels; what it gives to
level 4 goes into a square of that level, and when that is whole, levels 5 to 8 come from it in the same way. So four
levels need a few squares of memory, whatever the size of the image, and levels are those of `kernels.mip`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tilestream.kernels.mip import EXACT_LEVELS, MAX_CHANNELS, mip_levels
from tilestream.pipelines.level_plan import LevelPlan
from tilestream.sinks.tiffpyramid import EncodedTile
from tilestream.types import Array, Kind, Shape

Mask = npt.NDArray[np.bool_]
AHEAD = 1
"""Squares beyond one a thread that are under way, so that no thread waits for the writing of another's tiles."""


@dataclass(frozen=True, kw_only=True)
class Square:
    """Pixels of part of a level."""

    level: int
    """Level of the file."""
    y: int
    """First row."""
    x: int
    """First column."""
    pixels: Array
    """`(y, x, c)`."""
    valid: Mask | None = None
    """`(y, x)`, None where all are."""
    damage: tuple[str, ...] = ()
    """Reason of each damaged block."""


@dataclass(frozen=True, kw_only=True)
class MadeTiles:
    """What became of one square."""

    tiles: list[EncodedTile]
    """Its tiles."""
    pixels: int = 0
    """Pixels that were read for it."""
    is_measured: bool = True
    """Whether every one of these is valid."""
    recoded: int = 0
    """Tiles that were to be copied and could not."""
    damage: tuple[str, ...] = ()
    """Reason of each damaged block."""


class SquareReader(Protocol):
    """Reads a square of a stored level; called by several threads."""

    def __call__(self, *, level: int, y: int, x: int, shape: Shape) -> Square:
        """Return the pixels of level `level` of the file from row `y` and column `x`."""


class TileEncoder(Protocol):
    """Codes one tile; called by several threads."""

    def __call__(self, pixels: Array, valid: Mask | None, *, level: int, iy: int, ix: int) -> Iterator[EncodedTile]:
        """Yield what the file holds for one place."""


class SquareCopier(Protocol):
    """Gives the tiles of a square as the source stores them; called by several threads."""

    def __call__(self, *, level: int, y: int, x: int, shape: Shape) -> MadeTiles | None:
        """Return the tiles of a square, None where they have to be coded."""


@dataclass(frozen=True, kw_only=True)
class TileMaker:
    """How pixels become tiles."""

    plan: LevelPlan
    """Levels of the file."""
    read: SquareReader
    """Reads pixels."""
    encode: TileEncoder
    """Codes tiles."""
    copy: SquareCopier | None = None
    """Copies tiles, where those of the source can be."""
    kind: Kind = "intensity"
    """Whether coarse pixels are means or modes."""
    fill: float = 0
    """Value of coarse pixels under which nothing is valid."""


@dataclass(frozen=True, kw_only=True)
class _Done:
    """What a job returns."""

    made: MadeTiles
    parts: list[Square] = field(default_factory=list)
    """Of coarser levels, smaller than a tile, or of the level that the next four are made from."""


def make_tiles(maker: TileMaker, *, threads: int) -> Iterator[MadeTiles]:
    """Yield all tiles of all levels, each once, in an order that does not depend on the number of threads.

    Parameters
    ----------
    maker : TileMaker
        How pixels become tiles.
    threads : int
        Threads that read, reduce and code.

    Yields
    ------
    MadeTiles
        The tiles of one square; memory is that of about two squares a thread.
    """
    gathers = _Gathers(maker.plan)
    waiting = _jobs(maker)
    running: deque[Future[_Done]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="tilestream-export")
    try:
        while True:
            while len(running) < threads + AHEAD and (job := next(waiting, None)) is not None:
                running.append(pool.submit(job))
            if not running:
                return
            done = running.popleft().result()
            yield done.made
            # here and not in the pool: their place in the order must not depend on how far other threads are
            yield from _gathered(maker, gathers, done.parts)
    finally:
        pool.shutdown(cancel_futures=True)


def _gathered(maker: TileMaker, gathers: _Gathers, parts: list[Square]) -> Iterator[MadeTiles]:
    """Yield what becomes of squares that parts complete, and of those that these complete."""
    for part in parts:
        if (whole := gathers.put(part)) is not None:
            done = _work(maker, whole, gathers.is_base(whole.level))
            yield done.made
            yield from _gathered(maker, gathers, done.parts)


def _jobs(maker: TileMaker) -> Iterator[Callable[[], _Done]]:
    """Yield what is to be done for each square of each stored level."""
    last = len(maker.plan.stored) - 1
    for level in range(last + 1):
        shape, edge = maker.plan.shapes[level], maker.plan.edge_px
        for iy, ix in z_order(Shape(y=-(-shape.y // edge), x=-(-shape.x // edge))):
            yield _Job(maker=maker, level=level, y=iy * edge, x=ix * edge)


@dataclass(frozen=True, kw_only=True)
class _Job:
    maker: TileMaker
    level: int
    y: int
    x: int

    def __call__(self) -> _Done:
        plan, copy = self.maker.plan, self.maker.copy
        whole, edge = plan.shapes[self.level], plan.edge_px
        shape = Shape(y=min(edge, whole.y - self.y), x=min(edge, whole.x - self.x))
        is_base = self.level == len(plan.stored) - 1 and plan.is_made
        copied = None if copy is None else copy(level=self.level, y=self.y, x=self.x, shape=shape)
        if copied is not None and not is_base:
            return _Done(made=replace(copied, pixels=shape.area))
        square = self.maker.read(level=self.level, y=self.y, x=self.x, shape=shape)
        if copied is None:
            is_measured, damage = square.valid is None, square.damage
            copied = MadeTiles(tiles=_cut(self.maker, square), is_measured=is_measured, damage=damage)
        made, parts = _coarser(self.maker, square) if is_base else ([], [])
        return _Done(made=replace(copied, tiles=copied.tiles + made, pixels=shape.area), parts=parts)


def _work(maker: TileMaker, square: Square, is_base: bool) -> _Done:
    """Return the tiles of a square that was put together and, where they come from it, of coarser levels."""
    tiles, parts = _coarser(maker, square) if is_base else ([], [])
    return _Done(made=MadeTiles(tiles=_cut(maker, square) + tiles), parts=parts)


def _coarser(maker: TileMaker, square: Square) -> tuple[list[EncodedTile], list[Square]]:
    """Return the tiles of levels that are made from a square, and parts of such that it does not fill."""
    plan, tiles, parts = maker.plan, list[EncodedTile](), list[Square]()
    count = min(EXACT_LEVELS, len(plan.shapes) - 1 - square.level)
    for number, made in enumerate(_reduced(maker, square, count), 1):
        if number < EXACT_LEVELS and plan.edge_px >> number >= plan.tile_px:
            tiles += _cut(maker, made)
        else:
            parts.append(made)
    return tiles, parts


def _cut(maker: TileMaker, square: Square) -> list[EncodedTile]:
    tile_px, tiles = maker.plan.tile_px, list[EncodedTile]()
    for y in range(0, square.pixels.shape[0], tile_px):
        for x in range(0, square.pixels.shape[1], tile_px):
            part = slice(y, y + tile_px), slice(x, x + tile_px)
            valid = None if square.valid is None else square.valid[part]
            place = {"iy": (square.y + y) // tile_px, "ix": (square.x + x) // tile_px}
            tiles += maker.encode(square.pixels[part], valid, level=square.level, **place)
    return tiles


def _reduced(maker: TileMaker, square: Square, count: int) -> list[Square]:
    """Return the next levels of a square from exact sums of its pixels."""
    if not count:
        return []
    planar = square.pixels.transpose(2, 0, 1)
    shapes = [(-(-planar.shape[1] // 2**n), -(-planar.shape[2] // 2**n)) for n in range(1, count + 1)]
    pixels = [np.empty((*shape, planar.shape[0]), planar.dtype) for shape in shapes]
    valids: list[Mask] = []
    for first in range(0, planar.shape[0], MAX_CHANNELS):
        some = slice(first, first + MAX_CHANNELS)
        levels = mip_levels(planar[some], square.valid, levels=count, kind=maker.kind, threads=1)
        for out, level in zip(pixels, levels, strict=True):
            out[..., some] = level.pixels.transpose(1, 2, 0)
        valids = valids or [level.valid for level in levels]
    return [
        _filled(
            maker, Square(level=square.level + n, y=square.y >> n, x=square.x >> n, pixels=pixels[n - 1]), valids[n - 1]
        )
        for n in range(1, count + 1)
    ]


def _filled(maker: TileMaker, square: Square, valid: Mask) -> Square:
    if valid.all():
        return square
    square.pixels[~valid] = maker.fill
    return replace(square, valid=valid)


class _Gathers:
    """Squares of made levels that wait for parts: of a tile's size, or where the next levels begin, of a square's."""

    def __init__(self, plan: LevelPlan) -> None:
        self._plan = plan
        self._first = len(plan.stored) - 1
        self._open: dict[tuple[int, int, int], tuple[Square, int]] = {}

    def is_base(self, level: int) -> bool:
        """Return whether the next levels are made from this one."""
        return (level - self._first) % EXACT_LEVELS == 0

    def put(self, part: Square) -> Square | None:
        """Return the square that a part completes."""
        plan = self._plan
        edge = plan.edge_px if self.is_base(part.level) else plan.tile_px
        key = part.level, part.y // edge, part.x // edge
        top, left = key[1] * edge, key[2] * edge
        if key not in self._open:
            whole = plan.shapes[part.level]
            shape = min(edge, whole.y - top), min(edge, whole.x - left)
            if part.pixels.shape[:2] == shape:
                return part
            pixels = np.empty((*shape, part.pixels.shape[2]), part.pixels.dtype)
            valid = np.ones(shape, np.bool_)
            self._open[key] = Square(level=part.level, y=top, x=left, pixels=pixels, valid=valid), pixels[..., 0].size
        square, missing = self._open[key]
        height, width = part.pixels.shape[:2]
        at = slice(part.y - top, part.y - top + height), slice(part.x - left, part.x - left + width)
        square.pixels[at] = part.pixels
        if part.valid is not None and square.valid is not None:
            square.valid[at] = part.valid
        missing -= height * width
        if missing:
            self._open[key] = square, missing
            return None
        del self._open[key]
        return replace(square, valid=None) if square.valid is not None and square.valid.all() else square


def z_order(cells: Shape) -> Iterator[tuple[int, int]]:
    """Yield row and column of each cell of a grid so that aligned blocks of 2^k cells follow one another.

    Parameters
    ----------
    cells : Shape
        Rows and columns.

    Yields
    ------
    tuple of int, int
        Each cell once.
    """
    edge = 1 << (max(cells.yx) - 1).bit_length()
    stack = [(0, 0, edge)]
    while stack:
        y, x, size = stack.pop()
        if y >= cells.y or x >= cells.x:
            continue
        if size == 1:
            yield y, x
            continue
        half = size // 2
        stack += [(y + half, x + half, half), (y + half, x, half), (y, x + half, half), (y, x, half)]
