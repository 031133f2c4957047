"""A Landsat folder as one scene: bands, factors, class layers and time by its MTL file, in any of its three forms.

Reflectance and temperature are `MULT * stored + ADD` of the group that belongs to the processing level: an L2 file
holds the factors of L1 too. L1 reflectance is that of the MTL, without the division by the sine of the sun's elevation.

References
----------
Landsat 8-9 Collection 2 Level 1 and 2 data format control books (LSDS-1822, LSDS-1328); Collection 1 (LSDS-1834).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tilestream.sources.classes import KNOWN
from tilestream.sources.files import File
from tilestream.sources.scene import (
    BandFile,
    LayerFile,
    Scene,
    broken,
    find,
    finite,
    folder_of,
    iso_time,
    metadata_text,
    not_there,
)
from tilestream.sources.scenefacts import MTL_NAMES, scene_facts
from tilestream.sources.xmltree import parse_xml
from tilestream.types import Channel, ClassBand

MTL = re.compile(r"(?:.*_)?MTL\.(txt|json|xml)", re.IGNORECASE)
"""Names of metadata files."""

_OLI = {
    "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "nir08", "6": "swir16", "7": "swir22", "8": "pan",
    "9": "cirrus", "10": "lwir11", "11": "lwir12",
}  # fmt: skip
_TM = {"1": "blue", "2": "green", "3": "red", "4": "nir08", "5": "swir16", "6": "lwir", "7": "swir22"}
_ETM = {**_TM, "6_VCID_1": "lwir_low", "6_VCID_2": "lwir_high", "8": "pan"}
_MSS = {"1": "green", "2": "red", "3": "nir08", "4": "nir09"}
_MSS_FIRST = {"4": "green", "5": "red", "6": "nir08", "7": "nir09", "8": "lwir"}
_NAMES = {"OLI_TIRS": _OLI, "OLI": _OLI, "TIRS": _OLI, "ETM": _ETM, "TM": _TM, "MSS": _MSS}
_SURFACE = {"ST_B6": "lwir", "ST_B10": "lwir11"}
_LAYERS = {
    "FILE_NAME_QUALITY_L1_PIXEL": "QA_PIXEL",
    "FILE_NAME_QUALITY_L1_RADIOMETRIC_SATURATION": "QA_RADSAT",
    "FILE_NAME_QUALITY_L2_AEROSOL": "SR_QA_AEROSOL",
    "FILE_NAME_QUALITY_L2_SURFACE_REFLECTANCE_CLOUD": "SR_CLOUD_QA",
    "FILE_NAME_BAND_QUALITY": "BQA",
}

Groups = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Mtl:
    """The lines of an MTL file by group."""

    file: File
    """The file."""
    groups: Groups
    """Group → name → value, all text."""

    def all(self) -> Iterator[tuple[str, str]]:
        """Yield the lines of all groups."""
        for lines in self.groups.values():
            yield from lines.items()

    def get(self, name: str) -> str | None:
        """Return the value of a line in whatever group it stands, None when there is none."""
        return next((lines[name] for lines in self.groups.values() if name in lines), None)

    def need(self, name: str, *, other: str | None = None) -> str:
        """Return the value of a line; raise `SourceError` when neither it nor the other one is there."""
        value = self.get(name)
        if value is None and other is not None:
            value = self.get(other)
        if value is None:
            raise broken(self.file, f"no line {name}", "one in every MTL file")
        return value

    def factors(self, group: str, names: tuple[str, str]) -> tuple[float, float] | None:
        """Return factor and offset of a group, None when the group has neither."""
        lines = self.groups.get(group, {})
        found = [lines.get(name) for name in names]
        if found == [None, None]:
            return None
        numbers = []
        for name, text in zip(names, found, strict=True):
            if text is None:
                raise broken(self.file, f"no line {name} in group {group}", "factor and offset of each band")
            numbers.append(self.number(name, text))
        return numbers[0], numbers[1]

    def number(self, name: str, text: str) -> float:
        """Return a value as a number."""
        return finite(self.file, name, text)


def read_mtl(file: File) -> Mtl:
    """Return the lines of an MTL file.

    Parameters
    ----------
    file : File
        `*_MTL.txt`, `*_MTL.json` or `*_MTL.xml`.

    Returns
    -------
    Mtl
        Its groups.

    Raises
    ------
    SourceError
        When it is not such a file.
    """
    match = MTL.fullmatch(file.name)
    form = match[1].lower() if match else "txt"
    if form == "xml":
        root = parse_xml(file)
        groups = {group.tag: {line.tag: (line.text or "").strip() for line in group} for group in root}
    elif form == "json":
        groups = _json_groups(file)
    else:
        groups = _text_groups(file)
    if not groups:
        raise broken(file, "no group of lines", "the metadata of a Landsat scene")
    return Mtl(file=file, groups=groups)


def _text_groups(file: File) -> dict[str, dict[str, str]]:
    groups: dict[str, dict[str, str]] = {}
    open_groups: list[str] = []
    is_closed = False
    for number, line in enumerate(metadata_text(file).splitlines(), 1):
        name, mark, value = (part.strip() for part in line.partition("="))
        if line.strip() == "END":
            is_closed = True
            break
        if not mark:
            if line.strip():
                raise broken(file, f"line {number} `{line.strip()[:60]}`", "`NAME = value`")
        elif name == "GROUP":
            open_groups.append(value)
        elif name == "END_GROUP":
            if not open_groups or open_groups.pop() != value:
                raise broken(file, f"line {number} closes group {value}, which is not open", "groups inside each other")
        elif open_groups:
            groups.setdefault(open_groups[-1], {})[name] = value.strip('"')
    if open_groups or not is_closed:
        where = f" inside group {open_groups[-1]}" if open_groups else ""
        raise broken(file, f"a text that breaks off{where}", "one that closes with END")
    return groups


def _json_groups(file: File) -> dict[str, dict[str, str]]:
    try:
        document: Any = json.loads(metadata_text(file))
    except (ValueError, RecursionError) as error:
        raise broken(file, f"text that is not JSON ({error})", "JSON") from error
    root = next(iter(document.values()), None) if isinstance(document, dict) and len(document) == 1 else None
    if not isinstance(root, dict):
        raise broken(file, "JSON of another form", "one object with the groups of the scene")
    return {
        name: {key: str(value) for key, value in lines.items()}
        for name, lines in root.items()
        if isinstance(lines, dict)
    }


def landsat_scene(file: File) -> Scene:
    """Return the scene that an MTL file describes.

    Parameters
    ----------
    file : File
        The MTL file, with the bands in the same folder.

    Returns
    -------
    Scene
        Bands by common name, class layers, and what is not there.

    Raises
    ------
    SourceError
        When the file is broken or lacks a line that is needed.
    """
    mtl = read_mtl(file)
    level = mtl.need("PROCESSING_LEVEL", other="DATA_TYPE")  # Collection 2, Collection 1
    collection = int(mtl.number("COLLECTION_NUMBER", mtl.get("COLLECTION_NUMBER") or "0"))
    names = _names(mtl)
    bands, absent = [], []
    for line, name in _band_lines(mtl, names):
        there = find(folder_of(file), [mtl.need(line)], like=file)
        if there is None:
            absent.append(name)
            continue
        scale, offset = _factors(mtl, line.removeprefix("FILE_NAME_BAND_"), level)
        bands.append(BandFile(file=there, channel=Channel(name=name, scale=scale, offset=offset), nodata=0))
    layers, missing = _layers(mtl)
    return Scene(
        format=f"landsat-c{collection}-{level.lower()}",
        bands=tuple(bands),
        layers=layers,
        absent=not_there([*absent, *missing]),
        datetime=iso_time(_time(mtl)),
        named=frozenset(value for line, value in mtl.all() if "FILE_NAME" in line),
        facts=scene_facts(mtl.all(), MTL_NAMES),
        notes=_notes(mtl, level, [band.channel.name for band in bands]),
    )


def _names(mtl: Mtl) -> Mapping[str, str]:
    craft, sensor = mtl.need("SPACECRAFT_ID"), mtl.need("SENSOR_ID")
    if sensor not in _NAMES:
        raise broken(mtl.file, f"SENSOR_ID {sensor}", f"one of {', '.join(_NAMES)}")
    is_first = sensor == "MSS" and craft in ("LANDSAT_1", "LANDSAT_2", "LANDSAT_3")
    return _MSS_FIRST if is_first else _NAMES[sensor]


def _band_lines(mtl: Mtl, names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the lines that name files of bands, each once, with the common name of the band."""
    known = {**names, **_SURFACE}
    found: dict[str, str] = {}
    for line, _ in mtl.all():
        number = line.removeprefix("FILE_NAME_BAND_")
        if number != line and number != "QUALITY" and line not in found:
            found[line] = known.get(number, f"band{number}".lower())
    order = list(known)
    by_number = {line: line.removeprefix("FILE_NAME_BAND_") for line in found}
    return sorted(
        found.items(), key=lambda item: order.index(by_number[item[0]]) if by_number[item[0]] in order else len(order)
    )


