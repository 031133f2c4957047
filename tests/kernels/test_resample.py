from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.kernels.answers import SIMULATED, Answer
from tilestream.errors import ConfigError
from tilestream.kernels.resample import resample
from tilestream.kernels.taps import MAX_TERM

SERIAL = Answer("serial")
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


def resampled(pixels, valid, *, out, out_valid, **keywords):
    resample(pixels, valid, out=out, out_valid=out_valid, **keywords)
    return out, out_valid


def run(pixels, valid, ratio, *, src=(0, 0), dst=(0, 0), shape, kind="intensity", on=SERIAL):
    out = np.full((*shape, pixels.shape[2]), 7, pixels.dtype)
    out_valid = np.zeros(shape, bool)
    return on(resampled, pixels, valid, ratio_yx=ratio, src_yx=src, dst_yx=dst, out=out, out_valid=out_valid, kind=kind)


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
def test_equals_exact_fractions(dtype, channels, masked, on):
    if SIMULATED and channels == 4:
        pytest.skip("a thread takes a millisecond there")
    pixels = samples(dtype, (11, 9, channels), seed=1)
    valid = np.random.default_rng(2).random((11, 9)) < 0.6 if masked else None
    # the largest sample is about 3000: what the header allows
    tolerance = {
        "float32": {"rtol": 1e-6, "atol": 4e-7 * 3000 if on.is_cuda else 1e-9},
        "float64": {"rtol": 1e-12, "atol": 1e-12 * 3000},
    }
    for ratio in RATIOS[2:6:3] if SIMULATED else RATIOS:
        case = {"src": (3, 4), "dst": (int(3 / ratio) - 1, int(4 / ratio) - 1)}
        case["shape"] = (5, 4) if SIMULATED else (9, 8)
        out, out_valid = run(pixels, valid, (ratio, ratio), on=on, **case)
        expected, expected_valid = oracle(pixels, valid, (ratio, ratio), **case)
        assert_array_equal(out_valid, expected_valid)
        if np.dtype(dtype).kind == "f":
            assert_allclose(out, expected, **tolerance[dtype])
        else:
            assert_array_equal(out, expected)


