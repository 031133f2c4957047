"""What a plan will read is what it reads."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, floor

import numpy as np
import pytest

import tilestream as ts
from tests.pipelines.recording import Recording
from tilestream.fovea import Fovea
from tilestream.pipelines.token_forecast import forecast_tokens
from tilestream.plan.selection import Selection
from tilestream.plan.tokens import plan_tokens
from tilestream.stream.batches import stream_tiles
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_slide(tmp_path_factory.mktemp("forecast") / "made.svs", Shape(y=2100, x=1900), mpp=0.5, tile_px=64)


@pytest.mark.parametrize(("mpp", "where"), [(None, "all"), (0.8, "all"), (None, "part")])
def test_the_blocks_that_are_decoded_are_those_that_were_foreseen(path, mpp, where):
    pyramid = ts.open_pyramid(path, cache_bytes=0)
    if where == "part":
        mask = np.zeros((21, 19), np.bool_)
        mask[4:12, 3:9] = True
        where = Selection(name="mask", mask=mask, scale_yx=(100.0, 100.0), area=pyramid.info.shape)
    fovea = Fovea(fixations_yx=((700, 600),), e0_px=150)
    plan = plan_tokens(pyramid, budget=60, fovea=fovea, patch_px=32, mpp=mpp, where=where)
    forecast = forecast_tokens(str(path), pyramid, plan)
    source = Recording(pyramid.source)
    for _ in stream_tiles(replace(pyramid, source=source), plan):
        pass
    decoded = dict.fromkeys(forecast.decoded_px, 0)
    for stored, iy, ix in source.blocks:
        level = pyramid.levels[stored]
        height = min(level.block.y, level.shape.y - iy * level.block.y)
        decoded[str(stored)] += height * min(level.block.x, level.shape.x - ix * level.block.x)
    assert decoded == forecast.decoded_px
    assert forecast.tokens == len(plan)
    assert forecast.seen_px == len(plan) * 32 * 32


def test_a_full_pass_is_what_all_wanted_squares_cost(path):
    pyramid = ts.open_pyramid(path)
    everything = plan_tokens(pyramid, budget=10**6, patch_px=100, levels=(0,))
    forecast = forecast_tokens(str(path), pyramid, everything)
    assert forecast.tokens == forecast.full_tokens == 21 * 19
    assert forecast.share == 1
    assert forecast.decoded_px == {"0": 2100 * 1900}
    assert forecast.full_decoded_px == forecast.image_px == 2100 * 1900
    assert forecast.file_bytes == path.stat().st_size
    stored = sum(level.shape.area for level in pyramid.levels)
    assert forecast.read_bytes == round(path.stat().st_size * 2100 * 1900 / stored)


def test_a_selection_makes_the_full_pass_smaller(path):
    pyramid = ts.open_pyramid(path)
    mask = np.zeros((21, 19), np.bool_)
    mask[3:7, 5:8] = True
    where = Selection(name="mask", mask=mask, scale_yx=(100.0, 100.0), area=pyramid.info.shape)
    plan = plan_tokens(pyramid, budget=5, patch_px=100, where=where)
    forecast = forecast_tokens(str(path), pyramid, plan)
    assert forecast.full_tokens == 12
    rows, columns = (ceil(b / 64) - floor(a / 64) for a, b in ((300, 700), (500, 800)))
    assert forecast.full_decoded_px == rows * columns * 64 * 64


def test_no_token_costs_nothing(path):
    pyramid = ts.open_pyramid(path)
    where = Selection(name="mask", mask=np.zeros((1, 1), np.bool_), scale_yx=(2100.0, 1900.0), area=pyramid.info.shape)
    forecast = forecast_tokens(str(path), pyramid, plan_tokens(pyramid, budget=5, patch_px=100, where=where))
    assert (forecast.tokens, forecast.full_tokens, forecast.share) == (0, 0, 0)
    assert (forecast.decoded_px, forecast.read_bytes, forecast.full_decoded_px) == ({}, 0, 0)
