import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilestream.codecs.entropy import CODES_A_BYTE
from tilestream.codecs.pyramid import residual, residualfit
from tilestream.codecs.pyramid.residual import decode_residual, encode_residual, max_error_of
from tilestream.errors import ConfigError, DamagedError

ERRORS = (0, 1, 2, 4)


def made(shape=(3, 48, 64), dtype=np.uint8, seed=0):
    """A picture whose neighbours and channels are alike, and a poor base of it."""
    rng = np.random.default_rng(seed)
    _, h, w = shape
    rough = rng.normal(size=(1, h, w)).cumsum(1).cumsum(2)
    rough = rough / np.abs(rough).max() + 0.05 * rng.normal(size=shape)
    limits = np.iinfo(dtype)
    middle, span = (limits.max + limits.min + 1) // 2, (int(limits.max) - int(limits.min)) * 0.4
    pixels = np.clip(middle + span * rough, limits.min, limits.max).astype(dtype)
    base = np.clip(pixels.astype(np.int64) // 64 * 64 + 32, limits.min, limits.max).astype(dtype)
    return pixels, base


def off_by(found, pixels):
    return int(np.abs(found.astype(np.int64) - pixels.astype(np.int64)).max())


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
@pytest.mark.parametrize("max_error", ERRORS)
def test_no_pixel_is_off_by_more_than_is_allowed(dtype, max_error):
    pixels, base = made(dtype=dtype)
    data = encode_residual(pixels, base, max_error)
    found = decode_residual(data, base)
    assert found.dtype == dtype
    assert off_by(found, pixels) <= max_error == max_error_of(data)
    assert len(data) < pixels.nbytes * (0.95 if max_error == 0 else 0.85)


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    dtype=st.sampled_from([np.uint8, np.int8, np.uint16, np.int16]),
    max_error=st.sampled_from(ERRORS) | st.integers(0, 32767),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
)
def test_the_bound_holds_for_any_pixels_on_any_base(data, dtype, max_error, shape):
    pictures = hnp.arrays(
        dtype, shape, elements=st.integers(*(int(n) for n in (np.iinfo(dtype).min, np.iinfo(dtype).max)))
    )
    pixels, base = data.draw(pictures), data.draw(pictures)
    valid = data.draw(st.none() | hnp.arrays(bool, shape[1:]))
    found = decode_residual(encode_residual(pixels, base, max_error, valid=valid), base)
    measured = slice(None) if valid is None else valid
    assert np.all(np.abs(found[:, measured].astype(np.int64) - pixels[:, measured].astype(np.int64)) <= max_error)


