"""Forecasts of stores of fields, what tiles are read from, and figures added up."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from tests.codecs.exactfield import ExactField
from tilestream.codecs.place import Place
from tilestream.codecs.pyramid.pyramidcodec import PyramidCodec
from tilestream.codecs.tilecodec import FieldCodec
from tilestream.codecs.tilequality import LevelError
from tilestream.errors import BudgetError
from tilestream.pipelines import compress_size
from tilestream.pipelines.compress_layout import FieldPlan, reduced_level
from tilestream.pipelines.compress_measure import Sums, measures_of
from tilestream.pipelines.compress_size import Forecast, forecast_store
from tilestream.pipelines.compress_work import TilePixels
from tilestream.pipelines.report_words import psnr_words
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.registry import CODECS
from tilestream.relevance.emphasis import Emphasis
from tilestream.sinks.fieldstore import field_layout
from tilestream.sinks.tiling import Tiling
from tilestream.types import Channel, ImageInfo, Level, Receipt, ScoreMap, Shape

STEP_S, START_S = 0.25, 3.0


class TimedField(ExactField):
    """A fit that takes an exact time of a clock of its own."""

    clock = 0.0

    def fit(self, source, *, steps=None, **stop):
        type(self).clock += START_S + STEP_S * steps
        return super().fit(source, steps=steps, **stop)

    @property
    def sizes(self):
        return {"table": 90_000}


@pytest.fixture
def timed(monkeypatch):
    monkeypatch.setitem(CODECS, "exact", f"{__name__}:TimedField")
    monkeypatch.setattr("tilestream.codecs.tilecodec.field_class", lambda name: TimedField)
    monkeypatch.setattr(compress_size.time, "perf_counter", lambda: TimedField.clock)
    return FieldCodec(field="exact", steps=400)


def half_glass():
    rng = np.random.default_rng(0)
    pixels = np.full((3, 512, 512), 255, np.uint8)
    pixels[:, :, :256] = rng.integers(0, 255, (3, 512, 256))
    return open_pyramid(pixels)


def receipt(x, *, measures):
    return Receipt(key=f"L0-make0-y0-x{x}", recipe="", outputs={}, tiles=1, measures=measures)


def plan_of(pyramid: Pyramid, codec, tile_px=64):
    return FieldPlan(layout=field_layout(pyramid.info, codec, tiling=Tiling.of(pyramid.info.shape, tile_px=tile_px)))


def test_a_forecast_extrapolates_short_fits_over_the_tiles_that_are_no_background(timed):
    pyramid = half_glass()
    found = forecast_store(pyramid, plan_of(pyramid, timed), timed, threads=2)
    assert found.tiles == 64
    assert found.fitted == pytest.approx(32, abs=5)
    assert found.tile_s == pytest.approx(START_S + STEP_S * 400)
    assert found.wall_s == pytest.approx(found.tile_s * found.fitted / 2, rel=0.1)
    assert found.store_bytes == pytest.approx(90_000 * found.fitted, rel=0.01)


def test_what_takes_no_steps_is_tried_as_it_is(timed):
    codec = FieldCodec(field="exact", steps=2)
    pixels = np.random.default_rng(0).integers(0, 255, (1, 16, 16), np.uint8)
    TimedField.clock = 0.0
    assert compress_size.probed_cost(codec, TilePixels(pixels=pixels, valid=None)).seconds == START_S + 2 * STEP_S
    assert TimedField.clock == 2 * (START_S + 2 * STEP_S)  # once more for what a process has to compile


def test_glass_that_a_codec_takes_one_colour_for_is_not_counted(monkeypatch):
    monkeypatch.setattr(compress_size, "probed_cost", lambda codec, tile: compress_size.Cost(seconds=2.0, nbytes=900))
    pixels = np.full((3, 512, 512), 240, np.uint8)
    pixels[:, ::7, ::5] += 1  # no two pixels of real glass are equal either
    pixels[:, :, :256] = np.random.default_rng(0).integers(0, 255, (3, 512, 256))
    pyramid, codec = open_pyramid(pixels), PyramidCodec()
    plan = plan_of(pyramid, codec)
    found = forecast_store(pyramid, plan, codec, threads=1)
    assert (found.tiles, found.tile_s) == (64, 2.0)
    assert found.fitted == pytest.approx(32, abs=5)
    assert found.store_bytes == pytest.approx(found.fitted * 900 + (64 - found.fitted) * 45, rel=0.05)
    values = np.zeros((8, 8), np.float32)  # nothing matters, so that no tile is worth its network
    scores = ScoreMap(
        name="none", values=values, valid=values == 0, cell_yx=(64.0, 64.0), shape=pyramid.info.shape, absolute=True
    )
    dim = forecast_store(pyramid, plan, codec, threads=1, emphasis=Emphasis(scores=scores, db=60.0))
    assert dim.fitted == 0


def test_tiles_of_an_earlier_run_are_a_better_measure(timed):
    pyramid = half_glass()
    seconds, nbytes = (7.0, 9.0), (0.0, 100.0)
    done = [
        replace(receipt(x, measures={"bytes 0": nbytes[x]}), counts={"fitted": 1}, seconds={"fit": seconds[x]})
        for x in range(2)
    ]
    found = forecast_store(pyramid, plan_of(pyramid, timed), timed, threads=2, done=done)
    assert (found.tiles, found.tile_s) == (62, 8.0)
    glass = len(timed.encode(np.full((3, 64, 64), 255, np.uint8)))
    assert 30 < glass < 60
    assert found.store_bytes == pytest.approx((100 + glass) * 32, rel=0.2)


def test_a_busy_sliver_at_the_edge_does_not_stand_for_whole_tiles(timed, monkeypatch):
    probed = []
    monkeypatch.setattr(compress_size, "probed_cost", lambda codec, tile: probed.append(tile) or compress_size.Cost())
    pixels = np.random.default_rng(0).integers(0, 200, (3, 64, 72)).astype(np.uint8)
    pixels[:, :, 64:] = np.where(pixels[:, :, 64:] < 100, 0, 255)
    pyramid = open_pyramid(pixels)
    forecast_store(pyramid, plan_of(pyramid, timed), timed, threads=1)
    assert [tile.pixels.shape for tile in probed] == [(3, 64, 64)]


def test_what_is_all_of_one_colour_is_not_told_to_cost_nothing(timed):
    pyramid = open_pyramid(np.full((3, 64, 64), 7, np.uint8))
    found = forecast_store(pyramid, plan_of(pyramid, timed), timed, threads=2)
    assert (found.fitted, found.wall_s) == (0, 0)
    assert found.store_bytes == len(timed.encode(np.full((3, 64, 64), 7, np.uint8)))


def test_what_takes_too_long_or_too_much_is_refused_with_the_knob(tmp_path):
    fits = Forecast(tiles=100, fitted=100, tile_s=36, threads=1, store_bytes=0, task_bytes=1 << 20)
    place = Place.of(tmp_path / "store.zarr")
    fits.require(place, tasks=1, memory_bytes=2 << 20, hours=1.01, what="x")
    with pytest.raises(BudgetError, match=r"about 1.0 h: 100 tiles of 36.0 s each on 1 thread, .*Lower --steps"):
        fits.require(place, tasks=1, memory_bytes=2 << 20, hours=0.99, what="x")
    with pytest.raises(BudgetError, match="smaller --tile"):
        fits.require(place, tasks=3, memory_bytes=2 << 20, hours=2, what="x")


def level(index, y, x, scale):
    return Level(index=index, shape=Shape(y=y, x=x), block=Shape(y=64, x=64), scale_yx=(scale, scale))


def info(*levels):
    return ImageInfo(format="x", levels=levels, dtype=np.dtype("u1"), channels=(Channel(name="a"),), fingerprint="x")


def test_a_level_is_read_from_what_is_stored_of_it_and_never_from_one_that_was_cut():
    halved = info(level(0, 1001, 800, 1.0), level(1, 251, 200, 4.0))
    found = reduced_level(halved, 4)
    assert (found.stored, found.ratio_yx, found.shape) == (1, (Fraction(4), Fraction(4)), Shape(y=63, x=50))
    assert reduced_level(halved, 0).is_stored
    cut = replace(halved, levels=(halved.levels[0], level(1, 250, 200, 1001 / 250)))
    assert reduced_level(cut, 4).stored == 0


def test_figures_add_up_over_tiles_whatever_their_order():
    errors = [LevelError(squares=3.0, samples=4, low=1, high=9), LevelError(squares=1.0, samples=4, low=0, high=5)]
    receipts = [
        receipt(n, measures=measures_of([error, LevelError()], first=0, nbytes=10 + n))
        for n, error in enumerate(errors)
    ]
    sums = Sums.of(reversed(receipts))
    assert sums.errors == {0: LevelError(squares=4.0, samples=8, low=0, high=9)}
    record = sums.record(levels=2, dtype=np.dtype("int16"), pixels=8)
    assert record["psnr"] == [round(10 * np.log10(81 / 0.5), 3), None]
    assert record["exact"] == []
    assert [psnr_words(record, level) for level in (0, 1)] == ["22.09", "–"]
    assert (record["bytes"], record["bpp"], record["largest_tile_bytes"]) == (21, 21.0, 11)
    assert record["span"] == [0, 9]
