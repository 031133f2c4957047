import numpy as np
import openslide
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from tests.kernels.answers import MAX_PX, Answer
from tilestream.errors import ConfigError
from tilestream.kernels.fluorescence import background, tissue_fluorescence
from tilestream.kernels.mask import pen_marks, tissue_brightfield

COARSE = {"medium-nuclei-score-level1": 4, "diagnostic-slide-thumb-rgb": 1, "tcga-red-pen": 1}
"""Factor that brings a labelled tile to about 8 um a pixel; 16 for the tiles of level 0."""


def planes(pixels):
    return np.moveaxis(pixels, 2, 0)


@pytest.fixture
def tile(shared_data):
    def load(name):
        with Image.open(shared_data / "slides" / "labelled-tiles" / f"{name}.png") as image:
            image = image.convert("RGB")
        return np.asarray(image.reduce(COARSE.get(name, 16)))

    return load


@pytest.mark.parametrize("name", ["no-tissue", "no-tissue2", "almost-white-1"])
def test_glass_is_no_tissue(tile, name):
    assert tissue_brightfield(planes(tile(name))).mean() < 0.01


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("high-nuclei-score-level0", 0.97),
        ("medium-nuclei-score-level1", 0.6),
        ("low-nuclei-score-level0", 0.25),
        ("very-low-nuclei-score-level0", 0.99),
    ],
)
def test_stain_is_tissue(tile, name, least):
    share = tissue_brightfield(planes(tile(name))).mean()
    assert share >= least
    assert share <= 1.0 if least > 0.9 else share < 0.85, "the glass between the tissue is left out"


def test_red_pen_on_glass_is_ink(tile):
    pixels = tile("no-tissue-red-pen")
    dark_red = (pixels[..., 0] > 100) & (pixels[..., 1] < 60)
    assert dark_red.sum() > 100
    assert pen_marks(planes(pixels))[dark_red].mean() > 0.95
    assert tissue_brightfield(planes(pixels))[dark_red].mean() < 0.05


def test_red_pen_on_tissue_is_ink_and_the_rest_is_tissue(tile):
    pixels = tile("tcga-red-pen")
    assert pen_marks(planes(pixels))[250:330, 80:150].mean() > 0.95
    assert tissue_brightfield(planes(pixels))[250:330, 80:150].mean() < 0.05
    assert pen_marks(planes(pixels))[100:400, 300:].mean() < 0.02
    assert tissue_brightfield(planes(pixels))[150:400, 300:].mean() > 0.9


def test_three_pens_on_a_whole_slide(tile):
    pixels = tile("diagnostic-slide-thumb-rgb").astype(int)
    ink, tissue = pen_marks(planes(pixels.astype(np.uint8))), tissue_brightfield(planes(pixels.astype(np.uint8)))
    red, green, _ = np.moveaxis(pixels, 2, 0)
    for pen in ((green > 2 * red), (red > 180) & (green < 60), pixels.max(axis=2) < 60):
        assert pen.sum() > 100
        assert ink[pen].mean() > 0.95
        assert tissue[pen].mean() < 0.05
    assert tissue[200:260, 330:400].mean() > 0.8


@pytest.mark.parametrize(
    ("rgb", "is_tissue", "is_ink"),
    [
        ((245, 245, 245), False, False),
        ((225, 225, 235), False, False),  # bluish glass
        ((240, 238, 222), False, False),  # yellowed glass
        ((150, 150, 150), False, False),  # shadow, edge of a slide
        ((20, 20, 22), False, True),  # black ink
        ((240, 228, 236), True, False),  # faint eosin
        ((228, 220, 236), True, False),  # faint hematoxylin
        ((220, 120, 170), True, False),  # eosin
        ((90, 50, 130), True, False),  # dense nuclei
        ((160, 185, 205), True, False),  # hematoxylin without eosin
        ((130, 90, 60), True, False),  # DAB
        ((130, 170, 140), True, False),  # light green of a trichrome
        ((200, 20, 25), False, True),  # red ink
        ((20, 110, 90), False, True),  # green ink
        ((25, 50, 160), False, True),  # blue ink
    ],
)
def test_rules_on_single_colours(rgb, is_tissue, is_ink):
    pixel = np.array([[rgb]], np.uint8)
    assert tissue_brightfield(planes(pixel)).item() is is_tissue
    assert pen_marks(planes(pixel)).item() is is_ink
    assert not tissue_brightfield(planes(pixel), np.zeros((1, 1), bool)).any()
    wide = pixel.astype(np.uint16) * 256 + 17
    assert tissue_brightfield(planes(wide)).item() is is_tissue