def _factors(mtl: Mtl, number: str, level: str) -> tuple[float, float]:
    """Return factor and offset of a band: temperature or reflectance at L2, reflectance or radiance at L1."""
    if level.startswith("L2"):
        tries = [
            ("LEVEL2_SURFACE_TEMPERATURE_PARAMETERS", "TEMPERATURE"),
            ("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", "REFLECTANCE"),
        ]
    else:
        groups = ("LEVEL1_RADIOMETRIC_RESCALING", "RADIOMETRIC_RESCALING")
        tries = [(group, kind) for kind in ("REFLECTANCE", "RADIANCE") for group in groups]
    for group, kind in tries:
        found = mtl.factors(group, (f"{kind}_MULT_BAND_{number}", f"{kind}_ADD_BAND_{number}"))
        if found is not None:
            return found
    wanted = " or ".join(dict.fromkeys(f"{kind}_MULT_BAND_{number}" for _, kind in tries))
    raise broken(mtl.file, f"no line {wanted}", "factor and offset of each band")


def _layers(mtl: Mtl) -> tuple[tuple[LayerFile, ...], list[str]]:
    found, missing = [], []
    for line, name in _LAYERS.items():
        listed = mtl.get(line)
        if listed is None:
            continue
        there = find(folder_of(mtl.file), [listed], like=mtl.file)
        if there is None:
            missing.append(name)
        else:
            found.append(LayerFile(file=there, band=KNOWN.get(name.casefold(), ClassBand(name=name))))
    return tuple(found), missing


def _time(mtl: Mtl) -> str | None:
    day, time = mtl.get("DATE_ACQUIRED"), mtl.get("SCENE_CENTER_TIME")
    return day if day is None or time is None else f"{day}T{time}"


def _notes(mtl: Mtl, level: str, bands: list[str]) -> tuple[str, ...]:
    if level.startswith("L2"):
        return ()
    notes = []
    if any(not name.startswith("lwir") for name in bands):
        sun = mtl.get("SUN_ELEVATION")
        angle = "an elevation that the MTL does not state" if sun is None else f"{sun} degrees"
        notes.append(
            f"reflectance at the top of the atmosphere, not divided by the sine of the sun's elevation ({angle})"
        )
    if any(name.startswith("lwir") for name in bands):
        notes.append("thermal bands are radiances, W/(m2 sr um)")
    return tuple(notes)
