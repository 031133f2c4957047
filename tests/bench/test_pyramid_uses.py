"""Benches of the pyramid codec: fronts, regions, features, a whole slide, and what shared networks may not see."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.bench import bench_pyramid_features as features
from tests.bench import bench_pyramid_slide as whole_slide
from tests.bench import bench_pyramid_uses as uses
from tests.bench import rd_shared
from tests.bench.rd_pictures import CROPS
from tests.codecs.fields.pictures import picture
from tests.codecs.pyramid.made import made_grids, made_nets
from tilestream.codecs import CONVENTIONAL, psnr
from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.pyramid.file import PyramidFile
from tilestream.codecs.pyramid.pyramidtile import PyramidTile
from tilestream.pipelines.ingest import build_pyramid
from tilestream.testing.slide import write_slide
from tilestream.types import Box, Shape

SCALES = 5


@pytest.fixture(scope="module")
def data() -> bytes:
    tile = Picture.of(picture(64, 64))
    return PyramidFile.of(tile, made_nets(scales=SCALES), made_grids(tile.shape, SCALES)).to_bytes()


def test_a_front_is_the_fewest_bytes_that_hold_a_grid(data: bytes) -> None:
    sizes = uses.fronts(data)
    assert [uses.stages_of(data[:size]) for size in sizes] == [*range(1, SCALES + 1)]
    assert [uses.stages_of(data[: size - 1]) for size in sizes] == [*range(SCALES)]


def test_fronts_count_where_each_is_better(data: bytes) -> None:
    whole = PyramidTile.from_bytes(data).decode()
    row = uses.progressive_row(whole, data)
    told = [psnr(whole, PyramidTile.from_bytes(data).decode(stages=n)) for n in range(1, SCALES + 1)]
    assert row["value"] == (SCALES if all(b > a for a, b in itertools.pairwise(told)) else 0)
    coarsest = PyramidTile.from_bytes(data).decode(stages=1)
    assert uses.progressive_row(coarsest, data)["value"] == 0
    assert uses.progressive_row(coarsest, data)["ok"] is False


class Steps:
    """Stands for the codec: noise of a size, less of it where weights are 1, in as many bytes as it says."""

    def __init__(self, size: int, noise: int, outside: int) -> None:
        self.size, self.noise, self.outside = size, noise, outside

    def encode(self, pixels: np.ndarray, valid: None = None, *, roi: np.ndarray | None = None) -> bytes:
        self.pixels, self.roi = pixels, np.ones(pixels.shape[1:], np.float32) if roi is None else roi
        return b"x" * self.size

    def decode(self, data: bytes) -> np.ndarray:
        assert self.roi.max() == 1
        errors = np.where(self.roi == 1, self.noise, self.outside)
        return np.where(self.pixels > 127, self.pixels - errors, self.pixels + errors).astype(np.uint8)


def test_a_region_is_compared_at_equal_bytes() -> None:
    pixels = picture(64, 64)
    plain = [Steps(1000, 16, 16), Steps(2000, 8, 8), Steps(4000, 4, 4)]
    row = uses.region_row(pixels, Steps(2000, 4, 16), plain)
    assert row["value"] == pytest.approx(20 * math.log10(2))
    assert row["ok"] is True
    assert "-6.02 dB" in row["note"]
    assert uses.region_row(pixels, Steps(2000, 7, 16), plain)["ok"] is False
    assert math.isnan(uses.region_row(pixels, Steps(9000, 4, 16), plain)["value"])


class Jpeg:
    """Stands for the codec."""

    def encode(self, pixels: np.ndarray) -> bytes:
        return CONVENTIONAL["jpeg444"].encode(pixels, 60)

    def decode(self, data: bytes) -> np.ndarray:
        return CONVENTIONAL["jpeg444"].decode(data)


def test_features_of_decoded_tiles_are_compared_with_those_of_the_originals() -> None:
    pytest.importorskip("torch")
    rows = features.feature_rows([picture(64, 64, seed=seed) for seed in (0, 1)], Jpeg())
    assert len(rows) == 2 * (1 + len(features.RIVALS))
    assert all(0.9 < row["value"] < 1 for row in rows)
    assert [row["bar"] is not None for row in rows] == [True, False, False] * 2
    assert np.allclose(features.cosines(np.eye(2), np.array([[3.0, 4], [0, 2]])), [0.6, 1])


def test_a_whole_slide_is_compared_with_its_own_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = write_slide(tmp_path / "a.tif", Shape(y=512, x=512), tile_px=256)
    store = tmp_path / "archive.zarr"
    build_pyramid(slide, store)  # the streams themselves, in the place of minutes of fitting
    monkeypatch.setattr(whole_slide, "stored", lambda *_: (store, 1.0))
    size, structure = whole_slide.slide_rows(slide, tmp_path, whole_slide.SlideRun())
    with tifffile.TiffFile(slide) as file:
        streams = sum(file.pages[0].databytecounts)
    assert size["rival_value"] == pytest.approx(streams / 1e6, rel=0.05), "tables come to it once"
    assert size["value"] == sum(path.stat().st_size for path in store.rglob("*") if path.is_file()) / 1e6
    assert (size["ok"], structure["value"]) == (False, pytest.approx(1))
    original, squares = whole_slide.whole(slide), whole_slide.tissue_squares(slide)
    assert 0 < len(squares) < 4, "not the glass"
    darker = original // 2
    assert whole_slide.similarity(original, darker, squares)[0] < 0.98
    assert whole_slide.slide_rows(slide, tmp_path, whole_slide.SlideRun(), bytes_bar=1e9)[0]["ok"] is True


@pytest.mark.parametrize("path", rd_shared.LARGE)
def test_networks_learn_from_other_places_of_large_slides(path: str) -> None:
    lesson = rd_shared.Lesson.of([path])
    box = rd_shared._around(path, lesson.pictures)
    crops = [crop for crop in CROPS if crop.path == path and crop.name in lesson.pictures]
    assert box is not None
    assert len(crops) > 1
    for crop in crops:
        edge = crop.edge_px * (1 + crop.is_half)
        one = Box(y=crop.y, x=crop.x, height=edge, width=edge)
        assert one.intersect(box) == one


def test_nothing_of_a_square_is_learned_from() -> None:
    pixels = np.zeros((3, 10, 12), np.uint8)
    pixels[:, 2:5, 3:12] = 1
    parts = rd_shared._outside(pixels, Box(y=2, x=3, height=3, width=9))
    assert sum(part[0].size for part in parts) == 120 - 27
    assert not any(part.any() for part in parts)


def test_each_picture_of_tissue_has_networks_of_one_slide() -> None:
    named = [name for paths in rd_shared.SLIDES for name in rd_shared.Lesson.of(paths).pictures]
    assert sorted(named) == sorted(rd_shared.Lesson.of_cohort().pictures)
    assert {crop.name for crop in CROPS if crop.group in rd_shared.GROUPS and not crop.is_extra} == set(named)
