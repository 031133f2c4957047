import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.kernels.answers import MAX_PX, SIMULATED, Answer
from tilestream.errors import ConfigError
from tilestream.kernels import tile_cuda
from tilestream.kernels.coarser_histograms import coarser_histograms
from tilestream.kernels.entropy import entropy
from tilestream.kernels.tile_entropy import tile_entropy
from tilestream.kernels.tile_histogram import tile_histograms

TILES_PX = (5, 8) if SIMULATED else (1, 4, 7, 16, 64, 100)


def oracle(image, valid, tile_px, bins, value_range):
    """Counts by numpy.bincount, tile by tile; the bins of values in float32, as is documented."""
    planes = image.reshape(-1, *image.shape[-2:])
    _, height, width = planes.shape
    if value_range is None:
        found = planes // (256 // bins)
    else:
        low, high = value_range
        with np.errstate(invalid="ignore"):
            t = (planes.astype(np.float32) - np.float32(low)) * np.float32(bins / (high - low))
            found = np.nan_to_num(np.clip(t, 0, bins - 1)).astype(int)
    good = np.ones((height, width), bool) if valid is None else valid
    good = good & (planes == planes)
    ny, nx = -(-height // tile_px), -(-width // tile_px)
    counts = np.zeros((len(planes), ny, nx, bins), np.uint32)
    for c in range(len(planes)):
        for i in range(ny):
            for j in range(nx):
                part = np.s_[c, i * tile_px : (i + 1) * tile_px, j * tile_px : (j + 1) * tile_px]
                counts[c, i, j] = np.bincount(found[part][good[part]], minlength=bins)
    return counts.reshape(*image.shape[:-2], ny, nx, bins)


def textbook(counts):
    n = counts.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = counts / n
        h = -np.where(p > 0, p * np.log2(p), 0.0).sum(axis=-1) / np.log2(counts.shape[-1])
    return np.where(n[..., 0] > 0, h, np.nan)


@st.composite
def cases(draw):
    """An image in some memory order, a mask and how to count."""
    dtype = np.dtype(draw(st.sampled_from(["uint8", "uint8", "uint8", "uint16", "int16", "float32"])))
    shape = draw(st.integers(1, MAX_PX)), draw(st.integers(1, MAX_PX))
    channels = draw(st.sampled_from([None, 1, 3] if SIMULATED else [None, 1, 2, 3, 4, 5]))
    noise = np.random.default_rng(draw(st.integers(0, 999)))
    spread = draw(st.sampled_from([1, 30, 400]))
    memory = noise.normal(100, spread, (shape[0] + 1, shape[1] + 2, channels or 1)).clip(0, 255).astype(dtype)
    if dtype.kind == "f" and draw(st.booleans()):
        memory[noise.random(memory.shape) < 0.2] = np.nan
    order = draw(st.sampled_from(["interleaved", "cropped", "planar", "reversed", "stepped"]))
    image = np.moveaxis(memory, 2, 0)
    if order == "interleaved":
        image = np.moveaxis(np.ascontiguousarray(memory[:-1, :-2]), 2, 0)
    if order == "planar":
        image = np.ascontiguousarray(image)
    if order == "cropped":
        image = image[:, 1:, 1:-1]
    if order == "reversed":
        image = image[:, ::-1, ::-1]
    if order == "stepped":
        image = image[:, ::2, ::3]
    image = image[0] if channels is None else image
    valid = noise.random(image.shape[-2:]) < 0.6 if draw(st.sampled_from([False, False, True])) else None
    ranged = dtype != np.uint8 or draw(st.integers(0, 3)) == 0
    bins = draw(st.sampled_from([2, 5, 32, 33, 200] if ranged else [2, 8, 32, 32, 64, 256]))
    value_range = (10.5, 140.25) if ranged else None
    return image, valid, {"tile_px": draw(st.sampled_from(TILES_PX)), "bins": bins, "value_range": value_range}


@given(case=cases())
def test_counts_are_those_of_numpy_and_so_is_the_entropy(case, on: Answer) -> None:
    image, valid, how = case
    expected = oracle(image, valid, how["tile_px"], how["bins"], how["value_range"])
    assert_array_equal(on(tile_histograms, image, valid, **how), expected)
    out = np.full(expected.shape[:-1], 7, np.float32)
    found = on(tile_entropy, image, valid, **how, out=out)
    assert_allclose(found, textbook(expected), atol=3e-6 if on.is_cuda else 1e-6, rtol=0)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_interleaved_words(channels: int, on: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole words a row are what devices count in bytes of their own."""
    if SIMULATED:  # several rounds; what is compiled keeps its own
        monkeypatch.setattr(tile_cuda, "WORDS_ROUND", 1)
    image = np.moveaxis(np.random.default_rng(channels).integers(0, 256, (25, 24, channels), np.uint8), 2, 0)
    for tile_px, bins in ((24, 32), (16, 8)):
        expected = oracle(image, None, tile_px, bins, None)
        assert_array_equal(on(tile_histograms, image, tile_px=tile_px, bins=bins), expected)


def test_large_tiles_of_a_single_code(on: Answer) -> None:
    """No counter overflows: more than 255 words a thread, more samples than a bag holds."""
    edge = 48 if SIMULATED else 600
    image = np.full((edge, edge), 77, np.uint8)
    image[:2] = 255
    assert_array_equal(on(tile_histograms, image, tile_px=edge), oracle(image, None, edge, 32, None))
    wide = np.full((2, 9000), 200, np.uint8) if not SIMULATED else image
    assert on(tile_histograms, wide, tile_px=9000)[0, 0, wide[0, 0] >> 3] == (wide == wide[0, 0]).sum()


@given(data=st.data())
def test_coarser_histograms_are_those_of_larger_tiles(data: st.DataObject, on: Answer) -> None:
    height, width = data.draw(st.integers(1, MAX_PX)), data.draw(st.integers(1, MAX_PX))
    channels = data.draw(st.sampled_from([None, 1, 3]))
    bins = 4 if SIMULATED else 32
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    image = noise.integers(0, 256, (*(() if channels is None else (channels,)), height, width), np.uint8)
    valid = noise.random((height, width)) < 0.8
    finer = (
        tile_histograms(image, valid, tile_px=4, bins=bins, threads=1)
        if not on.is_cuda
        else oracle(image, valid, 4, bins, None)
    )
    for level in (1, 2, 3):
        finer = on(coarser_histograms, finer)
        assert_array_equal(finer, oracle(image, valid, 4 << level, bins, None))
        if not on.is_cuda:
            again = tile_entropy(image, valid, tile_px=4 << level, bins=bins, threads=1)
            assert_allclose(entropy(finer, bins=bins), again, atol=1e-6)


def test_counts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="int64"):
        coarser_histograms(np.full((2, 2, 2), 2**30, np.uint32))
    assert coarser_histograms(np.full((2, 2, 2), 2**30, np.int64)).tolist() == [[[2**32, 2**32]]]


IMAGE = np.zeros((3, 8, 8), np.uint8)


@pytest.mark.parametrize("operation", [tile_histograms, tile_entropy])
@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((IMAGE.astype(np.int64),), {}, "`image`.*int64.*uint8"),
        ((IMAGE[None],), {}, "`image`.*2 or 3 axes"),
        ((IMAGE[:, :0],), {}, "`image`.*at least one sample"),
        ((IMAGE.astype(np.uint16),), {}, "`value_range`.*uint16"),
        ((IMAGE,), {"bins": 20}, "`bins`.*power of two"),
        ((IMAGE,), {"bins": 1}, "`bins`.*2 to 256"),
        ((IMAGE,), {"tile_px": 0}, "`tile_px`.*1 to"),
        ((IMAGE,), {"value_range": (3, 3)}, "`value_range`.*the lower first"),
        ((IMAGE, np.ones((8, 7), bool)), {}, r"`valid`.*shape \(8, 8\)"),
        ((IMAGE,), {"out": np.zeros(3, np.int8)}, "`out`"),
        ((IMAGE,), {"backend": "gpu"}, "`backend`"),
    ],
)
def test_what_cannot_be_counted_is_refused(operation, arguments, keywords, message) -> None:
    with pytest.raises(ConfigError, match=message):
        operation(*arguments, **keywords)
