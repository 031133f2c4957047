import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.kernels.answers import SIMULATED, Answer
from tilestream.errors import ConfigError
from tilestream.kernels.blend import FULL, blend
from tilestream.kernels.blend_finish import finish_blend
from tilestream.kernels.blend_sums import INTEGERS, MAX_WEIGHT, blend_sums

LIMIT = 1000.0


def ramp_of(n, feather, kind):
    found = np.full(n, FULL, np.int64)
    for i in range(n):
        d = min(i, n - 1 - i)
        if d < feather:
            t = Fraction(2 * d + 1, 2 * feather)
            found[i] = max(1, int(FULL * (t if kind == "linear" else t * t * (3 - 2 * t))))
    return found


def oracle(shape, tiles, origins, valid, ok, *, feather_px, ramp):
    """Return exact sums: of weighted values as fractions, and of weights."""
    n, channels, height, width = tiles.shape
    weight_of = np.outer(ramp_of(height, feather_px, ramp), ramp_of(width, feather_px, ramp))
    total = np.full((channels, *shape), Fraction(0))
    weight = np.zeros(shape, np.int64)
    for i in range(n):
        for y in range(height if ok is None or ok[i] else 0):
            for x in range(width):
                at = (origins[i][0] + y, origins[i][1] + x)
                if not (0 <= at[0] < shape[0] and 0 <= at[1] < shape[1]) or (valid is not None and not valid[i, y, x]):
                    continue
                weight[at] += weight_of[y, x]
                for ch in range(channels):
                    total[(ch, *at)] += Fraction(tiles[i, ch, y, x].item()) * int(weight_of[y, x])
    return total, weight


def blended(batches, *, origins, masks, oks, shape, dtype, corner=(0, 0), limit=None, threads=None, **keywords):
    """Run one operation from empty sums to the mean."""
    sums = blend_sums(batches[0], shape, origin_yx=corner, limit=limit)
    for tiles, where, mask, ok in zip(batches, origins, masks, oks, strict=True):
        found = blend(sums, tiles, where, mask, ok=ok, threads=threads, **keywords)
        assert found is sums
    done = finish_blend(sums, dtype, threads=threads)
    return done.pixels, done.valid, sums.refused


def with_host_tables(operation, **tables):
    """Return an operation with arguments that stay on the host wherever it runs."""
    return lambda *arrays, **keywords: operation(*arrays, **tables, **keywords)


def made(data, name, edge):
    """Return drawn tiles, origins, masks and statuses."""
    noise = np.random.default_rng(data.draw(st.integers(0, 999)))
    n, channels = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([1, 3]))
    height, width = data.draw(st.integers(1, edge)), data.draw(st.integers(1, edge))
    memory = (n, height, width, channels)
    if name == "float32":
        tiles = np.clip(noise.normal(0, 300, memory), -LIMIT, LIMIT).astype(name)
    else:
        tiles = noise.integers(np.iinfo(name).min, np.iinfo(name).max, memory, name, endpoint=True)
    tiles = np.moveaxis(tiles, 3, 1)
    order = data.draw(st.sampled_from(["interleaved", "planar", "reversed"]))
    if order == "planar":
        tiles = np.ascontiguousarray(tiles)
    if order == "reversed":
        tiles = tiles[..., ::-1, ::-1]
    valid = noise.random((n, height, width)) < 0.7 if data.draw(st.booleans()) else None
    if valid is not None and name == "float32":
        tiles = np.where(valid[:, None], tiles, np.float32(np.nan))
    ok = noise.random(n) < 0.8 if data.draw(st.booleans()) else None
    return tiles, noise.integers(-3, edge, (n, 2)), valid, ok


