from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.kernels.answers import ON_CUDA, SIMULATED, Answer
from tilestream.errors import ConfigError
from tilestream.kernels.descriptors import CHUNK_PX, FIELDS, SCALES, DescriptorSums, descriptors

MOST_PX = 9 if SIMULATED else 150


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


def check(on, pixels, valid, rgb):
    sums = on(descriptors, pixels, valid, rgb=rgb)
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
    n=st.integers(1, 1 if SIMULATED else 3),
    c=st.sampled_from([1, 2, 3, 5]),
    h=st.integers(1, MOST_PX),
    w=st.integers(1, MOST_PX),
    share=st.sampled_from([None, 0.0, 0.5, 0.97, 1.0]),
    rgb=st.booleans(),
    seed=st.integers(0, 999),
)
def test_equals_the_formulas(n, c, h, w, share, rgb, seed, on: Answer):
    pixels = interleaved((n, c, h, w), seed)
    valid = None if share is None else np.random.default_rng(seed).random((n, h, w)) < share
    check(on, pixels, valid, rgb and c == 3)


@pytest.mark.parametrize("pattern", ["white", "checker", "stripes"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_largest_sums_fit(pattern, masked, on: Answer):
    if SIMULATED and (masked or pattern == "white"):
        pytest.skip("a block takes half a second")
    shape = (1, 3, 13, 2 * CHUNK_PX + 37) if not SIMULATED else (1, 3, 64, 66)
    y, x = np.mgrid[: shape[2], : shape[3]]
    lit = {"white": np.ones_like(x), "checker": (x + y) % 2, "stripes": (x // 8 + y // 4) % 2}[pattern]
    pixels = np.moveaxis(np.repeat((lit * 255).astype(np.uint8)[None, ..., None], 3, axis=3), 3, 1)
    valid = np.ones((1, *shape[2:]), bool)
    valid[0, 0, 0] = not masked
    check(on, pixels, valid, rgb=True)


def test_views_and_planes_equal_interleaved(on: Answer):
    base = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    window = np.lib.stride_tricks.sliding_window_view(base, (32, 32), axis=(0, 1))[::19, ::29].reshape(-1, 3, 32, 32)
    view = np.moveaxis(base, 2, 0)[None, :, 5:60, 7:80]
    views = (view, np.ascontiguousarray(view), window, view[..., ::-1], view[:, ::-1], view[:, :, ::2, ::3])
    valid = np.random.default_rng(1).random((90, 70)).T[None, 5:60, 7:80][..., ::-1] < 0.8
    if SIMULATED:
        views, valid = (view[:, ::-1, ::7, ::9], views[1][..., ::9, ::7]), None
    for pixels in views:
        check(on, pixels, valid if pixels.shape == (1, 3, *view.shape[2:]) else None, rgb=True)


def test_the_halo_has_no_say(on: Answer):
    n = 1 if SIMULATED else 2
    pixels = interleaved((n, 3, 40, 44), 1)
    valid = np.random.default_rng(1).random((n, 40, 44)) < 0.9
    inner = np.s_[..., 6:-6, 6:-6]
    with_halo = on(descriptors, pixels, valid, rgb=True, halo_px=6)
    without = descriptors(pixels[inner], valid[inner], rgb=True, threads=1)
    for name in FIELDS:
        assert_array_equal(getattr(with_halo, name), getattr(without, name))


def test_threads_and_batches_give_the_same_bits():
    pixels = interleaved((12, 3, 64, 64), 2)
    whole = descriptors(pixels, None, rgb=True)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda i: descriptors(pixels[i : i + 1], None, rgb=True), range(12)))
    for name in FIELDS:
        assert_array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(whole, name))


def test_outputs_are_overwritten(on: Answer):
    pixels = interleaved((1, 2, 5, 6), 4)
    expected = descriptors(pixels, rgb=False)
    filled = {name: np.full_like(getattr(expected, name), 7) for name in FIELDS}
    out = DescriptorSums(**{name: on.put(array) for name, array in filled.items()})
    found = on(descriptors, pixels, rgb=False, out=out)
    for name in FIELDS:
        assert_array_equal(getattr(found, name), getattr(expected, name))
    assert on(descriptors, pixels[:0], rgb=False).structure.shape == (0, SCALES, 5)


@pytest.mark.skipif(ON_CUDA, reason="refused before anything runs")
@pytest.mark.parametrize(
    ("pixels", "valid", "keywords", "message"),
    [
        (np.zeros((1, 3, 8, 8), np.uint16), None, {}, "`pixels` of `descriptors`: got uint16"),
        (np.zeros((1, 4, 8, 8), np.uint8), None, {}, "3 channels for rgb"),
        (np.zeros((1, 3, 8, 8), np.uint8), np.ones((1, 8, 7), bool), {}, r"`valid`.*shape \(1, 8, 8\)"),
        (np.zeros((1, 3, 8, 8), np.uint8), None, {"halo_px": 4}, "inside the halo"),
        (np.zeros((1, 3, 8, 8), np.uint8), None, {"halo_px": -1}, "inside the halo"),
        (np.zeros((1, 3, 8, 8), np.uint8), None, {"backend": "cuda"}, "`backend`"),
        (np.zeros((1, 3, 8, 8), np.uint8), None, {"threads": 0}, "`threads`"),
        (
            np.zeros((2, 3, 8, 8), np.uint8),
            None,
            {"out": descriptors(np.zeros((1, 3, 8, 8), np.uint8), rgb=True, threads=1)},
            "`out.count` of `descriptors`",
        ),
    ],
)
def test_refuses_other_input(pixels, valid, keywords, message):
    with pytest.raises(ConfigError, match=message):
        descriptors(pixels, valid, rgb=True, **keywords)
