"""Technical facts of scenes, from the metadata of their products: who saw what, when, under which sun.

None of it can identify a patient; it passes the whitelist like all technical facts, so that stores hold known words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tilestream.sources.technical import sort_out

STAC_NAMES = {
    "platform": "platform", "instruments": "instruments", "datetime": "acquired",
    "eo:cloud_cover": "cloud_cover_percent",
    "view:sun_azimuth": "sun_azimuth_deg", "view:sun_elevation": "sun_elevation_deg",
    "view:off_nadir": "view_zenith_deg", "s2:product_type": "product_type", "sar:product_type": "product_type",
    "s2:processing_baseline": "processing_baseline", "landsat:correction": "processing_level",
    "processing:level": "processing_level", "sat:orbit_state": "orbit_direction", "sat:absolute_orbit": "orbit_number",
    "sar:polarizations": "polarisations", "grid:code": "grid_square",
}  # fmt: skip
"""Properties of a STAC item."""
SAFE_NAMES = {
    "SPACECRAFT_NAME": "platform", "PRODUCT_START_TIME": "acquired", "PRODUCT_TYPE": "product_type",
    "PROCESSING_LEVEL": "processing_level", "PROCESSING_BASELINE": "processing_baseline",
    "SENSING_ORBIT_DIRECTION": "orbit_direction", "Cloud_Coverage_Assessment": "cloud_cover_percent",
}  # fmt: skip
"""Elements of the metadata of a Sentinel-2 product."""
MTL_NAMES = {
    "SPACECRAFT_ID": "platform", "SENSOR_ID": "instruments", "DATE_ACQUIRED": "acquired",
    "PROCESSING_LEVEL": "processing_level", "DATA_TYPE": "processing_level", "SUN_ELEVATION": "sun_elevation_deg",
    "SUN_AZIMUTH": "sun_azimuth_deg", "CLOUD_COVER": "cloud_cover_percent",
}  # fmt: skip
"""Lines of the metadata of a Landsat product."""


def scene_facts(found: Iterable[tuple[str, Any]], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the technical facts of a product.

    Parameters
    ----------
    found : iterable of (str, object)
        Names and values of its metadata.
    names : Mapping
        `STAC_NAMES`, `SAFE_NAMES` or `MTL_NAMES`.

    Returns
    -------
    dict
        Facts by their names in `KNOWN`.
    """
    return sort_out([(name, value) for name, value in found if name in names], names)[0]
