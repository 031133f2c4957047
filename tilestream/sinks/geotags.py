"""Tags that place a TIFF on Earth: affine or ground control points, CRS, and what GDAL keeps of bands.

The CRS is written as an EPSG code where it is one that can be told to be projected or geographic without a database;
for any other rasterio (extra `geo`) says how it is written.

References
----------
OGC 19-008r4, GeoTIFF 1.1, sections 7.1 to 7.5.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from tilestream.errors import ConfigError
from tilestream.sinks.tiffdirectory import Value, double, short, text
from tilestream.sources.crs import is_metric
from tilestream.types import Channel, ImageInfo

THEMATIC = "thematic"
"""What GDAL's item LAYER_TYPE says of class rasters."""
_GEOGRAPHIC = frozenset({4326, 4258, 4267, 4269})
_SCALE, _TIES, _MATRIX, _KEYS, _DOUBLES, _TEXTS = 33550, 33922, 34264, 34735, 34736, 34737
_MODEL, _RASTER, _GEODETIC, _PROJECTED, _LINEAR_UNIT = 1024, 1025, 2048, 3072, 3076
_METRE = 9001


def place_tags(info: ImageInfo) -> dict[int, Value]:
    """Return the tags of affine or control points, and CRS.

    Parameters
    ----------
    info : ImageInfo
        What is known of the image.

    Returns
    -------
    dict
        By tag code; empty for an image without a place.

    Raises
    ------
    ConfigError
        When the CRS cannot be written, or rasterio is needed for it and not there.
    """
    tags: dict[int, Value] = {}
    if info.affine is not None:
        a, b, c, d, e, f = info.affine
        if b == d == 0 and a > 0 > e:
            tags = {_SCALE: double((a, -e, 0)), _TIES: double((0, 0, 0, c, f, 0))}
        else:
            tags = {_MATRIX: double((a, b, 0, c, d, e, 0, f, 0, 0, 0, 0, 0, 0, 0, 1))}
    elif info.gcps:
        tags = {_TIES: double(v for row, col, x, y, z in info.gcps for v in (col, row, 0, x, y, z))}
    return tags | ({} if info.crs is None else _crs_tags(info.crs))


def _keys(*pairs: tuple[int, int]) -> Value:
    return short(1, 1, 0, len(pairs), *(number for key, value in pairs for number in (key, 0, 1, value)))


def _crs_tags(crs: str) -> dict[int, Value]:
    match = re.fullmatch(r"EPSG:(\d+)", crs)
    if match and is_metric(crs):
        return {_KEYS: _keys((_MODEL, 1), (_RASTER, 1), (_PROJECTED, int(match[1])), (_LINEAR_UNIT, _METRE))}
    if match and int(match[1]) in _GEOGRAPHIC:
        return {_KEYS: _keys((_MODEL, 2), (_RASTER, 1), (_GEODETIC, int(match[1])))}
    return _crs_by_rasterio(crs)


def _crs_by_rasterio(crs: str) -> dict[int, Value]:
    """Return the tags that GDAL writes, checked by reading them again."""
    try:
        from rasterio.crs import CRS
        from rasterio.errors import CRSError
        from rasterio.io import MemoryFile
        from rasterio.transform import Affine
    except ImportError as error:
        raise ConfigError.of(
            f"CRS `{crs[:60]}`",
            got="no rasterio",
            expected="rasterio, which knows how GeoTIFF writes it",
            do="Run `pip install -e '.[geo]'` in the clone.",
        ) from error
    import tifffile

    size = {"width": 1, "height": 1, "count": 1, "dtype": "uint8"}
    with MemoryFile() as memory:
        try:
            wanted = CRS.from_user_input(crs)
            with memory.open(driver="GTiff", crs=wanted, **size, transform=Affine(1, 0, 0, 0, -1, 1)):
                pass
            with memory.open() as made:
                read = made.crs
        except CRSError as error:
            raise _unwritable(crs, str(error)) from error
        if read != wanted:
            raise _unwritable(crs, "something else when it is read again")
        memory.seek(0)
        page = tifffile.TiffFile(io.BytesIO(memory.read())).pages.first
        tags = {_KEYS: short(*page.tags.valueof(_KEYS))}
        if (doubles := page.tags.valueof(_DOUBLES)) is not None:
            tags[_DOUBLES] = double(doubles if isinstance(doubles, tuple) else (doubles,))
        if (words := page.tags.valueof(_TEXTS)) is not None:
            tags[_TEXTS] = text(words)
    return tags


def _unwritable(crs: str, got: str) -> ConfigError:
    return ConfigError.of(
        f"CRS `{crs[:60]}`", got=got, expected="one that GeoTIFF can hold", do="Export to OME-Zarr instead."
    )


def band_items(channels: Sequence[Channel], *, is_labels: bool, damaged: int = 0) -> str:
    """Return GDAL's metadata of bands as XML: names, scales and offsets, and whether they are classes.

    Parameters
    ----------
    channels : sequence of Channel
        The bands in order.
    is_labels : bool
        Whether samples are class numbers.
    damaged : int
        Blocks of the source that could not be decoded.

    Returns
    -------
    str
        Content of tag 42112.
    """
    root = ET.Element("GDALMetadata")
    if damaged:
        ET.SubElement(root, "Item", {"name": "DAMAGED_BLOCKS"}).text = str(damaged)
    for sample, channel in enumerate(channels):
        items = [("DESCRIPTION", "description", channel.name)]
        if (channel.scale, channel.offset) != (1, 0):
            items += [("OFFSET", "offset", f"{channel.offset:.17g}"), ("SCALE", "scale", f"{channel.scale:.17g}")]
        items += [("LAYER_TYPE", "", THEMATIC)] if is_labels else []
        for name, role, value in items:
            words = {"name": name, "sample": str(sample), **({"role": role} if role else {})}
            ET.SubElement(root, "Item", words).text = value
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"
