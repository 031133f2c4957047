"""Tokens as normalised arrays: the pixels that stages see, and where each of them is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.build import pyramid
from tilestream.errors import ConfigError
from tilestream.plan import TilePlan, plan_tiles, plan_tokens
from tilestream.plan.tokenplan import TokenPlan
from tilestream.pyramid import open_pyramid
from tilestream.pyramid.pyramid import Pyramid
from tilestream.sources.array import array_source
from tilestream.stream.batches import stream_tiles
from tilestream.stream.tokenbatch import iter_tokens, read_tokens
from tilestream.testing.slide import write_slide
from tilestream.types import ScoreMap, Shape, TileStatus

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def image_of(height: int, width: int) -> Pyramid:
    pixels = np.random.default_rng(height).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Pyramid(source=array_source(pixels, dims=("y", "x", "c")))


@given(
    height=st.integers(1, 150), width=st.integers(1, 150), budget=st.integers(1, 60), batch=st.integers(1, 70),
    count=st.sampled_from(["leaves", "nodes"]),
)  # fmt: skip
def test_a_batch_holds_what_stages_see(height: int, width: int, budget: int, batch: int, count: str) -> None:
    pyr = image_of(height, width)
    plan = plan_tokens(pyr, budget=budget, patch_px=16, count=count, super_tile_px=32)
    found = read_tokens(pyr, plan, mean=MEAN, std=STD)
    seen = np.full_like(found.pixels, np.nan)
    for tiles in stream_tiles(pyr, plan):
        scaled = (tiles.pixels / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
        seen[tiles.rows] = scaled
    np.testing.assert_allclose(found.pixels, seen, atol=1e-5)
    assert found.rows.tolist() == list(range(len(plan)))
    assert found.level.tolist() == plan.tokens[:, 0].tolist()
    assert (found.size == 16 * 2**found.level).all()
    assert not found.status.any()
    parts = list(iter_tokens(pyr, plan, batch=batch, mean=MEAN, std=STD))
    assert [len(part.rows) for part in parts[:-1]] == [batch] * (len(parts) - 1)
    for name in ("pixels", "yx", "level", "size", "share", "status", "rows", "area"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(found, name))


def test_places_and_areas() -> None:
    pyr = image_of(64, 100)
    plan = plan_tokens(pyr, budget=5, patch_px=16, max_level=3)
    batch = read_tokens(pyr, plan)
    tokens = plan.tokens
    middle_y = (tokens[:, 1] + np.minimum(tokens[:, 1] + tokens[:, 3], 64)) / 2
    middle_x = (tokens[:, 2] + np.minimum(tokens[:, 2] + tokens[:, 3], 100)) / 2
    np.testing.assert_allclose(batch.yx, np.column_stack([middle_y / 64, middle_x / 100]), rtol=1e-6)
    assert ((batch.yx > 0) & (batch.yx < 1)).all()
    # of pixels that the edge of the image cuts, those count that hold any of it
    assert (batch.area * 256).sum() == pytest.approx(64 * 100, rel=0.05)
    np.testing.assert_allclose(batch.log_area, np.log(batch.area))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "uint8"}, "one of .*float16"),
        ({"mean": (1.0, 2.0)}, "1 or 3 finite numbers"),
        ({"std": 0.0}, "none of them 0"),
    ],
)
def test_what_cannot_be_normalised_is_refused(options: dict[str, object], said: str) -> None:
    pyr = image_of(20, 20)
    with pytest.raises(ConfigError, match=said):
        read_tokens(pyr, plan_tokens(pyr, budget=5), **options)


@pytest.mark.parametrize(
    "plan_of",
    [lambda pyr: plan_tokens(pyr, budget=5), lambda pyr: plan_tiles(pyr, where="all")],
    ids=["tokens", "tiles"],
)
def test_a_plan_of_another_image_is_refused(plan_of: Callable[[Pyramid], TilePlan | TokenPlan]) -> None:
    """It would show other places, or those of another patient."""
    mine, other = pyramid(np.zeros((70, 70), np.uint8)), pyramid(np.ones((70, 70), np.uint8))
    plan = plan_of(other)
    reads = [lambda: next(stream_tiles(mine, plan))]
    if isinstance(plan, TokenPlan):
        reads += [lambda: read_tokens(mine, plan), lambda: next(iter_tokens(mine, plan))]
    for read in reads:
        with pytest.raises(ConfigError, match="another image"):
            read()
    assert len(next(stream_tiles(other, plan)).pixels)


def test_types_of_samples() -> None:
    pyr = pyramid(np.full((64, 64), 3000, np.uint16))
    plan = plan_tokens(pyr, budget=8)
    assert (read_tokens(pyr, plan).pixels == 3000).all()
    half = read_tokens(pyr, plan, mean=0.5, std=0.1, scale=1 / 6000, dtype="float16")
    assert half.pixels.dtype == np.float16
    assert half.pixels[0, 0, 0, 0] == 0


def test_no_token_is_an_empty_batch() -> None:
    pyr = pyramid(np.zeros((40, 40), np.uint8))
    nothing = plan_tokens(pyr, budget=3, levels=(0,), relevance=nothing_matters)
    batch = read_tokens(pyr, nothing)
    assert batch.pixels.shape == (0, 1, 16, 16)
    assert batch.yx.shape == (0, 2)


def nothing_matters(pyr: Pyramid) -> ScoreMap:
    return ScoreMap(
        name="0", values=np.zeros((1, 1), np.float32), valid=np.ones((1, 1), bool), cell_yx=(64.0, 64.0),
        shape=pyr.info.shape,
    )  # fmt: skip


def test_a_damaged_token_says_so(tmp_path) -> None:
    path = write_slide(tmp_path / "a.svs", Shape(y=512, x=512), seed=1)
    data = bytearray(path.read_bytes())
    at = data.find(b"\xff\xda", len(data) // 8)  # a scan of a tile of level 0
    data[at : at + 40] = b"\0" * 40
    path.write_bytes(bytes(data))
    pyr = open_pyramid(path, cache_bytes=0)
    plan = plan_tokens(pyr, budget=100, patch_px=64, levels=(0,))
    batch = read_tokens(pyr, plan, mean=0.5, std=0.5)
    bad = batch.status == TileStatus.DAMAGED
    assert 0 < bad.sum() < len(bad)
    assert (batch.pixels[bad] == -1).all()
    assert (batch.area[bad] == 0).all()
    assert np.isneginf(batch.log_area[bad]).all()
    assert sorted(row for rows in batch.reasons.values() for row in rows) == np.flatnonzero(bad).tolist()
