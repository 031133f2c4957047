import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.kernels.answers import SIMULATED, Answer
from tests.kernels.trilinear import largest, pyramids, trilinear
from tilestream.errors import ConfigError
from tilestream.kernels.logpolar import logpolar
from tilestream.kernels.unpolar import unpolar

LEVELS = [np.ones((1, 8, 8), np.float32)]


def logpolar_oracle(levels, centre, e_min, e_max, n_rho, n_theta):
    size = levels[0].shape[1:]
    logs = [math.log2(max(size[0] / each.shape[1], size[1] / each.shape[2])) for each in levels]
    growth = math.log(e_max / e_min) / (n_rho - 1)
    at, level = [], []
    for i in range(n_rho):
        radius = e_min * math.exp(growth * i)
        log2 = math.log2(radius * max(growth, 2 * math.pi / n_theta))
        finer = max((k for k in range(len(logs)) if logs[k] <= log2), default=0)
        share = 0
        if finer + 1 < len(logs) and log2 > logs[finer]:
            share = (log2 - logs[finer]) / (logs[finer + 1] - logs[finer])
        for j in range(n_theta):
            angle = 2 * math.pi * j / n_theta
            at.append([centre[0] + radius * math.sin(angle), centre[1] + radius * math.cos(angle)])
            level.append(finer + share)
    return trilinear(levels, np.array(at), np.array(level)).reshape(-1, n_rho, n_theta)


def unpolar_oracle(rings, centre, e_min, e_max, shape, first, step, fill):
    _, n_rho, n_theta = rings.shape
    y, x = np.mgrid[: shape[0], : shape[1]]
    dy, dx = first[0] + (y + 0.5) * step - centre[0], first[1] + (x + 0.5) * step - centre[1]
    ring = (n_rho - 1) * np.log(np.maximum(np.hypot(dy, dx), 1e-15) / e_min) / math.log(e_max / e_min)
    outside, ring = ring > n_rho - 0.5, np.clip(ring, 0, n_rho - 1)
    turn = np.arctan2(dy, dx) / (2 * math.pi) % 1 * n_theta
    i, j = np.floor(ring).astype(int), np.floor(turn).astype(int)
    ti, tj = ring - i, turn - j
    i1, j, j1 = np.minimum(i + 1, n_rho - 1), j % n_theta, (j + 1) % n_theta
    near, far = (1 - tj) * rings[:, i, j] + tj * rings[:, i, j1], (1 - tj) * rings[:, i1, j] + tj * rings[:, i1, j1]
    return np.where(outside, fill, (1 - ti) * near + ti * far)


@given(data=st.data(), levels=pyramids(dtypes=("uint8", "float16", "float64")))
def test_rings_are_read_at_the_level_of_their_spacing(data: st.DataObject, levels, on: Answer) -> None:
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    centre = tuple((noise.random(2) * 1.4 - 0.2) * levels[0].shape[1:])
    e_min = float(np.exp(noise.uniform(-1, 1)))
    e_max = e_min * float(np.exp(noise.uniform(0.5, 3)))
    n_rho, n_theta = data.draw(st.integers(2, 5)), data.draw(st.integers(1, 4 if SIMULATED else 12))
    expected = logpolar_oracle(levels, centre, e_min, e_max, n_rho, n_theta)
    sizes = {"e_min_px": e_min, "e_max_px": e_max, "n_rho": n_rho, "n_theta": n_theta}
    got = on(logpolar, levels, centre, **sizes)
    real = np.float64 if levels[0].dtype == np.float64 else np.float32
    assert got.dtype == real
    tolerance = (1e-11 if real is np.float64 else 1e-5) * largest(levels)
    assert_allclose(got, expected, rtol=0, atol=tolerance)
    out = np.full(expected.shape[::-1], -1, real).T
    assert_allclose(on(logpolar, levels, centre, **sizes, out=out), expected, rtol=0, atol=tolerance)


@given(data=st.data())
def test_the_way_back_is_bilinear_in_ring_and_direction(data: st.DataObject, on: Answer) -> None:
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    real = data.draw(st.sampled_from([np.float32, np.float64]))
    rings = noise.random((data.draw(st.integers(1, 3)), data.draw(st.integers(2, 6)), data.draw(st.integers(1, 9))))
    rings = rings.astype(real).transpose(0, 2, 1).copy().transpose(0, 2, 1)
    shape = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5 if SIMULATED else 20))
    centre = tuple(noise.random(2) * 5 + 0.013)
    e_min, e_max, step = 0.7, 0.7 + 6 * noise.random() + 0.1, 0.5 + noise.random()
    got = on(
        unpolar, rings, centre, e_min_px=e_min, e_max_px=e_max, shape_px=shape, first_yx=(-1.5, 0.25), step_px=step,
        fill=-2.0,
    )  # fmt: skip
    expected = unpolar_oracle(rings.astype(np.float64), centre, e_min, e_max, shape, (-1.5, 0.25), step, -2.0)
    same = (got == -2) == (expected == -2)
    assert (~same).sum() <= (0 if real is np.float64 else 1)  # the rim itself may be rounded to either side
    assert_allclose(got[same], expected[same], rtol=0, atol=1e-9 if real is np.float64 else 1e-4)


