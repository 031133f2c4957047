"""A fit finds networks and grids in whole numbers that decode to the tile."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.codecs.pyramid.made import made_grids, made_nets
from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.pyramid import fit
from tilestream.codecs.pyramid.export import DraftLayer, draft_of, model_of
from tilestream.codecs.pyramid.fit import fit_pyramid
from tilestream.codecs.pyramid.fitrun import MOST_NUMBER, FitRun
from tilestream.codecs.pyramid.latents import encode_grids
from tilestream.codecs.pyramid.model import PyramidShape
from tilestream.codecs.pyramid.nets import FEATURE_MOST, PASSES, PIXEL_MOST
from tilestream.codecs.pyramid.netsteps import coded_bits
from tilestream.errors import ConfigError
from tilestream.kernels.pyramid_context import pyramid_context
from tilestream.kernels.pyramid_synthesis import pyramid_synthesis
from tilestream.types import Shape

SMALL = PyramidShape(scales=4, hidden=6, context=6)


@pytest.fixture(scope="module")
def tile() -> np.ndarray:
    y, x = np.mgrid[:24, :28] / 28
    rng = np.random.default_rng(0)
    shade = 0.5 + 0.3 * np.sin(7 * x + 3 * y) * np.cos(5 * y) + 0.1 * (np.hypot(y - 0.4, x - 0.5) < 0.2)
    colour = np.array([0.9, 0.6, 0.8])[:, None, None] * shade + rng.normal(0, 0.005, (3, 24, 28))
    return (np.clip(colour, 0, 1) * 255).astype(np.uint8)


def test_a_float_model_computes_what_whole_numbers_do() -> None:
    shape = Shape(y=21, x=18)
    nets, grids = made_nets(5), made_grids(shape, 4, spread=2.0)
    model = model_of(nets, shape)
    model.set_grids(grids)
    with torch.no_grad():
        pixels = [one.numpy() * PIXEL_MOST for one in model.pixels(model.numbers)]
        bits = float(model.bits(model.numbers))
    for level, found in enumerate(pixels):
        exact = pyramid_synthesis(grids, nets, level, threads=1)
        inside = np.abs(exact) < 20_000
        assert inside.any()
        assert np.abs(found - exact)[inside].mean() < 64
    assert bits > coded_bits(grids, nets)  # middles by chance: what is far from one is clamped, and floored by a table


def test_bits_of_a_fit_are_those_of_its_file(tile: np.ndarray) -> None:
    nets, grids, _ = fit_pyramid(Levels.of(tile, levels=1), lmbda=2e-3, steps=30, shape=SMALL)
    model = model_of(nets, Shape(y=24, x=28))
    model.set_grids(grids)
    with torch.no_grad():
        bits = float(model.bits(model.numbers))
    assert bits == pytest.approx(coded_bits(grids, nets), rel=0.03)
    assert bits == pytest.approx(8 * sum(map(len, encode_grids(grids, nets)[0])), rel=0.15)


def test_inputs_of_contexts_are_those_of_the_decoder() -> None:
    shape = Shape(y=21, x=18)
    nets, grids = made_nets(3), made_grids(shape, 4)
    model = model_of(nets, shape)
    model.set_grids(grids)
    middles = np.empty(len(model.numbers))
    inputs = model.inputs(model.numbers.detach())
    for net, given, (_, places) in zip(model.context, inputs, model.neighbours.networks, strict=True):
        with torch.no_grad():
            middles[places] = (net.weights[2] @ net.hidden_of(given, 2) + net.biases[2])[0].numpy()
    start = 0
    for number, grid in enumerate(grids):
        found = middles[start : start + grid.size].reshape(grid.shape)
        start += grid.size
        odd = np.arange(grid.shape[0])[:, None] % 2 != np.arange(grid.shape[1]) % 2
        for turn in range(PASSES):
            exact, _ = pyramid_context(grids, number, turn, nets.context[nets.table[number, turn]], threads=1)
            mine = found[odd] if turn == 2 else found[turn::2, turn::2].ravel()
            assert np.abs(mine.clip(-255, 255) - exact / 16).max(initial=0) < 0.25


def test_a_draft_of_a_model_rounds_to_networks_that_decode_alike(tile: np.ndarray) -> None:
    nets, grids = made_nets(1), made_grids(Shape(y=24, x=28), 4, spread=1.0)
    model = model_of(nets, Shape(y=24, x=28))
    model.set_grids(grids)
    draft = draft_of(model)
    again = draft.nets([0] * len(draft.tensors)).check()
    assert coded_bits(grids, again) == pytest.approx(coded_bits(grids, nets), rel=0.02)
    one, other = (pyramid_synthesis(grids, each, 0, threads=1).clip(0, PIXEL_MOST) for each in (nets, again))
    assert np.abs(one.astype(float) - other).mean() < 64


def test_a_fit_gains_quality_for_bits_and_is_the_same_again(tile: np.ndarray) -> None:
    found = {}
    for lmbda in (3e-2, 1e-3):
        nets, grids, report = fit_pyramid(Levels.of(tile, levels=1), lmbda=lmbda, steps=40, shape=SMALL)
        sections, same = encode_grids(grids, nets)
        assert all(np.array_equal(a, b) for a, b in zip(grids, same, strict=True))
        found[lmbda] = (report.psnr[0], sum(map(len, sections)))
    assert found[1e-3][0] > max(found[3e-2][0], 25)
    assert found[1e-3][1] > found[3e-2][1]
    again = fit_pyramid(Levels.of(tile, levels=1), lmbda=1e-3, steps=40, shape=SMALL)
    assert again[0].digest == nets.digest
    assert all(np.array_equal(a, b) for a, b in zip(again[1], grids, strict=True))


def test_numbers_alone_are_refined(tile: np.ndarray) -> None:
    levels = Levels.of(tile, levels=1)
    nets, grids, first = fit_pyramid(levels, lmbda=3e-3, steps=30, shape=SMALL)
    same, refined, report = fit_pyramid(levels, lmbda=3e-2, steps=40, start=nets, grids=grids, refine_only=True)
    assert same is nets
    assert any((a != b).any() for a, b in zip(grids, refined, strict=True))
    before, after = (sum(map(len, encode_grids(one, nets)[0])) for one in (grids, refined))
    assert after < before
    assert report.psnr[0] < first.psnr[0]


def test_weights_and_validity_say_where_errors_count(tile: np.ndarray) -> None:
    left = np.zeros(tile.shape[1:], np.float32)
    left[:, :14] = 1
    by_weight, by_validity = (
        fit_pyramid(
            Levels.of(tile, None if weights is not None else left > 0, levels=1),
            lmbda=1e-3, steps=30, shape=SMALL, weights=weights,
        )
        for weights in (left, None)
    )  # fmt: skip
    for nets, grids, _ in (by_weight, by_validity):
        decoded = pyramid_synthesis(grids, nets, 0, threads=1).clip(0, PIXEL_MOST) / 64
        errors = np.abs(decoded - tile)
        assert errors[..., :12].mean() < errors[..., 16:].mean()
        assert np.abs(grids[0][:, :12]).mean() >= np.abs(grids[0][:, 16:]).mean()


@pytest.mark.parametrize(
    "wrong",
    [
        {"lmbda": 0.0},
        {"steps": 0},
        {"refine_only": True},
        {"weights": np.ones((3, 3))},
        {"weights": -np.ones((24, 28))},
    ],
)
def test_settings_that_do_not_fit_are_refused(tile: np.ndarray, wrong: dict) -> None:
    with pytest.raises(ConfigError):
        fit_pyramid(Levels.of(tile, levels=1), **{"lmbda": 1e-3, "steps": 2, "shape": SMALL, **wrong})


def test_no_number_of_a_tile_of_two_halves_is_too_far_from_its_middle() -> None:
    halves = np.full((3, 64, 64), 250, np.uint8)
    halves[:, :, 32:] = 5
    shape = PyramidShape(scales=7, hidden=6, context=6)
    _, grids, report = fit_pyramid(Levels.of(halves, levels=1), lmbda=1e-4, steps=40, shape=shape)
    assert max(int(np.abs(grid).max()) for grid in grids) <= MOST_NUMBER
    assert report.psnr[0] > 25


def test_the_better_of_two_starts_goes_on(tile: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    costs, advance = [], FitRun.advance

    def told(run: FitRun, steps: int) -> None:
        advance(run, steps)
        costs.append((run, run.cost()))

    monkeypatch.setattr(FitRun, "advance", told)
    monkeypatch.setattr(fit, "LEAST_TRIED", 4)
    fit_pyramid(Levels.of(tile, levels=1), lmbda=1e-3, steps=40, shape=SMALL)
    (first, one), (second, other), (last, _) = costs
    assert first is not second
    assert one != other
    assert last is (first if one < other else second)


def test_coarser_levels_have_small_networks_and_a_fit_goes_on_from_them(tile: np.ndarray) -> None:
    levels, shape = Levels.of(tile, levels=3), PyramidShape(scales=4, hidden=9, context=4, levels=3)
    nets, grids, report = fit_pyramid(levels, lmbda=1e-3, steps=30, shape=shape)
    assert [one.hidden for one in nets.synth] == [9, 6, 6]
    assert [len(one.convs) for one in nets.synth] == [2, 1, 1]
    assert len(report.psnr) == 3
    again, _, _ = fit_pyramid(levels, lmbda=1e-3, steps=2, start=nets, grids=grids)
    assert [one.hidden for one in again.synth] == [9, 6, 6]


@pytest.mark.parametrize("zeros", [6, 9])
def test_weights_behind_make_up_for_the_rounding_of_those_before(zeros: int) -> None:
    chance = np.random.default_rng(0)
    common = chance.normal(600, 100, (1, 2000))  # as rectified features are: far from 0, and alike
    inputs = np.concatenate([common + chance.normal(0, 60, (5, 2000)), np.ones((1, 2000))])
    weights, bias = chance.normal(0, 0.3, (4, 5)), chance.normal(0, 900, 4)
    layer = DraftLayer(weights=weights, bias=bias, moments=inputs @ inputs.T / 2000)
    whole, step = layer.whole(zeros, 10), 2.0**zeros
    plain = np.rint(weights * 2.0**layer.shift / step) * step
    assert (whole.weights % step == 0).all()

    def error(found: np.ndarray, offset: np.ndarray) -> float:
        made = np.concatenate([found, offset[:, None]], axis=1) / 2.0**layer.shift
        return float(np.square((made - np.concatenate([weights, bias[:, None]], axis=1)) @ inputs).mean())

    assert error(whole.weights, whole.bias) < error(plain, np.rint(bias * 2.0**layer.shift / 1024) * 1024) / 2


@pytest.mark.parametrize(("shift", "zeros"), [(8, 4), (8, 8), (8, 9), (1, 4), (1, 8)])
def test_what_makes_up_for_rounding_stays_within_32_bits(shift: int, zeros: int) -> None:
    chance = np.random.default_rng(3)
    inputs = chance.normal(100, 10, (1, 500)) + chance.normal(0, 0.1, (20, 500))  # all alike
    given = np.concatenate([inputs, np.ones((1, 500))])
    weights = chance.normal(size=(6, 20))
    weights *= 0.9799 * 2**31 / (np.abs(weights).sum(axis=1).max() * FEATURE_MOST * 2**shift)
    layer = DraftLayer(weights=weights, bias=np.zeros(6), moments=given @ given.T / 500)
    assert layer.shift == shift  # at the limit, so that rounding goes beyond it
    whole = layer.whole(zeros, 0)
    whole.check((6, 20), what="a layer")
    assert whole.shift == max(1, shift - 1)
    wanted = weights @ inputs
    assert np.abs(whole.weights * 2.0**-whole.shift @ inputs - wanted).mean() < 0.05 * np.abs(wanted).mean()
