"""Where a JPEG 2000 image lies on Earth by the GML in it (GMLJP2), as in the products of Sentinel-2.

The origin of its grid is the centre of the first pixel. Only axes in the order east, north are understood: whether
those of a geographic system come the other way round differs from writer to writer.

References
----------
OGC 08-085r8, GML in JPEG 2000, sections 6 and 7.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from tilestream.sources.crs import is_metric
from tilestream.sources.files import File
from tilestream.sources.geokeys import GeoReference
from tilestream.sources.rasterhead import jp2_boxes

MOST_GML_BYTES = 1 << 20
_MOST_DEPTH = 4
_UNREADABLE = GeoReference(notes=("its GML box cannot be read: no place is known",))


def find_gml(file: File, start: int, stop: int, depth: int = 0) -> Iterator[bytes]:
    """Yield the XML in the associations (`asoc`) in a range of a JP2 file.

    Parameters
    ----------
    file : File
        A JP2 file.
    start, stop : int
        Range, bytes.
    depth : int
        How deep the range lies.

    Yields
    ------
    bytes
        XML that describes a grid.
    """
    for kind, offset, length in jp2_boxes(file, start, stop):
        if kind == b"asoc" and depth < _MOST_DEPTH:
            yield from find_gml(file, offset, offset + length, depth + 1)
        elif kind == b"xml " and depth and length <= MOST_GML_BYTES:
            text = file.read(offset, length)
            if b"RectifiedGrid" in text:
                yield text
        elif kind == b"jp2c":
            return  # what stands behind the pixels is not looked for: a remote file would be walked to its end


def read_gml(text: bytes) -> GeoReference:
    """Return the place that GML states.

    Parameters
    ----------
    text : bytes
        XML with a rectified grid.

    Returns
    -------
    GeoReference
        Affine and CRS, or a note why there is none.
    """
    text = text.strip(b"\0 \t\r\n")
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text or b"\0" in text:
        return _UNREADABLE
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError):
        return _UNREADABLE
    names = {element: element.tag.rpartition("}")[2] for element in root.iter()}
    grid = next((element for element, name in names.items() if name == "RectifiedGrid"), root)
    inside = [(names[element], element) for element in grid.iter()]
    position = next((_numbers(element) for name, element in inside if name == "pos"), [])
    vectors = [_numbers(element) for name, element in inside if name == "offsetVector"]
    codes = [match[1] for _, element in inside if (match := re.search(r"EPSG::?(\d+)$", element.get("srsName", "")))]
    if len(position) != 2 or len(vectors) != 2 or any(len(vector) != 2 for vector in vectors) or not codes:
        return _UNREADABLE
    crs = f"EPSG:{codes[0]}"
    if not is_metric(crs):
        return GeoReference(notes=(f"its GML box states {crs}, whose axes may come in either order: no place taken",))
    (a, d), (b, e) = vectors
    x, y = position
    return GeoReference(crs=crs, affine=(a, b, x - (a + b) / 2, d, e, y - (d + e) / 2))


def _numbers(element: ET.Element) -> list[float]:
    try:
        return [float(part) for part in (element.text or "").split()]
    except ValueError:
        return []
