import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.kernels.answers import SIMULATED, Answer
from tilestream.errors import ConfigError
from tilestream.kernels.companding import FLOAT_PER_OCTAVE, FLOAT_UNIT, code_edges, compand

DTYPES = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]


def codes_of(values, **options):
    values = np.asarray(values)
    return compand(values.reshape(1, 1, 1, -1), **options)[0].ravel()


def spread(dtype):
    """Values over the whole range of a type, in ascending order."""
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return np.array([False, True])
    if kind.kind == "f":
        size = 10.0 ** np.linspace(-6, 6, 500)
        return np.concatenate([-size[::-1], [0], size]).astype(kind)
    info = np.iinfo(kind)
    if kind.itemsize <= 2:
        return np.arange(info.min, info.max + 1).astype(kind)
    size = np.unique((2.0 ** np.linspace(0, kind.itemsize * 8 - 2, 2000)).astype(kind))
    return np.concatenate([-size[::-1], size]) if kind.kind == "i" else size


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value_range", [None, (-5, 1000.5)])
def test_monotone_and_equal_to_the_edges(dtype, value_range):
    values = spread(dtype)
    codes = codes_of(values, value_range=value_range)
    assert (np.diff(codes.astype(int)) >= 0).all()
    edges = code_edges(dtype, value_range=value_range)
    assert edges.shape == (255,)
    assert (np.diff(edges[1:]) > 0).all()
    assert_array_equal(codes, np.searchsorted(edges, values.astype(np.float64), side="right"))


@pytest.mark.parametrize(
    ("dtype", "formula"),
    [
        ("uint16", lambda v: np.minimum(255, np.rint(16 * np.log2(1 + v)))),
        ("uint32", lambda v: np.minimum(255, np.rint(8 * np.log2(1 + v)))),
        ("int16", lambda v: 128 + np.sign(v) * np.minimum(127, np.rint(8 * np.log2(1 + abs(v))))),
        ("int32", lambda v: 128 + np.sign(v) * np.minimum(127, np.rint(4 * np.log2(1 + abs(v))))),
        ("int8", lambda v: v + 128),
        ("uint8", lambda v: v),
        (
            "float64",
            lambda v: 128 + np.sign(v) * np.minimum(127, np.rint(FLOAT_PER_OCTAVE * np.log2(1 + abs(v) / FLOAT_UNIT))),
        ),
    ],
)
def test_equals_the_stated_formula(dtype, formula):
    values = spread(dtype)
    assert_array_equal(codes_of(values), formula(values.astype(np.float64)))


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6), seed=st.integers(0, 99))
def test_linear_range(low, width, seed):
    values = np.random.default_rng(seed).uniform(low - width, low + 2 * width, 300)
    exact = 255 * (values - low) / width
    codes = codes_of(values, value_range=(low, low + width))
    clear = abs(exact - np.floor(exact) - 0.5) > 1e-3
    assert_array_equal(codes[clear], np.rint(exact).clip(0, 255)[clear])


def test_what_is_not_finite_is_not_valid():
    pixels = np.ones((2, 2, 3, 4), np.float32)
    pixels[0, 1, 0, 0] = np.nan
    pixels[1, 0, 2, 3] = -np.inf
    _, valid = compand(pixels)
    expected = np.ones((2, 3, 4), bool)
    expected[0, 0, 0] = expected[1, 2, 3] = False
    assert_array_equal(valid, expected)
    given_valid = np.zeros((2, 3, 4), bool)
    given_valid[0, 0, :2] = True
    assert_array_equal(compand(pixels, given_valid)[1], expected & given_valid)
    assert compand(np.ones_like(pixels))[1] is None


def test_eight_bits_stay_what_they_are():
    pixels = np.moveaxis(np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3), 3, 1)
    codes, valid = compand(pixels)
    assert codes is pixels
    assert valid is None


