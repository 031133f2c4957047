import json

import imagecodecs
import numpy as np
import pytest
import shapely

from tests.plan.build import blank, blobs, pyramid
from tests.plan.test_tiles import tiles
from tilestream.errors import ConfigError
from tilestream.plan import mask_outline, plan_tiles, to_geojson
from tilestream.types import Box, Shape

AREA = Shape(y=3001, x=2503)
SCENE = {"crs": "EPSG:32629", "affine": (10.0, 0.0, 300_000.0, 0.0, -10.0, 4_000_000.0)}
SQUARE = [[100, 200], [900, 200], [900, 1000], [100, 1000], [100, 200]]


def write(tmp_path, content, name="outline.geojson"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def polygon(*rings):
    return {"type": "Polygon", "coordinates": list(rings)}


def feature(geometry):
    return {"type": "Feature", "geometry": geometry, "properties": {}}


SCANNED = Box(y=211, x=97, height=2000, width=2000)


@pytest.mark.parametrize(
    ("content", "mpp", "tile_px", "wanted_mpp"),
    [
        (None, None, 256, None),
        (SCANNED, None, 100, None),
        (SCANNED, 0.25, 256, None),
        (None, 0.25, 256, None),
        (None, 0.25, 100, 0.6),
        (SCANNED, 0.25, 32, None),
    ],
)
def test_outline_of_tissue_gives_the_same_tiles_back(tmp_path, content, mpp, tile_px, wanted_mpp):
    rgb = np.full((*AREA.yx, 3), 243, np.uint8)
    stain = np.kron(np.random.default_rng(0).random((11, 9)) > 0.7, np.ones((300, 300), bool))[: AREA.y, : AREA.x]
    rgb[stain] = (190, 120, 170)
    pyr = pyramid(rgb, mpp=mpp, content=content)
    options = {"tile_px": tile_px, "mpp": wanted_mpp}
    plan = plan_tiles(pyr, where="tissue", **options)
    assert 0 < len(plan) < plan.grid.shape.area
    text = to_geojson(mask_outline(plan.selection), pyr.info)
    back = plan_tiles(pyr, where=write(tmp_path, text), **options)
    assert tiles(back).keys() == tiles(plan).keys()
    assert list(tiles(back).values()) == pytest.approx(list(tiles(plan).values()), abs=2e-6)


def test_qupath_reads_what_is_written():
    info = pyramid(np.zeros((90, 80), np.uint8), content=Box(y=30, x=20, height=50, width=50)).info
    shape = shapely.Polygon([(30, 40), (60, 40), (60, 70), (30, 70)], [[(40, 50), (50, 50), (50, 60), (40, 60)]])
    written = json.loads(json.dumps(to_geojson([shape], info)))
    assert written["type"] == "FeatureCollection"
    (only,) = written["features"]
    assert only["properties"]["objectType"] == "annotation"
    assert only["properties"]["classification"]["name"] == "Tissue"
    assert len(only["properties"]["classification"]["color"]) == 3
    assert shapely.from_geojson(json.dumps(only["geometry"])).bounds == (10, 10, 40, 40)  # less the offset
    assert len(only["geometry"]["coordinates"]) == 2
    assert only["id"] == to_geojson([shape], info)["features"][0]["id"]
    assert only["id"].count("-") == 4
    assert "-1-" not in json.dumps(to_geojson([shape, shape], info))
    assert len({f["id"] for f in to_geojson([shape, shape], info)["features"]}) == 2


HOLE = [[300, 400], [700, 400], [700, 800], [300, 800], [300, 400]]


@pytest.mark.parametrize(
    ("content", "area_px"),
    [
        ({"type": "FeatureCollection", "features": [feature(polygon(SQUARE))]}, 800**2),
        ([feature(polygon(SQUARE, HOLE))], 800**2 - 400**2),
        (feature({"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE]]}), 800**2 - 400**2),
        (polygon(SQUARE), 800**2),
        ([feature(polygon(SQUARE)), feature(polygon(HOLE))], 800**2),  # overlapping: counted once
        ({"type": "GeometryCollection", "geometries": [polygon(SQUARE)]}, 800**2),
    ],
)
def test_forms_of_geojson(tmp_path, content, area_px):
    plan = plan_tiles(blank(AREA), where=write(tmp_path, content), tile_px=100)
    assert plan.selection.selected_share * AREA.area == pytest.approx(area_px, rel=0.01)
    assert len(plan) == area_px / 100**2
    assert plan.notes == ()


def test_rings_that_cross_themselves_are_repaired(tmp_path):
    bow = [[100, 100], [900, 900], [900, 100], [100, 900], [100, 100]]
    plan = plan_tiles(blank(AREA), where=write(tmp_path, polygon(bow)), tile_px=50)
    assert plan.selection.selected_share * AREA.area == pytest.approx(800**2 / 2, rel=0.01)
    assert plan.notes == ("1 outlines crossed themselves and were repaired",)


def test_points_beside_areas_are_left_out_aloud(tmp_path):
    content = [feature(polygon(SQUARE)), feature({"type": "Point", "coordinates": [1, 2]})]
    assert plan_tiles(blank(AREA), where=write(tmp_path, content)).notes == ("1 objects without area left out",)


def test_an_empty_outline_selects_nothing(tmp_path):
    path = write(tmp_path, to_geojson([], blank(AREA).info))
    assert len(plan_tiles(blank(AREA), where=path)) == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("not json", "a readable GeoJSON file"),
        ("", "a readable GeoJSON file"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "object 0"),
        ('{"type": "Polygon"}', "object 0"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [NaN, 1], [5, 5], [0, 0]]]}', "finite"),
        ('{"type": "Cube", "coordinates": []}', "object 0"),
        ('{"type": "Point", "coordinates": [1, 2]}', "points or lines only"),
        ('{"no": "type"}', "GeoJSON objects with a `type`"),
        ("3", "GeoJSON objects with a `type`"),
        ('{"type": "Feature", "geometry": 7}', "object 0"),
    ],
)
def test_wrong_files_are_refused(tmp_path, content, words):
    with pytest.raises(ConfigError, match=words):
        plan_tiles(blank(AREA), where=write(tmp_path, content))


