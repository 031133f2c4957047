"""Grids under shared networks: foretold, refined, in batches, around what is not valid."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.codecs.fields.pictures import picture
from tests.codecs.pyramid.madeshared import made_shared
from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.pyramid.analysis import Analysis
from tilestream.codecs.pyramid.analysisnet import AnalysisNet
from tilestream.codecs.pyramid.file import PyramidFile
from tilestream.codecs.pyramid.latents import encode_grids
from tilestream.codecs.pyramid.nets import grid_shapes
from tilestream.codecs.pyramid.pyramidtile import PyramidTile
from tilestream.codecs.pyramid.sharedencode import encode_shared
from tilestream.errors import ConfigError


def loss_of(grids, tile: Levels, shared, *, lmbda: float = 1e-3) -> float:
    """Return D + λ·R of what is decoded, with all bits of its file."""
    data = PyramidFile.of(tile.picture, shared.nets, grids, shared=True).to_bytes()
    error = 10 ** (-tile.psnr(0, PyramidTile.from_bytes(data).decode()) / 10)
    return error + lmbda * 8 * len(data) / tile.pixels[0][0].size


@pytest.mark.parametrize("size", [(32, 32), (19, 45), (1, 1)])
@pytest.mark.parametrize("steps", [0, 2])
def test_grids_are_those_of_a_file(size: tuple[int, int], steps: int) -> None:
    shared, tile = made_shared(), Levels.of(picture(*size), levels=1)
    [grids] = encode_shared([tile], shared, steps=steps)
    assert [grid.shape for grid in grids] == [shape.yx for shape in grid_shapes(tile.picture.shape, 4)]
    _, coded = encode_grids(grids, shared.nets)
    for one, other in zip(coded, grids, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("lmbda", [1e-3, 2e-5])
def test_black_and_white_are_within_what_is_coded(value: int, lmbda: float) -> None:
    shared, tile = made_shared(lmbda=lmbda), Levels.of(np.full((3, 64, 64), value, np.uint8), levels=1)
    [grids] = encode_shared([tile], shared)
    assert 20 < max(int(np.abs(grid).max()) for grid in grids) < 127
    _, coded = encode_grids(grids, shared.nets)
    for one, other in zip(coded, grids, strict=True):
        np.testing.assert_array_equal(one, other)


def test_steps_make_it_better_and_chance_is_fixed() -> None:
    shared, tile = made_shared(), Levels.of(picture(32, 48), levels=1)
    [foretold], [refined], [again] = (encode_shared([tile], shared, steps=steps) for steps in (0, 100, 100))
    assert loss_of(refined, tile, shared) < 0.99 * loss_of(foretold, tile, shared)
    for one, other in zip(refined, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_networks_are_made_ready_once_for_all_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    made, of = [], AnalysisNet.of

    def noted(record: Analysis) -> AnalysisNet:
        made.append(record)
        return of(record)

    monkeypatch.setattr(AnalysisNet, "of", noted)
    shared, other = made_shared(), made_shared(seed=1)
    tiles = [Levels.of(picture(size, 24), levels=1) for size in (16, 24)]
    for _ in range(2):
        for tile in tiles:
            encode_shared([tile], shared, steps=1)
    encode_shared(tiles, other)
    assert made == [shared.analysis, other.analysis]


def test_a_higher_price_is_smaller_numbers() -> None:
    shared, tile = made_shared(), Levels.of(picture(16, 32), levels=1)
    sums = []
    for lmbda in (1e-5, 1.0):
        [grids] = encode_shared([tile], shared, steps=60, lmbda=lmbda)
        sums.append(sum(int(np.abs(grid).sum()) for grid in grids))
    assert sums[1] < 0.8 * sums[0]


def test_tiles_of_a_batch_do_not_know_of_each_other() -> None:
    shared = made_shared()
    tiles = [Levels.of(picture(*size, seed=seed), levels=1) for seed, size in enumerate([(16, 24), (32, 8), (16, 24)])]
    together = encode_shared(tiles, shared, steps=0)
    for tile, grids in zip(tiles, together, strict=True):
        [alone] = encode_shared([tile], shared, steps=0)
        assert max(int(np.abs(one - other).max()) for one, other in zip(grids, alone, strict=True)) <= 1
    refined = encode_shared(tiles, shared, steps=100)
    for tile, grids, first in zip(tiles, refined, together, strict=True):
        assert loss_of(grids, tile, shared) < loss_of(first, tile, shared)


def test_what_is_not_valid_changes_nothing() -> None:
    shared, pixels = made_shared(), picture(32, 32)
    valid = np.ones((32, 32), bool)
    valid[:, 20:] = False
    other = pixels.copy()
    other[:, ~valid] = 255 - other[:, ~valid]
    for steps in (0, 3):
        one, same = (
            encode_shared([Levels.of(source, valid, levels=1)], shared, steps=steps)[0] for source in (pixels, other)
        )
        for grid, twin in zip(one, same, strict=True):
            np.testing.assert_array_equal(grid, twin)


def test_what_does_not_count_has_no_numbers() -> None:
    shared, tile = made_shared(), Levels.of(picture(16, 32), levels=1)
    weights = np.full((16, 32), 1000, np.float32)
    weights[:, 16:] = 0
    [grids] = encode_shared([tile], shared, steps=60, lmbda=0.1, weights=[weights])
    counted, other = (np.abs(part).mean() for part in (grids[1][:, :6], grids[1][:, 10:]))
    assert other < 0.5 * counted


def test_other_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 channels"):
        encode_shared([Levels.of(picture(16, 16)[:1], levels=1)], made_shared())
