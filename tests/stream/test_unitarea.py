"""What a unit asks for ahead is what its tiles need: all between them, or only they where they are few."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilestream.plan import plan_tokens
from tilestream.pyramid import planned
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.sources.array import array_source
from tilestream.stream.batches import iter_batches, new_outcome, stream_tiles
from tilestream.types import Box, PlanLevel, Shape, SuperTile


@dataclass(frozen=True)
class Remote:
    """A source that notes what is asked for ahead."""

    source: Any
    asked: list[Box] = field(default_factory=list)

    @property
    def info(self) -> Any:
        return self.source.info

    def isel(self, **index: int) -> Any:
        return replace(self, source=self.source.isel(**index))

    def warm(self, box: Box) -> None:
        self.asked.append(box)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)


@pytest.mark.parametrize(
    ("tile_yx", "asked"),
    [
        ([(0, 0), (0, 16), (48, 48)], [(0, 0, 16, 32), (48, 48, 16, 16)]),
        ([(0, 0), (0, 16), (16, 0)], [(0, 0, 32, 32)]),
    ],
)
def test_few_tiles_are_asked_for_alone(tile_yx: list[tuple[int, int]], asked: list[tuple[int, ...]]) -> None:
    source = Remote(array_source(np.ones((1, 64, 64), np.uint8)))
    level = PlanLevel(stored=0, shape=Shape(y=64, x=64), scale_yx=(1.0, 1.0))
    unit = SuperTile(plan="", level=level, iy=0, ix=0, first_row=0, tile_yx=np.array(tile_yx, np.int64), tile_px=16)
    list(iter_batches(Pyramid(source=source), unit, batch=8, outcome=new_outcome(unit)))
    assert [(box.y, box.x, box.height, box.width) for box in source.asked] == asked


@given(limit=st.integers(1, 3000), height=st.integers(1, 90), width=st.integers(1, 90))
def test_pixels_made_part_by_part_are_the_same(limit: int, height: int, width: int) -> None:
    pyr = open_pyramid(np.random.default_rng(height).integers(0, 255, (height, width), dtype=np.uint8))
    plan = plan_tokens(pyr, budget=9, patch_px=8)
    before = [batch.pixels.copy() for batch in stream_tiles(pyr, plan)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planned, "FOOTPRINT_BYTES", limit)
        after = [batch.pixels.copy() for batch in stream_tiles(pyr, plan)]
    assert all((one == other).all() for one, other in zip(before, after, strict=True))


def test_a_token_over_a_large_image_takes_little_memory() -> None:
    pyr = Pyramid(source=array_source(np.broadcast_to(np.uint8(7), (4096, 4096))), cache_bytes=0)
    plan = plan_tokens(pyr, budget=1, patch_px=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planned, "FOOTPRINT_BYTES", 1 << 20)
        list(stream_tiles(pyr, plan))  # compiles what has to be compiled
        tracemalloc.start()
        try:
            (batch,) = stream_tiles(pyr, plan)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert batch.pixels.shape == (1, 1, 16, 16)
    assert (batch.pixels == 7).all()
    assert peak < 3 << 20
