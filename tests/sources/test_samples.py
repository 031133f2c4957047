"""Copies of pixels and their validity, whatever memory they come from."""

from __future__ import annotations

import numpy as np
import pytest

from tilestream.sources.samples import masked, put_pixels


@pytest.mark.parametrize("channels", [1, 3, 7])
@pytest.mark.parametrize("order", ["yxc", "cyx", "xyc", "ycx"])
def test_pixels_are_copied_from_any_order(channels, order):
    sizes = {"y": 5, "x": 8, "c": channels}
    stored = np.arange(np.prod(list(sizes.values()))).reshape([sizes[name] for name in order]).astype("uint16")
    pixels = stored.transpose([order.index(name) for name in "yxc"])[1:, ::-2]
    target = np.zeros((6, 6, channels), "uint16")
    put_pixels(target[1:5, :4], pixels)
    np.testing.assert_array_equal(target[1:5, :4], pixels)
    assert not target[5].any()
    assert not target[0].any()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("nodata", [None, 3.0, float("nan")])
@pytest.mark.parametrize("has_mask", [False, True])
def test_a_pixel_is_valid_where_all_that_speak_of_it_say_so(dtype, nodata, has_mask):
    pixels = np.random.default_rng(0).integers(2, 5, (20, 30, 2)).astype(dtype)
    if dtype == "float32":
        pixels[4, 5, 1] = np.nan
    seen = np.random.default_rng(1).random((20, 30)) < 0.9 if has_mask else None
    expected = np.isfinite(pixels).all(axis=2)
    if nodata == 3.0:
        expected &= (pixels != 3).any(axis=2)
    if has_mask:
        expected &= seen
    block = masked(pixels.copy(), nodata, seen)
    assert (block.valid is None) == bool(expected.all())
    valid = np.ones((20, 30), bool) if block.valid is None else block.valid
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(block.pixels, np.where(expected[..., None], pixels, 0))
