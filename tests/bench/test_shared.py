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


def test_the_bytes_of_a_psnr_lie_between_those_of_settings():
    curve = [(900, 31.0), (400, 29.0), (600, 30.0)]
    assert bench_shared.least_bytes(curve, 30) == pytest.approx(600)
    assert bench_shared.least_bytes(curve, 29.5) == pytest.approx(math.sqrt(400 * 600))
    assert bench_shared.least_bytes(curve, 20) == pytest.approx(400)
    assert math.isnan(bench_shared.least_bytes(curve, 40))


def test_a_rival_counts_on_tiles_that_it_can_make_so_small():
    coded = [bench_shared.Coded(pixels=tile(), nbytes=size, psnr=30.0) for size in (900, 30)]
    row = bench_shared.rival_row("here", "jpeg420", coded, (1,))
    assert row["value"] == 30.0 - bench_shared.best_within("jpeg420", tile(), 900, (1,))
    assert row["note"].startswith("1 of 2 tiles")


def test_a_rival_fills_the_bytes_that_there_are():
    every = [bench_shared.CONVENTIONAL["jpeg420"].encode(tile(), quality) for quality in range(1, 101)]
    best = max(len(data) for data in every if len(data) <= 1000)
    found = bench_shared.CONVENTIONAL["jpeg420"].within(tile(), 1000)
    assert found is not None
    assert len(found) == best


def test_reduced_tiles_come_back_at_their_size_where_a_codec_cannot_go_so_low():
    whole, either = (bench_shared.best_within("webp", tile(), 100, by) for by in ((1,), (1, 4)))
    assert math.isnan(whole)
    assert 10 < either < 60


def test_a_tile_is_counted_with_all_its_bytes():
    found = bench_shared.coded(made_decoder(), tile())
    assert found.nbytes > 52
    assert np.isfinite(found.psnr)
