from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tilestream.errors import ConfigError
from tilestream.kernels.descriptors import CHUNK_PX, SCALES, descriptors


def oracle(tile, valid, rgb):
    """Sums of one tile (c, h, w), from the formulas."""
    x = tile.astype(np.int64)
    channels = len(x)
    histogram = np.stack([np.bincount(ch[valid], minlength=256) for ch in x])
    cross = [int((x[i] * x[j])[valid].sum()) for i in range(channels) for j in range(i + 1, channels)]
    if rgb:
        luma = (77 * x[0] + 150 * x[1] + 29 * x[2] + 128) // 256
    else:
        luma = (2 * x.sum(axis=0) + channels) // (2 * channels)
    structure = np.zeros((SCALES, 5), np.int64)
    for s in range(SCALES):
        if min(luma.shape) >= 3:
            ix = luma[1:-1, 2:] - luma[1:-1, :-2]
            iy = luma[2:, 1:-1] - luma[:-2, 1:-1]
            neighbours = luma[1:-1, 2:] + luma[1:-1, :-2] + luma[2:, 1:-1] + luma[:-2, 1:-1]
            laplace = neighbours - 4 * luma[1:-1, 1:-1]
            use = valid[1:-1, 1:-1] & valid[1:-1, 2:] & valid[1:-1, :-2] & valid[2:, 1:-1] & valid[:-2, 1:-1]
            terms = (np.ones_like(ix), ix * ix, ix * iy, iy * iy, laplace * laplace)
            structure[s] = [int(t[use].sum()) for t in terms]
        h, w = luma.shape[0] // 2 * 2, luma.shape[1] // 2 * 2
        corners = [(slice(a, h, 2), slice(b, w, 2)) for a in (0, 1) for b in (0, 1)]
        luma = sum(luma[c] for c in corners)
        valid = np.all([valid[c] for c in corners], axis=0)
    return int(valid.sum()), histogram, cross, structure


def check(pixels, valid, rgb):
    sums = descriptors(pixels, valid, rgb=rgb)
    for i, tile in enumerate(pixels):
        mask = np.ones(tile.shape[1:], bool) if valid is None else valid[i]
        _, histogram, cross, structure = oracle(tile, mask, rgb)
        assert sums.count[i] == mask.sum()
        assert_array_equal(sums.histogram[i], histogram)
        assert_array_equal(sums.cross[i], cross)
        assert_array_equal(sums.structure[i], structure)


def interleaved(shape, seed):
    n, c, h, w = shape
    return np.moveaxis(np.random.default_rng(seed).integers(0, 256, (n, h, w, c), dtype=np.uint8), 3, 1)


@given(
    n=st.integers(1, 3),
    c=st.sampled_from([1, 2, 3, 5]),
    h=st.integers(1, 40),
    w=st.integers(1, 40),
    share=st.sampled_from([None, 0.0, 0.5, 0.97, 1.0]),
    rgb=st.booleans(),
    seed=st.integers(0, 999),
)
def test_equals_the_formulas(n, c, h, w, share, rgb, seed):
    pixels = interleaved((n, c, h, w), seed)
    valid = None if share is None else np.random.default_rng(seed).random((n, h, w)) < share
    check(pixels, valid, rgb and c == 3)


@pytest.mark.parametrize("pattern", ["white", "checker", "stripes"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_largest_sums_fit(pattern, masked):
    shape = (1, 3, 13, 2 * CHUNK_PX + 37)
    y, x = np.mgrid[: shape[2], : shape[3]]
    on = {"white": np.ones_like(x), "checker": (x + y) % 2, "stripes": (x // 8 + y // 4) % 2}[pattern]
    pixels = np.moveaxis(np.repeat((on * 255).astype(np.uint8)[None, ..., None], 3, axis=3), 3, 1)
    valid = np.ones((1, *shape[2:]), bool)
    valid[0, 0, 0] = not masked
    check(pixels, valid, rgb=True)


def test_views_and_planes_equal_interleaved():
    base = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    window = np.lib.stride_tricks.sliding_window_view(base, (32, 32), axis=(0, 1))[::19, ::29].reshape(-1, 3, 32, 32)
    view = np.moveaxis(base, 2, 0)[None, :, 5:60, 7:80]
    for pixels in (view, window, view[..., ::-1], view[:, ::-1], view[:, :, ::2, ::3]):
        check(pixels, None, rgb=True)
        assert_array_equal(
            descriptors(pixels, None, rgb=True).histogram,
            descriptors(np.ascontiguousarray(pixels), None, rgb=True).histogram,
        )


def test_the_halo_has_no_say():
    pixels = interleaved((2, 3, 40, 44), 1)
    valid = np.random.default_rng(1).random((2, 40, 44)) < 0.9
    inner = np.s_[..., 6:-6, 6:-6]
    with_halo = descriptors(pixels, valid, rgb=True, halo_px=6)
    without = descriptors(pixels[inner], valid[inner], rgb=True)
    for name in ("count", "histogram", "cross", "structure"):
        assert_array_equal(getattr(with_halo, name), getattr(without, name))


def test_threads_and_batches_give_the_same_bits():
    pixels = interleaved((12, 3, 64, 64), 2)
    whole = descriptors(pixels, None, rgb=True)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda i: descriptors(pixels[i : i + 1], None, rgb=True), range(12)))
    for name in ("count", "histogram", "cross", "structure"):
        assert_array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(whole, name))


@pytest.mark.parametrize(
    ("pixels", "valid", "rgb", "halo_px"),
    [
        (np.zeros((1, 3, 8, 8), np.uint16), None, True, 0),
        (np.zeros((1, 4, 8, 8), np.uint8), None, True, 0),
        (np.zeros((1, 3, 8, 8), np.uint8), np.ones((1, 8, 7), bool), True, 0),
        (np.zeros((1, 3, 8, 8), np.uint8), None, True, 4),
    ],
)
def test_refuses_other_input(pixels, valid, rgb, halo_px):
    with pytest.raises(ConfigError, match="`descriptors`"):
        descriptors(pixels, valid, rgb=rgb, halo_px=halo_px)
