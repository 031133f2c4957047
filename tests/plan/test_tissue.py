from dataclasses import replace

import imagecodecs
import numpy as np
import pytest

from tests.plan.build import pyramid
from tilestream.errors import DamagedError
from tilestream.plan import plan_tiles
from tilestream.plan.tissue import clean, judge_light, select_tissue
from tilestream.pyramid import open_pyramid
from tilestream.pyramid.coarse import mask_level, read_coarse
from tilestream.testing.tissue import Tissue
from tilestream.types import Box, Shape

GLASS = (243, 242, 244)


def slide(rgb, mpp=8.0, **fields):
    return pyramid(np.asarray(rgb, np.uint8), mpp=mpp, **fields)


def glass(height, width, *, noise=2, seed=0):
    return np.clip(np.array(GLASS) + np.random.default_rng(seed).normal(0, noise, (height, width, 3)), 0, 255)


def labelled(shared_data, name, mpp):
    data = (shared_data / "slides" / "labelled-tiles" / f"{name}.png").read_bytes()
    return slide(imagecodecs.png_decode(data)[..., :3], mpp)


@pytest.mark.parametrize("mpp", [0.25, 0.5])  # scans at 40x and 20x
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("high-nuclei-score-level0", 0.98, 1),
        ("medium-nuclei-score-level1", 0.7, 1),
        ("low-nuclei-score-level0", 0.7, 1),  # fat: little but thin walls
        ("very-low-nuclei-score-level0", 0.98, 1),
        ("tcga-red-pen", 0.4, 0.75),
        ("no-tissue", 0, 0),
        ("no-tissue2", 0, 0.03),
        ("no-tissue-red-pen", 0, 0.03),
        ("almost-white-1", 0, 0),
    ],
)
def test_labelled_tiles(shared_data, name, mpp, least, most):
    pyr = labelled(shared_data, name, mpp)
    assert least <= select_tissue(pyr).selected_share <= most
    plan = plan_tiles(pyr)
    inside = plan_tiles(pyr, edge="drop")
    assert len(inside) == inside.grid.shape.area if least else len(plan) == 0
    assert plan.notes[0] == "kind of light not stated: judged to be brightfield by the background"
    assert (plan.notes[-1] in ("no tissue found", "no tile of which 0.1 is selected")) == (not least)


def test_pen_rings_around_tissue(shared_data):
    pyr = labelled(shared_data, "diagnostic-slide-thumb-rgb", 40.0)  # a thumbnail
    selection = select_tissue(pyr)
    assert 0.35 < selection.selected_share < 0.6
    rgb = pyr.read(pyr.levels[0].box).transpose(1, 2, 0).astype(int)[selection.mask]
    assert (rgb[:, 0] > rgb[:, 1] + 110).mean() < 0.01  # red ink
    assert (rgb[:, 1] > rgb[:, 0] + 20).mean() < 0.01  # green ink


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("CMU-1-Small-Region.svs", 0.35, 0.45),
        ("dicom-cmu-1-small-region", 0.35, 0.45),
        ("test3-DAPI-2-387.ndpi", 0.6, 0.85),
        ("OS-1-detail.ome.tif", 0.98, 1),
        ("OS-2-ndpi.ome.tif", 0.8, 1),
        ("camelyon-jpeg2000.dcm", 0.25, 0.45),
    ],
)
def test_real_slides(shared_data, name, least, most):
    plan = plan_tiles(open_pyramid(str(shared_data / "slides" / name)))
    assert least < plan.selection.selected_share <= most
    if least > 0.75:
        assert len(plan) >= 0.94 * plan.grid.shape.area
    else:
        assert 0 < len(plan) < plan.grid.shape.area


def test_slide_edge_is_no_tissue(shared_data):
    mask = select_tissue(open_pyramid(str(shared_data / "slides" / "camelyon-jpeg2000.dcm"))).mask
    assert not mask[30:200, :140].any()  # the lines of the glass' left edge and its corner


