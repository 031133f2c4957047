"""Metadata of Zarr images: OME-Zarr 0.1 to 0.6, GeoZarr multiscales, plates and series, read from their JSON documents.

References
----------
NGFF specification, https://ngff.openmicroscopy.org; Zarr conventions `multiscales`, `spatial` and `proj`,
https://github.com/zarr-conventions.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tilestream.errors import DamagedError, SourceError
from tilestream.sources.files import File
from tilestream.sources.recognise import LFS_MAGIC, inside, lfs_pointer
from tilestream.sources.zarrtransforms import derived_factor, pixel_yx, scale_of, times, translation_of
from tilestream.types import Channel

MOST_DOCUMENT_BYTES = 16 << 20
"""A larger metadata document is refused: consolidated metadata of a real store is far smaller."""
NEWEST_ZARR, NEWEST_OME = (3, 0), (0, 6)
"""Newest versions of Zarr and OME-Zarr that are known here."""
LABEL_WORDS = frozenset({"label", "labels", "segmentation", "segmentations", "mask", "masks"})
"""A multiscale image whose metadata give it one of these names holds class numbers, not intensities."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One Zarr group or array as its documents describe it."""

    file: File
    """Its folder."""
    is_array: bool
    """Array or group."""
    attrs: Mapping[str, Any]
    """User attributes."""
    documents: tuple[bytes, ...]
    """Raw documents, for the fingerprint."""
    dims: tuple[str, ...] = ()
    """Names of the axes of an array, empty when it names none."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a multiscale image."""

    name: str
    """Name; `c` for any channel axis."""
    unit: object = None
    """Unit as written."""


@dataclass(frozen=True, kw_only=True)
class Multiscale:
    """The levels of one image in a Zarr group."""

    version: str
    """`ome-zarr-0.4`, `geozarr`, `zarr` …"""
    paths: tuple[str, ...]
    """Relative path of each level's array, finest first."""
    axes: tuple[Axis, ...] = ()
    """Axes; empty when the arrays must say."""
    scales: tuple[tuple[float, ...] | None, ...] = ()
    """Physical size of a pixel along each axis for each level, None where nothing is said."""
    translations: tuple[tuple[float, ...] | None, ...] = ()
    """Place of the centre of each level's first pixel, in units of its scale, None where nothing is said."""
    factors: tuple[tuple[float, float] | None, ...] = ()
    """Pixels of the finest level in one of each level along y and x, as GeoZarr states them; empty for OME-Zarr."""
    channels: tuple[Channel, ...] = ()
    """Channels with the names, colours and windows that are stated; empty when none are."""
    is_labels: bool = False
    """Whether the metadata say that samples are class numbers."""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """Attributes of the group."""
    notes: tuple[str, ...] = ()
    """For users."""


def read_node(file: File) -> Node | None:
    """Return a Zarr group or array of either format, None where there is none.

    Parameters
    ----------
    file : File
        Its folder.

    Returns
    -------
    Node or None
        Kind, attributes and documents.

    Raises
    ------
    SourceError
        When a document is a Git LFS pointer, no JSON, absurdly large, or of a format that is not known yet.
    """
    main = _document(file, "zarr.json")
    if main is not None:
        content = _parsed(file, "zarr.json", main)
        dims = tuple(str(name) for name in _listed(content.get("dimension_names")) if name)
        attrs = _mapping(content.get("attributes"))
        _require_known(file, "OME-Zarr", _mapping(attrs.get("ome")).get("version"), NEWEST_OME)
        return Node(file=file, is_array=content.get("node_type") == "array", attrs=attrs, documents=(main,), dims=dims)
    array, group, attributes = (_document(file, name) for name in (".zarray", ".zgroup", ".zattrs"))
    documents = tuple(document for document in (array, group, attributes) if document is not None)
    if not documents:
        return None
    for name, document in ((".zarray", array), (".zgroup", group)):
        if document is not None:
            _parsed(file, name, document)
    attrs = _parsed(file, ".zattrs", attributes) if attributes is not None else {}
    dims = tuple(map(str, _listed(attrs.get("_ARRAY_DIMENSIONS"))))
    return Node(file=file, is_array=array is not None, attrs=attrs, documents=documents, dims=dims)


