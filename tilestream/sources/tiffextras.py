"""Colour profile, technical facts and identifying text of TIFF files: tags, Aperio's description, GDAL's items."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tilestream.errors import SourceError
from tilestream.sources import tifftable as tt
from tilestream.sources.extras import Extras
from tilestream.sources.icc import checked_icc
from tilestream.sources.omeextras import ome_facts
from tilestream.sources.ometiff import ome_root
from tilestream.sources.qptiff import qptiff_facts
from tilestream.sources.technical import KNOWN, kept, sort_out
from tilestream.sources.tiffifd import Ifd
from tilestream.sources.tifflayout import Layout

_ICC = 34675
_TEXTS = {
    269: "DocumentName", 270: "ImageDescription", 271: "Make", 272: "Model", 285: "PageName", 305: "Software",
    306: "DateTime", 315: "Artist", 316: "HostComputer", 337: "TargetPrinter", 700: "XMP", 32781: "ImageID",
    33432: "Copyright", 42112: "GDAL_METADATA", 50735: "CameraSerialNumber", 65449: "ScannerProperties",
}  # fmt: skip
"""Tags that hold text, by the names of the standard; their values are only kept by the whitelist."""
_TAGS = {"Make": "vendor", "Model": "model", "Software": "software", "Compression": "compression"}
APERIO = {
    "AppMag": "objective_power", "StripeWidth": "stripe_width_px", "Left": "scan_left_mm", "Top": "scan_top_mm",
    "LineCameraSkew": "line_camera_skew", "Focus Offset": "focus_offset", "Gamma": "gamma",
    "Exposure Time": "exposure_time", "Exposure Scale": "exposure_scale", "ScannerType": "model",
}  # fmt: skip
"""Fields of Aperio's description, by their technical names."""
_GDAL = {
    "ORBIT_DIRECTION": "orbit_direction", "ABSOLUTE_ORBIT_NUMBER": "orbit_number",
}  # fmt: skip


def tiff_extras(layout: Layout, ifds: Sequence[Ifd], *, series: int = 0) -> Extras:
    """Return what a TIFF file says besides the pixels of the selected image.

    Parameters
    ----------
    layout : Layout
        The selected image.
    ifds : sequence of Ifd
        All directories of the file; the first holds the OME-XML of all images.
    series : int
        Number of the image in OME-XML.

    Returns
    -------
    Extras
        The texts of all its tags are identifying; what the whitelist knows of them is technical too.
    """
    try:
        icc, notes = checked_icc(layout.ifd.data(_ICC))
    except SourceError:  # of a position outside the file: no pixel needs it
        icc, notes = None, ("the ICC profile lies outside the file and is left out",)
    ifd = ifds[0] if layout.format == "ome-tiff" else layout.ifd
    compression = tt.COMPRESSIONS[layout.levels[0].tables[0].compression]
    texts, lost = _texts(ifd)
    technical, identifying = sort_out({**texts, "Compression": compression}.items(), _TAGS)
    if layout.format == "aperio-svs":
        more, _ = aperio_facts(texts.get("ImageDescription", ""))
    elif layout.format == "ome-tiff":
        more = ome_facts(ome_root(ifds[0]), series)
    elif layout.format == "qptiff":
        more = qptiff_facts(ifds)
    else:
        more, _ = sort_out(_gdal_items(texts.get("GDAL_METADATA", "")), _GDAL)
    return Extras(
        icc=icc,
        technical=kept({**technical, **more}, KNOWN),
        identifying=identifying,
        identifying_images=tuple(layout.identifying),
        notes=(*notes, *lost),
    )


def _texts(ifd: Ifd) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the texts of a directory by name, and a note on those that cannot be read; no pixel needs them."""
    texts: dict[str, str] = {}
    lost = []
    for code, name in _TEXTS.items():
        try:
            texts[name] = ifd.text(code)
        except SourceError:
            lost.append(name)
    notes = (f"tags that lie outside the file are left out: {', '.join(lost)}",) if lost else ()
    return {name: text for name, text in texts.items() if text}, notes


def aperio_facts(description: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what Aperio's description says of scanner and scan.

    Parameters
    ----------
    description : str
        Lines on library, size and coding, then fields `name = value` between bars.

    Returns
    -------
    dict, dict
        Technical facts, and all other fields.
    """
    head, *fields = description.split("|")
    found: list[tuple[str, Any]] = [("Vendor", "Aperio")]
    found += [("Library", line) for line in re.split(r"[\r\n;]+", head) if line.strip()]
    found += [("Quality", quality) for quality in re.findall(r"\bQ=(\d{1,3})(?![^\s;])", head)[:1]]
    pairs = [(name.strip(), value.strip()) for name, _, value in (field.partition("=") for field in fields)]
    names = {**APERIO, "Vendor": "vendor", "Library": "software", "Quality": "compression_quality"}
    technical, others = sort_out([*found, *pairs], names)
    return {**technical, **_pair(dict(pairs))}, {name: others[name] for name, _ in pairs if name in others}


def _pair(fields: Mapping[str, str]) -> dict[str, Any]:
    found = [
        ("line_area_offset_yx", [fields.get(f"LineArea{axis}Offset") for axis in "YX"]),
        ("original_shape_yx_px", [fields.get("OriginalHeight"), fields.get("OriginalWidth")]),
    ]
    return sort_out(found, {name: name for name, _ in found})[0]


def _gdal_items(text: str) -> Iterator[tuple[str, str]]:
    try:
        root = ET.fromstring(text) if text else ET.Element("GDALMetadata")  # expat limits entity expansion by itself
    except ET.ParseError:
        return
    for item in root.iter("Item"):
        yield item.get("name", ""), (item.text or "").strip()