def test_h_and_e_slide(shared_data):
    with openslide.OpenSlide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        pixels = np.asarray(slide.associated_images["thumbnail"].convert("RGB"))
    tissue = tissue_brightfield(planes(pixels))
    assert 0.3 < tissue.mean() < 0.5
    edge = pixels.shape[1] // 8
    assert tissue[pixels.shape[0] // 2 :, :edge].mean() < 0.01, "glass on the left"


def test_fluorescence_slide(shared_data):
    with openslide.OpenSlide(shared_data / "slides" / "test3-DAPI-2-387.ndpi") as slide:
        pixels = np.asarray(slide.read_region((0, 0), 4, slide.level_dimensions[4]).convert("RGB"))
    tissue = tissue_fluorescence(planes(pixels))
    assert 0.1 < tissue.mean() < 0.7
    brightest = pixels.max(axis=2)
    assert tissue[brightest > 100].all()
    assert not tissue[brightest < 5].any()
    wide = tissue_fluorescence(planes(pixels.astype(np.uint16) * 200 + 300))
    assert wide.mean() >= tissue.mean()
    assert_array_equal(tissue_fluorescence(planes(pixels.astype(np.float32) / 255.0))[brightest > 100], True)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("sigma", [0.0, 1.0, 2.0, 5.0])
def test_blank_fluorescence_stays_blank(dtype, sigma):
    pixels = np.random.default_rng(0).normal(20, sigma, (400, 300, 2)).clip(0, 255).astype(dtype)
    assert tissue_fluorescence(planes(pixels)).mean() < 1e-3


def test_faint_signal_is_found():
    rng = np.random.default_rng(0)
    pixels = rng.normal(100, 5, (200, 200, 1))
    pixels[50:100, 50:100] += 60
    for dtype in ("uint16", "float64", "uint8"):
        tissue = tissue_fluorescence(planes(pixels.astype(dtype)))
        assert tissue[50:100, 50:100].mean() > 0.99
        assert tissue.sum() < 2510


def test_what_is_not_valid_has_no_say():
    pixels = np.random.default_rng(0).normal(50, 2, (100, 100, 1)).astype(np.float32)
    pixels[:, 60:] = 0
    pixels[0, 0] = np.nan
    pixels[10:20, 10:20] = 200
    valid = np.ones((100, 100), bool)
    valid[:, 60:] = False
    tissue = tissue_fluorescence(planes(pixels), valid)
    assert tissue[10:20, 10:20].all()
    assert tissue.sum() == 100
    assert not tissue_fluorescence(planes(pixels), np.zeros_like(valid)).any()


def test_background_is_the_shortest_quarter():
    rng = np.random.default_rng(0)
    level, sigma = background(np.concatenate([rng.normal(10, 2, 4000), rng.uniform(0, 255, 6000)]))
    assert level == pytest.approx(10, abs=1)
    assert sigma == pytest.approx(2, abs=2)
    assert background(np.array([3.0])) == (3.0, 0.0)


@given(data=st.data())
def test_every_way_gives_the_same_tissue_and_ink(data: st.DataObject, on: Answer) -> None:
    n, height, width = (
        data.draw(st.integers(1, 2)),
        data.draw(st.integers(1, MAX_PX)),
        data.draw(st.integers(1, MAX_PX)),
    )
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    inks = np.array([(20, 20, 22), (200, 20, 25), (20, 110, 90), (25, 50, 160), (220, 120, 170), (240, 240, 240)])
    whole = inks[noise.integers(0, len(inks), (n, height, width + 1))] + noise.integers(
        -15, 16, (n, height, width + 1, 3)
    )
    whole = whole.clip(0, 255).astype(np.uint8)
    rgb = np.moveaxis(whole[:, :, 1:], 3, 1)
    rgb = data.draw(
        st.sampled_from([rgb, np.ascontiguousarray(rgb), rgb[:, :, ::-1, ::-1], rgb.astype(np.uint16) * 256 + 9])
    )
    rgb = rgb[0] if n == 1 else rgb
    size = (*rgb.shape[:-3], height, width)
    valid = (noise.random(size) < 0.8)[..., ::-1] if data.draw(st.booleans()) else None
    for operation, pick in ((tissue_brightfield, False), (pen_marks, True)):
        expected = rules(rgb, pick) & (True if valid is None else valid)
        assert_array_equal(on(operation, rgb, valid), expected)
        assert_array_equal(on(operation, rgb, valid, out=np.ones(size, bool)), expected)


def rules(rgb, pick):
    """The rules as the header of the kernel has them, on whole arrays of integers."""
    rgb = rgb.astype(np.int64) >> (8 if rgb.dtype == np.uint16 else 0)
    r, g, b = np.moveaxis(rgb, -3, 0)
    hi, lo = np.maximum(np.maximum(r, g), b), np.minimum(np.minimum(r, g), b)
    c = hi - lo
    ratio, t = c / np.maximum(hi, 1), (g - b) / np.maximum(c, 1)
    ratio, t = np.round(ratio, 12), np.round(t, 12)
    black = (hi < 90) & (c < 40)
    reddish = ((ratio >= 0.5) & (t > -0.34) & (t < 0.2)) | ((ratio >= 0.62) & (t > -0.5) & (t < 0.2))
    is_red = (r == hi) & (r >= 80)
    is_green = ~is_red & (g == hi)
    teal = (r == lo) & (4 * (b - g) <= c) & (ratio >= 0.5)
    blue = (r == lo) & (ratio >= 0.65) & (10 * (b - g) >= 4 * c)
    ink = black | np.where(is_red, reddish & (c > 0), np.where(is_green, ratio >= 0.35, teal | blue))
    if pick:
        return ink
    low_green = (r - g >= 4) & (g == lo)
    stained = np.where(low_green, r - g + b - g >= 14, np.where(b == hi, c >= 16, c >= 30))
    return stained & (lo <= 235) & ~ink


@given(data=st.data())
def test_every_way_gives_the_same_signal(data: st.DataObject, on: Answer) -> None:
    height, width = data.draw(st.integers(1, MAX_PX)), data.draw(st.integers(1, MAX_PX))
    dtype = data.draw(st.sampled_from(["bool", "uint8", "uint16", "int16", "int32", "float32", "float64"]))
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    whole = noise.normal(20, 3, (height, width, data.draw(st.integers(1, 3))))
    whole[noise.random((height, width)) < 0.2] += 60
    whole = whole > 40 if dtype == "bool" else whole.astype(dtype)
    if whole.dtype.kind == "f":
        whole[noise.random((height, width)) < 0.1, 0] = np.nan
    pixels = planes(whole)[:, ::-1] if data.draw(st.booleans()) else np.ascontiguousarray(planes(whole))
    valid = (noise.random((width, height)) < 0.8).T if data.draw(st.booleans()) else None
    brightest = pixels.max(axis=0)
    counts = np.isfinite(brightest) & (True if valid is None else valid)
    expected = np.zeros((height, width), bool)
    if counts.any():
        level, sigma = background(brightest[counts])
        least = 8 if pixels.dtype.kind in "iu" else 0
        with np.errstate(invalid="ignore"):
            expected = (brightest > level + max(5 * sigma, least)) & counts
    assert_array_equal(on(tissue_fluorescence, pixels, valid), expected)
    assert_array_equal(on(tissue_fluorescence, pixels, valid, out=np.ones((height, width), bool)), expected)


def test_half_floats_have_signal_too():
    pixels = np.full((1, 20, 20), 3, np.float16)
    pixels[0, 5:9, 5:9] = 9
    assert tissue_fluorescence(pixels, threads=1).sum() == 16


@pytest.mark.parametrize(
    ("operation", "arguments", "message"),
    [
        (tissue_brightfield, (np.zeros((4, 4), np.uint8),), "`rgb` of `tissue_brightfield`.*red, green, blue"),
        (tissue_brightfield, (np.zeros((4, 4, 4), np.uint8),), "`rgb` of `tissue_brightfield`"),
        (pen_marks, (np.zeros((3, 4, 4), np.float32),), "`rgb` of `pen_marks`: got float32"),
        (pen_marks, (np.zeros((3, 0, 4), np.uint8),), "at least one sample"),
        (pen_marks, (np.zeros((3, 4, 4), np.uint8), np.ones((4, 5), bool)), "`valid` of `pen_marks`"),
        (tissue_fluorescence, (np.zeros((4, 4), np.uint8),), "3 axes"),
        (tissue_fluorescence, (np.zeros((1, 4, 4), complex),), "complex128"),
        (tissue_fluorescence, (np.zeros((1, 4, 4), np.uint8), np.ones((1, 4, 4), bool)), "`valid`"),
    ],
)
def test_what_cannot_be_judged_is_refused(operation, arguments, message):
    with pytest.raises(ConfigError, match=message):
        operation(*arguments)
    with pytest.raises(ConfigError, match="`backend`"):
        operation(np.zeros((3, 4, 4), np.uint8), backend="cuda")