@pytest.mark.parametrize("shape", [(1, 1, 40), (2, 33, 1), (1, 65, 34), (5, 2, 3), (3, 130, 128)])
@pytest.mark.parametrize("extreme", [False, True])
def test_it_is_lossless_whatever_the_shape(shape, extreme):
    """Pixels by chance and at the ends of their range, where steps are the longest."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 2, shape) * 65535 if extreme else rng.integers(0, 65536, shape)
    pixels = pixels.astype(np.uint16)
    base = np.full_like(pixels, 65535)
    assert off_by(decode_residual(encode_residual(pixels, base, 0), base), pixels) == 0


def test_one_outlier_in_a_flat_picture():
    """A step of more than 256 where the narrowest model is expected."""
    pixels = np.full((1, 64, 64), 1000, np.uint16)
    pixels[0, 31, 33], pixels[0, 40, 40] = 65535, 0
    base = np.full_like(pixels, 1000)
    data = encode_residual(pixels, base, 0)
    assert off_by(decode_residual(data, base), pixels) == 0
    assert len(data) < 350, len(data)


def test_a_fit_to_some_rows_is_nearly_as_good(monkeypatch):
    """Also where rows come in pairs, as those of JPEG do: every second one alone would say that all are new."""
    pixels, base = made((1, 128, 192))
    pixels = np.ascontiguousarray(pixels[:, np.arange(128) // 4 * 4 + np.array([0, 1, 1, 2] * 32)])
    to_all = len(encode_residual(pixels, base, 0))
    monkeypatch.setattr(residualfit, "MOST_SAMPLES", 1 << 12)
    data = encode_residual(pixels, base, 0)
    assert off_by(decode_residual(data, base), pixels) == 0
    assert to_all < len(data) < 1.05 * to_all


def test_a_better_base_costs_fewer_bytes():
    pixels, base = made()
    close = np.clip(pixels + np.random.default_rng(2).integers(-1, 2, pixels.shape), 0, 255).astype(np.uint8)
    near, far = (len(encode_residual(pixels, one, 0)) for one in (close, base))
    assert near < 0.6 * far


def test_a_base_within_the_bound_costs_next_to_nothing():
    pixels, _ = made()
    assert len(encode_residual(pixels, pixels, 0)) < 200
    flat = np.full_like(pixels, 17)
    assert len(encode_residual(flat + np.uint8(2), flat, 2)) < 150


def test_what_is_not_valid_costs_next_to_nothing():
    pixels, base = made()
    pixels[:, 24:] = np.random.default_rng(0).integers(0, 256, pixels[:, 24:].shape)
    base[:, 24:] = 0
    valid = np.arange(48)[:, None] < np.full(64, 24)
    some, all_of_it = (len(encode_residual(pixels, base, 0, valid=one)) for one in (valid, None))
    assert some < 0.65 * all_of_it
    found = decode_residual(encode_residual(pixels, base, 0, valid=valid), base)
    assert off_by(found[:, :24], pixels[:, :24]) == 0
    assert len(encode_residual(pixels, base, 0, valid=np.zeros_like(valid))) < 200


def test_equal_arguments_give_equal_bytes_and_out_is_filled():
    pixels, base = made((3, 40, 40))
    data = encode_residual(pixels, base, 1)
    assert encode_residual(pixels, base, 1) == data
    out = np.zeros_like(pixels)
    assert decode_residual(data, base, out=out) is out
    np.testing.assert_array_equal(out, decode_residual(data, base))


@pytest.mark.parametrize(
    ("pixels", "base", "max_error", "says"),
    [
        (np.zeros((1, 4, 4), np.float32), np.zeros((1, 4, 4), np.float32), 0, "pixels"),
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), 0, "pixels"),
        (np.zeros((0, 4, 4), np.uint8), np.zeros((0, 4, 4), np.uint8), 0, "pixels"),
        (np.zeros((1, 4, 4), np.uint8), np.zeros((1, 4, 5), np.uint8), 0, "base"),
        (np.zeros((1, 4, 4), np.uint8), np.zeros((1, 4, 4), np.uint16), 0, "base"),
        (np.zeros((1, 4, 4), np.uint8), np.zeros((1, 4, 4), np.uint8), -1, "max_error"),
        (np.zeros((1, 4, 4), np.uint8), np.zeros((1, 4, 4), np.uint8), 0.5, "max_error"),
        (np.zeros((1, 4, 4), np.uint8), np.zeros((1, 4, 4), np.uint8), True, "max_error"),
        (np.zeros((1, 4, 4), np.uint8), np.zeros((1, 4, 4), np.uint8), 40000, "max_error"),
    ],
)
def test_what_cannot_be_promised_is_refused(pixels, base, max_error, says):
    with pytest.raises(ConfigError, match=says):
        encode_residual(pixels, base, max_error)


@pytest.mark.parametrize("valid", [np.ones((4, 5), bool), np.ones((4, 4), np.uint8)])
def test_a_mask_of_another_form_is_refused(valid):
    pixels = np.zeros((1, 4, 4), np.uint8)
    with pytest.raises(ConfigError, match="valid"):
        encode_residual(pixels, pixels, 0, valid=valid)


PIXELS, BASE = made((3, 24, 20))
WHOLE = encode_residual(PIXELS, BASE, 0)


@settings(max_examples=150, deadline=None)
@given(
    cut=st.integers(0, len(WHOLE)),
    changes=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(1, 255)), max_size=4),
)
def test_any_bytes_are_a_picture_or_damage(cut, changes):
    data = bytearray(WHOLE)
    for at, by in changes:
        data[at] ^= by
    try:
        found = decode_residual(bytes(data[:cut]), BASE)
    except DamagedError:
        return
    assert found.shape == BASE.shape


@given(data=st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_bytes_by_chance_are_a_picture_or_damage(data):
    with contextlib.suppress(DamagedError):
        assert decode_residual(data, BASE).shape == BASE.shape


def test_a_picture_too_large_for_its_bytes_takes_no_memory(monkeypatch):
    monkeypatch.setattr(residual, "FREE_CODES", 1000)
    flat = np.full((1, 512, 512), 9, np.uint8)
    data = encode_residual(flat, flat, 0)
    assert len(data) == -(-(512 * 512 - 1000) // CODES_A_BYTE)
    np.testing.assert_array_equal(decode_residual(data, flat), flat)
    with pytest.raises(DamagedError, match="cannot be in"):
        decode_residual(data[:-1], flat)


def test_channels_of_another_picture_are_damage():
    with pytest.raises(DamagedError):
        decode_residual(WHOLE, BASE[:2])
    with pytest.raises(DamagedError):
        decode_residual(b"", BASE)