@settings(max_examples=3 if SIMULATED else 60, deadline=None)
@given(
    ratio=st.tuples(*[st.fractions(Fraction(1, 3), 5, max_denominator=40)] * 2),
    cut=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    dtype=st.sampled_from(["uint8", "int32", "float32"]),
    kind=st.sampled_from(["intensity", "labels"]),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_cutting_differently_gives_the_same_pixels(ratio, cut, dtype, kind, masked, seed, on):
    shape = (8, 7) if SIMULATED else (20, 20)
    pixels = samples(dtype, (*shape, 3), seed)
    if kind == "labels":
        pixels = (pixels.astype(np.int64) % 3).astype(dtype)
    valid = np.random.default_rng(seed).random(shape) < 0.7 if masked else None
    out_shape = tuple(-(-n // r) for n, r in zip(shape, ratio, strict=True))
    whole, whole_valid = run(pixels, valid, ratio, shape=out_shape, kind=kind, on=on)
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
                shape=(y1 - y0, x1 - x0), kind=kind, on=on,
            )  # fmt: skip
            assert_array_equal(piece, whole[y0:y1, x0:x1])
            assert_array_equal(piece_valid, whole_valid[y0:y1, x0:x1])


@pytest.mark.parametrize(("dtype", "kind"), [("uint8", "intensity"), ("float32", "intensity"), ("uint16", "labels")])
def test_overlapping_cuts_agree_where_they_overlap(dtype, kind, on):
    size, edge, step = ((9, 8), 4, 2) if SIMULATED else ((300, 280), 130, 90)
    pixels = samples(dtype, (*size, 3), seed=4)
    ratio = (Fraction(9, 7), Fraction(7, 5))

    def cut(y, x):
        part = np.s_[int(y * ratio[0]) :, int(x * ratio[1]) :]
        src = (int(y * ratio[0]), int(x * ratio[1]))
        return run(pixels[part], None, ratio, src=src, dst=(y, x), shape=(edge, edge), kind=kind, on=on)[0]

    first, second = cut(0, 0), cut(step, step)
    assert_array_equal(first[step:, step:], second[: edge - step, : edge - step])
    if not on.is_cuda:
        assert_array_equal(first, run(pixels, None, ratio, shape=(edge, edge), kind=kind, on=Answer("parallel"))[0])


def test_ties_go_to_even(on):
    pixels = np.array([[0, 1, 1, 2, 2, 3]], np.uint8)[..., None]
    out, _ = run(pixels, None, (Fraction(1), Fraction(2)), shape=(1, 3), on=on)
    assert_array_equal(out[0, :, 0], [0, 2, 2])
    pixels = np.array([[-1, 0, -2, -1, -3, -2]], np.int32)[..., None]
    out, _ = run(pixels, None, (Fraction(1), Fraction(2)), shape=(1, 3), on=on)
    assert_array_equal(out[0, :, 0], [0, -2, -2])


@pytest.mark.parametrize("masked", [False, True])
def test_labels_are_never_averaged(masked, on):
    pixels = np.random.default_rng(0).integers(0, 2000, (13, 10, 2), dtype=np.uint16)
    pixels[4:9] = 7
    pixels[9:, 3:] %= 3  # ties, and values that are met again
    valid = np.random.default_rng(2).random((13, 10)) < 0.5 if masked else None
    for ratio in RATIOS[2:6:3] if SIMULATED else RATIOS:
        got = run(pixels, valid, (ratio, ratio), shape=(6, 5), kind="labels", on=on)
        expected = oracle(pixels, valid, (ratio, ratio), shape=(6, 5), kind="labels")
        assert_array_equal(got[0], expected[0])
        assert_array_equal(got[1], expected[1])


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_views_equal_copies(dtype, on):
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
        base[0:1].repeat(1, 0)[:, :1, ::-1],
    ]
    shape = (4, 3) if SIMULATED else (10, 10)
    valid = (np.random.default_rng(1).random((80, 40)) < 0.7)[::2, ::-1]
    for view in views:
        part = valid[: view.shape[0], : view.shape[1]]
        for mask, copied in ((None, None), (part, part.copy())):
            got = run(view, mask, (Fraction(7, 5), Fraction(3, 2)), shape=shape, on=on)
            expected = run(view.copy(), copied, (Fraction(7, 5), Fraction(3, 2)), shape=shape, on=on)
            assert_array_equal(got[0], expected[0])
            assert_array_equal(got[1], expected[1])


def test_outside_and_empty_is_not_valid(on):
    pixels = np.full((4, 4, 1), 9, np.uint8)
    for src, dst in (((0, 0), (50, 0)), ((90, 90), (0, 0))):
        out, out_valid = run(pixels, None, (Fraction(2), Fraction(2)), src=src, dst=dst, shape=(3, 3), on=on)
        assert not out.any()
        assert not out_valid.any()
    out, out_valid = run(pixels[:0], None, (Fraction(2), Fraction(2)), shape=(2, 2), on=on)
    assert not out.any()
    assert not out_valid.any()


@pytest.mark.filterwarnings("ignore:invalid value")  # the simulator computes in NumPy
def test_what_is_not_finite_is_not_valid(on):
    pixels = np.ones((4, 4, 2), np.float32)
    pixels[0, 0, 1] = np.nan
    pixels[2:, 2:, 0] = np.inf
    planar = np.moveaxis(np.moveaxis(pixels, 2, 0).copy(), 0, 2)
    for view in (pixels, planar, pixels[:, ::-1][:, ::-1], pixels.astype(np.float64)):
        for valid in (None, np.array([[1] * 4, [1] * 4, [0] * 4, [1] * 4], bool)):
            out, out_valid = run(view, valid, (Fraction(2), Fraction(2)), shape=(2, 2), on=on)
            assert_array_equal(out_valid, [[True, True], [True, False]])
            assert_array_equal(out[..., 0], [[1, 1], [1, 0]])


def test_the_largest_floats_do_not_overflow(on):
    pixels = np.full((6, 6, 1), 3e38, np.float32)
    out, out_valid = run(pixels, None, (Fraction(5, 2), Fraction(5, 2)), shape=(2, 2), on=on)
    assert out_valid.all()
    assert_allclose(out, np.float32(3e38), rtol=1e-6)


def test_four_threads_give_the_same_bits():
    pixels = samples("float32", (300, 301, 3), seed=3)
    valid = np.random.default_rng(3).random((300, 301)) < 0.9

    def work(_):
        return run(pixels, valid, (Fraction(9, 7), Fraction(9, 7)), shape=(233, 233))[0].tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(work, range(8)))) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": np.zeros((2, 2, 3), np.uint8)}, "`out` of `resample`: got uint8"),
        ({"out": np.zeros((2, 2, 1), np.uint16)}, "`out` of `resample`: got uint16"),
        ({"out_valid": np.zeros((2, 3), bool)}, "`out_valid` of `resample`"),
        ({"valid": np.zeros((4, 5), bool)}, "`valid` of `resample`"),
        ({"valid": np.zeros((4, 4), np.uint8)}, "`valid` of `resample`: got uint8"),
        ({"pixels": np.zeros((4, 4), np.uint8)}, "3 axes"),
        ({"pixels": [[[1]]]}, "`pixels` of `resample`: got list"),
        ({"backend": "cuda"}, "`backend`"),
        ({"backend": "gpu"}, "'cpu', 'cuda' or None"),
        ({"threads": 0}, "`threads`"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {
        "pixels": np.zeros((4, 4, 1), np.uint8), "valid": None, "ratio_yx": (Fraction(2), Fraction(2)),
        "src_yx": (0, 0), "dst_yx": (0, 0), "out": np.zeros((2, 2, 1), np.uint8), "out_valid": np.zeros((2, 2), bool),
    }  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        resample(**{**arguments, **change})


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


def test_full_sums_do_not_overflow(on):
    pixels = np.full((6, 6, 1), 2**32 - 1, np.uint32)
    ratio = Fraction(MAX_TERM - 1, MAX_TERM - 2)
    out, _ = run(pixels, None, (ratio, ratio), shape=(5, 5), on=on)
    assert (out == 2**32 - 1).all()
    out, _ = run((pixels >> 16).astype(np.uint16), None, (Fraction(MAX_TERM), Fraction(MAX_TERM)), shape=(1, 1), on=on)
    assert out.item() == 2**16 - 1


def test_positions_beyond_32_bits_are_read():
    memory = np.zeros((3, 2**30, 1), np.uint8)  # untouched pages cost nothing
    memory[:, -4:] = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    for kind in ("intensity", "labels"):
        out, _ = run(memory[:, -4:], None, (Fraction(1), Fraction(1)), shape=(3, 4), kind=kind)
        assert_array_equal(out, memory[:, -4:])


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
