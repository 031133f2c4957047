"""GeoTIFF tags into affine, control points and CRS, against GDAL."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine

from tests.sources.madetiff import Page, image_tags, opened, write_tiff

PIXELS = np.arange(64, dtype="u1").reshape(1, 8, 8)


def written(path, **more):
    with rasterio.open(path, "w", driver="GTiff", count=1, height=8, width=8, dtype="uint8", **more) as file:
        file.write(PIXELS)
    return opened(path).info


@pytest.mark.parametrize("code", [4326, 3857, 32633, 32733, 2056, 27700, 3035, 3413, 5070, 31370, 4258, 6933])
@pytest.mark.parametrize(
    "affine",
    [
        Affine(10, 0, 500000, 0, -10, 5000000),
        Affine(0.1, 0, -180, 0, -0.2, 90),
        Affine(8, 3, 1000, 2, -9, 2000),
        Affine(5, 0, 0, 0, 5, 0),
    ],
)
def test_codes_and_affines_equal_what_gdal_wrote(tmp_path, code, affine):
    info = written(tmp_path / "a.tif", crs=CRS.from_epsg(code), transform=affine)
    assert info.crs == f"EPSG:{code}"
    assert info.affine == pytest.approx(tuple(affine)[:6], rel=1e-12, abs=1e-9)
    assert info.modality == "scene"


def test_points_are_shifted_to_corners(tmp_path):
    affine = Affine(10, 0, 500000, 0, -10, 5000000)
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", count=1, height=8, width=8, dtype="uint8", crs="EPSG:32633",
        transform=affine,
    ) as file:  # fmt: skip
        file.update_tags(AREA_OR_POINT="Point")
        file.write(PIXELS)
    assert opened(tmp_path / "a.tif").info.affine == pytest.approx(tuple(affine)[:6])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("point", [False, True])
def test_control_points_are_kept_as_given(tmp_path, point):
    gcps = [
        GroundControlPoint(row, col, 10.0 + col, 50.0 - row, 3.0) for row, col in ((0, 0), (0, 8), (8, 0), (7, 6.5))
    ]
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", count=1, height=8, width=8, dtype="uint8") as file:
        file.gcps = (gcps, CRS.from_epsg(4326))
        if point:
            file.update_tags(AREA_OR_POINT="Point")
        file.write(PIXELS)
    info = opened(tmp_path / "a.tif").info
    with rasterio.open(tmp_path / "a.tif") as file:
        expected = [(gcp.row, gcp.col, gcp.x, gcp.y, gcp.z) for gcp in file.gcps[0]]
    assert info.affine is None
    assert info.crs == "EPSG:4326"
    assert [list(gcp) for gcp in info.gcps] == [pytest.approx(list(gcp)) for gcp in expected]


@pytest.mark.parametrize(
    "text",
    [
        "+proj=tmerc +lat_0=1 +lon_0=11.5 +k=0.9999 +x_0=400000 +y_0=200000 +datum=WGS84 +units=m +no_defs",
        "+proj=laea +lat_0=47 +lon_0=11 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs",
        "+proj=lcc +lat_1=40 +lat_2=52 +lat_0=45 +lon_0=8 +x_0=10 +y_0=20 +datum=WGS84 +units=m +no_defs",
        "+proj=aea +lat_1=29.5 +lat_2=45.5 +lat_0=23 +lon_0=-96 +x_0=0 +y_0=0 +datum=NAD83 +units=m +no_defs",
        "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs",
    ],
)
def test_user_defined_systems_mean_the_same_place(tmp_path, text):
    pyproj = pytest.importorskip("pyproj")
    info = written(tmp_path / "a.tif", crs=CRS.from_string(text), transform=Affine(10, 0, 0, 0, -10, 0))
    if info.crs is None:
        pytest.fail(str(info.notes))
    ours = pyproj.Transformer.from_crs("EPSG:4326", info.crs, always_xy=True)
    theirs = pyproj.Transformer.from_crs("EPSG:4326", pyproj.CRS.from_user_input(text), always_xy=True)
    place = (-95.0, 40.0) if "aea" in text else (12.0, 46.0)
    assert ours.transform(*place) == pytest.approx(theirs.transform(*place), abs=0.01)


def keys_page(keys: list[int], ascii_text: bytes = b"") -> Page:
    tags = image_tags(8, 8) | {34735: ("H", [1, 1, 0, len(keys) // 4, *keys])}
    if ascii_text:
        tags[34737] = ("s", ascii_text + b"\0")
    return Page(tags=tags, pieces=[bytes(64)], tiled=False)


def test_a_zone_given_by_its_projection_code(tmp_path):
    keys = [1024, 0, 1, 1, 2048, 0, 1, 4326, 3072, 0, 1, 32767, 3074, 0, 1, 16033]
    assert opened(write_tiff(tmp_path / "a.tif", keys_page(keys))).info.crs == "EPSG:32633"


def test_what_cannot_be_expressed_is_a_note_with_the_citation(tmp_path):
    keys = [1024, 0, 1, 1, 1026, 34737, 9, 0, 3072, 0, 1, 32767]
    info = opened(write_tiff(tmp_path / "a.tif", keys_page(keys, b"My grid!|"))).info
    assert info.crs is None
    assert any("My grid!" in note for note in info.notes)


@pytest.mark.parametrize("keys", [[1024, 34736, 5, 900], [1024, 0, 1], [2048, 34737, 60000, 3]])
def test_broken_key_directories_do_no_harm(tmp_path, keys):
    assert opened(write_tiff(tmp_path / "a.tif", keys_page(keys))).info.crs is None
