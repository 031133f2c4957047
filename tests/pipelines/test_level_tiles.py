"""Levels that are made in pieces are those of `kernels.mip` on the whole image, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilestream as ts
from tests.strategies import images, shapes
from tilestream.kernels.mip import mip_levels
from tilestream.pipelines import level_tiles
from tilestream.pipelines.level_plan import LevelPlan, plan_levels
from tilestream.pipelines.level_tiles import Mask, Square, TileMaker, make_tiles, z_order
from tilestream.sinks.tiffpyramid import EncodedTile
from tilestream.types import Array, Shape

TILE_PX = 16


def _plan(shape: tuple[int, int], edge_px: int, stored: int = 1) -> LevelPlan:
    levels = [Shape(y=shape[0], x=shape[1])]
    while max(levels[-1].yx) > TILE_PX:
        levels.append(Shape(y=-(-levels[-1].y // 2), x=-(-levels[-1].x // 2)))
    own = tuple(range(min(stored, len(levels))))
    return LevelPlan(shapes=tuple(levels), stored=own, tile_px=TILE_PX, edge_px=edge_px)


class _Canvas:
    """Reads squares of arrays `(y, x, c)` and pastes tiles into levels."""

    def __init__(self, plan: LevelPlan, stored: list[Array], valid: list[Mask | None]) -> None:
        self._stored, self._valid = stored, valid
        shapes = [shape.yx for shape in plan.shapes]
        self.pixels = [np.zeros((*shape, stored[0].shape[2]), stored[0].dtype) for shape in shapes]
        self.valid = [np.zeros(shape, np.bool_) for shape in shapes]
        self.times = [np.zeros(shape, np.int64) for shape in shapes]

    def read(self, *, level: int, y: int, x: int, shape: Shape) -> Square:
        part = slice(y, y + shape.y), slice(x, x + shape.x)
        seen = self._valid[level]
        return Square(
            level=level, y=y, x=x, pixels=self._stored[level][part].copy(), valid=None if seen is None else seen[part]
        )

    def encode(self, pixels: Array, valid: Mask | None, *, level: int, iy: int, ix: int) -> Iterator[EncodedTile]:
        assert max(pixels.shape[:2]) <= TILE_PX
        y, x = iy * TILE_PX, ix * TILE_PX
        part = slice(y, y + pixels.shape[0]), slice(x, x + pixels.shape[1])
        self.pixels[level][part] = pixels
        self.valid[level][part] = True if valid is None else valid
        self.times[level][part] += 1
        yield EncodedTile(plane=0, level=level, iy=iy, ix=ix, data=pixels.tobytes())


def _made(plan: LevelPlan, canvas: _Canvas, *, threads: int = 2, **options: Any) -> list[EncodedTile]:
    maker = TileMaker(plan=plan, read=canvas.read, encode=canvas.encode, **options)
    return [tile for made in make_tiles(maker, threads=threads) for tile in made.tiles]


@given(
    image=images(max_px=400, channels=(1, 3), names=("uint8", "uint16")),
    edge_px=st.sampled_from([16, 32, 128]),
    share=st.sampled_from([0.0, 0.5, 0.95]),
    kind=st.sampled_from(["intensity", "labels"]),
    seed=st.integers(0, 99),
)
def test_levels_are_those_of_the_kernel(image: Array, edge_px: int, share: float, kind: Any, seed: int) -> None:
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0)) % (5 if kind == "labels" else 255)
    generator = np.random.default_rng(seed)
    coarse = generator.random((pixels.shape[0] // 20 + 1, pixels.shape[1] // 20 + 1)) >= share
    valid = coarse.repeat(20, 0).repeat(20, 1)[: pixels.shape[0], : pixels.shape[1]] if share else None
    plan = _plan(pixels.shape[:2], edge_px)
    canvas = _Canvas(plan, [pixels], [valid])
    _made(plan, canvas, kind=kind, fill=7)
    wanted = mip_levels(pixels.transpose(2, 0, 1), valid, levels=len(plan.shapes) - 1, kind=kind)
    for level, each in enumerate(wanted, 1):
        expected = np.where(each.valid, each.pixels, 7).transpose(1, 2, 0)
        np.testing.assert_array_equal(canvas.valid[level], each.valid)
        np.testing.assert_array_equal(canvas.pixels[level], expected)
    assert all((times == 1).all() for times in canvas.times)


def test_more_channels_than_the_kernel_takes() -> None:
    pixels = np.random.default_rng(0).integers(0, 9999, (70, 90, 37), np.uint16)
    plan = _plan((70, 90), 32)
    canvas = _Canvas(plan, [pixels], [None])
    _made(plan, canvas)
    first, second = (mip_levels(pixels[..., part].transpose(2, 0, 1)) for part in (slice(0, 16), slice(16, 32)))
    for level in range(1, len(plan.shapes)):
        np.testing.assert_array_equal(canvas.pixels[level][..., :16], first[level - 1].pixels.transpose(1, 2, 0))
        np.testing.assert_array_equal(canvas.pixels[level][..., 16:32], second[level - 1].pixels.transpose(1, 2, 0))


def test_stored_levels_are_kept_and_the_next_come_from_the_last_of_them() -> None:
    generator = np.random.default_rng(1)
    plan = _plan((300, 200), 32, stored=3)
    stored = [generator.integers(0, 255, (*shape.yx, 3), np.uint8) for shape in plan.shapes[:3]]
    canvas = _Canvas(plan, stored, [None] * 3)
    _made(plan, canvas)
    for level in range(3):
        np.testing.assert_array_equal(canvas.pixels[level], stored[level])
    coarse = mip_levels(stored[2].transpose(2, 0, 1), levels=len(plan.shapes) - 3)
    for level, each in enumerate(coarse, 3):
        np.testing.assert_array_equal(canvas.pixels[level], each.pixels.transpose(1, 2, 0))


def test_the_order_of_tiles_does_not_depend_on_threads() -> None:
    pixels = np.random.default_rng(2).integers(0, 255, (600, 500, 1), np.uint8)
    plan = _plan((600, 500), 32)
    orders = [_made(plan, _Canvas(plan, [pixels], [None]), threads=threads) for threads in (1, 2, 5)]
    assert orders[0] == orders[1] == orders[2]


def test_few_squares_wait_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.zeros((1100, 900, 1), np.uint8)
    plan, most = _plan((1100, 900), 16), 0
    put = level_tiles._Gathers.put

    def counted(self: Any, part: Square) -> Square | None:
        nonlocal most
        most = max(most, len(self._open))
        return put(self, part)

    monkeypatch.setattr(level_tiles._Gathers, "put", counted)
    _made(plan, _Canvas(plan, [pixels], [None]))
    assert 4 <= most <= 8


def test_an_error_ends_all_threads(no_thread_leaks: None) -> None:
    pixels = np.zeros((500, 500, 1), np.uint8)
    plan = _plan((500, 500), 32)
    canvas = _Canvas(plan, [pixels], [None])

    def fail(**where: Any) -> Square:
        if where["y"] >= 96:
            raise ValueError("here")
        return canvas.read(**where)

    with pytest.raises(ValueError, match="here"):
        list(make_tiles(TileMaker(plan=plan, read=fail, encode=canvas.encode), threads=3))


@given(shape=shapes(max_px=40))
def test_z_order_visits_each_cell_once_in_aligned_blocks(shape: Shape) -> None:
    order = list(z_order(shape))
    assert sorted(order) == [(y, x) for y in range(shape.y) for x in range(shape.x)]
    blocks = [(y // 4, x // 4) for y, x in order]
    assert len(set(blocks)) == sum(a != b for a, b in zip(blocks, [None, *blocks], strict=False))


def test_levels_halve_down_to_one_tile() -> None:
    pyramid = ts.open_pyramid(np.zeros((2100, 2100), np.uint8))
    plan = plan_levels(pyramid, tile_px=512)
    assert [level.yx for level in plan.shapes] == [(2100, 2100), (1050, 1050), (525, 525), (263, 263)]
    assert plan.stored == (0,)
    assert plan.edge_px == 4096