def _document(file: File, name: str) -> bytes | None:
    document = inside(file, name)
    try:
        if document.is_local:  # told apart: none of that name, and one that may not be read
            return document.read_whole(MOST_DOCUMENT_BYTES)
        if not document.exists:
            return None
        if document.size > MOST_DOCUMENT_BYTES:
            raise DamagedError(f"{document.size:,} bytes")
        return document.read(0, document.size)
    except DamagedError as error:
        raise SourceError.of(
            f"`{document.url}`",
            got=f"more than {MOST_DOCUMENT_BYTES:,} bytes",
            expected="a metadata document",
            do="Check the store.",
        ) from error


def _parsed(file: File, name: str, document: bytes) -> dict[str, Any]:
    if document.startswith(LFS_MAGIC):
        raise lfs_pointer(inside(file, name).url)
    try:
        content = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise SourceError.of(
            f"`{inside(file, name).url}`",
            got=f"{len(document)} bytes that are no JSON ({error})",
            expected="a Zarr metadata document",
            do="Copy the store again.",
        ) from error
    if not isinstance(content, dict):
        raise SourceError.of(
            f"`{inside(file, name).url}`", got="JSON that is no object", expected="Zarr metadata", do="Check the store."
        )
    _require_known(file, "Zarr format", content.get("zarr_format"), NEWEST_ZARR)
    return content


def _require_known(file: File, name: str, found: Any, newest: tuple[int, int]) -> None:
    """Raise `SourceError` for a version of a format that came after what is known here; odd texts pass."""
    numbers = re.match(r"(\d+)(?:\.(\d+))?", str(found))
    if numbers is not None and (int(numbers[1]), int(numbers[2] or 0)) > newest:
        raise SourceError.of(
            f"`{file.url}`",
            got=f"{name} {found}",
            expected=f"version {newest[0]}.{newest[1]} at most",
            do="Install a newer tilestream, or have the store written in an older version.",
        )


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def checked_path(file: File, path: str) -> str:
    """Return the path of a group or array that metadata name, when it stays inside their folder.

    Parameters
    ----------
    file : File
        Folder of the metadata.
    path : str
        Relative path.

    Returns
    -------
    str
        The same path.

    Raises
    ------
    SourceError
        When it leads out of the folder: a store must not make others' images its own.
    """
    if path.startswith("/") or not {".", ".."}.isdisjoint(path.split("/")):
        raise SourceError.of(
            f"`{file.url}`", got=f"metadata that name `{path}`", expected="paths in the store", do="Check the store."
        )
    return path


def multiscale_of(node: Node) -> Multiscale | None:
    """Return the levels that a group's metadata describe, None when they describe none.

    Parameters
    ----------
    node : Node
        A group.

    Returns
    -------
    Multiscale or None
        OME-Zarr's first multiscale image, or GeoZarr's layout.

    Raises
    ------
    SourceError
        When the metadata break the rules of the format.
    """
    ome = _ome(node)
    described = ome.get("multiscales")
    try:
        if isinstance(described, Mapping):
            return _geozarr(described, node.attrs)
        return _ome_zarr(ome, described, node.attrs) if described else None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise SourceError.of(
            f"`{node.file.url}`",
            got=f"multiscales metadata that break the format ({type(error).__name__}: {error})",
            expected="the `multiscales` of OME-Zarr or GeoZarr",
            do="Check the store with a validator of its format.",
        ) from error


def _ome(node: Node) -> Mapping[str, Any]:
    ome = node.attrs.get("ome")
    return ome if isinstance(ome, Mapping) else node.attrs


def _ome_zarr(ome: Mapping[str, Any], described: Sequence[Any], attrs: Mapping[str, Any]) -> Multiscale:
    first = described[0]
    axes = _axes(first)
    whole = scale_of(first.get("coordinateTransformations"), len(axes))
    scales, translations = [], []
    if not first["datasets"]:
        raise ValueError("no datasets")
    for dataset in first["datasets"]:
        own = scale_of(dataset.get("coordinateTransformations"), len(axes))
        moved = translation_of(dataset.get("coordinateTransformations"), len(axes))
        translations.append(moved if moved is None or whole is None else times(moved, whole))
        scales.append(own if own is None or whole is None else times(own, whole))
    notes = (f"{len(described)} multiscale images in one group: the first is used",) if len(described) > 1 else ()
    name = str(first.get("name") or "").rpartition("/")[2]
    is_labels = "image-label" in ome or "image-label" in attrs
    if not is_labels and name.lower() in LABEL_WORDS:
        is_labels, notes = True, (*notes, f"taken as labels: its metadata call it `{name}`")
    omero = ome.get("omero") or {}
    return Multiscale(
        version=f"ome-zarr-{ome.get('version') or first.get('version') or '0.1'}",
        paths=tuple(str(dataset["path"]).strip("/") for dataset in first["datasets"]),
        axes=axes,
        scales=tuple(scales),
        translations=tuple(translations),
        channels=tuple(_channel(channel, index) for index, channel in enumerate(omero.get("channels") or ())),
        is_labels=is_labels,
        attrs=attrs,
        notes=notes,
    )


