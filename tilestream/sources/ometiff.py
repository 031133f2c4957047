"""OME-TIFF: which directory holds which plane, channel names and pixel size, from the OME-XML of the first directory.

References
----------
OME-TIFF specification 6.0 and OME schema 2016-06, https://docs.openmicroscopy.org/ome-model/.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

from tilestream.sources.tiffifd import Ifd, refuse
from tilestream.sources.tifflayout import Layout, add_picture
from tilestream.sources.tiffread import LevelTables
from tilestream.sources.tifftable import parse_table

_IDENTIFYING = re.compile(r"label|macro|barcode|slide ?id", re.IGNORECASE)
_UM = {
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "micrometer": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6,
    "Å": 1e-4, "pm": 1e-6, "km": 1e9, "in": 25400.0,
}  # fmt: skip
_MAX_PLANES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class OmeImage:
    """One image (series) of the XML."""

    sizes: dict[str, int]
    """Sizes by axis `z c t`; `c` counts stored planes, not samples."""
    planes: dict[tuple[int, int, int], int]
    """Directory number by (z, c, t); -1 for one in another file."""
    channels: tuple[str, ...]
    """Names, one a sample."""
    colors: tuple[str | None, ...]
    """Colours, one a sample, six hex digits."""
    mpp_yx: tuple[float, float] | None
    """Micrometres per pixel."""


def is_ome(description: str) -> bool:
    """Return whether a description is OME-XML."""
    return description.rstrip("\0 \r\n\t").endswith(("OME>", "OME-XML>")) or "<OME " in description[:4096]


def ome_layout(ifds: Sequence[Ifd], *, series: int, z: int, t: int) -> Layout:
    """Return one series of an OME-TIFF at one z and t, its channels together.

    Parameters
    ----------
    ifds : sequence of Ifd
        Main chain of directories.
    series, z, t : int
        Indices wanted.

    Returns
    -------
    Layout
        Levels from SubIFDs.

    Raises
    ------
    SourceError
        When the XML is broken, contradicts the directories, or names planes of another file.
    """
    file = ifds[0].header.file
    images, pictures = _images(ifds[0], file.name)
    if not images:
        raise refuse(file, got="OME-XML without an image", expected="at least one that is no label or macro image")
    if series >= len(images):
        raise refuse(file, got=f"{len(images)} images", expected=f"image {series}", do="Open it again.")
    image = images[series]
    numbers = [image.planes.get((z, c, t), -1) for c in range(image.sizes["c"])]
    if any(not 0 <= number < len(ifds) for number in numbers):
        raise refuse(
            file,
            got=f"planes at directories {numbers}, where -1 is another file, of {len(ifds)}",
            expected="all channels of the image in this file",
            do="Convert the set of files into one OME-TIFF or OME-Zarr.",
        )
    stacks = [[ifds[number], *ifds[number].children()] for number in numbers]
    tables = [[parse_table(ifd) for ifd in stack] for stack in stacks]
    levels = []
    for level in range(min(len(stack) for stack in tables)):
        planes = tuple(stack[level] for stack in tables)
        if len({(table.shape, table.block, table.dtype) for table in planes}) != 1:
            raise refuse(file, got=f"channels of different layout at level {level}", expected="one layout for all")
        if planes[0].same_kind == tables[0][0].same_kind:
            levels.append(LevelTables(tables=planes))
    sizes = {"series": len(images), "z": image.sizes["z"], "t": image.sizes["t"]}
    is_told = len(image.channels) == sum(table[0].samples for table in tables)
    return Layout(
        format="ome-tiff",
        ifd=stacks[0][0],
        levels=tuple(sorted(levels, key=lambda level: -level.tables[0].shape.area)),
        axes={name: size for name, size in sizes.items() if size > 1},
        channels=image.channels if is_told else (),
        colors=image.colors if is_told else (),
        mpp_yx=image.mpp_yx,
        identifying=_pictures(ifds, pictures),
    )


def _pictures(ifds: Sequence[Ifd], images: Sequence[tuple[str, OmeImage]]) -> dict[str, Ifd]:
    """Return the first directory of each image that may show a label, as far as it is in this file."""
    found: dict[str, Ifd] = {}
    for name, image in images:
        number = image.planes.get((0, 0, 0), -1)
        if 0 <= number < len(ifds):
            add_picture(found, ifds[number], name)
    return found


def ome_root(ifd: Ifd) -> ET.Element:
    """Return the root of the OME-XML of a directory, namespaces taken off.

    Parameters
    ----------
    ifd : Ifd
        First directory of the file.

    Returns
    -------
    Element
        `OME`.

    Raises
    ------
    SourceError
        When it does not parse.
    """
    try:
        root = ET.fromstring(ifd.data(270).rstrip(b"\0"))  # expat limits entity expansion by itself
    except ET.ParseError as error:
        raise refuse(
            ifd.header.file, got=f"OME-XML that does not parse: {error}", expected="well-formed XML"
        ) from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _images(ifd: Ifd, name: str) -> tuple[list[OmeImage], list[tuple[str, OmeImage]]]:
    """Return the images of the XML, and apart from them, with their names, those that may show a label."""
    file, root = ifd.header.file, ome_root(ifd)
    if root.find("BinaryOnly") is not None:
        raise refuse(
            file,
            got="OME-XML that only names another metadata file",
            expected="the metadata itself",
            do="Convert the set of files into one OME-TIFF or OME-Zarr.",
        )
    uuid = (root.get("UUID") or "").lower()
    images, pictures = [], []
    for element in root.findall("Image"):
        pixels, title = element.find("Pixels"), element.get("Name") or ""
        try:
            image = None if pixels is None else _image(pixels, name=name, uuid=uuid)
        except (ValueError, KeyError) as error:
            if is_picture(element):  # nobody asked for it
                continue
            raise refuse(file, got=f"OME-XML with {error!r}", expected="whole numbers for sizes and indices") from error
        if image is not None and is_picture(element):
            pictures.append((title, image))
        elif image is not None:
            images.append(image)
    return images, pictures


def is_picture(image: ET.Element) -> bool:
    """Return whether an image of the XML is one that may show a label.

    Parameters
    ----------
    image : Element
        `Image`.

    Returns
    -------
    bool
        By its name.
    """
    return bool(_IDENTIFYING.search(image.get("Name") or ""))


def _image(pixels: ET.Element, *, name: str, uuid: str) -> OmeImage:
    sizes = {axis: int(pixels.attrib[f"Size{axis.upper()}"]) for axis in "zct"}
    channels = pixels.findall("Channel")
    samples = [int(channel.get("SamplesPerPixel", "1")) for channel in channels] or [1] * sizes["c"]
    if sum(samples) != sizes["c"]:  # some writers leave SamplesPerPixel out for RGB
        samples = [sizes["c"] // max(1, len(samples))] * max(1, len(samples))
    sizes["c"] = len(samples)
    if min(sizes.values()) < 1 or sizes["z"] * sizes["c"] * sizes["t"] > _MAX_PLANES:
        raise ValueError(f"sizes {sizes}")
    names: list[str] = []
    colors: list[str | None] = []
    for index, count in enumerate(samples):
        own = channels[index] if index < len(channels) else ET.Element("Channel")
        names += list("RGB") if count == 3 else [own.get("Name") or f"channel{index}"] * count
        colors += [None if count == 3 else _color(own)] * count
    unique = names if len(set(names)) == len(names) else [f"{text}-{at}" for at, text in enumerate(names)]
    order = pixels.get("DimensionOrder", "XYZCT")[2:].lower()
    planes = _planes(pixels, sizes, order=order, name=name, uuid=uuid)
    return OmeImage(sizes=sizes, planes=planes, channels=tuple(unique), colors=tuple(colors), mpp_yx=_mpp(pixels))


def _color(channel: ET.Element) -> str | None:
    """Return a channel's colour as six hex digits; the schema packs R, G, B and alpha into a signed integer."""
    try:
        packed = int(channel.get("Color", ""))
    except ValueError:
        return None
    return f"{(packed >> 8) & 0xFFFFFF:06X}" if -(1 << 31) <= packed < 1 << 32 else None