def test_a_missing_file_is_refused(tmp_path):
    for name in ("none.geojson", "none.png"):
        with pytest.raises(ConfigError, match=name):
            plan_tiles(blank(AREA), where=str(tmp_path / name))


def in_crs(ring):
    return [[300_000 + 10 * x, 4_000_000 - 10 * y] for x, y in ring]


@pytest.mark.parametrize("name", ["EPSG:32629", "urn:ogc:def:crs:EPSG::32629"])
def test_crs_coordinates_on_a_scene(tmp_path, name):
    content = {**polygon(in_crs(SQUARE)), "crs": {"type": "name", "properties": {"name": name}}}
    plan = plan_tiles(blank(AREA, **SCENE), where=write(tmp_path, content), tile_px=100)
    assert {min(tiles(plan)), max(tiles(plan))} == {(200, 100), (900, 800)}


def test_other_crs_on_a_scene(tmp_path):
    pyproj = pytest.importorskip("pyproj")
    back = pyproj.Transformer.from_crs("EPSG:32629", "OGC:CRS84", always_xy=True)
    ring = [list(back.transform(x, y)) for x, y in in_crs(SQUARE)]
    name = "urn:ogc:def:crs:OGC:1.3:CRS84"
    content = {**polygon(ring), "crs": {"type": "name", "properties": {"name": name}}}
    plan = plan_tiles(blank(AREA, **SCENE), where=write(tmp_path, content), tile_px=100, min_share=0.5)
    assert {min(tiles(plan)), max(tiles(plan))} == {(200, 100), (900, 800)}


def test_a_scene_needs_to_know_what_coordinates_are(tmp_path):
    with pytest.raises(ConfigError, match="may be pixels, degrees or its units"):
        plan_tiles(blank(AREA, **SCENE), where=write(tmp_path, polygon(SQUARE)))
    said = write(tmp_path, {**polygon(SQUARE), "coordinates": "pixels"} | {"type": "FeatureCollection", "features": [
        feature(polygon(SQUARE))]})  # fmt: skip
    assert len(plan_tiles(blank(AREA, **SCENE), where=said, tile_px=100)) == 64


def test_crs_on_a_slide_is_ignored(tmp_path):
    content = {**polygon(SQUARE), "crs": {"type": "name", "properties": {"name": "EPSG:3857"}}}
    assert len(plan_tiles(blank(AREA), where=write(tmp_path, content), tile_px=100)) == 64


@pytest.mark.parametrize("size", [(3001, 2503), (301, 251), (300, 250), (1501, 1252)])
def test_mask_image(tmp_path, size):
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2, : size[1] // 4] = 255
    path = tmp_path / "mask.png"
    path.write_bytes(imagecodecs.png_encode(mask))
    plan = plan_tiles(blank(AREA), where=str(path), tile_px=100, min_share=0.5)
    assert plan.selection.selected_share == pytest.approx(1 / 8, rel=0.02)
    assert len(plan) == 15 * 6


@pytest.mark.parametrize("size", [(300, 300), (2503, 3001), (301, 255)])
def test_mask_of_another_image_is_refused(tmp_path, size):
    path = tmp_path / "mask.png"
    path.write_bytes(imagecodecs.png_encode(np.zeros(size, np.uint8)))
    words = rf"got {size[0]} x {size[1]} px, expected the shape of the image, 3001 x 2503 px"
    with pytest.raises(ConfigError, match=words):
        plan_tiles(blank(AREA), where=str(path))


@pytest.mark.parametrize(
    ("crs", "affine", "fits"),
    [
        ("EPSG:32629", (100.0, 0.0, 300_000.0, 0.0, -100.0, 4_000_000.0), True),
        ("EPSG:32629", (100.0, 0.0, 300_500.0, 0.0, -100.0, 4_000_000.0), False),
        ("EPSG:32630", (100.0, 0.0, 300_000.0, 0.0, -100.0, 4_000_000.0), False),
    ],
)
def test_mask_of_other_ground_is_refused(tmp_path, crs, affine, fits):
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "mask.tif"
    transform = rasterio.Affine(*affine)
    profile = {"driver": "GTiff", "height": 301, "width": 251, "count": 1, "dtype": "uint8", "crs": crs}
    with rasterio.open(path, "w", **profile, transform=transform) as file:
        file.write(np.ones((1, 301, 251), np.uint8))
    if fits:
        plan = plan_tiles(blank(AREA, **SCENE), where=str(path))
        assert len(plan) == plan.grid.shape.area
        return
    with pytest.raises(ConfigError, match="expected the ground of the image, EPSG:32629"):
        plan_tiles(blank(AREA, **SCENE), where=str(path))


def test_large_masks_are_reduced(tmp_path, monkeypatch):
    monkeypatch.setattr("tilestream.plan.where.MASK_PX", 5000)
    mask = blobs(Shape(y=300, x=250), AREA, cell=30).mask
    path = tmp_path / "mask.png"
    path.write_bytes(imagecodecs.png_encode(mask.astype(np.uint8)))
    plan = plan_tiles(blank(AREA), where=str(path))
    assert plan.selection.mask.size <= 5000
    assert plan.notes == ("mask reduced 4 times",)
    assert plan.selection.selected_share == pytest.approx(mask.mean(), abs=0.05)