def test_nothing_aliases_and_the_way_back_looks_the_same() -> None:
    y, x = np.mgrid[:512, :512]
    fine = np.where((x + y) % 2, 1.0, 0.0)  # all of it above what rings far out can hold
    smooth = 0.5 + 0.5 * np.sin(x / 60) * np.cos(y / 45)
    for image, error in ((fine, 0.02), (smooth, 0.02)):
        levels = [image[None].astype(np.float32)]
        while levels[-1].shape[1] > 1:
            levels.append(levels[-1].reshape(1, levels[-1].shape[1] // 2, 2, -1, 2).mean((2, 4)))
        growth = math.log(240 / 6) / 63
        rings = logpolar(
            levels, (256.0, 256.0), e_min_px=6, e_max_px=240, n_rho=64, n_theta=round(2 * math.pi / growth)
        )
        spacing = 6 * np.exp(growth * np.arange(64)) * growth
        coarse = rings[0, spacing >= 2]
        if image is fine:
            assert_allclose(coarse, 0.5, atol=error)
            continue
        back = unpolar(rings, (256.0, 256.0), e_min_px=6, e_max_px=240, shape_px=(512, 512))
        radius = np.hypot(y + 0.5 - 256, x + 0.5 - 256)
        disc = (radius > 6) & (radius < 240)
        assert np.abs(back[0] - image)[disc].mean() < error
        assert not back[0, radius > 260].any()


def test_a_far_centre_is_as_good_as_a_near_one(on: Answer) -> None:
    row = np.random.default_rng(0).integers(0, 256, 10**6, np.uint8)
    levels = [np.broadcast_to(row, (1, 1, row.size)), np.broadcast_to(row[::2], (1, 1, row.size // 2))]
    sizes = {"e_min_px": 1.3, "e_max_px": 20.0, "n_rho": 3, "n_theta": 4}
    got = on(logpolar, levels, (0.5, 999_900.371), **sizes)
    expected = logpolar_oracle(levels, (0.5, 999_900.371), *sizes.values())
    assert_allclose(got, expected, rtol=0, atol=1e-5 * 255)


def test_levels_without_channels(on: Answer) -> None:
    sizes = {"e_min_px": 1.0, "e_max_px": 2.0, "n_rho": 2, "n_theta": 3}
    rings = on(logpolar, [LEVELS[0][0]], (4.0, 4.0), **sizes)
    assert_array_equal(rings, np.ones((2, 3)))
    assert on(unpolar, rings, (1.0, 1.0), e_min_px=1.0, e_max_px=9.0, shape_px=(2, 3)).shape == (2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"centre_yx": (1.0, math.nan)}, "`centre_yx`"),
        ({"e_min_px": 0}, "0 < e_min_px < e_max_px"),
        ({"e_max_px": 1}, "0 < e_min_px < e_max_px"),
        ({"n_rho": 1}, "at least 2 rings"),
        ({"n_theta": 0}, "at least 2 rings"),
        ({"out": np.zeros((1, 2, 2), np.float32)}, r"`out`.*shape \(1, 3, 4\)"),
    ],
)
def test_what_are_no_rings_is_refused(change, message) -> None:
    given = {"centre_yx": (1.0, 1.0), "e_min_px": 1.0, "e_max_px": 3.0, "n_rho": 3, "n_theta": 4, **change}
    with pytest.raises(ConfigError, match=message):
        logpolar(LEVELS, **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"shape_px": (0, 1)}, "pixels"), ({"step_px": 0.0}, "pixels"), ({"rings": LEVELS[0].astype(int)}, "`rings`")],
)
def test_what_is_no_image_is_refused(change, message) -> None:
    given = {"rings": LEVELS[0], "centre_yx": (1.0, 1.0), "e_min_px": 1.0, "e_max_px": 3.0, "shape_px": (2, 2)}
    with pytest.raises(ConfigError, match=message):
        unpolar(**{**given, **change})