def _planes(
    pixels: ET.Element, sizes: dict[str, int], *, order: str, name: str, uuid: str
) -> dict[tuple[int, int, int], int]:
    if sorted(order) != ["c", "t", "z"]:
        raise ValueError(f"DimensionOrder {order!r}")
    entries = pixels.findall("TiffData")
    total = sizes["z"] * sizes["c"] * sizes["t"]
    files = {(found.get("FileName") or "") for entry in entries if (found := entry.find("UUID")) is not None}
    planes: dict[tuple[int, int, int], int] = {}
    described = 0
    for entry in entries:
        first = {axis: int(entry.get(f"First{axis.upper()}", "0")) for axis in "zct"}
        count = min(int(entry.get("PlaneCount", total if entry.get("IFD") is None else 1)), total)
        described += count
        if described > 2 * total:
            raise ValueError(f"TiffData of more than {described - count} planes, there are {total}")
        where = entry.find("UUID")
        here = where is None or len(files) < 2 or where.get("FileName") == name
        here = here or (bool(uuid) and (where is not None and (where.text or "").strip().lower() == uuid))
        start, flat, step = int(entry.get("IFD", "0")), 0, 1
        for axis in order:
            flat, step = flat + first[axis] * step, step * sizes[axis]
        for at in range(count):
            index, left = {}, flat + at
            for axis in order:
                left, index[axis] = divmod(left, sizes[axis])
            if left == 0:
                planes[index["z"], index["c"], index["t"]] = start + at if here else -1
    return planes


def _mpp(pixels: ET.Element) -> tuple[float, float] | None:
    found = []
    for axis in "YX":
        factor = _UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        size = float(pixels.get(f"PhysicalSize{axis}") or 0)
        if factor is None or not size > 0 or size == float("inf"):
            return None
        found.append(size * factor)
    return found[0], found[1]
