"""Which decoded blocks a pyramid keeps: coarse levels only, and levels that are decoded ahead."""

import numpy as np
import pytest

import tilestream as ts
from tests.sources.madezarr import save_pyramid
from tilestream.cache import blocks
from tilestream.cache.blocks import block_cache
from tilestream.metrics import collect
from tilestream.types import Box


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Levels of 512, 256 and 128 px in chunks of 128 px."""
    monkeypatch.setattr(blocks, "_process", blocks._Process())
    fine = np.random.default_rng(0).integers(0, 255, (3, 512, 512)).astype("uint8")
    save_pyramid(tmp_path / "a.zarr", [fine, fine[:, ::2, ::2], fine[:, ::4, ::4]], chunk_px=128)
    return tmp_path / "a.zarr"


def decoded(pyramid, box):
    with collect() as meter:
        pyramid.read(box)
    return meter.counts.get("blocks_decoded", 0)


def test_looking_at_fine_levels_leaves_coarse_ones_in_the_cache(path):
    pyramid = ts.open_pyramid(path, cache_bytes=4 * 50_000, keep_from=1)
    overview = pyramid.levels[2].box
    assert [decoded(pyramid, overview), decoded(pyramid, overview)] == [1, 0]
    for _ in range(2):
        assert decoded(pyramid, pyramid.levels[0].box) == 16
    assert decoded(pyramid, overview) == 0
    assert block_cache(0).held_bytes < 60_000


@pytest.mark.parametrize(
    ("budget", "kept"), [(10 << 20, [16, 4, 1]), (300_000, [4, 1]), (110_000, [1]), (60_000, []), (0, [])]
)
def test_warming_up_goes_from_coarse_to_fine_as_far_as_the_budget_goes(path, budget, kept):
    pyramid = ts.open_pyramid(path, cache_bytes=budget)
    with collect() as meter:
        taken = pyramid.warm_up()
    assert meter.counts.get("blocks_decoded", 0) == sum(kept)
    assert taken <= budget
    for level, count in zip((2, 1, 0), (1, 4, 16), strict=True):
        assert decoded(pyramid, pyramid.levels[level].box) == (0 if count in kept else count)


@pytest.mark.parametrize(("keep_from", "finest", "count"), [(0, 1, 5), (2, None, 1), (2, 0, 1), (0, 9, 0)])
def test_warming_up_ends_where_it_is_told(path, keep_from, finest, count):
    pyramid = ts.open_pyramid(path, keep_from=keep_from)
    with collect() as meter:
        pyramid.warm_up(finest)
    assert meter.counts.get("blocks_decoded", 0) == count


def test_a_damaged_block_does_not_end_it(path):
    (path / "1/image/c/0/0/0").write_bytes(b"no shard")
    pyramid = ts.open_pyramid(path)
    pyramid.warm_up()
    region = pyramid.read_region(Box(level=1, y=0, x=0, height=8, width=8))
    assert region.damage
