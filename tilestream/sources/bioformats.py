"""Stores of bioformats2raw: the OME-XML beside their series tells which show a label, and facts of the scan.

References
----------
NGFF 0.4 and 0.5, "bioformats2raw.layout".
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tilestream.errors import SourceError
from tilestream.sources.extras import Extras
from tilestream.sources.files import File
from tilestream.sources.omeextras import ome_facts
from tilestream.sources.ometiff import is_picture
from tilestream.sources.recognise import inside
from tilestream.sources.xmltree import parse_xml

METADATA = "OME/METADATA.ome.xml"
"""Description of all series, in their order."""


def split_series(root: File, paths: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the series that are images, and apart from them those that may show a label.

    Parameters
    ----------
    root : File
        Folder of the store.
    paths : sequence of str
        Path of each series in it.

    Returns
    -------
    tuple of str, dict of str
        Paths of images, and paths of pictures by name (`label`, `macro`). All are images where no OME-XML describes as
        many.
    """
    described = _described(root)
    if described is None or len(described) != len(paths):
        return tuple(paths), {}
    images, pictures = [], dict[str, str]()
    for path, image in zip(paths, described, strict=True):
        if is_picture(image):
            found = re.search("label|macro", image.get("Name", ""), re.IGNORECASE)
            pictures.setdefault(found[0].lower() if found else "label", path)
        else:
            images.append(path)
    return tuple(images), pictures


def with_scan_facts(extras: Extras, root: File, *, pictures: Mapping[str, str], series: int) -> Extras:
    """Return what a store says besides its pixels, with what its OME-XML says of one series.

    Parameters
    ----------
    extras : Extras
        What its attributes say.
    root : File
        Folder of the store.
    pictures : Mapping
        Path of each series that may show a label, by name.
    series : int
        Number of the image among those that can be chosen.

    Returns
    -------
    Extras
        The text of the XML is identifying.
    """
    tree = _tree(root)
    if tree is None:
        return extras
    file = inside(root, METADATA)
    text = file.read(0, file.size).decode("utf-8", "replace")
    technical: dict[str, Any] = {}
    if series < len([image for image in _images(tree) if not is_picture(image)]):
        technical = ome_facts(tree, series)
    return replace(
        extras,
        technical={**technical, **extras.technical},
        identifying={**extras.identifying, METADATA: text},
        identifying_images=(*extras.identifying_images, *pictures),
    )


def _described(root: File) -> list[ET.Element] | None:
    tree = _tree(root)
    return None if tree is None else _images(tree)


def _images(tree: ET.Element) -> list[ET.Element]:
    return [image for image in tree.findall("Image") if image.find("Pixels") is not None]


def _tree(root: File) -> ET.Element | None:
    """Return the OME-XML, None where there is none or it is broken: no pixel needs it."""
    file = inside(root, METADATA)
    try:
        return parse_xml(file) if file.exists else None
    except SourceError:
        return None
