import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.kernels.answers import MAX_PX, Answer
from tilestream.errors import ConfigError
from tilestream.kernels.nodata import DTYPES, nodata_mask
from tilestream.sources.samples import masked


def oracle(pixels, values, bits, rule):
    """The rule, sample by sample: `(…, c, y, x)`."""
    missing = np.zeros(pixels.shape, bool)
    for value in values:
        if pixels.dtype.kind == "f":
            missing |= pixels == pixels.dtype.type(value)
        else:
            missing |= pixels.astype(object) == value
    if bits:
        missing |= (pixels.astype(object) & bits).astype(bool)
    together = missing.all(axis=-3) if rule == "all" else missing.any(axis=-3)
    return np.isfinite(pixels).all(axis=-3) & ~together


@given(data=st.data())
def test_every_type_follows_the_rule(data: st.DataObject, on: Answer) -> None:
    dtype = np.dtype(data.draw(st.sampled_from([d for d in DTYPES if d != "float16" or not on.is_cuda])))
    n, channels = data.draw(st.integers(1, 2)), data.draw(st.sampled_from([1, 2, 3]))
    height, width = data.draw(st.integers(1, MAX_PX)), data.draw(st.integers(1, MAX_PX))
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    whole = noise.integers(0, 2 if dtype.kind == "b" else 6, (n, height, width + 1, channels))
    whole = np.where(whole == 5, 0.1 if dtype.kind == "f" else 1, whole).astype(dtype)
    if dtype.kind == "f":
        whole[noise.random(whole.shape) < 0.05] = np.nan
        whole[noise.random(whole.shape) < 0.05] = -np.inf
    if dtype.kind == "i":
        whole[noise.random(whole.shape) < 0.2] = np.iinfo(dtype).min
    pixels = np.moveaxis(whole[:, :, 1:], 3, 1)
    pixels = data.draw(st.sampled_from([pixels, np.ascontiguousarray(pixels), pixels[:, ::-1, ::-1]]))
    rank = data.draw(st.sampled_from([2, 3, 4]))
    pixels = pixels if rank == 4 else pixels[0] if rank == 3 else pixels[0, :1]
    values = data.draw(st.sampled_from([(), (0,), (1, 3), (2.5, 300, -1e300, 1, 0.1), (float("nan"), 4)]))
    bits = data.draw(st.sampled_from([0, 0, 2, 5])) if dtype.kind in "iu" else 0
    rule = data.draw(st.sampled_from(["all", "any"]))
    with np.errstate(over="ignore"):
        expected = oracle(pixels, values, bits, rule)
    given = pixels[0] if rank == 2 else pixels
    assert_array_equal(on(nodata_mask, given, values, bits=bits, rule=rule), expected)
    out = np.ones(expected.shape, bool)
    assert_array_equal(on(nodata_mask, given, values, bits=bits, rule=rule, out=out), expected)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("nodata", [0, -9999, 3.5, float("nan")])
def test_the_rule_is_that_of_the_sources(dtype, nodata) -> None:
    pixels = np.random.default_rng(0).integers(0, 3, (40, 50, 2)).astype(dtype)
    if dtype != "uint8":
        pixels[5:9] = -9999
    if dtype == "float32":
        pixels[7, 7, 1] = np.nan
    expected = masked(pixels, nodata).valid
    expected = np.ones((40, 50), bool) if expected is None else expected
    assert_array_equal(nodata_mask(np.moveaxis(pixels, 2, 0), nodata), expected)


def test_the_largest_numbers_are_told_apart(on: Answer) -> None:
    pixels = np.array([[2**63, 2**63 + 1, 2**64 - 1]], np.uint64)
    assert_array_equal(on(nodata_mask, pixels, 2**63 + 1), [[True, False, True]])
    assert_array_equal(on(nodata_mask, pixels, bits=1), [[True, False, False]])
    assert_array_equal(on(nodata_mask, pixels, bits=2**63), [[False, False, False]])
    assert_array_equal(on(nodata_mask, np.array([[-1, 1]], np.int8), bits=0x80), [[False, True]])
    lowest = np.array([[np.finfo(np.float32).min, 0]], np.float32)
    assert_array_equal(on(nodata_mask, lowest, -3.4028234663852886e38), [[False, True]])


@pytest.mark.parametrize(
    ("pixels", "keywords", "message"),
    [
        (np.zeros((4, 4), complex), {}, "`pixels` of `nodata_mask`: got complex128"),
        (np.zeros(4, np.uint8), {}, "2 or 3 or 4 axes"),
        (np.zeros((0, 4), np.uint8), {}, "at least one sample"),
        (np.zeros((4, 4), np.float32), {"bits": 3}, "`bits`"),
        (np.zeros((4, 4), np.uint8), {"bits": -3}, "`bits`"),
        (np.zeros((4, 4), np.uint8), {"rule": "most"}, "`rule`"),
        (np.zeros((4, 4), np.uint16), {"values": range(257)}, "`values`: got 257"),
        (np.zeros((4, 4), np.uint8), {"out": np.zeros((4, 5), bool)}, "`out`"),
        (np.zeros((4, 4), np.uint8), {"backend": "cuda"}, "`backend`"),
    ],
)
def test_what_has_no_mask_is_refused(pixels, keywords, message) -> None:
    with pytest.raises(ConfigError, match=message):
        nodata_mask(pixels, **keywords)
