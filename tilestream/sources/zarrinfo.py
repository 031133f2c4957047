"""The description of a Zarr image: levels, axes, pixel size, place and kind, from metadata and array shapes."""

from __future__ import annotations

import base64
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tilestream.codecs.durable import PARTIAL_SUFFIX
from tilestream.errors import SourceError
from tilestream.sources.address import default_notes
from tilestream.sources.crs import short_crs
from tilestream.sources.files import File
from tilestream.sources.fingerprint import PIECES, digest, file_pieces
from tilestream.sources.grids import Affine, um_per_unit
from tilestream.sources.ngff import Axis, Multiscale, Node, multiscale_of, read_node
from tilestream.sources.ownstore import with_own_facts
from tilestream.sources.recognise import inside, list_folder
from tilestream.sources.samples import (
    canonical_dims,
    default_names,
    extra_axes,
    guess_dims,
    unique_names,
    validity_of,
)
from tilestream.sources.zarrextras import SAFE, pictures
from tilestream.sources.zarrlevels import ArrayForm, stored_levels
from tilestream.types import Channel, ImageInfo, Kind

MOST_LISTED = 4096
"""Chunk files whose sizes enter the fingerprint, coarsest level first."""


@dataclass(frozen=True, kw_only=True)
class Described:
    """An image's description with the axes of its arrays."""

    info: ImageInfo
    """Description with index 0 on each extra axis."""
    dims: tuple[str, ...]
    """Canonical names of the arrays' axes."""


def levels_of(node: Node) -> Multiscale:
    """Return which arrays of a node are the levels of its image.

    Parameters
    ----------
    node : Node
        A group or an array.

    Returns
    -------
    Multiscale
        What its metadata say, else the numbered arrays in it, else its only image array.

    Raises
    ------
    SourceError
        When there is no image in it, or several that no metadata bring together.
    """
    if node.is_array:
        return Multiscale(version="zarr", paths=("",), attrs=node.attrs)
    described = multiscale_of(node)
    if described is not None and described.version != "geozarr":
        return described
    paths = described.paths if described else _child_paths(node.file)
    at = {name: _array_at(node.file, name) for name in paths}
    found = [path for path in at.values() if path is not None]
    numbered = [path for path in found if _number(path) is not None]
    levels = found if described or len(found) == 1 else sorted(numbered, key=lambda path: _number(path) or 0)
    if not levels:
        raise SourceError.of(
            f"`{node.file.url}`",
            got=f"a group with {sorted(found)[:8] or 'no arrays of two or more axes'} and no multiscales metadata",
            expected="one image: OME-Zarr, GeoZarr, or arrays named 0, 1, 2 …",
            do="Give the path of one array or image group in it.",
        )
    version = described.version if described else "zarr"
    factors = dict(zip(described.paths, described.factors, strict=True)) if described else {}
    return Multiscale(
        version=version,
        paths=tuple(levels),
        factors=tuple(factors[name] for name, path in at.items() if path is not None) if described else (),
        attrs=node.attrs,
    )


def _child_paths(file: File) -> list[str]:
    folder = list_folder(file)
    return sorted(name for name in (folder.names if folder else ()) if not name.startswith(".") and name != "zarr.json")


def _number(path: str) -> int | None:
    name = path.partition("/")[0].removeprefix("scale").removeprefix("s")
    return int(name) if name.isascii() and name.isdigit() else None


def _array_at(file: File, name: str) -> str | None:
    """Return the path of the image array at `name`: itself, or the only one in the group of that name."""
    node = read_node(inside(file, name))
    if node is None:
        return None
    if node.is_array:
        return name if _ndim(node) >= 2 else None
    children = [child for child in _child_paths(node.file) if _is_image(inside(node.file, child))]
    return f"{name}/{children[0]}" if len(children) == 1 else None


def _is_image(file: File) -> bool:
    node = read_node(file)
    return node is not None and node.is_array and _ndim(node) >= 2


def _ndim(node: Node) -> int:
    shape = json.loads(node.documents[0]).get("shape")
    return len(shape) if isinstance(shape, list) else 0