@pytest.mark.parametrize(
    "picture",
    [
        np.full((300, 400, 3), 255),
        glass(300, 400),
        glass(300, 400, noise=3),
        glass(300, 400) - np.linspace(0, 40, 400)[None, :, None],  # uneven light
        glass(300, 400) - (0, 2, 14),  # yellowed
        np.full((300, 400, 3), 128),
    ],
)
def test_blank_slides_give_no_tile_and_say_so(picture):
    plan = plan_tiles(slide(picture), tile_px=64)
    assert len(plan) == 0
    assert list(plan.start()) == []
    assert plan.notes[-1] == "no tissue found"


@pytest.mark.parametrize("tone", [(235, 215, 228), (214, 206, 226), (190, 120, 170)])
def test_faint_and_strong_stains_are_found_exactly(tone):
    picture = glass(400, 500, noise=1)
    picture[100:300, 150:400] = tone
    selection = select_tissue(slide(picture))
    assert selection.mask[105:295, 155:395].all()
    selection.mask[95:305, 145:405] = False
    assert not selection.mask.any()


def test_full_of_tissue_is_not_inverted():
    picture = np.array((200, 140, 180)) + np.random.default_rng(0).normal(0, 12, (300, 400, 3))
    plan = plan_tiles(slide(np.clip(picture, 0, 255)), tile_px=50)
    assert len(plan) == plan.grid.shape.area


def test_specks_and_small_holes():
    raw = np.zeros((200, 200), bool)
    raw[50:150, 50:150] = True
    raw[80:90, 80:90] = False  # 80 um: filled
    raw[100:130, 100:130] = False  # 240 um: stays
    raw[10:18, 10:18] = True  # 64 um: a speck
    kept = clean(raw, np.ones_like(raw), pixel_um=8.0)
    assert kept[85, 85]
    assert not kept[115, 115]
    assert not kept[14, 14]
    assert kept[52:148, 50].all()


@pytest.mark.parametrize("fill", [0, 1])
def test_morphology_keeps_edges_of_the_picture(fill):
    raw = np.full((60, 50), fill, bool)
    np.testing.assert_array_equal(clean(raw, np.ones_like(raw), pixel_um=8.0), raw)


def test_painted_tissue_matches_its_own_glass():
    shape = Shape(y=1500, x=1800)
    rgb = Tissue(shape=shape, seed=3).paint(Box(y=0, x=0, height=shape.y, width=shape.x))
    plan = plan_tiles(slide(rgb, 0.5), tile_px=100, min_share=0.5)
    stained = (rgb.min(axis=2) < 225).reshape(15, 100, 18, 100).mean(axis=(1, 3))
    assert (plan.wanted[stained > 0.9]).all()
    assert not plan.wanted[stained < 0.005].any()
    assert 0 < len(plan) < 15 * 18


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_signal_on_black(dtype):
    rng = np.random.default_rng(1)
    scale = 1 if dtype == "uint8" else 100
    picture = np.abs(rng.normal(3, 1, (300, 400, 1)))
    picture[80:200, 100:300] += rng.uniform(20, 120, (120, 200, 1))
    selection = select_tissue(pyramid((picture * scale).astype(dtype), mpp=8.0))
    assert selection.name.endswith("fluorescence")
    assert selection.mask[85:195, 105:295].all()
    selection.mask[70:210, 90:310] = False
    assert not selection.mask.any()


def test_nothing_on_black():
    picture = np.abs(np.random.default_rng(1).normal(8, 1, (300, 400, 2)))
    assert len(plan_tiles(pyramid(picture.astype(np.uint8), mpp=8.0))) == 0


@pytest.mark.parametrize(
    ("fields", "tone", "light"),
    [
        ({}, GLASS, "brightfield"),
        ({}, (0, 0, 9), "fluorescence"),
        ({"modality": "fluorescence"}, GLASS, "fluorescence"),
    ],
)
def test_light(fields, tone, light):
    pyr = slide(np.full((50, 60, 3), tone), **fields)
    assert judge_light(read_coarse(pyr, mask_level(pyr.info)), pyr.info) == light


