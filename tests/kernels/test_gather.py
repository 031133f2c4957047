import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.kernels.answers import MAX_PX, Answer
from tests.kernels.trilinear import largest, pyramids, trilinear
from tilestream.errors import ConfigError
from tilestream.kernels.gather import gather

LEVELS = [np.arange(192, dtype=np.uint8).reshape(3, 8, 8), np.arange(48, dtype=np.uint8).reshape(3, 4, 4)]
TOKENS = np.array([[0, 0, 0, 4], [1, 0, 0, 8]], np.int64)
PATCHES = (1, 2, 3, 5, 8, min(40, MAX_PX + 9))


def at_of(tokens, patch):
    """Positions of the samples of tokens, `(n, p·p, 2)`."""
    j = (np.arange(patch) + 0.5) / patch
    y = tokens[:, 1, None] + j * tokens[:, 3, None]
    x = tokens[:, 2, None] + j * tokens[:, 3, None]
    at = np.stack(np.broadcast_arrays(y[:, :, None], x[:, None, :]), -1)
    return at.reshape(len(tokens), patch**2, 2)


def oracle(levels, tokens, patch, ratios=None):
    tokens = tokens.astype(np.float64)
    found = [
        trilinear(levels, at, np.full(patch**2, token[0]), ratios).reshape(-1, patch, patch)
        for at, token in zip(at_of(tokens, patch), tokens, strict=True)
    ]
    return np.array(found).reshape(len(tokens), len(levels[0]), patch, patch)


def shares(tokens, size):
    tokens = tokens.astype(np.float64)
    found = np.ones(len(tokens))
    for axis in (0, 1):
        first, edge = tokens[:, 1 + axis], tokens[:, 3]
        found *= (np.minimum(first + edge, size[axis]) - np.maximum(first, 0)) / edge
    return found


@given(data=st.data(), levels=pyramids(dtypes=("uint8", "uint16", "float16", "float32")))
def test_patches_are_those_of_the_definition(data: st.DataObject, levels, on: Answer) -> None:
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    size, n = np.array(levels[0].shape[1:]), data.draw(st.integers(0, 3))
    patch = data.draw(st.sampled_from(PATCHES))
    edge = np.exp(noise.uniform(-1, np.log(9 * patch), n))
    corner = noise.random((n, 2)) * (size + edge[:, None] - 0.01) - edge[:, None] + 0.005
    level = noise.random(n) * (len(levels) - 1)
    if data.draw(st.booleans()):
        level = np.round(level)
    tokens = np.concatenate([level[:, None], corner, edge[:, None]], 1)[:, :]
    if data.draw(st.booleans()):
        tokens = np.asfortranarray(tokens)
    dtype = data.draw(st.sampled_from(["float32", "float16"]))
    mean, std = noise.random(len(levels[0])), noise.random(len(levels[0])) + 0.5
    scale = 1 / largest(levels)
    share = np.full(n, -1, np.float32)
    out = np.full((n, len(levels[0]), patch, patch), -1, dtype)
    if on.is_cuda:  # what a call writes beside its result is not copied back
        got = on(gather, levels, tokens, patch_px=patch, mean=mean.tolist(), std=std.tolist(), scale=scale, out=out)
    else:
        got = on(
            gather, levels, tokens, patch_px=patch, mean=mean.tolist(), std=std.tolist(), scale=scale, out=out,
            out_share=share,
        )  # fmt: skip
        assert_allclose(share, shares(tokens, size), atol=1e-6)
    expected = (oracle(levels, tokens, patch) * scale - mean[:, None, None]) / std[:, None, None]
    assert got.dtype == np.dtype(dtype)
    atol = 2e-6 * max(1.0, np.abs(expected).max(initial=0))
    assert_allclose(got, expected, rtol=0 if dtype == "float32" else 2.0**-11 + 1e-6, atol=atol + 3e-8)