@given(data=st.data())
def test_is_the_weighted_mean(data: st.DataObject, on: Answer) -> None:
    name = data.draw(st.sampled_from([*INTEGERS, "float32"]))
    tiles, origins, valid, ok = made(data, name, 5 if SIMULATED else 12)
    rule = {
        "feather_px": data.draw(st.sampled_from([0, 1, 3, 20])),
        "ramp": data.draw(st.sampled_from(["linear", "smooth"])),
    }
    shape, corner = (7, 6) if SIMULATED else (13, 10), data.draw(st.sampled_from([(0, 0), (-40, 70)]))
    limit = LIMIT if name == "float32" else None
    dtype = data.draw(st.sampled_from(["float32", "int16", "uint8", name]))
    pixels, covered, refused = on(
        with_host_tables(blended, origins=[origins + np.array(corner)], oks=[ok]), [tiles], masks=[valid], shape=shape,
        dtype=dtype, corner=corner, limit=limit, **rule,
    )  # fmt: skip
    total, weight = oracle(shape, tiles, origins, valid, ok, **rule)
    assert not refused.any()
    assert_array_equal(covered, weight > 0)
    assert pixels.dtype == dtype
    for at in np.ndindex(pixels.shape):
        exact = total[at] / int(weight[at[1:]]) if weight[at[1:]] else Fraction(0)
        if dtype == "float32":
            near = abs(exact) * Fraction(1, 2**23) + (Fraction(LIMIT) / 2**38 if limit else 0)
            assert abs(Fraction(pixels[at].item()) - exact) <= near
        elif name == "float32":
            assert abs(pixels[at] - min(max(exact, np.iinfo(dtype).min), np.iinfo(dtype).max)) <= Fraction(
                1, 2
            ) + Fraction(1, 2**20)
        else:
            assert pixels[at] == min(max(round(exact), np.iinfo(dtype).min), np.iinfo(dtype).max)


@pytest.mark.parametrize("name", ["uint8", "float32"])
def test_neither_order_nor_batches_nor_threads_matter(name, on):
    noise, edge = np.random.default_rng(5), 4 if SIMULATED else 160  # large enough for several bands
    n, shape = (3, (6, 6)) if SIMULATED else (12, (400, 350))
    tiles = noise.normal(0, 100, (n, 2, edge, edge)) + (128 if name == "uint8" else 0)
    tiles = np.clip(tiles, 0, 255).astype(name) if name == "uint8" else tiles.astype(name)
    origins = noise.integers(-edge // 2, np.array(shape) - edge // 2, (n, 2))
    valid = noise.random((n, edge, edge)) < 0.9
    found = set()
    for order, cuts in ((range(n), (0, n)), (range(n)[::-1], (0, n)), (noise.permutation(n), (0, 1, 2, n))):
        parts = [np.array(order)[a:b] for a, b in itertools.pairwise(cuts)]
        pixels, covered, _ = on(
            with_host_tables(blended, origins=[origins[p] for p in parts], oks=[None] * len(parts)),
            [tiles[p] for p in parts], masks=[valid[p] for p in parts], shape=shape, dtype="float32",
            limit=1000.0 if name == "float32" else None, feather_px=edge // 3,
        )  # fmt: skip
        found.add(pixels.tobytes() + covered.tobytes())
    if not on.is_cuda:
        for threads in (1, 2, 3):
            pixels, covered, _ = blended(
                [tiles], origins=[origins], masks=[valid], oks=[None], shape=shape, dtype="float32",
                limit=1000.0 if name == "float32" else None, feather_px=edge // 3, threads=threads,
            )  # fmt: skip
            found.add(pixels.tobytes() + covered.tobytes())
    assert len(found) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("uint8", 201), ("int16", -32768), ("uint32", 2**32 - 1), ("float32", 0.1)]
)
@pytest.mark.parametrize("ramp", ["linear", "smooth"])
def test_a_constant_comes_out_constant(name, value, ramp, on):
    tiles = np.full((4, 1, 6, 6), value, name)
    origins = np.array([[0, 0], [0, 3], [3, 0], [3, 3]])
    pixels, covered, _ = on(
        with_host_tables(blended, origins=[origins], oks=[None]), [tiles], masks=[None], shape=(9, 9), dtype=name,
        limit=1.0 if name == "float32" else None, feather_px=3, ramp=ramp,
    )  # fmt: skip
    assert covered.all()
    assert (pixels == tiles.flat[0]).all()


