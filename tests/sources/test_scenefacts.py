"""Technical facts of scenes by the metadata of three kinds of products."""

from __future__ import annotations

import pickle

from tilestream.pyramid.chosen import choose
from tilestream.sources.extras import read_extras
from tilestream.sources.opening import open_source
from tilestream.sources.scenefacts import MTL_NAMES, SAFE_NAMES, STAC_NAMES, scene_facts
from tilestream.sources.technical import KNOWN


def test_every_name_has_a_check():
    for names in (MTL_NAMES, SAFE_NAMES, STAC_NAMES):
        assert set(names.values()) <= set(KNOWN)


def test_a_stac_item(shared_data):
    source = open_source(str(shared_data / "satellite" / "S2A_29RKH_20200219_0_L2A"))
    expected = {
        "platform": "sentinel-2a",
        "instruments": ["msi"],
        "acquired": "2020-02-19T11:34:25.405000Z",
        "processing_baseline": "02.14",
        "product_type": "S2MSI2A",
        "sun_elevation_deg": 48.293248430895,
        "sun_azimuth_deg": 147.671041914385,
        "cloud_cover_percent": 4.051854,
        "grid_square": "MGRS-29RKH",
    }
    assert read_extras(source).technical == expected
    assert read_extras(choose(source, bands=["red"])).technical == expected
    assert read_extras(pickle.loads(pickle.dumps(source))).technical == expected
    assert read_extras(source).identifying == {}


def test_a_landsat_product():
    lines = {
        "SPACECRAFT_ID": "LANDSAT_8", "SENSOR_ID": "OLI_TIRS", "DATE_ACQUIRED": "2020-07-01",
        "PROCESSING_LEVEL": "L2SP", "SUN_ELEVATION": "61.2", "CLOUD_COVER": "-1", "ORIGIN": "by Penelope",
    }  # fmt: skip
    assert scene_facts(lines.items(), MTL_NAMES) == {
        "platform": "LANDSAT_8",
        "instruments": ["OLI_TIRS"],
        "acquired": "2020-07-01",
        "processing_level": "L2SP",
        "sun_elevation_deg": 61.2,
    }


def test_a_sentinel_2_product():
    elements = {
        "SPACECRAFT_NAME": "Sentinel-2B", "PRODUCT_START_TIME": "2022-03-04T10:20:30.123Z", "PRODUCT_TYPE": "S2MSI1C",
        "PROCESSING_LEVEL": "Level-1C", "PROCESSING_BASELINE": "04.00", "SENSING_ORBIT_DIRECTION": "DESCENDING",
        "Cloud_Coverage_Assessment": "12.5",
    }  # fmt: skip
    assert scene_facts(elements.items(), SAFE_NAMES) == {
        "platform": "Sentinel-2B",
        "acquired": "2022-03-04T10:20:30.123Z",
        "processing_level": "Level-1C",
        "processing_baseline": "04.00",
        "product_type": "S2MSI1C",
        "orbit_direction": "descending",
        "cloud_cover_percent": 12.5,
    }