def describe(node: Node, image: Multiscale, arrays: Sequence[ArrayForm], nodes: Sequence[Node | None]) -> Described:
    """Return the description of an image.

    Parameters
    ----------
    node : Node
        Group or array of the image.
    image : Multiscale
        Its levels.
    arrays : sequence of ArrayForm
        The array of each level.
    nodes : sequence of Node or None
        Metadata of each.

    Returns
    -------
    Described
        Description and axes.

    Raises
    ------
    SourceError
        When the arrays cannot be levels of one image of numbers.
    """
    first = arrays[0]
    dims = _dims(node, image, arrays, nodes[0])
    sizes = dict(zip(dims, first.shape, strict=True))
    levels, notes = stored_levels(image, arrays, dims)
    attrs = {**image.attrs, **(nodes[0].attrs if nodes[0] else {})}
    crs, affine = _place(attrs, image.attrs, node)
    mpp_yx = _mpp(image, dims) if crs is None else None  # a scene's pixel size is that of its affine
    if mpp_yx is None and affine is None:
        notes += ("pixel size unknown: the metadata state no unit of length",)
    nodata = _nodata(attrs, image, nodes[0])
    kind, hints = _kind(node, image, first.dtype)
    extra = extra_axes(sizes)
    info = ImageInfo(
        format=image.version,
        levels=levels,
        dtype=first.dtype.newbyteorder("="),
        channels=_channels(image, attrs, sizes.get("c", 1), first.dtype),
        fingerprint=_fingerprint(node, image, nodes),
        kind=kind,
        modality="scene" if crs else "unknown",
        mpp_yx=mpp_yx,
        crs=crs,
        affine=affine,
        nodata=nodata,
        validity=validity_of(nodata, first.dtype),
        axes=sizes,
        associated=(SAFE,) if SAFE in pictures(image.attrs) else (),
        selection=dict.fromkeys(extra, 0),
        notes=(*image.notes, *notes, *hints, *default_notes(extra, {})),
    )
    return Described(info=with_own_facts(info, node), dims=dims)


def _dims(node: Node, image: Multiscale, arrays: Sequence[ArrayForm], first: Node | None) -> tuple[str, ...]:
    shapes = [array.shape for array in arrays]
    dims = tuple(axis.name for axis in image.axes) or (first.dims if first else ())
    if len(dims) != len(shapes[0]) and not image.axes:
        dims = guess_dims(shapes[0])
    if "tile" in dims:
        raise SourceError.of(
            f"`{node.file.url}`",
            got=f"a table on {dims}, as `tilestream embed` stores features",
            expected="an image",
            do="Give the image; features are opened by `ts.open_cohort(folder)` and by plain xarray.",
        )
    names = canonical_dims(dims)
    fits = all(len(shape) == len(names) for shape in shapes) and not any(0 in shape for shape in shapes)
    if not fits or arrays[0].dtype.kind not in "buif" or any(array.dtype != arrays[0].dtype for array in arrays):
        raise SourceError.of(
            f"`{node.file.url}`",
            got=f"arrays of shapes {shapes} and type {arrays[0].dtype} on axes {dims}",
            expected="levels of one image: real numbers of one type, as many axes as named, none empty",
            do="Check the store.",
        )
    return names


def _mpp(image: Multiscale, dims: tuple[str, ...]) -> tuple[float, float] | None:
    if not image.scales or image.scales[0] is None:
        return None
    axes: dict[str, tuple[Axis, float]] = {
        name: (axis, scale) for name, axis, scale in zip(dims, image.axes, image.scales[0], strict=True)
    }
    (y, scale_y), (x, scale_x) = axes["y"], axes["x"]
    um_y, um_x = um_per_unit(y.unit), um_per_unit(x.unit)
    return (scale_y * um_y, scale_x * um_x) if um_y and um_x else None


def _place(attrs: Mapping[str, Any], group_attrs: Mapping[str, Any], node: Node) -> tuple[str | None, Affine | None]:
    """Return CRS and affine by the conventions `proj:` and `spatial:`, else by a CF grid mapping beside the array."""
    text = next((attrs[name] for name in ("proj:code", "proj:wkt2") if isinstance(attrs.get(name), str)), None)
    mapping = read_node(inside(node.file, str(attrs.get("grid_mapping") or "spatial_ref"))) if text is None else None
    if mapping is not None:
        text = mapping.attrs.get("crs_wkt") or mapping.attrs.get("spatial_ref")
    affine: Affine | None = None
    try:
        if "spatial:transform" in attrs:
            a, b, c, d, e, f = (float(value) for value in attrs["spatial:transform"][:6])
            affine = (a, b, c, d, e, f)
        elif mapping is not None and "GeoTransform" in mapping.attrs:
            c, a, b, f, d, e = (float(value) for value in str(mapping.attrs["GeoTransform"]).split())
            affine = (a, b, c, d, e, f)
    except (TypeError, ValueError):
        affine = None
    if text is None and affine is not None and affine[1:4] == (0, 0, 0) and affine[5] == 0 and affine[4] > 0:
        affine = None  # no place on Earth, but the pixel size of a slide from its own corner
    return (short_crs(text) if isinstance(text, str) else None), affine