def test_ties_go_to_even(on):
    tiles = np.array([0, 1, -1, -2, 2, 3], np.int16).reshape(3, 2, 1, 1).transpose(1, 0, 2, 3)  # means 0.5, -1.5, 2.5
    pixels, _, _ = on(
        with_host_tables(blended, origins=[np.zeros((2, 2), np.int64)], oks=[None]), [tiles], masks=[None],
        shape=(1, 1), dtype="int16", feather_px=0,
    )  # fmt: skip
    assert_array_equal(pixels.ravel(), [0, -2, 2])
    pixels, _, _ = on(
        with_host_tables(blended, origins=[np.zeros((2, 2), np.int64)], oks=[None]), [tiles.astype(np.float32)],
        masks=[None], shape=(1, 1), dtype="int16", feather_px=0, limit=4.0,
    )  # fmt: skip
    assert_array_equal(pixels.ravel(), [0, -2, 2])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.5])
def test_floats_that_cannot_be_summed_exactly_are_refused(bad, on):
    tiles = np.ones((2, 2, 3, 3), np.float32)
    tiles[1, 1, 2, 0] = bad
    case = {"masks": [None], "shape": (3, 6), "dtype": "float32", "limit": 1.0, "feather_px": 1}
    operation = with_host_tables(blended, origins=[np.array([[0, 0], [0, 3]])], oks=[None])
    if on.is_cuda:
        pixels, covered, refused = on(operation, [tiles], **case)
        assert refused.item() == 1
        assert_array_equal(~covered, np.arange(18).reshape(3, 6) == 15)
        assert_array_equal(pixels[:, covered], 1)
        return
    with pytest.raises(ConfigError, match=r"`tiles` of `blend`: got 1 samples .*`limit`"):
        on(operation, [tiles], **case)
    sums = blend_sums(tiles, (3, 6), limit=1.0)
    with pytest.raises(ConfigError, match="finite"):
        blend(sums, tiles, np.array([[0, 0], [0, 3]]), feather_px=1)
    assert not sums.weight.any()
    # a status that is not good, or a mask, and it is not looked at
    blend(sums, tiles, np.array([[0, 0], [0, 3]]), feather_px=1, ok=np.array([True, False]))
    assert sums.weight[:, :3].all()
    assert not sums.weight[:, 3:].any()


def test_sums_that_may_have_overflown_are_refused():
    sums = blend_sums(np.zeros((1, 1, 2, 2), np.uint8), (2, 2))
    sums.weight[...] = MAX_WEIGHT
    assert finish_blend(sums, "uint8").valid.all()
    sums.weight[0, 1] = MAX_WEIGHT + 1
    with pytest.raises(ConfigError, match=r"`sums` of `finish_blend`: got 1 positions"):
        finish_blend(sums, "uint8")


def test_full_sums_do_not_overflow():
    sums = blend_sums(np.zeros((1, 1, 1, 1), np.float32), (1, 1), limit=3.0)
    tiles = np.full((511, 1, 1, 1), -3, np.float32)
    blend(sums, tiles, np.zeros((511, 2), np.int64), feather_px=0)
    assert finish_blend(sums).pixels.item() == -3


