"""Filtered levels against sums over all taps, Pillow, and themselves in parts; the adjoint against the matrix."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from tests.kernels.answers import MAX_PX, SIMULATED, Answer
from tests.kernels.test_mip import assert_same, blocks, cases, noise, rounded
from tilestream.errors import ConfigError
from tilestream.kernels.fir import FILTERS, Fir, fir_of, light_tables
from tilestream.kernels.mip import mip, mip_levels
from tilestream.kernels.mip_filter_gradient import filter_gradient

LONG = FILTERS[1:]


def taps_of(fir: Fir) -> dict[int, int]:
    return {offset: w for k, w in enumerate(fir.weights) for offset in (-k, k + 1)}


def summed(values, taps):
    """Return the sum over all taps of `(…, y, x)` values, 0 where there are none."""
    height, width = values.shape[-2:]
    rows, columns = -(-height // 2), -(-width // 2)
    pad = [(0, 0)] * (values.ndim - 2) + [(6, 8), (6, 8)]
    wide, total = np.pad(values, pad), 0
    for i, wy in taps.items():
        for j, wx in taps.items():
            total = total + wy * wx * wide[..., 6 + i : 6 + i + 2 * rows : 2, 6 + j : 6 + j + 2 * columns : 2]
    return total


def filtered(pixels, valid, nodata, fir):
    """Return one level with its validity."""
    kind = np.float64 if pixels.dtype.kind == "f" else np.int64
    good = np.isfinite(pixels).all(axis=1)
    good &= True if valid is None else valid
    if nodata is not None:
        good &= (pixels != nodata).any(axis=1)
    values, taps = np.where(good[:, None], pixels, 0).astype(kind), taps_of(fir)
    weight, exists = summed(good.astype(np.int64), taps), summed(np.ones_like(good, np.int64), taps)
    count = blocks(good.astype(np.int64), 2)
    enough = 2 * weight >= exists
    total = np.where(enough[:, None], summed(values, taps), blocks(values, 2))
    mean = rounded(total, np.where(enough, weight, np.maximum(count, 1))[:, None])
    if kind == np.int64:
        mean = np.clip(mean, np.iinfo(pixels.dtype).min, np.iinfo(pixels.dtype).max)
    return np.where(count[:, None] > 0, mean, 0 if nodata is None else nodata).astype(pixels.dtype), count > 0


@given(
    case=cases(names=("uint8", "uint32", "float16", "float64"), most_levels=1),
    name=st.sampled_from(LONG),
    with_nodata=st.booleans(),
)
def test_levels_weigh_what_exists(case, name, with_nodata, on: Answer) -> None:
    pixels, valid, _, _ = case
    scale = 4 * float(np.abs(pixels).max()) if pixels.dtype.kind == "f" else 0.0
    nodata = None
    if with_nodata:
        nodata = pixels[0, 0, 0, 0].item()
        pixels[:, :, ::3] = nodata
    fill = pixels.dtype.type(0 if nodata is None else nodata)
    if pixels.dtype.kind == "f":
        pixels[0, -1, -1, 0] = np.nan
    got = on(mip_levels, pixels, valid, levels=1 if SIMULATED else 2, filter=name, nodata=nodata)
    for level in got:
        mean, seen = filtered(pixels, valid, nodata, fir_of(name))
        assert_array_equal(level.valid, seen)
        assert_same(level.pixels, np.where(seen[:, None], mean, fill), scale)
        pixels, valid, nodata = level.pixels, level.valid, None  # a mean that happens to equal nodata is a mean


@pytest.mark.parametrize("light", ["linear", "density"])
@pytest.mark.parametrize("name", FILTERS)
def test_light_is_averaged_and_a_colour_kept(name, light, on: Answer) -> None:
    pixels = noise((1, 3, 9, 8), "uint8", 1)
    table, edges = light_tables(light)
    level, _ = filtered(table[pixels].astype(np.int32), None, None, fir_of(name))
    expected = np.searchsorted(edges, level, side="right")
    assert_array_equal(on(mip, pixels, levels=1, filter=name, light=light)[0], expected)
    flat = np.repeat(np.arange(0, 256, 51, dtype=np.uint8), 16).reshape(1, 6, 4, 4)
    assert_array_equal(on(mip, flat, levels=1, filter=name, light=light)[0], flat[..., ::2, ::2])


def test_lanczos_is_that_of_pillow() -> None:
    # a middling range: Pillow clips between its two passes
    pixels = np.clip(np.random.default_rng(0).normal(128, 15, (96, 64, 3)), 60, 200).astype(np.uint8)
    theirs = np.asarray(Image.fromarray(pixels).resize((32, 48), Image.Resampling.LANCZOS))
    (ours,) = mip(pixels.transpose(2, 0, 1), levels=1, filter="lanczos")
    difference = np.abs(theirs.astype(int) - ours.transpose(1, 2, 0))
    assert difference.max() <= 1
    assert difference.mean() < 0.25  # it rounds between its passes too


@pytest.mark.parametrize("name", LONG)
def test_no_filter_shifts_an_image(name, on: Answer) -> None:
    ramp = np.broadcast_to(np.arange(48, dtype=np.float64), (4, 48)).copy()
    (level,) = on(mip, ramp, levels=1, filter=name)
    assert_allclose(level[:, 3:-3], ramp[:2, ::2][:, 3:-3] + 0.5, rtol=1e-12)


@pytest.mark.parametrize("name", LONG)
@given(y=st.integers(0, 5), x=st.integers(0, 5), seed=st.integers(0, 99))
def test_levels_of_a_part_with_its_halo_are_those_of_the_whole(name, y, x, seed) -> None:
    if SIMULATED:
        return  # says nothing of CUDA
    levels, core = 3, 24
    pixels = noise((2, 147, 150), "uint8", seed)
    valid = np.random.default_rng(seed).random((147, 150)) < 0.9
    whole = mip_levels(pixels, valid, levels=levels, filter=name, threads=1)
    halo = -(-fir_of(name).halo_px(levels) // 2**levels) * 2**levels
    rows, columns = (slice(max(core * n - halo, 0), core * (n + 1) + halo) for n in (y, x))
    part = mip_levels(pixels[:, rows, columns], valid[rows, columns], levels=levels, filter=name, threads=1)
    for times, (one, all_of_it) in enumerate(zip(part, whole, strict=True), 1):
        edge = core >> times
        inside = np.s_[..., edge * y : edge * (y + 1), edge * x : edge * (x + 1)]
        top, left = (edge * n - (s.start >> times) for n, s in ((y, rows), (x, columns)))
        height, width = all_of_it.valid[inside].shape
        there = np.s_[..., top : top + height, left : left + width]
        assert_array_equal(one.pixels[there], all_of_it.pixels[inside])
        assert_array_equal(one.valid[there], all_of_it.valid[inside])


@given(
    name=st.sampled_from(FILTERS),
    height=st.integers(1, MAX_PX // 2),
    width=st.integers(1, MAX_PX // 2),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_the_adjoint_is_the_transpose(name, height, width, dtype, on: Answer) -> None:
    fir, generator = fir_of(name), np.random.default_rng(height)
    x = generator.normal(size=(2, height, width)).astype(dtype)
    g = generator.normal(size=(2, -(-height // 2), -(-width // 2))).astype(dtype)
    if dtype == "float32":  # on what integers reach exactly, sums in float64 are the truth
        x, g = np.rint(x * 8), np.rint(g * 8)
    (level,) = on(mip, x, levels=1, filter=fir)
    back = on(filter_gradient, g, fir=fir, out=np.full_like(x, np.nan))
    assert back.dtype == dtype
    one, other = (float((a.astype(np.float64) * b).sum()) for a, b in ((level, g), (x, back)))
    scale = float(np.abs(g).max() * np.abs(x).sum()) + 1
    assert abs(one - other) <= {"float32": 1e-6, "float64": 1e-12}[dtype] * scale


def test_a_filter_of_ones_own() -> None:
    a = noise((1, 5, 6), "uint8", 2)
    mine = Fir(name="mine", weights=(5, -1))
    assert_array_equal(mip(a, levels=1, filter=mine)[0][None], filtered(a[None], None, None, mine)[0])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"filter": "sinc"}, "`filter` of `mip`.*'sinc'.*lanczos"),
        ({"light": "linear", "a": np.zeros((2, 2), np.uint16)}, "`light` of `mip`.*'linear' of uint16"),
        ({"light": "gamma"}, "`light` of `mip`.*'gamma'"),
        ({"light": "density", "kind": "labels"}, "`light` of `mip`"),
    ],
)
def test_what_cannot_be_filtered_is_refused(keywords, message) -> None:
    with pytest.raises(ConfigError, match=message):
        mip(**{"a": np.zeros((2, 2), np.uint8), **keywords})


@pytest.mark.parametrize(
    ("gradient", "out", "message"),
    [
        (np.zeros((2, 3)), np.zeros((4, 4)), r"`gradient` of `filter_gradient`.*\(2, 2\)"),
        (np.zeros((2, 2), np.float32), np.zeros((4, 4)), "float64"),
        (np.zeros(2), np.zeros(4), "axes"),
    ],
)
def test_what_is_no_gradient_of_a_level_is_refused(gradient, out, message) -> None:
    with pytest.raises(ConfigError, match=message):
        filter_gradient(gradient, fir=fir_of("box"), out=out)
