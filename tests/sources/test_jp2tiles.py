"""Tiles of JPEG 2000 images cut out one by one have the bits of the whole, whatever the encoder did."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from tests.sources.assembled import whole_level
from tests.sources.madescene import CORNER, save_jp2
from tilestream.errors import DamagedError
from tilestream.metrics import collect
from tilestream.sources.files import File
from tilestream.sources.gmljp2 import read_gml
from tilestream.sources.jp2tiles import read_jp2_tiles
from tilestream.sources.opening import open_source
from tilestream.sources.rasterhead import read_raster_head

LOSSY = {"REVERSIBLE": "NO", "QUALITY": 20}
OPTIONS = [
    {},
    LOSSY,
    {**LOSSY, "PROGRESSION": "RPCL", "PRECINCTS": "{64,64},{32,32}"},
    {"TLM": "YES", "PLT": "YES"},
    {"SOP": "YES", "EPH": "YES", "RESOLUTIONS": 2},
    {"CODEBLOCK_WIDTH": 16, "CODEBLOCK_HEIGHT": 16, "GEOJP2": "YES", "GMLJP2": "NO"},
]


def pixels(height=150, width=201):
    steps = np.random.default_rng(3).integers(-9, 10, (height, width))
    return (5000 + np.cumsum(steps, axis=1)).astype(np.uint16)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(options) or "plain")
@pytest.mark.parametrize("tile", [64, 48])
def test_tiles_have_the_bits_of_the_whole_image(tmp_path, options, tile):
    save_jp2(tmp_path / "a.jp2", pixels(), tile=tile, **options)
    source = open_source(str(tmp_path / "a.jp2"))
    with rasterio.open(tmp_path / "a.jp2") as reference:
        expected = reference.read(1)
    assert source.info.levels[0].block.yx == (tile, tile)
    np.testing.assert_array_equal(whole_level(source)[0][..., 0], expected)
    assert (source.info.crs, source.info.affine) == ("EPSG:32629", (10.0, 0.0, CORNER[0], 0.0, -10.0, CORNER[1]))


def test_a_tile_reads_its_own_bytes_only(tmp_path):
    save_jp2(tmp_path / "a.jp2", pixels(640, 640))
    source = open_source(str(tmp_path / "a.jp2"))
    with collect() as meter:
        source.read_block(0, 3, 3)
    assert 0 < meter.counts["bytes_read"] < File(url=str(tmp_path / "a.jp2")).size / 50


def test_tile_parts_are_found_by_tlm_and_by_stepping_alike(tmp_path):
    save_jp2(tmp_path / "a.jp2", pixels(), TLM="YES")
    file = File(url=str(tmp_path / "a.jp2"))
    start, stop = read_raster_head(file).codestream
    found = read_jp2_tiles(file, start, stop)
    data = bytearray((tmp_path / "a.jp2").read_bytes())
    at = data.index(b"\xff\x55", start)
    data[at : at + 2] = b"\xff\x64"  # a comment now
    (tmp_path / "a.jp2").write_bytes(data)
    assert found is not None
    assert read_jp2_tiles(file, start, stop).parts == found.parts
    assert len(found.parts) == 12


def test_one_broken_tile_costs_one_tile(tmp_path):
    save_jp2(tmp_path / "a.jp2", pixels())
    source = open_source(str(tmp_path / "a.jp2"))
    offset, _ = source.tiles.parts[5][0]
    data = bytearray((tmp_path / "a.jp2").read_bytes())
    data[offset + 12 : offset + 14] = b"\0\0"  # where its data begin
    (tmp_path / "a.jp2").write_bytes(data)
    assert set(whole_level(open_source(str(tmp_path / "a.jp2")))[2]) == {(1, 1)}


def test_a_chain_of_tiles_that_breaks_leaves_the_others(tmp_path):
    save_jp2(tmp_path / "a.jp2", pixels())
    offset, _ = open_source(str(tmp_path / "a.jp2")).tiles.parts[9][0]
    data = bytearray((tmp_path / "a.jp2").read_bytes())
    data[offset : offset + 2] = b"\0\0"
    (tmp_path / "a.jp2").write_bytes(data)
    source = open_source(str(tmp_path / "a.jp2"))
    assert set(whole_level(source)[2]) == {(2, 1), (2, 2), (2, 3)}
    with pytest.raises(DamagedError, match="tile 9 is not in the file"):
        source.read_block(0, 2, 1)


GML = """<a xmlns:gml="http://www.opengis.net/gml"><gml:RectifiedGrid><gml:origin>
<gml:Point srsName="urn:ogc:def:crs:EPSG::{code}"><gml:pos>{pos}</gml:pos></gml:Point></gml:origin>
<gml:offsetVector>10 0</gml:offsetVector><gml:offsetVector>0 -10</gml:offsetVector></gml:RectifiedGrid></a>"""


@pytest.mark.parametrize(
    "text",
    [
        GML.format(code=4326, pos="50 10"),  # which of them is the latitude?
        GML.format(code=32629, pos="5"),
        GML.format(code="", pos="5 5"),
        GML.format(code=32629, pos="a b"),
        GML[:100],
        "<!DOCTYPE a>" + GML.format(code=32629, pos="5 5"),
        GML.format(code=32629, pos="5 5").replace("<gml:offsetVector>10 0</gml:offsetVector>", ""),
    ],
)
def test_a_place_that_is_not_clear_is_none(text):
    place = read_gml(text.encode())
    assert (place.crs, place.affine) == (None, None)
    assert place.notes
