"""Levels against sums of whole blocks in NumPy: int64, and float64 within the tolerances that `mip` states."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.kernels.answers import MAX_PX, SIMULATED, Answer
from tilestream.errors import ConfigError
from tilestream.kernels.mip import MipLevel, mip, mip_levels, update_mip
from tilestream.types import Box

NAMES = ("uint8", "int8", "uint16", "int16", "int32", "uint32", "float16", "float32", "float64")
TOLERANCES = {"float16": 1e-3, "float32": 1e-6, "float64": 1e-12}


def noise(shape, name, seed):
    generator = np.random.default_rng(seed)
    if name.startswith("float"):
        return generator.normal(size=shape).astype(name)
    info = np.iinfo(name)
    return generator.integers(info.min, info.max, size=shape, dtype=name, endpoint=True)


def laid_out(pixels, order):
    """Return the same `(n, c, y, x)` pixels with other strides."""
    n, c, y, x = pixels.shape
    if order == "planar":
        return np.ascontiguousarray(pixels)
    if order == "reversed":
        return np.ascontiguousarray(pixels[..., ::-1, ::-1])[..., ::-1, ::-1]
    memory = np.zeros((n, y + 2, x + 3, c + (order == "subset")), pixels.dtype)
    memory[:, 1:-1, 2:-1, :c] = pixels.transpose(0, 2, 3, 1)
    return memory[:, 1:-1, 2:-1, :c].transpose(0, 3, 1, 2)


def blocks(values, edge):
    rows, columns = (np.arange(0, n, edge) for n in values.shape[-2:])
    return np.add.reduceat(np.add.reduceat(values, rows, axis=-2), columns, axis=-1)


def rounded(total, count):
    """Return total / count: of integers to nearest, ties to even, in integers."""
    count = np.maximum(count, 1)
    if total.dtype.kind == "f":
        return total / count
    quotient, rest = total // count, total % count
    return quotient + ((2 * rest > count) | ((2 * rest == count) & (quotient % 2 == 1)))


def oracle(pixels, valid, *, levels, restart=4, nodata=None):
    """Return levels of `(n, c, y, x)` pixels with the validity of each, where 0 or `nodata` stands for none."""
    kind = np.float64 if pixels.dtype.kind == "f" else np.int64
    good = np.isfinite(pixels).all(axis=1) if valid is None else valid & np.isfinite(pixels).all(axis=1)
    if nodata is not None:
        good &= (pixels != nodata).any(axis=1)
    base, found = pixels.astype(kind), []
    for level in range(1, levels + 1):
        edge = 2 ** ((level - 1) % restart + 1)
        count = blocks(good.astype(np.int64), edge)
        mean = rounded(blocks(np.where(good[:, None], base, 0), edge), count[:, None])
        result = np.where(count[:, None] > 0, mean, 0 if nodata is None else nodata).astype(pixels.dtype)
        found.append((result, count > 0))
        if level % restart == 0:
            base, good = result.astype(kind), count > 0
    return found


@st.composite
def cases(draw, names=NAMES, most_levels=7):
    shape = (
        draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 3, 4, 5])), draw(st.integers(1, MAX_PX)),
        draw(st.integers(1, MAX_PX)),
    )  # fmt: skip
    name, seed = draw(st.sampled_from(names)), draw(st.integers(0, 999))
    order = draw(st.sampled_from(["planar", "interleaved", "subset", "reversed"]))
    pixels = laid_out(noise(shape, name, seed), order)
    share = draw(st.sampled_from([None, 0.0, 0.5, 0.97]))
    valid = None if share is None else np.random.default_rng(seed).random((shape[0], *shape[2:])) < share
    if SIMULATED:  # a launch takes a third of a second
        return pixels, valid, min(most_levels, 5), 4
    return pixels, valid, draw(st.integers(1, most_levels)), draw(st.integers(1, 6))


def assert_same(got, expected, scale):
    assert got.dtype == expected.dtype
    if expected.dtype.kind == "f":
        tolerance = TOLERANCES[expected.dtype.name]
        assert_allclose(got, expected, rtol=tolerance, atol=tolerance * scale)
    else:
        assert_array_equal(got, expected)


@pytest.mark.parametrize("name", NAMES[::2] if SIMULATED else NAMES)
@given(data=st.data(), spoiled=st.booleans(), with_nodata=st.booleans())
def test_levels_are_means_of_the_valid_pixels_that_exist(name, data, spoiled, with_nodata, on: Answer) -> None:
    pixels, valid, levels, restart = data.draw(cases(names=(name,)))
    scale = float(np.abs(pixels).max()) if pixels.dtype.kind == "f" else 0.0
    nodata = None
    if with_nodata:
        nodata = pixels[0, 0, 0, 0].item()
        pixels[:, :, ::3] = nodata
    if spoiled and pixels.dtype.kind == "f":
        pixels[0, -1, -1, 0], pixels[-1, 0, 0, -1] = np.nan, np.inf
    if levels <= restart and pixels.dtype.name == "float16":
        restart = levels
    expected = oracle(pixels, valid, levels=levels, restart=restart, nodata=nodata)
    got = on(mip_levels, pixels, valid, levels=levels, restart=restart, nodata=nodata)
    for level, (mean, seen) in zip(got, expected, strict=True):
        assert_array_equal(level.valid, seen)
        assert_same(level.pixels, mean, scale)
    plain = [] if SIMULATED else on(mip, pixels, valid, levels=levels, restart=restart, nodata=nodata)
    for level, values in zip(got, plain, strict=not SIMULATED):
        assert_array_equal(level.pixels, values)


@pytest.mark.parametrize("order", ["planar", "interleaved", "subset", "reversed"])
@pytest.mark.parametrize("axes", [2, 3, 4])
def test_any_axes_and_any_strides_in_and_out(axes, order, on: Answer) -> None:
    pixels = laid_out(noise((2, 3, 7, 9), "uint8", 0), order)
    expected = [level for level, _ in oracle(pixels, None, levels=3)]
    pick = {2: (0, 1), 3: (0,), 4: ()}[axes]
    a = pixels[pick]
    for level, mean in zip(on(mip, a, levels=3), expected, strict=True):
        assert_array_equal(level, mean[pick])
    out = [laid_out(np.full_like(mean, 77), "subset")[pick] for mean in expected]
    if on.name != "device":
        on(mip, a, levels=3, out=out)
        for level, mean in zip(out, expected, strict=True):
            assert_array_equal(level, mean[pick])


@given(case=cases(names=("uint8", "int16", "int64", "uint64"), most_levels=3), with_nodata=st.booleans())
def test_labels_keep_the_most_frequent_class(case, with_nodata, on: Answer) -> None:
    pixels, valid, levels, _ = case
    pixels %= 4
    nodata = 2 if with_nodata else None
    got = on(mip_levels, pixels, valid, levels=levels, kind="labels", nodata=nodata)
    good = np.ones(pixels[:, 0].shape, bool) if valid is None else valid
    if nodata is not None:
        good = good & (pixels != nodata).any(axis=1)
    classes = np.unique(pixels)
    for number, level in enumerate(got, 1):
        counts = np.stack([blocks(((pixels == v) & good[:, None]).astype(int), 2**number) for v in classes])
        expected = np.where(counts.max(axis=0) > 0, classes[counts.argmax(axis=0)], nodata or 0)
        assert_array_equal(level.pixels, expected)
        assert_array_equal(level.valid, blocks(good.astype(int), 2**number) > 0)


@given(
    case=cases(names=("uint8", "float16", "float32"), most_levels=6),
    corners=st.lists(st.tuples(*[st.integers(-5, MAX_PX + 5)] * 2, *[st.integers(0, 20)] * 2), max_size=4),
    how=st.sampled_from(["box", "binomial", "lanczos", "labels"]),
)
def test_an_update_gives_the_bits_of_a_rebuild(case, corners, how, on: Answer) -> None:
    pixels, valid, levels, restart = case
    if how == "labels" and pixels.dtype.kind == "f":
        pixels = np.nan_to_num(pixels * 3).astype(np.int16)
    boxes = [Box(y=y, x=x, height=height, width=width) for y, x, height, width in corners]
    keywords = {
        "restart": restart, "kind": "labels" if how == "labels" else "intensity",
        "filter": "box" if how == "labels" else how,
    }  # fmt: skip
    old = on(mip_levels, pixels, valid, levels=levels, **keywords)
    changed = pixels.copy()
    for box in boxes:
        rows, columns = (slice(max(s.start, 0), max(s.stop, 0)) for s in box.slices_yx)
        changed[..., rows, columns] = noise(changed[..., rows, columns].shape, pixels.dtype.name, 5)
    place_of = [MipLevel(pixels=on.put(level.pixels), valid=on.put(level.valid)) for level in old]
    threads = {} if on.is_cuda else {"threads": 1 if on.name == "serial" else 2}
    mask = None if valid is None else on.put(valid)
    update_mip(place_of, on.put(changed), boxes, mask, **keywords, **threads)
    for got, expected in zip(on.get(place_of), on(mip_levels, changed, valid, levels=levels, **keywords), strict=True):
        assert_array_equal(got.valid, expected.valid)
        assert got.pixels.tobytes() == expected.pixels.tobytes()


def test_an_update_of_plain_arrays(on: Answer) -> None:
    a = noise((3, MAX_PX, MAX_PX), "uint8", 0)
    levels = [on.put(level) for level in on(mip, a)]
    a[:, 2:4, 3:5] = 9
    update_mip(levels, on.put(a), [Box(y=2, x=3, height=2, width=2)])
    for got, expected in zip(on.get(levels), on(mip, a), strict=True):
        assert_array_equal(got, expected)


def test_ties_go_to_even_and_edges_average_what_exists(on: Answer) -> None:
    a = np.array([[0, 1, 7], [0, 1, 8], [3, 4, 9]], np.uint8)
    assert_array_equal(on(mip, a, levels=1)[0], [[0, 8], [4, 9]])


def test_by_default_until_one_pixel_is_left(on: Answer) -> None:
    a = np.arange(30, dtype=np.float64).reshape(5, 6)
    assert [level.shape for level in on(mip, a)] == [(3, 3), (2, 2), (1, 1)]
    assert on(mip, np.ones((1, 1), np.uint8)) == []


def test_many_tiles_in_one_launch(on: Answer) -> None:
    edge = 66 if SIMULATED else 300
    pixels = laid_out(noise((1, 1, edge, 5), "uint8", 3), "interleaved")
    levels = 7 if SIMULATED else 9
    for got, (mean, _) in zip(on(mip, pixels, levels=levels), oracle(pixels, None, levels=levels), strict=True):
        assert_array_equal(got, mean)


def test_levels_do_not_drift() -> None:
    a = noise((1, 1, 2048, 2048), "uint8", 7)
    for level, got in enumerate(mip(a, levels=8), 1):
        edge = 2**level
        exact = blocks(a.astype(np.int64), edge) / edge**2
        error = got - exact
        assert abs(error.mean()) < 0.01 + 3 * 0.3 / np.sqrt(error.size), level
        if level <= 4:
            assert np.abs(error).max() <= 0.5, level


@pytest.mark.slow
def test_the_bias_of_eight_levels_is_nothing() -> None:
    # an image has one pixel at level 8: a mean error known to 0.003 LSB takes ten thousand images of any brightness
    generator, images, part = np.random.default_rng(8), 16_384, 512
    noise = generator.standard_normal((part, 1, 256, 256), np.float32)  # the same for each part, in another light
    errors: list[list[np.ndarray]] = [[] for _ in range(8)]
    for _ in range(images // part):
        brightness = generator.uniform(20, 235, (part, 1, 1, 1)).astype(np.float32)
        contrast = generator.uniform(0.3, 6, (part, 1, 1, 1)).astype(np.float32)
        a = noise * contrast
        a += brightness
        a = np.clip(np.rint(a, out=a), 0, 255, out=a).astype(np.uint8)
        sums = a.astype(np.uint32)
        for level, got in enumerate(mip(a, levels=8), 1):
            rows = sums[..., ::2, :] + sums[..., 1::2, :]
            sums = rows[..., ::2] + rows[..., 1::2]
            errors[level - 1].append((got - sums / 4**level).mean(axis=(1, 2, 3)))
    for level, parts in enumerate(errors, 1):
        each = np.concatenate(parts)  # mean error of each image
        assert each.std() / np.sqrt(len(each)) < 0.003, level
        assert abs(each.mean()) < 0.01, level


def test_interleaved_stays_interleaved() -> None:
    a = np.moveaxis(np.zeros((64, 64, 3), np.uint8), 2, 0)
    assert all(np.moveaxis(level, 0, 2).flags["C_CONTIGUOUS"] for level in mip(a))
    assert all(level.flags["C_CONTIGUOUS"] for level in mip(np.ascontiguousarray(a)))


@pytest.mark.slow
def test_more_than_two_to_the_31_samples() -> None:
    a = np.zeros((2, 32769, 32769), np.uint8)
    a[1, -3:, -3:] = [[4, 8, 12], [8, 4, 12], [16, 20, 200]]
    levels = mip(a, levels=2)
    assert_array_equal(levels[0][1, -2:, -2:], [[6, 12], [18, 200]])
    assert levels[0][0].max() == 0
    assert levels[1][1, -1, -1] == 200
    a[...] = 3
    update_mip(levels, a, [Box(y=0, x=32760, height=32769, width=9)])
    assert_array_equal(levels[1][1, :, -1], 3)


@pytest.mark.parametrize(
    ("a", "keywords", "message"),
    [
        (np.zeros((2, 2), complex), {}, "`a` of `mip`.*complex"),
        (np.zeros((0, 2), np.uint8), {}, "at least one sample"),
        (np.zeros(4, np.uint8), {}, "axes"),
        (np.zeros((2, 2), np.int64), {}, "int64"),
        (np.zeros((2, 2), np.float32), {"kind": "labels"}, "float32"),
        (np.zeros((17, 2, 2), np.uint8), {}, "17 channels.*16"),
        (np.zeros((2, 2), np.uint8), {"valid": np.ones((2, 3), bool)}, r"`valid`.*\(2, 2\)"),
        (np.zeros((2, 2), np.uint8), {"restart": 7}, "`restart`.*1 to 6"),
        (np.zeros((2, 2), np.uint8), {"levels": -1}, "`levels`"),
        (np.zeros((2, 2), np.uint8), {"kind": "mask"}, "`kind`.*labels"),
        (np.zeros((2, 2), np.uint8), {"filter": "gauss"}, "`filter`.*binomial"),
        (np.zeros((2, 2), np.uint8), {"kind": "labels", "filter": "binomial"}, "`filter`"),
        (np.zeros((2, 2), np.uint8), {"nodata": 256}, "`nodata`.*uint8"),
        (np.zeros((2, 2), np.uint8), {"out": [], "levels": 1}, "`out`.*0 arrays"),
        (np.zeros((2, 2), np.uint8), {"out": [np.zeros((1, 1), np.int8)]}, r"`out\[0\]`.*uint8"),
        (np.zeros((2, 2), np.uint8), {"threads": 0}, "`threads`"),
        ([[1]], {}, "list"),
    ],
)
def test_refuses_what_it_cannot_reduce(a, keywords, message) -> None:
    with pytest.raises(ConfigError, match=message):
        mip(a, **keywords)


def test_refuses_an_update_of_what_does_not_belong_together() -> None:
    a = np.zeros((64, 64), np.float32)
    levels = mip(a)
    with pytest.raises(ConfigError, match="mip_levels"):
        update_mip(levels, a, [])
    with pytest.raises(ConfigError, match="`out\\[0\\]`"):
        update_mip(mip(a[:32], levels=2), a, [])
    with pytest.raises(ConfigError, match="boxes of level 0"):
        update_mip(levels[:2], a, [Box(level=1, y=0, x=0, height=1, width=1)])
