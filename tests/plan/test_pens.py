"""Pens on slides: what they draw is no tissue, and what lies beside a stroke still is."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from scipy import ndimage

from tests.plan.build import pyramid
from tilestream.plan import plan_tiles
from tilestream.plan.tissue import select_tissue

GLASS = np.array((243.0, 242.0, 244.0))
RED, GREEN, BLACK, BLUE = (215, 25, 40), (30, 120, 100), (40, 38, 42), (30, 60, 150)
HEMATOXYLIN, BOTH, EOSIN = (105, 75, 150), (150, 95, 155), (220, 130, 175)
RESOLUTIONS = (None, 0.25, 0.35, 0.5, 1.0, 2.0)


def labelled(shared_data: Path, name: str) -> np.ndarray:
    data = (shared_data / "slides" / "labelled-tiles" / f"{name}.png").read_bytes()
    return np.asarray(imagecodecs.png_decode(data)[..., :3])


def drawn(tissue: tuple[int, int, int] | None, *inks: tuple[int, int, int], blur_px: float = 12.0) -> np.ndarray:
    """A slide with tissue in its lower half and an out-of-focus stroke of each ink across; crossing inks multiply."""
    light = np.ones((400, 500, 3))
    for number, ink in enumerate(inks):
        stroke = np.zeros((400, 500))
        for y in range(400):
            x = 150 + 40 * number + (y - 200) * (1 if number else -1) // 4
            stroke[y, x - 35 : x + 35] = 1
        share = ndimage.gaussian_filter(stroke, blur_px)[..., None]
        light *= 1 - share + share * np.array(ink) / GLASS
    picture = np.broadcast_to(GLASS, (400, 500, 3)).copy()
    if tissue is not None:
        picture[220:] = tissue
        picture[220:] += np.random.default_rng(0).normal(0, 6, (180, 500, 1))
    return np.clip(picture * light, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("mpp", RESOLUTIONS)
def test_a_picture_of_pen_has_no_tile(shared_data: Path, mpp: float | None) -> None:
    rgb = labelled(shared_data, "no-tissue-red-pen")
    for tile_px in (64, 256):
        assert len(plan_tiles(pyramid(rgb, mpp=mpp), tile_px=tile_px)) == 0
    for turned in (rgb[::-1], rgb.transpose(1, 0, 2), rgb[:256], rgb[256:], rgb[:, :256], rgb[:, 256:], rgb[128:384]):
        plan = plan_tiles(pyramid(np.ascontiguousarray(turned), mpp=mpp), tile_px=256)
        assert len(plan) == 0
        assert plan.selection is not None
        assert plan.selection.selected_share < 0.01


@pytest.mark.parametrize("mpp", RESOLUTIONS)
def test_tissue_beside_a_pen_keeps_its_tiles(shared_data: Path, mpp: float | None) -> None:
    plan = plan_tiles(pyramid(labelled(shared_data, "tcga-red-pen"), mpp=mpp), tile_px=64)
    assert plan.wanted[2:, 4:].all(), "tissue"
    assert not plan.wanted[2:, :2].any(), "ink, and the glass inside its ring"


def test_rings_keep_the_tissue_that_they_mark(shared_data: Path) -> None:
    """Red, green and black rings on a thumbnail: what is left has the colours of tissue."""
    rgb = labelled(shared_data, "diagnostic-slide-thumb-rgb")
    mask = select_tissue(pyramid(rgb, mpp=40.0)).mask
    assert mask[205:225, 250:320].mean() > 0.95  # between the rings
    assert mask[455:465, 98:114].mean() > 0.9  # a pale piece that pens surround
    assert not mask[480:, 250:].any()  # the rim of the green stroke below
    low = rgb.astype(int).min(axis=2)
    purple = (rgb.astype(int).max(axis=2) - low <= 0.2 * (245 - low)) & (low < 120)
    assert purple.sum() > 10_000, "rims of black and mixed ink"
    assert mask[purple].mean() < 0.25


@pytest.mark.parametrize("mpp", [None, 4.0, 8.0])  # strokes of 280 and 560 um
@pytest.mark.parametrize("inks", [(RED,), (GREEN,), (BLACK,), (BLUE,), (RED, GREEN), (RED, BLACK), (RED, BLUE)])
def test_blurred_strokes_on_glass_are_no_tissue(inks: tuple[tuple[int, int, int], ...], mpp: float | None) -> None:
    plan = plan_tiles(pyramid(drawn(None, *inks), mpp=mpp), tile_px=50)
    assert not len(plan), f"{len(plan)} tiles of {plan.grid.shape.area}"


@pytest.mark.parametrize("tissue", [HEMATOXYLIN, BOTH, EOSIN])
@pytest.mark.parametrize("inks", [(RED,), (GREEN,), (BLACK,), (BLUE,), (RED, GREEN)])
def test_tissue_on_both_sides_of_a_stroke_stays(
    tissue: tuple[int, int, int], inks: tuple[tuple[int, int, int], ...]
) -> None:
    for mpp in (None, 4.0, 8.0):
        wanted = plan_tiles(pyramid(drawn(tissue, *inks, blur_px=8), mpp=mpp), tile_px=50).wanted
        assert wanted[5:, 6:].all(), "right of the strokes"
        assert wanted[7:, 0].all(), "left of them"
        assert not wanted[:3].any(), "strokes on glass"
