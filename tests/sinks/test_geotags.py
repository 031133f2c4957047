"""Places that we write are read by rasterio and by our own reader as they were."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.sinks.tiles import one_tile_file
from tilestream.errors import ConfigError
from tilestream.sinks.geotags import band_items, place_tags
from tilestream.sinks.tiffcodec import TileCodec
from tilestream.sinks.tiffdirectory import text
from tilestream.sources.files import File
from tilestream.sources.tiff import open_tiff
from tilestream.types import Channel, ImageInfo, Level, Shape

NORTH_UP = (10.0, 0.0, 399960.0, 0.0, -10.0, 7900020.0)
AFFINES = [
    NORTH_UP,
    (0.1, 0.0, -180.0, 0.0, 0.1, -90.0),
    (8.6, 5.0, 6e5, 5.0, -8.6, 4e6),
    (-1.0, 0.0, 9.0, 0.0, -1.0, 9.0),
]
# all that is written without a database, and some that rasterio has to say
EASY = ["EPSG:32633", "EPSG:32750", "EPSG:3857", "EPSG:4326", "EPSG:4258", "EPSG:3035", "EPSG:3413"]
HARD = ["EPSG:2056", "EPSG:27700", "EPSG:2263", "EPSG:7844", "EPSG:5514"]
SINUSOIDAL = (
    'PROJCRS["sinusoidal",BASEGEOGCRS["sphere",DATUM["sphere",ELLIPSOID["sphere",6371007.181,0]]],'
    'CONVERSION["c",METHOD["Sinusoidal"],'
    'PARAMETER["Longitude of natural origin",0,ANGLEUNIT["degree",0.0174532925199433]],'
    'PARAMETER["False easting",0,LENGTHUNIT["metre",1]],PARAMETER["False northing",0,LENGTHUNIT["metre",1]]],'
    'CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
)


def _info(**more) -> ImageInfo:
    shape = Shape(y=32, x=32)
    return ImageInfo(
        format="made", levels=(Level(index=0, shape=shape, block=shape),), dtype=np.dtype("u1"),
        channels=(Channel(name="nir"),), fingerprint="f", **more,
    )  # fmt: skip


def _written(path: Path, info: ImageInfo) -> Path:
    pixels = np.zeros((32, 32, len(info.channels)), info.dtype)
    items = {42112: text(band_items(info.channels, is_labels=info.kind == "labels"))}
    path.write_bytes(one_tile_file(TileCodec(name="none"), pixels, {**place_tags(info), **items}))
    return path


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("crs", [*EASY, *HARD, SINUSOIDAL])
def test_crs_and_affine(tmp_path: Path, crs: str, affine: tuple[float, ...]) -> None:
    path = _written(tmp_path / "a.tif", _info(crs=crs, affine=affine))
    with rasterio.open(path) as made:
        assert made.crs == rasterio.crs.CRS.from_user_input(crs)
        if crs.startswith("EPSG"):
            assert made.crs.to_epsg() == int(crs[5:])
        assert tuple(made.transform)[:6] == affine
    found = open_tiff(File(url=str(path))).info
    assert found.affine == affine
    if crs.startswith("EPSG"):
        assert found.crs == crs


def test_easy_ones_need_no_rasterio(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "rasterio"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    for crs in EASY:
        assert place_tags(_info(crs=crs, affine=NORTH_UP))
    with pytest.raises(ConfigError, match=r"pip install -e '.\[geo\]'"):
        place_tags(_info(crs=HARD[0], affine=NORTH_UP))


@pytest.mark.parametrize("crs", ["EPSG:999999", 'LOCAL_CS["a'])
def test_a_crs_that_cannot_be_written(crs: str) -> None:
    with pytest.raises(ConfigError, match="GeoTIFF can hold"):
        place_tags(_info(crs=crs, affine=NORTH_UP))


def test_an_affine_without_a_crs(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.tif", _info(affine=NORTH_UP))
    with rasterio.open(path) as made:
        assert (made.crs, tuple(made.transform)[:6]) == (None, NORTH_UP)
    assert open_tiff(File(url=str(path))).info.affine == NORTH_UP


def test_control_points(tmp_path: Path) -> None:
    points = ((0.0, 0.0, 10.0, 50.0, 0.0), (31.5, 2.0, 11.0, 51.0, 3.0), (7.0, 30.0, 12.0, 52.0, 4.0))
    path = _written(tmp_path / "a.tif", _info(gcps=points, crs="EPSG:4326"))
    with rasterio.open(path) as made:
        found, crs = made.gcps
        assert crs.to_epsg() == 4326
        assert tuple((p.row, p.col, p.x, p.y, p.z) for p in found) == points
    assert open_tiff(File(url=str(path))).info.gcps == points


def test_no_place_no_tags() -> None:
    assert place_tags(_info()) == {}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_bands_keep_names_scales_and_offsets(tmp_path: Path) -> None:
    channels = (Channel(name="a<b>"), Channel(name="nir", scale=1e-4, offset=-0.1))
    path = _written(tmp_path / "a.tif", replace(_info(), channels=channels))
    with rasterio.open(path) as made:
        assert made.descriptions == ("a<b>", "nir")
        assert (made.scales, made.offsets) == ((1.0, 1e-4), (0.0, -0.1))
    assert open_tiff(File(url=str(path))).info.channels == channels


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_classes_are_thematic(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.tif", _info(kind="labels"))
    with rasterio.open(path) as made:
        assert made.tags(1)["LAYER_TYPE"] == "thematic"
    assert open_tiff(File(url=str(path))).info.kind == "labels"