def test_scenes_are_selected_where_they_were_measured():
    pixels = np.ones((300, 400), np.int16)
    pixels[:, :150] = -1
    plan = plan_tiles(pyramid(pixels, modality="scene", nodata=-1.0), tile_px=50)
    assert len(plan) == 6 * 5
    np.testing.assert_array_equal(plan.wanted.any(axis=0), [False] * 3 + [True] * 5)
    empty = plan_tiles(pyramid(pixels * 0 - 1, modality="scene", nodata=-1.0), tile_px=50)
    assert (len(empty), empty.notes) == (0, ("no valid pixel found",))


def test_what_damage_hides_is_selected():
    rgb = glass(512, 768)

    class Damaged:
        def __init__(self, source):
            block = Shape(y=256, x=256)
            self.inner, self.info = source, replace(source.info, levels=(replace(source.info.levels[0], block=block),))

        def read_block(self, level, iy, ix, out=None):
            if (iy, ix) == (1, 2):
                raise DamagedError("cut short")
            pixels = self.inner.read_block(level, 0, 0).pixels
            return replace(
                self.inner.read_block(level, 0, 0), pixels=pixels[iy * 256 : iy * 256 + 256, ix * 256 : ix * 256 + 256]
            )

    whole = slide(rgb)
    plan = plan_tiles(replace(whole, source=Damaged(whole.source), cache_bytes=0), tile_px=128)
    assert {tuple(yx) for unit in plan.start() for yx in unit.tile_yx} == {
        (256, 512), (256, 640), (384, 512), (384, 640)
    }  # fmt: skip
    assert "cut short" in plan.notes[0]


@pytest.mark.parametrize(
    ("height", "width"), [(100_000, 80_000), (20_000, 30_000), (1_000_000, 1_000_000), (50, 70), (3, 90_000)]
)
@pytest.mark.parametrize("fields", [{"mpp_yx": (0.25, 0.25)}, {}, {"crs": "EPSG:32629", "mpp_yx": (1e7, 1e7)}])
def test_the_mask_is_bounded(height, width, fields):
    from tests.plan.build import info

    for scales in ((1,), (1, 4, 16, 64)):
        image = info(height, width, scales=scales, **fields)
        level = mask_level(image)
        assert level.shape.area <= 1.1 * (1 << 22)
        assert min(level.scale_yx) >= 1
        if height == 100_000 and "crs" not in fields and fields:
            assert level.scale_yx == ((44, 44) if len(scales) == 1 else (48, 48))
        if height == 20_000 and "crs" not in fields and fields:
            assert level.scale_yx == (32, 32)
        if height == 50 and not fields:
            assert level.is_stored


def test_bands_do_not_show(monkeypatch):
    raw = np.random.default_rng(4).random((211, 157)) > 0.7
    whole = clean(raw, np.ones_like(raw), pixel_um=6.0)
    monkeypatch.setattr("tilestream.plan.tissue.BAND_PX", 1000)
    np.testing.assert_array_equal(clean(raw, np.ones_like(raw), pixel_um=6.0), whole)
    assert 0 < whole.mean() < 1


def test_ink_is_no_tissue_in_any_band(monkeypatch):
    picture = glass(300, 300)
    picture[40:260, 40:260] = (190, 120, 170)
    picture[140:160, 20:280] = (220, 30, 50)
    selection = select_tissue(slide(picture))
    assert not selection.mask[141:159].any()
    assert selection.mask[60:125, 60:240].all()  # tissue up to the stroke stays
    monkeypatch.setattr("tilestream.plan.tissue.BAND_PX", 3000)
    np.testing.assert_array_equal(select_tissue(slide(picture)).mask, selection.mask)
