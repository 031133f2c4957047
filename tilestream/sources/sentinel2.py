"""A Sentinel-2 product as one scene: a SAFE folder by its metadata, or a plain folder of its bands by their names.

Reflectance is `(stored + ADD_OFFSET) / QUANTIFICATION_VALUE`; the offset of -1000 came with processing baseline 04.00,
and 0 stays "no data" throughout.

References
----------
Sentinel-2 Products Specification Document 14.9 and 15.0; Sentinel-2 processing baseline 04.00 (25 January 2022).
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import replace

from tilestream.errors import SourceError
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
    joined,
    not_there,
)
from tilestream.sources.scenefacts import SAFE_NAMES, scene_facts
from tilestream.sources.xmltree import parse_xml
from tilestream.types import Channel

MTD = re.compile(r"MTD_MSI(L1C|L2A)\.xml")
"""Names of product metadata."""
BAND = re.compile(r"(?:(.*)_)?(B(?:0[1-9]|1[0-2]|8A)|SCL)(?:_(10|20|60)m)?\.(jp2|tif|tiff)", re.IGNORECASE)
"""Name of the file of a band: product, band, metres per pixel."""
EXTRA = re.compile(r"(?:.*_)?(TCI|AOT|WVP|PVI|MSK_\w+|preview)(_\d\dm)?\.(jp2|jpg|png|tif)", re.IGNORECASE)
"""Names of other images of a product: true colour, aerosol, water vapour, masks, previews."""
FOLDERS = ("R10m", "R20m", "R60m")
"""Where L2A products keep their bands."""
QUANTIFICATION = 10_000.0
"""Stored units of a reflectance of 1."""
OFFSET = -1000.0
"""Stored units that are added from processing baseline 04.00 on."""

_NATIVE = {
    "B01": ("coastal", 60), "B02": ("blue", 10), "B03": ("green", 10), "B04": ("red", 10), "B05": ("rededge1", 20),
    "B06": ("rededge2", 20), "B07": ("rededge3", 20), "B08": ("nir", 10), "B8A": ("nir08", 20), "B09": ("nir09", 60),
    "B10": ("cirrus", 60), "B11": ("swir16", 20), "B12": ("swir22", 20), "SCL": ("SCL", 20),
}  # fmt: skip
_SUFFIXES = ("jp2", "tif", "tiff", "TIF")
_BAND_IDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")


def is_loose(names: Iterable[str]) -> bool:
    """Return whether names of files are those of the bands of Sentinel-2.

    Parameters
    ----------
    names : iterable of str
        Entries of a folder.

    Returns
    -------
    bool
        True for two bands or more of which one has a name that no other mission gives (`B02`, `B8A`).
    """
    bands = {match[2].upper() for name in names if (match := BAND.fullmatch(name))} - {"SCL"}
    return len(bands) >= 2 and not bands <= {"B10", "B11", "B12"}


def safe_scene(file: File) -> Scene:
    """Return the scene that a product's metadata describes.

    Parameters
    ----------
    file : File
        `MTD_MSIL1C.xml` or `MTD_MSIL2A.xml`, with the granule below it, or with the bands beside it.

    Returns
    -------
    Scene
        Bands by common name, SCL at level 2A, and what is not there.

    Raises
    ------
    SourceError
        When the metadata is broken, contradicts itself or holds more than one granule.
    """
    root = parse_xml(file)
    match = MTD.fullmatch(file.name)
    product = match[1] if match else "L2A"
    paths = _listed(file, root)
    scale, offsets = _factors(file, root, product)
    there: dict[str, File] = {}
    for band, by_size in paths.items():
        order = sorted(by_size, key=lambda size: (size != _NATIVE[band][1], size))
        names = [name for size in order for name in _spellings(by_size[size])]
        found = find(folder_of(file), names, like=file)
        if found is not None:
            there[band] = found
    scene = _scene(
        there,
        product=product,
        factors={band: (scale, offsets.get(band, 0.0) * scale) for band in there},
        absent=[_NATIVE[band][0] for band in paths if band not in there],
        time=_text(root, "PRODUCT_START_TIME"),
        notes=(f"processing baseline {_baseline(file, root):05.2f}",),
    )
    return replace(scene, facts=scene_facts(((name, _text(root, name)) for name in SAFE_NAMES), SAFE_NAMES))


def _scene(
    there: Mapping[str, File],
    *,
    product: str,
    factors: Mapping[str, tuple[float, float]],
    absent: Iterable[str] = (),
    time: str | None = None,
    notes: tuple[str, ...] = (),
) -> Scene:
    bands = [
        BandFile(
            file=there[band], channel=Channel(name=name, scale=factors[band][0], offset=factors[band][1]), nodata=0
        )
        for band, (name, _) in _NATIVE.items()
        if band in there and band != "SCL"
    ]
    layers = [LayerFile(file=there["SCL"], band=KNOWN["scl"])] if "SCL" in there else []
    return Scene(
        format=f"sentinel2-{product.lower()}",
        bands=tuple(bands),
        layers=tuple(layers),
        absent=not_there(absent),
        datetime=iso_time(time),
        notes=notes,
    )


def _listed(file: File, root: ET.Element) -> dict[str, dict[int, str]]:
    """Return the relative path of each band by its pixel size, as the product lists them."""
    paths: dict[str, dict[int, str]] = {}
    granules = set()
    for element in [*root.iter("IMAGE_FILE"), *root.iter("IMAGE_FILE_2A")]:
        path = (element.text or "").strip()
        match = BAND.fullmatch(f"{path.rpartition('/')[2]}.jp2")
        if match is None or ".." in path.split("/") or path.startswith("/"):
            continue  # true colour, aerosol and water vapour; or a path that leaves the product
        band = match[2].upper()
        granules.add(path.rpartition("/IMG_DATA/")[0])
        paths.setdefault(band, {})[int(match[3] or _NATIVE[band][1])] = path
    if not paths:
        raise broken(file, "no IMAGE_FILE of a band", "the list of the product's images")
    if len(granules) > 1:
        raise SourceError.of(
            f"`{file.url}`",
            got=f"{len(granules)} granules: {', '.join(sorted(granules))}",
            expected="one granule a product, as since December 2016",
            do="Give the IMG_DATA folder of one of them.",
        )
    return paths


def _spellings(path: str) -> list[str]:
    """Return where a listed image may lie: in its place, or beside the metadata."""
    return [f"{place}.{suffix}" for place in (path, path.rpartition("/")[2]) for suffix in _SUFFIXES]


def _factors(file: File, root: ET.Element, product: str) -> tuple[float, dict[str, float]]:
    """Return the factor of all bands, and the offset of each in stored units."""
    name = "BOA_QUANTIFICATION_VALUE" if product == "L2A" else "QUANTIFICATION_VALUE"
    text = _text(root, name) or _text(root, "QUANTIFICATION_VALUE") or _text(root, "L2A_BOA_QUANTIFICATION_VALUE")
    quantification = _number(file, name, text)
    if quantification <= 0:
        raise broken(file, f"{name} {quantification:g}", "a number above 0")
    tag = "BOA_ADD_OFFSET" if product == "L2A" else "RADIO_ADD_OFFSET"
    offsets = {}
    for element in root.iter(tag):
        number = element.get("band_id", "")
        if not (number.isascii() and number.isdecimal() and int(number) < len(_BAND_IDS)):
            raise broken(file, f"{tag} of band_id `{number}`", f"0 to {len(_BAND_IDS) - 1}")
        offsets[_BAND_IDS[int(number)]] = _number(file, tag, element.text)
    baseline = _baseline(file, root)
    if bool(offsets) != (baseline >= 4):
        raise broken(
            file,
            f"processing baseline {baseline:05.2f} with {len(offsets)} offsets ({tag})",
            "offsets from baseline 04.00 on, and none before: this is a mixture",
        )
    return 1 / quantification, offsets


def _baseline(file: File, root: ET.Element) -> float:
    return _number(file, "PROCESSING_BASELINE", _text(root, "PROCESSING_BASELINE"))


def _text(root: ET.Element, name: str) -> str | None:
    element = next(root.iter(name), None)
    return None if element is None else (element.text or "").strip()


def _number(file: File, name: str, text: str | None) -> float:
    if text is None:
        raise broken(file, f"no {name}", "one in every product")
    return finite(file, name, text)


def loose_scene(folder: File, names: Iterable[str]) -> Scene:
    """Return the scene in a plain folder of bands, without the product's metadata.

    Parameters
    ----------
    folder : File
        The folder.
    names : iterable of str
        Relative paths of the files in it, those in `R10m`, `R20m` and `R60m` included.

    Returns
    -------
    Scene
        Bands with their values as stored: which offset they carry only the metadata says.

    Raises
    ------
    SourceError
        When the bands are of more than one product.
    """
    there: dict[str, tuple[bool, int, str]] = {}
    products: dict[str, str] = {}
    for name in sorted(names):
        match = BAND.fullmatch(name.rpartition("/")[2])
        if match is None:
            continue
        band = match[2].upper()
        inside = re.match(r"R(10|20|60)m/", name)
        size = int(match[3] or (inside[1] if inside else _NATIVE[band][1]))
        products.setdefault(match[1] or "", name)
        candidate = (size != _NATIVE[band][1], size, name)
        there[band] = min(there.get(band, candidate), candidate)
    if len(products) > 1:
        raise SourceError.of(
            f"`{folder.url}`",
            got=f"bands of {len(products)} products: {', '.join(list(products.values())[:3])} …",
            expected="the bands of one product",
            do="Give each product a folder of its own.",
        )
    files = {band: File(url=joined(folder.url, name), options=folder.options) for band, (*_, name) in there.items()}
    stem = next(iter(products), "")
    date = re.search(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)", stem)
    return _scene(
        files,
        product="bands",
        factors=dict.fromkeys(files, (1.0, 0.0)),
        time=f"{date[1]}-{date[2]}-{date[3]}T{date[4]}:{date[5]}:{date[6]}Z" if date else None,
        notes=("values are as stored: without MTD_MSIL1C.xml or MTD_MSIL2A.xml scale and offset are not known",),
    )
