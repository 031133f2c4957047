import json

import numpy as np
import pytest

from tests.plan.build import blank, pyramid
from tilestream.cache import blocks, limits
from tilestream.errors import ConfigError
from tilestream.metrics import collect
from tilestream.plan import plan_tokens
from tilestream.plan.geojson import read_geojson
from tilestream.plan.selection import Selection
from tilestream.pyramid import open_pyramid
from tilestream.stream.batches import stream_tiles
from tilestream.testing.slide import write_slide
from tilestream.types import Box, Shape

AFFINE = (10.0, 1.0, 500_000.0, 1.0, -10.0, 4_000_000.0)


def corners_of(plan, shape):
    _, y, x, size = plan.tokens.T
    return np.column_stack([x, y, np.minimum(x + size, shape.x), np.minimum(y + size, shape.y)]).tolist()


@pytest.mark.parametrize("coordinates", ["pixels", "crs"])
def test_squares_come_back_where_they_were(tmp_path, coordinates):
    shape = Shape(y=90, x=130)
    pyr = blank(shape, crs="EPSG:32633", affine=AFFINE)
    plan = plan_tokens(pyr, budget=12, patch_px=16, count="nodes")
    path = tmp_path / "tokens.geojson"
    path.write_text(json.dumps(plan.to_geojson(pyr.info, coordinates=coordinates)))
    polygons, notes = read_geojson(str(path), pyr.info)
    assert not notes
    np.testing.assert_allclose([polygon.bounds for polygon in polygons], corners_of(plan, shape), atol=1e-6)


def test_qupath_counts_from_the_scanned_part():
    pyr = blank(Shape(y=90, x=130), content=Box(y=7, x=30, height=80, width=90))
    mask = np.ones((9, 13), bool)
    selection = Selection(name="s", mask=mask, scale_yx=(10, 10), area=pyr.info.shape)
    plan = plan_tokens(pyr, budget=12, patch_px=16, count="nodes", where=selection)
    found = plan.to_geojson(pyr.info)
    first = found["features"][0]
    assert found["coordinates"] == "pixels"
    assert first["geometry"]["coordinates"][0][0] == [-30.0, -7.0]
    assert first["properties"]["objectType"] == "tile"
    assert first["properties"]["measurements"] == {"level": 4.0, "relevance": 1.0, "opened": 1.0, "selected": 1.0}
    ids = [feature["id"] for feature in found["features"]]
    assert len(set(ids)) == len(plan) == len(ids)
    assert json.dumps(found) == json.dumps(plan.to_geojson(pyr.info))


def test_an_image_without_crs_has_no_such_coordinates():
    pyr = blank(Shape(y=90, x=130))
    with pytest.raises(ConfigError, match="no CRS"):
        plan_tokens(pyr, budget=12).to_geojson(pyr.info, coordinates="crs")


@pytest.mark.parametrize(("budget", "options"), [(9, {}), (30, {"count": "nodes"}), (5, {"levels": (0,)})])
def test_pixels_read_are_those_that_are_decoded(tmp_path, monkeypatch, budget, options):
    path = write_slide(tmp_path / "a.svs", Shape(y=1000, x=1400), seed=1)
    monkeypatch.setattr(limits, "_current", None)
    monkeypatch.setattr(blocks, "_process", blocks._Process())  # that of other tests is full of what they read often
    pyr = open_pyramid(path)
    plan = plan_tokens(pyr, budget=budget, patch_px=64, **options)
    with collect() as meter:
        list(stream_tiles(pyr, plan))
    decoded = sum(count for name, count in meter.counts.items() if name.startswith("pixels_decoded."))
    assert plan.pixels_read(pyr) == decoded
    assert 0 < decoded <= sum(level.shape.area for level in pyr.levels)


def test_a_plan_of_nothing_reads_nothing():
    pyr = pyramid(np.zeros((40, 40), np.uint8))
    empty = Selection(name="s", mask=np.zeros((4, 4), bool), scale_yx=(10, 10), area=pyr.info.shape)
    plan = plan_tokens(pyr, budget=8, where=empty)
    assert (len(plan), plan.pixels_read(pyr), plan.units, list(plan.start())) == (0, 0, 0, [])
    assert plan.to_geojson(pyr.info)["features"] == []
