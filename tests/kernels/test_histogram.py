import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.kernels.answers import MAX_PX, Answer
from tilestream.errors import ConfigError
from tilestream.kernels.histogram import histogram


def oracle(pixels, valid):
    n, channels, *_ = pixels.shape
    found = np.zeros((n, channels, 256), np.uint32)
    for i in range(n):
        for ch in range(channels):
            found[i, ch] = np.bincount(pixels[i, ch][valid[i]], minlength=256)
    return found


@given(data=st.data())
def test_counts_are_those_of_numpy(data: st.DataObject, on: Answer) -> None:
    n, channels = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([1, 3, 4]))
    height, width = data.draw(st.integers(1, MAX_PX)), data.draw(st.integers(1, MAX_PX))
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    interleaved = noise.integers(0, 256, (n, height + 2, width + 3, channels), np.uint8)[:, 1:-1, 2:-1]
    pixels = np.moveaxis(interleaved, 3, 1)
    if data.draw(st.booleans()):
        pixels = np.ascontiguousarray(pixels)[:, :, ::-1]
    valid = noise.random((n, height, width)) < 0.7 if data.draw(st.booleans()) else None
    expected = oracle(pixels, np.ones((n, height, width), bool) if valid is None else valid)
    assert_array_equal(on(histogram, pixels, valid), expected)
    out = np.full(expected.shape, 7, np.uint32)
    assert_array_equal(on(histogram, pixels, valid, out=out), expected)


def test_no_tiles_have_no_histograms(on: Answer) -> None:
    assert on(histogram, np.zeros((0, 3, 4, 4), np.uint8)).shape == (0, 3, 256)


@pytest.mark.parametrize(
    ("pixels", "keywords", "message"),
    [
        (
            np.zeros((1, 3, 4, 4), np.uint16),
            {},
            r"`pixels` of `histogram`: got uint16 .*expected samples of type uint8",
        ),
        (np.zeros((3, 4, 4), np.uint8), {}, "4 axes"),
        (np.zeros((1, 3, 4, 4), np.uint8), {"valid": np.ones((1, 4, 5), bool)}, r"`valid`.*shape \(1, 4, 4\)"),
        (np.zeros((1, 3, 4, 4), np.uint8), {"out": np.zeros((1, 3, 256), np.int64)}, "`out`.*uint32"),
        ([[1]], {}, "list"),
    ],
)
def test_what_cannot_be_counted_is_refused(pixels, keywords, message) -> None:
    with pytest.raises(ConfigError, match=message):
        histogram(pixels, **keywords)
