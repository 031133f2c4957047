"""What a source knows of an image, known again from the store that was made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
import xarray as xr
from distributed import Client
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from tests.sources.madetiff import photo
from tests.sources.test_icc import PROFILE
from tests.sources.test_ometiff import stack, write_stack
from tilestream.cluster.client import open_client
from tilestream.pipelines.ingest import build_pyramid
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.sources.extras import associated_images, read_extras
from tilestream.testing.slide import write_slide
from tilestream.types import ImageInfo, Shape

ROTATED = Affine(9.7, 1.3, 500000.123456789, -1.3, -9.7, 4999999.987654321)
UTM = "EPSG:32633"


def write_scene(path: Path, **more: object) -> Path:
    """Write a GeoTIFF of odd size with overviews; `more` are `crs`, `transform`, `gcps`, `nodata`, `bands`."""
    bands = more.pop("bands", 1)
    pixels = np.random.default_rng(0).integers(1, 9000, (bands, 301, 403)).astype(np.int16)
    profile = {"driver": "GTiff", "count": bands, "height": 301, "width": 403, "dtype": "int16", "tiled": True}
    scales = more.pop("scales", None)
    with rasterio.open(path, "w", blockxsize=128, blockysize=128, **profile, **more) as file:
        file.write(pixels)
        if scales:
            file.scales, file.offsets = scales
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    return path


def write_channels(path: Path) -> Path:
    metadata = {"Name": ["DAPI", "CD3", "CD8"], "Color": [0x0000FFFF, 0x00FF00FF, 0x7F0102FF]}
    write_stack(path, stack((3, 300, 200)), axes="CYX", Channel=metadata)
    return path


def facts(info: ImageInfo) -> dict[str, object]:
    """What must be the same."""
    names = ("kind", "modality", "dtype", "mpp_yx", "crs", "affine", "gcps", "nodata", "shape")
    channels = [(channel.name, channel.scale, channel.offset) for channel in info.channels]
    return {**{name: getattr(info, name) for name in names}, "channels": channels}


POINTS = [GroundControlPoint(row=r, col=c, x=10 + c / 7, y=40 - r / 3, z=1.5) for r, c in ((0, 0), (0, 403), (301, 0))]
MAKERS = {
    "slide.svs": lambda path: write_slide(path, Shape(y=1027, x=1301), mpp=0.4991),
    "channels.ome.tif": write_channels,
    "rotated.tif": lambda path: write_scene(path, crs=UTM, transform=ROTATED, nodata=7),
    "degrees.tif": lambda path: write_scene(path, crs="EPSG:4326", transform=Affine(0.1 / 3, 0, 7, 0, -0.1 / 7, 50)),
    "nowhere.tif": lambda path: write_scene(path, transform=Affine(10, 0, 500000, 0, -10, 5000000)),
    "points.tif": lambda path: write_scene(path, crs="EPSG:4326", gcps=POINTS),
    "factors.tif": lambda path: write_scene(path, crs=UTM, transform=ROTATED, bands=2, scales=((0.1, 0.2), (5, 6))),
}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """One for all stores of this file."""
    with open_client("threads") as opened:
        yield opened


@pytest.mark.parametrize(
    ("name", "profile"), [("slide.svs", "archive"), ("rotated.tif", "gdal"), *((name, "portable") for name in MAKERS)]
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_facts(tmp_path: Path, client: Client, name: str, profile: str) -> None:
    path = MAKERS[name](tmp_path / name)
    before = open_pyramid(path)
    after = build_pyramid(path, tmp_path / "a.zarr", profile=profile, client=client)
    assert facts(after.info) == facts(before.info)
    if profile == "archive":  # the source's own levels
        assert [level.scale_yx for level in after.levels] == [level.scale_yx for level in before.levels]
    else:
        assert [level.scale_yx for level in after.levels] == [(2.0**n, 2.0**n) for n in range(len(after.levels))]
    stated = [channel.color for channel in before.channels]
    if not any(stated):
        stated = ["FF0000", "00FF00", "0000FF"] if name == "slide.svs" else stated
    found = [channel.color for channel in after.channels]
    assert found == stated or not any(stated)


def test_profile_and_technical_facts(tmp_path: Path, client: Client) -> None:
    text = "Aperio Image Library v11.2.1\r\n300x300 (64x64) JPEG/RGB Q=30|AppMag = 20|MPP = 0.5|User = Penelope"
    more = {"tile": (64, 64), "photometric": "rgb", "description": text, "metadata": None, "iccprofile": PROFILE}
    tifffile.imwrite(tmp_path / "a.svs", photo(300, 300), compression="jpeg", **more)
    before = read_extras(open_pyramid(tmp_path / "a.svs").source)
    for number, keep in enumerate((False, True)):
        store = tmp_path / f"{number}.zarr"
        after = build_pyramid(tmp_path / "a.svs", store, keep_identifying=keep, client=client)
        extras = read_extras(after.source)
        assert (extras.icc, extras.technical) == (PROFILE, before.technical)
        assert extras.identifying == (before.identifying if keep else {})
        assert extras.identifying_images == ()
        assert any("Penelope" in file.read_text() for file in store.rglob("zarr.json")) == keep
        assert json.loads((store / "zarr.json").read_text())["attributes"]["tilestream"]["technical"]


def test_pictures_only_for_those_who_ask(tmp_path: Path, client: Client) -> None:
    path = write_slide(tmp_path / "a.svs", Shape(y=600, x=700), identifying=True)
    wanted = associated_images(open_pyramid(path).source, True)
    assert set(wanted) == {"thumbnail", "label", "macro"}
    for number, keep in enumerate((False, True)):
        store = tmp_path / f"{number}.zarr"
        found = build_pyramid(path, store, keep_identifying=keep, client=client)
        assert (store / "associated").exists() == keep
        assert found.associated == (("thumbnail",) if keep else ())
        pictures = associated_images(found.source, True)
        assert set(pictures) == (set(wanted) if keep else set())
        for name, pixels in pictures.items():
            np.testing.assert_array_equal(pixels, wanted[name])
        xr.open_datatree(store, engine="zarr").close()


def test_a_damaged_label_costs_no_slide(tmp_path: Path, client: Client) -> None:
    path = write_slide(tmp_path / "a.svs", Shape(y=600, x=700), identifying=True)
    with tifffile.TiffFile(path) as file:
        (offset,) = (page.dataoffsets[0] for page in file.pages if "label" in page.description)
    data = bytearray(path.read_bytes())
    data[offset : offset + 40] = bytes(40)
    path.write_bytes(data)
    found = build_pyramid(path, tmp_path / "a.zarr", keep_identifying=True, client=client)
    assert set(associated_images(found.source, True)) == {"thumbnail", "macro"}
    assert read_extras(found.source).notes == ("could not be decoded when the store was made: label",)
