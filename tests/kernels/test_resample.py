from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tilestream.errors import ConfigError
from tilestream.kernels.resample import MAX_TERM, resample

INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32"]
FLOATS = ["float32", "float64"]
RATIOS = [
    Fraction(1),
    Fraction(2),
    Fraction(3),
    Fraction(5, 4),
    Fraction(500, 499),
    Fraction(7, 3),
    Fraction(1, 2),
    Fraction(2, 5),
]


def samples(dtype, shape, seed):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 1000, shape).astype(dtype)
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    values[rng.random(shape) < 0.3] = info.max  # full sums show an overflow
    return values


def run(pixels, valid, ratio, *, src=(0, 0), dst=(0, 0), shape, kind="intensity"):
    out = np.full((*shape, pixels.shape[2]), 7, pixels.dtype)
    out_valid = np.zeros(shape, bool)
    resample(pixels, valid, ratio_yx=ratio, src_yx=src, dst_yx=dst, out=out, out_valid=out_valid, kind=kind)
    return out, out_valid


def overlaps(ratio, j, src, n):
    """Yield (index at hand, exact overlap in stored pixels) of output pixel j."""
    for i in range(n):
        w = min((j + 1) * ratio, Fraction(src + i + 1)) - max(j * ratio, Fraction(src + i))
        if w > 0:
            yield i, w


def half_even(value):
    return round(value)  # Fraction rounds ties to even, exactly


def oracle(pixels, valid, ratio, *, src=(0, 0), dst=(0, 0), shape, kind="intensity"):
    out = np.zeros((*shape, pixels.shape[2]), pixels.dtype)
    out_valid = np.zeros(shape, bool)
    for oy in range(shape[0]):
        for ox in range(shape[1]):
            cover = [
                (y, x, wy * wx)
                for y, wy in overlaps(ratio[0], dst[0] + oy, src[0], pixels.shape[0])
                for x, wx in overlaps(ratio[1], dst[1] + ox, src[1], pixels.shape[1])
                if valid is None or valid[y, x]
            ]
            if not cover:
                continue
            out_valid[oy, ox] = True
            for ch in range(pixels.shape[2]):
                if kind == "labels":
                    score = {}
                    for y, x, w in cover:
                        score[int(pixels[y, x, ch])] = score.get(int(pixels[y, x, ch]), 0) + w
                    out[oy, ox, ch] = min(score, key=lambda v: (-score[v], v))
                elif pixels.dtype.kind == "f":
                    total = sum(Fraction(float(pixels[y, x, ch])) * w for y, x, w in cover)
                    out[oy, ox, ch] = float(total / sum(w for *_, w in cover))
                else:
                    total = sum(int(pixels[y, x, ch]) * w for y, x, w in cover)
                    out[oy, ox, ch] = half_even(total / sum(w for *_, w in cover))
    return out, out_valid


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_exact_fractions(dtype, channels, masked):
    pixels = samples(dtype, (11, 9, channels), seed=1)
    valid = np.random.default_rng(2).random((11, 9)) < 0.6 if masked else None
    for ratio in RATIOS:
        case = {"src": (3, 4), "dst": (int(3 / ratio) - 1, int(4 / ratio) - 1), "shape": (9, 8)}
        out, out_valid = run(pixels, valid, (ratio, ratio), **case)
        expected, expected_valid = oracle(pixels, valid, (ratio, ratio), **case)
        assert_array_equal(out_valid, expected_valid)
        if np.dtype(dtype).kind == "f":
            assert_allclose(out, expected, rtol=1e-6 if dtype == "float32" else 1e-12, atol=1e-9)
        else:
            assert_array_equal(out, expected)