@pytest.mark.parametrize("dtype", ["uint16", "float32", ">u2"])
def test_views_give_interleaved_codes(dtype):
    base = np.random.default_rng(0).integers(0, 4000, (30, 40, 3)).astype(dtype)
    view = np.moveaxis(base, 2, 0)[None, :, 3:20, 5:33]
    codes, _ = compand(view)
    assert_array_equal(codes, compand(np.ascontiguousarray(view))[0])
    assert np.moveaxis(codes, 1, 3).flags.c_contiguous


def test_refuses_what_has_no_codes():
    with pytest.raises(ConfigError, match="`compand`"):
        codes_of([1j])
    for value_range in ((3, 3), (5, 1), (0, np.nan)):
        with pytest.raises(ConfigError, match="`value_range`"):
            codes_of([1.0], value_range=value_range)


@given(data=st.data())
def test_codes_are_the_number_of_edges(data: st.DataObject, on: Answer) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    n, channels = data.draw(st.integers(1, 2)), data.draw(st.sampled_from([1, 3]))
    height, width = data.draw(st.integers(1, 5 if SIMULATED else 30)), data.draw(st.integers(1, 9 if SIMULATED else 50))
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    value_range = data.draw(st.sampled_from([None, (-3.5, 1000.0), (0.1, 1e300)]))
    edges = code_edges(dtype, value_range=value_range)
    with np.errstate(all="ignore"):
        near = np.concatenate([edges[1:], np.nextafter(edges[1:], -np.inf), np.ceil(edges[1:]) - 1, spread(dtype)])
        kind = np.dtype(dtype)
        if kind.kind in "iu":
            top = np.nextafter(2.0 ** (8 * kind.itemsize - (kind.kind == "i")), 0)
            near = near.clip(np.iinfo(kind).min, min(top, np.iinfo(kind).max))
        values = near.astype(kind)
    whole = noise.choice(values, (n, height, width + 1, channels))
    bad = noise.random((n, height, width + 1)) < 0.1 if kind.kind == "f" else np.zeros(whole.shape[:3], bool)
    whole[bad, 0] = np.inf if kind.kind == "f" else 0
    bad = (~np.isfinite(whole)).any(axis=3)[:, :, 1:]
    pixels = np.moveaxis(whole[:, :, 1:], 3, 1)
    pixels = data.draw(st.sampled_from([pixels, np.ascontiguousarray(pixels), pixels[:, ::-1, ::-1]]))
    bad = bad[:, ::-1] if pixels.strides[2] < 0 else bad
    expected = np.searchsorted(edges, pixels.astype(np.float64), side="right") * np.isfinite(pixels)
    given_valid = noise.random((n, height, width)) < 0.8 if data.draw(st.booleans()) else None
    codes, valid = on(compand, pixels, given_valid, value_range=value_range)
    assert_array_equal(codes, expected)
    everything = np.ones(bad.shape, bool)
    assert_array_equal(
        everything if valid is None else valid, (everything if given_valid is None else given_valid) & ~bad
    )
    out = np.full(pixels.shape, 9, np.uint8)[:, :, ::-1]
    assert_array_equal(on(compand, pixels, given_valid, value_range=value_range, out=out)[0], expected)


def test_arrays_that_do_not_belong_together() -> None:
    pixels = np.zeros((1, 1, 4, 4), np.float32)
    with pytest.raises(ConfigError, match="`valid` of `compand`"):
        compand(pixels, np.ones((1, 4, 5), bool))
    with pytest.raises(ConfigError, match="`out` of `compand`"):
        compand(pixels, out=np.zeros((1, 1, 4, 4), np.uint16))
    with pytest.raises(ConfigError, match="4 axes"):
        compand(pixels[0])
    with pytest.raises(ConfigError, match="`backend`"):
        compand(pixels, backend="cuda")
    assert compand(pixels[:0], threads=1)[0].shape == (0, 1, 4, 4)
