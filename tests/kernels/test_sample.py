import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.kernels.answers import Answer
from tests.kernels.trilinear import largest, pyramids, trilinear
from tilestream.errors import ConfigError
from tilestream.kernels.sample import sample

LEVELS = [np.arange(30, dtype=np.uint8).reshape(1, 5, 6), np.arange(6, dtype=np.uint8).reshape(1, 2, 3)]
AT = np.array([[1.0, 2.0], [0.0, 5.5]])


def tolerance(levels):
    return (1e-12 if levels[0].dtype == np.float64 else 2e-6) * largest(levels)


@given(data=st.data(), levels=pyramids())
def test_values_are_those_of_the_definition(data: st.DataObject, levels, on: Answer) -> None:
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    dtype = np.float64 if levels[0].dtype == np.float64 else data.draw(st.sampled_from([np.float32, np.float64]))
    grid = data.draw(st.sampled_from([(), (0,), (7,), (3, 4)]))
    count = grid or (1,)
    size = np.array(levels[0].shape[1:])
    at = (noise.random((*count, 2)) * 1.6 - 0.3) * size
    if data.draw(st.booleans()):
        at = np.round(at * 2) / 2  # on texels, and between them
    at = at.astype(dtype)[..., ::-1]
    level = (noise.random(count) * 1.4 - 0.2) * len(levels)
    if data.draw(st.booleans()):
        level = np.round(level)
    level = level.astype(dtype)
    one = data.draw(st.booleans())
    if one and level.size:
        level[...] = level.flat[0]
    expected = trilinear(levels, at.reshape(-1, 2), level.reshape(-1)).reshape(len(levels[0]), *count)
    got = on(sample, levels, at, float(level.flat[0]) if one and level.size else level)
    assert got.dtype == (np.float64 if levels[0].dtype == np.float64 else np.float32)
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance(levels))
    out = np.full(expected.shape[::-1], -1, got.dtype).T
    np.testing.assert_allclose(on(sample, levels, at, level, out=out), expected, rtol=0, atol=tolerance(levels))


@pytest.mark.parametrize("form", ["float64", "origin"])
def test_far_positions_keep_their_fraction(on: Answer, form: str) -> None:
    noise = np.random.default_rng(0)
    # a million px long without the memory: every row is the same
    levels = [
        np.broadcast_to(noise.integers(0, 256, 2**8, np.uint8).repeat(n // 2**8)[None, None, :n], (1, 1, n))
        for n in (999_936, 499_968, 250_112)
    ]
    levels = [each + noise.integers(0, 9, each.shape).astype(np.uint8) for each in levels]
    count = 40
    origin = (0, 999_000) if form == "origin" else (0, 0)
    at = np.stack([np.zeros(count), 999_000 - origin[1] + noise.random(count) * 900], 1)
    at = at.astype(np.float32 if form == "origin" else np.float64)
    level = (noise.random(count) * 2).astype(at.dtype)
    got = on(sample, levels, at, level, origin_yx=origin)
    expected = trilinear(levels, at.astype(np.float64) + origin, level)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6 * largest(levels))


def test_levels_without_channels_and_one_texel(on: Answer) -> None:
    levels = [np.array([[7.0]], np.float32)]
    assert_array_equal(on(sample, levels, AT, 3.5), [7, 7])
    assert on(sample, levels, np.zeros((0, 2)), 0).shape == (0,)


def test_a_texel_is_read_exactly_at_its_centre(on: Answer) -> None:
    at = np.stack(np.meshgrid(np.arange(5) + 0.5, np.arange(6) + 0.5, indexing="ij"), -1)
    assert_array_equal(on(sample, LEVELS, at, 0), LEVELS[0])


def test_ratios_say_how_levels_lie(on: Answer) -> None:
    levels = [np.zeros((1, 5, 5), np.float32), np.arange(9, dtype=np.float32).reshape(1, 3, 3)]
    at = np.array([[1.0, 1.0], [1.0, 3.0], [4.0, 3.2]])
    assert_array_equal(on(sample, levels, at[:2], 1, ratios=[1, 2]), [[0, 1]])
    got = on(sample, levels, at, 1, ratios=[1, (2, 5 / 3)])
    np.testing.assert_allclose(got, trilinear(levels, at, np.ones(3), [[1, 1], [2, 5 / 3]]), atol=1e-5)


def test_what_is_not_a_number_reads_the_first_texel_on_a_device(on: Answer) -> None:
    if not on.is_cuda:
        pytest.skip("refused on the host")
    assert_array_equal(on(sample, LEVELS, np.array([[np.nan, -np.inf], [np.inf, np.inf]]), 0), [[0, 29]])


@pytest.mark.parametrize(
    ("levels", "at", "level", "keywords", "message"),
    [
        ([], AT, 0, {}, "`levels` of `sample`: got none"),
        (LEVELS[0], AT, 0, {}, "expected a list of arrays"),
        ([LEVELS[0].astype(np.int32)], AT, 0, {}, r"`levels\[0\]`.*int32"),
        ([LEVELS[0], LEVELS[1].astype(np.uint16)], AT, 0, {}, r"`levels\[1\]`.*uint16.*expected samples of type uint8"),
        (LEVELS[::-1], AT, 0, {}, r"`levels\[1\]`.*no edge longer"),
        ([LEVELS[0], LEVELS[1].repeat(3, 0)], AT, 0, {}, "as many channels"),
        ([LEVELS[0][:, :0]], AT, 0, {}, "at least one sample"),
        (LEVELS, AT.astype(np.int64), 0, {}, "`at_yx`.*int64"),
        (LEVELS, AT[:, :1], 0, {}, "last axis of 2"),
        (LEVELS, AT[0], 0, {}, "2 or 3 axes"),
        (LEVELS, AT * np.nan, 0, {}, "not finite"),
        (LEVELS, AT, np.nan, {}, "`level`.*finite number"),
        (LEVELS, AT, np.zeros(3), {}, r"`level`.*shape \(2,\)"),
        (LEVELS, AT, 0, {"out": np.zeros((1, 2))}, "`out`.*float32"),
        (LEVELS, AT, 0, {"ratios": [1]}, "`ratios`.*2 numbers"),
        (LEVELS, AT, 0, {"ratios": [1, 0.5]}, "none below 1"),
        (LEVELS, AT, 0, {"threads": 0}, "`threads`"),
        ([[1]], AT, 0, {}, r"`levels\[0\]`.*list"),
    ],
)
def test_what_cannot_be_sampled_is_refused(levels, at, level, keywords, message) -> None:
    with pytest.raises(ConfigError, match=message):
        sample(levels, at, level, **keywords)
