"""The bench of shared decoders: its sums, and one small run."""

import math

import numpy as np
import pytest

from tests.bench import bench_shared
from tests.codecs.fields.madedecoder import made_decoder
from tests.codecs.fields.pictures import picture

pytest.importorskip("torch")


def tile(seed=0):
    return picture(64, 64, seed=seed)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(bench_shared, "TILE_PX", 64)
    monkeypatch.setattr(bench_shared, "FIT_STEPS", 2)


def test_the_fewest_bytes_that_reach_a_psnr():
    curve = [(900, 31.0), (500, 29.0), (700, 30.0)]
    assert bench_shared.least_bytes(curve, 29.5) == 700
    assert math.isnan(bench_shared.least_bytes(curve, 40))


def test_a_rival_counts_on_tiles_that_it_can_make_so_small():
    coded = [bench_shared.Coded(pixels=tile(), nbytes=size, psnr=30.0) for size in (600, 100)]
    row = bench_shared.rival_row("here", "jpeg420", coded, [[(500, 28.0), (590, 29.0), (700, 33.0)]] * 2, "")
    assert row["value"] == 1.0
    assert row["note"].startswith("1 of 2 tiles")


def test_reduced_tiles_come_back_at_their_size_and_take_fewer_bytes():
    whole, reduced = (bench_shared.points("webp", tile(), (by,)) for by in (1, 4))
    assert min(size for size, _ in reduced) < min(size for size, _ in whole)
    assert max(decibels for _, decibels in whole) > max(decibels for _, decibels in reduced)


def test_a_tile_is_counted_with_all_its_bytes():
    found = bench_shared.coded(made_decoder(), tile())
    assert found.nbytes > 52
    assert np.isfinite(found.psnr)