def _channels(image: Multiscale, attrs: Mapping[str, Any], size: int, dtype: np.dtype[Any]) -> tuple[Channel, ...]:
    given = image.channels if len(image.channels) == size else ()
    names = unique_names([channel.name for channel in given] or list(default_names(size, dtype)))
    scale, offset = _number_in(attrs, "scale_factor"), _number_in(attrs, "add_offset")
    stated = given or tuple(Channel(name=name) for name in names)
    return tuple(
        replace(channel, name=name, scale=1.0 if scale is None else scale, offset=0.0 if offset is None else offset)
        for name, channel in zip(names, stated, strict=True)
    )


def _number_in(attrs: Mapping[str, Any], *names: str) -> float | None:
    for name in names:
        value = attrs.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def _nodata(attrs: Mapping[str, Any], image: Multiscale, level: Node | None) -> float | None:
    """Return the value that means "no measurement" by the rules of CF as xarray and GDAL write them to Zarr.

    Zarr 3 holds it as an attribute, floats as base64 of a little-endian double. In Zarr 2 the array's own fill value
    is it, where the array names its dimensions as xarray does; that of OME-Zarr only says what absent chunks hold.
    """
    text = attrs.get("_FillValue")
    if isinstance(text, str):
        try:
            return float(struct.unpack("<d", base64.b64decode(text, validate=True))[0])
        except (ValueError, struct.error):
            attrs = {**attrs, "_FillValue": _as_number(text)}
    stated = _number_in(attrs, "_FillValue", "missing_value", "nodata")
    if (
        stated is not None
        or level is None
        or image.version.startswith("ome-")
        or "_ARRAY_DIMENSIONS" not in level.attrs
    ):
        return stated
    array = json.loads(level.documents[0])
    value = array.get("fill_value") if array.get("zarr_format") == 2 else None
    return _number_in({"fill_value": _as_number(value)}, "fill_value")


def _as_number(value: Any) -> Any:
    """Return a text such as `NaN` or `-9999` as a number, anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return None


def _kind(node: Node, image: Multiscale, dtype: np.dtype[Any]) -> tuple[Kind, tuple[str, ...]]:
    """Return `labels` where the metadata say so; a telling file name is only worth a hint."""
    if dtype.kind not in "bui":
        return "intensity", ()
    if image.is_labels or "flag_values" in image.attrs:
        return "labels", ()
    words = set(node.file.name.lower().replace("-", ".").replace("_", ".").split("."))
    if words & {"label", "labels", "segmentation", "segmentations", "mask", "masks"}:
        return "intensity", ("its metadata call it an image; if it holds class numbers, open it with #kind=labels",)
    return "intensity", ()


def _fingerprint(node: Node, image: Multiscale, nodes: Sequence[Node | None]) -> str:
    """Return the hash of all documents and, for a local store, of up to 4,096 sizes and some pieces of chunk files."""
    documents = [document for level in (node, *nodes) if level for document in level.documents]
    listing: list[tuple[str, int]] = []
    pieces: list[bytes] = []
    if node.file.is_local:
        for path in reversed(image.paths):
            listed = _sizes(Path(node.file.path) / path, MOST_LISTED - len(listing))
            listing += listed
            pieces += _pieces(inside(node.file, path), [name for name, nbytes in listed if nbytes])
    return digest("zarr", *documents, listing, *pieces)


def _pieces(level: File, names: list[str]) -> Iterator[bytes]:
    for name in names[:: max(1, len(names) // PIECES)]:
        file = inside(level, name)
        if file.exists:
            yield from file_pieces(file, max(1, PIECES // len(names)))


def _sizes(folder: Path, most: int) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        inner = os.path.relpath(place, folder).replace(os.sep, "/")
        start = "" if inner == "." else f"{inner}/"
        for name in sorted(names):
            if len(found) >= most:
                return found
            if name.endswith(PARTIAL_SUFFIX):
                continue  # in the making
            try:
                nbytes = os.stat(f"{place}/{name}").st_size
            except OSError:  # a link may lead nowhere
                nbytes = 0
            found.append((start + name, nbytes))
    return found