def _channel(described: Mapping[str, Any], index: int) -> Channel:
    """Return a channel of `omero`; a colour or window that breaks the format is one that is not stated."""
    color, window = described.get("color"), _mapping(described.get("window"))
    low: Any = window.get("start")
    high: Any = window.get("end")
    is_color = isinstance(color, str) and re.fullmatch("[0-9A-Fa-f]{6}", color)
    is_range = all(isinstance(value, int | float) and math.isfinite(value) for value in (low, high)) and low < high
    return Channel(
        name=str(described.get("label", index)),
        color=str(color).upper() if is_color else None,
        window=(float(low), float(high)) if is_range else None,
    )


def _axes(first: Mapping[str, Any]) -> tuple[Axis, ...]:
    described = first.get("axes")
    if described is None and first.get("coordinateSystems"):  # 0.6
        described = first["coordinateSystems"][0]["axes"]
    if described is None:  # 0.1 and 0.2 had five axes in one order
        described = list("tczyx")
    axes = []
    for axis in described:
        if isinstance(axis, str):  # 0.3
            axes.append(Axis(name=axis))
        else:
            axes.append(Axis(name="c" if axis.get("type") == "channel" else str(axis["name"]), unit=axis.get("unit")))
    return tuple(axes)


def _geozarr(described: Mapping[str, Any], attrs: Mapping[str, Any]) -> Multiscale:
    layout = described["layout"]
    names = [str(entry["asset"]) for entry in layout]
    factors: dict[str, tuple[float, float] | None] = {}
    first = pixel_yx(layout[0]) if layout else None
    for name, entry in zip(names, layout, strict=True):
        own = pixel_yx(entry)
        if first and own:  # the transform is the complete and authoritative one
            factors[name] = (own[0] / first[0], own[1] / first[1])
        else:
            factors[name] = (1.0, 1.0) if name == names[0] else derived_factor(entry, factors)
    return Multiscale(
        version="geozarr",
        paths=tuple(name.strip("/") for name in names),
        factors=tuple(factors[name] for name in names),
        attrs=attrs,
    )


def collection_of(node: Node) -> tuple[str, tuple[str, ...]] | None:
    """Return the images that a group holds side by side, None when it is no such collection.

    Parameters
    ----------
    node : Node
        A group without levels of its own.

    Returns
    -------
    tuple of str and tuple of str, or None
        Axis on which one is chosen (`series`, `well`, `field`, `label`) and the path of each.
    """
    ome = _ome(node)
    if isinstance(plate := ome.get("plate"), Mapping):
        return "well", _paths(plate.get("wells"))
    if isinstance(well := ome.get("well"), Mapping):
        return "field", _paths(well.get("images"))
    if isinstance(labels := ome.get("labels"), list) and labels:
        return "label", tuple(map(str, labels))
    if "bioformats2raw.layout" in ome:
        listed = _listed_series(node.file)
        return "series", listed or tuple(_numbered(node.file))
    return None


def _paths(entries: Any) -> tuple[str, ...]:
    return tuple(str(entry["path"]) for entry in entries or () if isinstance(entry, Mapping) and "path" in entry)


def _listed_series(file: File) -> tuple[str, ...]:
    listing = read_node(inside(file, "OME"))
    series = _ome(listing).get("series") if listing is not None else None
    return tuple(map(str, series)) if isinstance(series, list) else ()


def _numbered(file: File) -> list[str]:
    found: list[str] = []
    while read_node(inside(file, str(len(found)))) is not None:
        found.append(str(len(found)))
    return found