@pytest.mark.parametrize("order", ["interleaved", "planar"])
@pytest.mark.parametrize("patch", [4, 3])
def test_tokens_on_texels_are_copied(on: Answer, order: str, patch: int) -> None:
    noise = np.random.default_rng(0)
    base = noise.random((3, 13, 11)).astype(np.float32)
    levels = [base, base[:, :7, :6] + 1, base[:, :4, :3] - 1]
    if order == "interleaved":
        levels = [np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, 2)), 2, 0) for a in levels]
    # neighbours that are not valid leave no trace
    levels[1][:, patch, :] = np.nan
    levels[1][:, :, patch] = np.nan
    tokens = np.array([[0, 2, 1, patch], [1, 0, 0, 2 * patch], [2, 0, 0, 4 * patch]], np.int64)
    got = on(gather, levels, tokens[:2], patch_px=patch, ratios=[1, 2, 4])
    assert_array_equal(got[0], levels[0][:, 2 : 2 + patch, 1 : 1 + patch])
    assert_array_equal(got[1], levels[1][:, :patch, :patch])
    # true ratios that are no whole numbers
    levels = [np.nan_to_num(a) for a in levels]
    true = np.array([[1, 1 * 13 / 7, 0, 3 * 13 / 7]])
    got = on(gather, [a[:1, :, :7] for a in levels[:1]] + [levels[1][:1, :, :6]], true, patch_px=3, ratios=[1, 13 / 7])
    assert_array_equal(got[0], levels[1][:1, 1:4, 0:3])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_copies_are_to_the_bit_what_means_are(channels: int, dtype: str) -> None:
    """A token that reaches out of the image is not copied; what both see is the same, infinity and NaN included."""
    noise = np.random.default_rng(1)
    level = noise.integers(0, 256, (9, 10, channels)).astype(dtype)
    if dtype == "float32":
        level = level / np.float32(7) - 20
        level[1, 2], level[3, 4] = np.inf, np.nan
    for array in (np.moveaxis(level, 2, 0), np.ascontiguousarray(np.moveaxis(level, 2, 0))):
        for half in ("float32", "float16"):
            tokens = np.array([[0, 0, 0, 5], [0, -1, -1, 5], [0, 4, 5, 5], [0, 5, 6, 5]], np.float64)
            mean, std = noise.random(channels).tolist(), (noise.random(channels) + 0.5).tolist()
            whole, out, last, far = gather(
                [array], tokens, patch_px=5, mean=mean, std=std, scale=0.1, dtype=half, threads=1
            )
            assert_array_equal(out[:, 1:, 1:], whole[:, :-1, :-1])
            assert_array_equal(far[:, :-1, :-1], last[:, 1:, 1:])


def test_far_tokens_keep_their_place(on: Answer) -> None:
    noise = np.random.default_rng(0)
    row = noise.integers(0, 256, 1_000_001, np.uint8)
    levels = [np.broadcast_to(row, (1, 4, row.size)), np.broadcast_to(row[::2], (1, 2, row[::2].size))]
    tokens = np.array([[0.3, -2, 999_900.3, 7.7], [0.0, 1, 999_990.1, 5.0]])
    got = on(gather, levels, tokens, patch_px=6)
    assert_allclose(got, oracle(levels, tokens, 6), rtol=0, atol=2e-6 * 255)


def test_shares_of_tokens_at_the_edge() -> None:
    share = np.empty(3, np.float32)
    tokens = np.array([[0, 0, 0, 4], [0, -2, 0, 4], [0, 6, 6, 4.0]])
    gather(LEVELS, tokens, patch_px=2, out_share=share)
    assert_array_equal(share, [1, 0.5, 0.25])


def test_threads_change_no_bit() -> None:
    noise = np.random.default_rng(0)
    levels = [noise.integers(0, 256, (3, 300 >> k, 300 >> k), np.uint8) for k in range(3)]
    tokens = np.concatenate([noise.random((9, 1)) * 2, noise.random((9, 3)) * 100 + 9], 1)
    assert_array_equal(gather(levels, tokens, patch_px=128, threads=1), gather(levels, tokens, patch_px=128, threads=2))


@pytest.mark.parametrize(
    ("tokens", "keywords", "message"),
    [
        (TOKENS[:, :3], {}, r"`tokens`.*shape \(2, 4\)"),
        (TOKENS.astype(np.uint8), {}, "`tokens`.*uint8"),
        (TOKENS + np.array([0, 0, 0, np.nan]), {}, r"`tokens\[0\]`.*finite"),
        (TOKENS + np.array([1, 0, 0, 0]), {}, r"`tokens\[1\]`.*a level from 0 to 1"),
        (TOKENS * np.array([1, 1, 1, 0]), {}, "a size above 0"),
        (TOKENS + np.array([0, 8, 0, 0]), {}, "px inside an image of 8 × 8"),
        (TOKENS - np.array([0, 0, 4, 0]), {}, "px inside an image"),
        (TOKENS, {"patch_px": 0}, "`patch_px`"),
        (TOKENS, {"patch_px": 2.5}, "`patch_px`"),
        (TOKENS, {"mean": [0, 1]}, "`mean`.*1 or 3"),
        (TOKENS, {"std": 0}, "`std`.*none of them 0"),
        (TOKENS, {"scale": np.inf}, "`scale`"),
        (TOKENS, {"dtype": "float64"}, "`dtype`"),
        (TOKENS, {"out": np.empty((2, 3, 4, 4))}, "`out`.*float64"),
        (TOKENS, {"out": np.empty((2, 4, 4, 3), np.float32).transpose(0, 3, 1, 2)}, "not contiguous"),
        (TOKENS, {"out_share": np.empty(2)}, "`out_share`"),
    ],
)
def test_what_cannot_be_gathered_is_refused(tokens, keywords, message) -> None:
    with pytest.raises(ConfigError, match=message):
        gather(LEVELS, tokens, **{"patch_px": 4, **keywords})