@settings(max_examples=60, deadline=None)
@given(
    ratio=st.tuples(*[st.fractions(Fraction(1, 3), 5, max_denominator=40)] * 2),
    cut=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    dtype=st.sampled_from(["uint8", "int32", "float32"]),
    kind=st.sampled_from(["intensity", "labels"]),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_cutting_differently_gives_the_same_pixels(ratio, cut, dtype, kind, masked, seed):
    shape = (20, 20)
    pixels = samples(dtype, (*shape, 3), seed)
    if kind == "labels":
        pixels = (pixels.astype(np.int64) % 3).astype(dtype)
    valid = np.random.default_rng(seed).random(shape) < 0.7 if masked else None
    out_shape = tuple(-(-n // r) for n, r in zip(shape, ratio, strict=True))
    whole, whole_valid = run(pixels, valid, ratio, shape=out_shape, kind=kind)
    cut = [min(c, n) for c, n in zip(cut, out_shape, strict=True)]
    for y0, y1 in ((0, cut[0]), (cut[0], out_shape[0])):
        for x0, x1 in ((0, cut[1]), (cut[1], out_shape[1])):
            if y0 == y1 or x0 == x1:
                continue
            sy, sx = int(y0 * ratio[0]), int(x0 * ratio[1])
            ey, ex = -int(-y1 * ratio[0] // 1), -int(-x1 * ratio[1] // 1)
            part = np.s_[sy:ey, sx:ex]
            piece, piece_valid = run(
                pixels[part], None if valid is None else valid[part], ratio, src=(sy, sx), dst=(y0, x0),
                shape=(y1 - y0, x1 - x0), kind=kind,
            )  # fmt: skip
            assert_array_equal(piece, whole[y0:y1, x0:x1])
            assert_array_equal(piece_valid, whole_valid[y0:y1, x0:x1])


def test_ties_go_to_even():
    pixels = np.array([[0, 1, 1, 2, 2, 3]], np.uint8)[..., None]
    out, _ = run(pixels, None, (Fraction(1), Fraction(2)), shape=(1, 3))
    assert_array_equal(out[0, :, 0], [0, 2, 2])
    pixels = np.array([[-1, 0, -2, -1, -3, -2]], np.int32)[..., None]
    out, _ = run(pixels, None, (Fraction(1), Fraction(2)), shape=(1, 3))
    assert_array_equal(out[0, :, 0], [0, -2, -2])


@pytest.mark.parametrize("masked", [False, True])
def test_labels_are_never_averaged(masked):
    pixels = np.random.default_rng(0).integers(0, 2000, (13, 10, 2), dtype=np.uint16)
    pixels[4:9] = 7
    valid = np.random.default_rng(2).random((13, 10)) < 0.5 if masked else None
    for ratio in RATIOS:
        got = run(pixels, valid, (ratio, ratio), shape=(6, 5), kind="labels")
        expected = oracle(pixels, valid, (ratio, ratio), shape=(6, 5), kind="labels")
        assert_array_equal(got[0], expected[0])
        assert_array_equal(got[1], expected[1])


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_views_equal_copies(dtype):
    base = samples(dtype, (40, 30, 3), seed=5)
    views = [
        base[3:30, 5:25],
        base[::2, :20],
        base[::-1],
        base[:, ::2],
        base[..., ::-1],
        base[..., :2],
        np.moveaxis(np.ascontiguousarray(np.moveaxis(base, 2, 0)), 0, 2),
        base[:, :, 1:2],
        base[2:3, 2:3],
    ]
    for view in views:
        got = run(view, None, (Fraction(7, 5), Fraction(3, 2)), shape=(10, 10))
        expected = run(view.copy(), None, (Fraction(7, 5), Fraction(3, 2)), shape=(10, 10))
        assert_array_equal(got[0], expected[0])
        assert_array_equal(got[1], expected[1])


def test_outside_and_empty_is_not_valid():
    pixels = np.full((4, 4, 1), 9, np.uint8)
    for src, dst in (((0, 0), (50, 0)), ((90, 90), (0, 0))):
        out, out_valid = run(pixels, None, (Fraction(2), Fraction(2)), src=src, dst=dst, shape=(3, 3))
        assert not out.any()
        assert not out_valid.any()
    out, out_valid = run(pixels[:0], None, (Fraction(2), Fraction(2)), shape=(2, 2))
    assert not out.any()
    assert not out_valid.any()


def test_what_is_not_finite_is_not_valid():
    pixels = np.ones((4, 4, 2), np.float32)
    pixels[0, 0, 1] = np.nan
    pixels[2:, 2:, 0] = np.inf
    out, out_valid = run(pixels, None, (Fraction(2), Fraction(2)), shape=(2, 2))
    assert_array_equal(out_valid, [[True, True], [True, False]])
    assert_array_equal(out[..., 0], [[1, 1], [1, 0]])


def test_four_threads_give_the_same_bits():
    pixels = samples("float32", (300, 301, 3), seed=3)
    valid = np.random.default_rng(3).random((300, 301)) < 0.9

    def work(_):
        return run(pixels, valid, (Fraction(9, 7), Fraction(9, 7)), shape=(233, 233))[0].tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(work, range(8)))) == 1


@pytest.mark.parametrize(
    ("pixels", "ratio"),
    [
        (np.zeros((2, 2, 1), np.int64), Fraction(2)),
        (np.zeros((2, 2, 1), np.complex64), Fraction(2)),
        (np.zeros((2, 2, 1), np.uint8), Fraction(MAX_TERM + 1, 2)),
        (np.zeros((2, 2, 1), np.uint8), Fraction(-1)),
    ],
)
def test_refuses_what_it_cannot_do_exactly(pixels, ratio):
    with pytest.raises(ConfigError, match=r"got .*, expected "):
        run(pixels, None, (ratio, ratio), shape=(1, 1))


def test_full_sums_do_not_overflow():
    pixels = np.full((6, 6, 1), 2**32 - 1, np.uint32)
    ratio = Fraction(MAX_TERM - 1, MAX_TERM - 2)
    out, _ = run(pixels, None, (ratio, ratio), shape=(5, 5))
    assert (out == 2**32 - 1).all()
    out, _ = run((pixels >> 16).astype(np.uint16), None, (Fraction(MAX_TERM), Fraction(MAX_TERM)), shape=(1, 1))
    assert out.item() == 2**16 - 1


def test_writes_into_a_part_of_a_larger_array():
    pixels = samples("uint8", (20, 24, 3), seed=9)
    batch, flags = np.full((2, 16, 16, 3), 77, np.uint8), np.zeros((2, 16, 16), bool)
    part = np.s_[1, 2:12, 3:15]
    ratio = (Fraction(2), Fraction(2))
    resample(pixels, None, ratio_yx=ratio, src_yx=(0, 0), dst_yx=(0, 0), out=batch[part], out_valid=flags[part])
    assert_array_equal(batch[part], run(pixels, None, ratio, shape=(10, 12))[0])
    assert flags.sum() == 120
    assert (batch[0] == 77).all()
    assert (batch[1, :2] == 77).all()
