"""QPTIFF, the format of PerkinElmer's and Akoya's scanners: a page for each channel of each level, described by XML.

References
----------
QPTIFF file format specification, Akoya Biosciences; tifffile, `TiffFile._series_qpi`.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tilestream.errors import SourceError
from tilestream.sources.samples import unique_names
from tilestream.sources.technical import sort_out
from tilestream.sources.tiffifd import Ifd, refuse
from tilestream.sources.tifflayout import Layout
from tilestream.sources.tiffread import LevelTables
from tilestream.sources.tifftable import TileTable, parse_table
from tilestream.types import Shape

_ROOT = "PerkinElmer-QPI-ImageDescription"
_PICTURES = {"Label": "label", "Overview": "macro"}
"""Pictures that may show the slide's label, by the word of the XML."""
_NAMES = {"AcquisitionSoftware": "software", "Objective": "objective_power", "channels": "channels"}


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page as its XML describes it."""

    ifd: Ifd
    """Its directory."""
    root: ET.Element
    """Its XML; empty for a page without any."""

    @property
    def kind(self) -> str:
        """Return `FullResolution`, `ReducedResolution`, `Thumbnail`, `Overview` or `Label`."""
        return self.text("ImageType")

    @property
    def color(self) -> str | None:
        """Return the colour of the channel, six hex digits; None where three numbers from 0 to 255 are not stated."""
        found = re.fullmatch(r"(\d{1,3}),(\d{1,3}),(\d{1,3})", self.text("Color").replace(" ", ""))
        numbers = [int(number) for number in found.groups()] if found else [256]
        return bytes(numbers).hex().upper() if max(numbers) < 256 else None

    def text(self, name: str) -> str:
        """Return the text of an element right below the root, empty when there is none."""
        return (self.root.findtext(name) or "").strip()


def is_qptiff(description: str) -> bool:
    """Return whether a description is that of a QPTIFF page."""
    return f"<{_ROOT}" in description[:4096]


def qptiff_layout(ifds: Sequence[Ifd]) -> Layout:
    """Return the levels of a QPTIFF file with all channels.

    Parameters
    ----------
    ifds : sequence of Ifd
        Directories in the order of the file.

    Returns
    -------
    Layout
        Levels; label and overview are never parsed.

    Raises
    ------
    SourceError
        When there is no page of full resolution, or it cannot be read.
    """
    pages = [_page(ifd) for ifd in ifds]
    full = [page for page in pages if page.kind == "FullResolution"]
    if not full:
        raise refuse(ifds[0].header.file, got="QPTIFF pages without `FullResolution`", expected="at least one")
    first = [parse_table(page.ifd) for page in full]
    if len({(table.shape, table.block, table.dtype, table.samples) for table in first}) > 1:
        raise refuse(ifds[0].header.file, got="channels of different layout", expected="one layout for all")
    levels, notes = [LevelTables(tables=tuple(first))], list[str]()
    for shape, tables in sorted(_reduced(pages).items(), key=lambda item: -item[0].area):
        if [table.same_kind for table in tables] == [table.same_kind for table in first]:
            levels.append(LevelTables(tables=tuple(tables)))
        else:
            notes.append(f"a level of {shape.y} x {shape.x} pixels has other channels than the image and is left out")
    colours = first[0].samples == 1
    return Layout(
        format="qptiff",
        ifd=full[0].ifd,
        levels=tuple(levels),
        thumbnail=_thumbnail(pages),
        identifying=_pictures(pages),
        channels=unique_names(_names(full)) if colours else (),
        colors=tuple(page.color for page in full) if colours else (),
        notes=tuple(notes),
    )


def qptiff_facts(ifds: Sequence[Ifd]) -> dict[str, Any]:
    """Return the technical facts of a QPTIFF file.

    Parameters
    ----------
    ifds : sequence of Ifd
        Directories in the order of the file.

    Returns
    -------
    dict
        Facts by their names in `KNOWN`.
    """
    full = [page for page in map(_page, ifds) if page.kind == "FullResolution"]
    software = full[0].text("AcquisitionSoftware")
    found: list[tuple[str, Any]] = [("AcquisitionSoftware", software)]
    found.append(("Objective", full[0].text("Objective").lower().removesuffix("x")))
    exposures_us = [page.text("ExposureTime") for page in full]
    of_channels = [{"exposure_s": int(us) / 1e6} if re.fullmatch(r"[0-9]{1,9}", us) else {} for us in exposures_us]
    found.append(("channels", of_channels))
    return sort_out(found, _NAMES)[0]


def _page(ifd: Ifd) -> Page:
    try:
        root = ET.fromstring(ifd.text(270) or "<none/>")  # as text: its declaration says UTF-16, its bytes are not
    except ET.ParseError as error:
        raise refuse(
            ifd.header.file, got=f"a description that does not parse: {error}", expected="well-formed XML"
        ) from error
    return Page(ifd=ifd, root=root)


def _reduced(pages: Sequence[Page]) -> dict[Shape, list[TileTable]]:
    """Return the channels of each coarser level."""
    found: dict[Shape, list[TileTable]] = {}
    for page in pages:
        if page.kind == "ReducedResolution":
            table = parse_table(page.ifd)
            found.setdefault(table.shape, []).append(table)
    return found


def _thumbnail(pages: Sequence[Page]) -> TileTable | None:
    for page in pages:
        if page.kind == "Thumbnail":
            try:
                return parse_table(page.ifd)
            except SourceError:  # nobody asked for it
                return None
    return None


def _pictures(pages: Sequence[Page]) -> dict[str, Ifd]:
    return {_PICTURES[page.kind]: page.ifd for page in reversed(pages) if page.kind in _PICTURES}


def _names(full: Sequence[Page]) -> list[str]:
    return [page.text("Name") or page.text("Biomarker") or f"channel{number}" for number, page in enumerate(full)]