def test_results_are_written_into_views():
    sums = blend_sums(np.zeros((1, 2, 3, 3), np.uint8), (3, 3))
    blend(sums, np.full((1, 2, 3, 3), 7, np.uint8), np.zeros((1, 2), np.int64), feather_px=2)
    memory, flags = np.zeros((5, 5, 2), np.uint8), np.zeros((5, 5), bool)
    out, out_valid = np.moveaxis(memory, 2, 0)[:, 1:4, 1:4], flags[1:4, 1:4]
    done = finish_blend(sums, "uint8", out=out, out_valid=out_valid)
    assert done.pixels is out
    assert done.valid is out_valid
    assert memory.sum() == 7 * 18
    assert flags.sum() == 9


def test_no_tiles_leave_nothing_valid(on):
    pixels, covered, _ = on(
        with_host_tables(blended, origins=[np.zeros((0, 2), np.int64)], oks=[None]), [np.zeros((0, 4, 2, 2), np.uint8)],
        masks=[None], shape=(3, 2), dtype="uint8", feather_px=1,
    )  # fmt: skip
    assert pixels.shape == (4, 3, 2)
    assert not pixels.any()
    assert not covered.any()


TILES = np.zeros((2, 3, 4, 4), np.uint8)
AT = np.zeros((2, 2), np.int64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tiles": TILES.astype(np.float64)}, "`tiles` of `blend`: got float64"),
        ({"tiles": TILES.astype(np.float32)}, "`tiles` of `blend`: got float32"),
        ({"tiles": TILES[:, :2]}, r"`tiles` of `blend`.*shape \(2, 3, 4, 4\)"),
        ({"tiles": TILES[0]}, "4 axes"),
        ({"tiles": [1]}, "`tiles` of `blend`: got list"),
        ({"origins_yx": AT[:1]}, "`origins_yx` of `blend`"),
        ({"origins_yx": AT.astype(np.float64)}, "`origins_yx` of `blend`: got float64"),
        ({"origins_yx": [[0, 0], [1, 1]]}, "`origins_yx` of `blend`: got list, expected a NumPy array"),
        ({"valid": np.ones((2, 4, 5), bool)}, "`valid` of `blend`"),
        ({"ok": np.ones(3, bool)}, "`ok` of `blend`"),
        ({"feather_px": -1}, "`feather_px`"),
        ({"ramp": "cosine"}, "`ramp`.*cosine"),
        ({"backend": "cuda"}, "`backend`"),
    ],
)
def test_tiles_that_do_not_fit_are_refused(change, message) -> None:
    sums = blend_sums(TILES, (8, 8))
    with pytest.raises(ConfigError, match=message):
        blend(**{"sums": sums, "tiles": TILES, "origins_yx": AT, "feather_px": 1, **change})


@pytest.mark.parametrize(
    ("like", "shape", "limit", "message"),
    [
        (TILES, (8, 8), 1.0, "`limit` of `blend_sums`: got 1.0, expected None"),
        (TILES.astype(np.float32), (8, 8), None, "`limit`.*float tiles"),
        (TILES.astype(np.float32), (8, 8), np.nan, "`limit`"),
        (TILES.astype(np.float32), (8, 8), 1e-20, "`limit`"),
        (TILES, (0, 8), None, "`shape_yx`"),
        (TILES.astype(np.int64), (8, 8), None, "`like` of `blend_sums`: got int64"),
    ],
)
def test_sums_that_cannot_be_held_are_refused(like, shape, limit, message) -> None:
    with pytest.raises(ConfigError, match=message):
        blend_sums(like, shape, limit=limit)


def test_means_that_cannot_be_had_are_refused() -> None:
    sums = blend_sums(TILES.astype(np.float32), (8, 8), limit=1e30)
    with pytest.raises(ConfigError, match="`dtype` of `finish_blend`: got 'float64'"):
        finish_blend(sums, "float64")
    with pytest.raises(ConfigError, match="`dtype` of `finish_blend`: got 'uint8' with a limit of 1e"):
        finish_blend(sums, "uint8")
    with pytest.raises(ConfigError, match="`out` of `finish_blend`"):
        finish_blend(sums, out=np.zeros((3, 8, 9), np.float32))
