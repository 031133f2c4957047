"""The metadata of a pyramid store: what stands in its groups and arrays, and in its root when all else is there."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numcodecs import Zstd

from tilestream import __version__
from tilestream.codecs.metadata import ZSTD_LEVEL, Layout, array_metadata, encode_fill, group_metadata, inner_codecs
from tilestream.sinks.layout import StoreLayout, storable
from tilestream.sinks.ome import (
    Affine,
    CellGrid,
    geo_attributes,
    grid_mapping_attributes,
    ome_attributes,
    ome_channel,
    place_attributes,
)
from tilestream.sinks.omelabels import flag_attributes, image_label
from tilestream.sinks.tree import OWNER
from tilestream.types import Array, Channel, ClassBand, ImageInfo

FORMAT = 1
"""Version of the layout of the store; readers refuse a newer one."""
STORE = "pyramid"
"""What kind of store of ours it is."""
RGB = {"red": "FF0000", "green": "00FF00", "blue": "0000FF", "R": "FF0000", "G": "00FF00", "B": "0000FF"}
"""Colours of channels that are named after them."""
PALETTE = ("00FFFF", "FF00FF", "FFFF00", "FF8000", "8000FF", "00FF80", "FFFFFF")
"""Colours of the other channels where nothing states them."""
SHOWN = 4
"""Most channels that viewers show at first."""


def grid_of_image(info: ImageInfo, layout: StoreLayout) -> CellGrid:
    """Return where the pixels of an image lie, on the image that they were made of."""
    height, width = layout.cell_yx
    mpp_yx, affine = info.mpp_yx, info.affine
    return CellGrid(
        shape=layout.levels[0].shape,
        size_yx=layout.cell_yx,
        corner_yx=(0.0, 0.0),
        mpp_yx=None if mpp_yx is None else (mpp_yx[0] / height, mpp_yx[1] / width),
        crs=info.crs,
        affine=None if affine is None else scaled_affine(affine, (1 / height, 1 / width)),
    )


def scaled_affine(affine: Affine, factor_yx: tuple[float, float]) -> Affine:
    """Return the affine of pixels that are larger by a factor and have the same first corner."""
    (a, b, c, d, e, f), (height, width) = affine, factor_yx
    return (a * width, b * height, c, d * width, e * height, f)


def nodes(info: ImageInfo, layout: StoreLayout, *, prefix: str = "", band: ClassBand | None = None) -> dict[str, Any]:
    """Return the metadata documents of the levels of an image, the image's own group left out.

    Parameters
    ----------
    info : ImageInfo
        The image.
    layout : StoreLayout
        Its arrays.
    prefix : str
        Path of the image in the store, with a slash at its end.
    band : ClassBand, optional
        What the numbers mean, for a mask or class raster below `labels/`.

    Returns
    -------
    dict
        `zarr.json` by path.
    """
    grid = grid_of_image(info, layout)
    found: dict[str, Any] = {}
    for level in layout.levels:
        path, place = f"{prefix}{level.index}", place_attributes(grid, level.shape, level.scale_yx)
        found[path] = group_metadata(place)
        attributes = {**place, **(_values(info) if band is None else flag_attributes(band))}
        if grid.is_placed:
            attributes["grid_mapping"] = "spatial_ref"
            found[f"{path}/spatial_ref"] = _scalar(
                grid_mapping_attributes(grid, level.scale_yx, is_full=not layout.has_shards)
            )
        found[f"{path}/image"] = layout.metadata(level, attributes)
    return found


def _values(info: ImageInfo) -> dict[str, Any]:
    """Return the CF attributes of samples: what is missing, and how stored values become physical ones."""
    attributes: dict[str, Any] = {}
    void = info.nodata
    if void is None and info.dtype.kind == "f":
        void = math.nan
    if void is not None:
        attributes["_FillValue"] = encode_missing(void, info.dtype)
    attributes |= _flags(info)
    scales = {(channel.scale, channel.offset) for channel in info.channels}
    if len(scales) == 1 and scales != {(1.0, 0.0)} and info.kind == "intensity":
        attributes["scale_factor"], attributes["add_offset"] = scales.pop()
    return attributes


def _flags(info: ImageInfo) -> dict[str, Any]:
    """Return what the numbers of an image of labels mean, where that is known."""
    return flag_attributes(info.classes[0]) if info.kind == "labels" and info.classes else {}


def encode_missing(value: float, dtype: np.dtype[Any]) -> Any:
    """Return a `_FillValue` attribute as xarray writes it to Zarr 3: floats as base64 of a little-endian double."""
    if dtype.kind == "f":
        return base64.b64encode(struct.pack("<d", value)).decode()
    return encode_fill(value, dtype)


def _scalar(attributes: Mapping[str, Any]) -> dict[str, Any]:
    layout = Layout(grid_shape=(), codecs=tuple(inner_codecs(np.dtype("int64"))))
    return array_metadata((), "int64", layout=layout, dimension_names=(), attributes=attributes)


def coordinates(info: ImageInfo, layout: StoreLayout) -> Iterator[tuple[str, dict[str, Any], Array]]:
    """Yield the centres of rows and columns of each level as path, metadata and values.

    Readers such as GDAL before 3.13 know a place by these alone. A rotated image has none.

    Parameters
    ----------
    info : ImageInfo
        The image.
    layout : StoreLayout
        Its arrays.

    Yields
    ------
    tuple of str, dict, ndarray
        float64 values, to be stored as one chunk.
    """
    grid = grid_of_image(info, layout)
    for level in layout.levels:
        a, b, c, d, e, f = grid.transform(level.scale_yx)
        if b or d:
            return
        for axis, size, first, step in (("y", level.shape.y, f, e), ("x", level.shape.x, c, a)):
            values = first + (np.arange(size) + 0.5) * step
            unit = grid.unit or (None if grid.is_placed else "px")
            attributes = {"axis": axis.upper(), **({} if unit is None else {"units": unit})}
            form = Layout(grid_shape=(max(1, size),), codecs=tuple(inner_codecs(np.dtype("float64"))))
            yield (
                f"{level.index}/{axis}",
                array_metadata(
                    (size,), "float64", layout=form, dimension_names=(axis,), fill_value=math.nan, attributes=attributes
                ),
                values,
            )


def root_attributes(
    info: ImageInfo, layout: StoreLayout, *, owner: Mapping[str, Any], windows: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    """Return the attributes of the root, which make the store one that readers know.

    Parameters
    ----------
    info : ImageInfo
        The image.
    layout : StoreLayout
        Its arrays.
    owner : Mapping
        Our own record, see `owner_record`.
    windows : sequence of tuple
        Values shown as darkest and brightest, for each channel.

    Returns
    -------
    dict
        OME, GeoZarr and our own keys.
    """
    grid = grid_of_image(info, layout)
    factors, indices = [level.scale_yx for level in layout.levels], [level.index for level in layout.levels]
    method = reduction_of(layout, info)
    channels = omero_channels(info.channels, windows) if "c" in layout.dims else []
    shapes = [level.shape for level in layout.levels]
    return {
        OWNER: dict(owner),
        **_flags(info),
        "ome": ome_attributes("image", grid, factors, channels=channels, method=method, indices=indices),
        **geo_attributes(grid, shapes, factors, method=_GEO_METHODS[method[0]], indices=indices),
    }


_GEO_METHODS = {"mean": "average", "mode": "mode", "source": "nearest"}


def reduction_of(layout: StoreLayout, info: ImageInfo) -> tuple[str, str]:
    """Return name and description of how the coarse levels of a store were made."""
    made = [level for level in layout.levels if level.copied is None and level.index]
    if info.kind == "labels":
        return "mode", "Most frequent class under a pixel"
    if not made:
        return "source", "Levels as the source has them"
    return "mean", "Mean of the valid level-0 pixels under a pixel, each four levels from exact sums; ties to even"


def omero_channels(channels: Sequence[Channel], windows: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    """Return what viewers need to know of each channel.

    Parameters
    ----------
    channels : sequence of Channel
        In stored order.
    windows : sequence of tuple
        Values shown as darkest and brightest.

    Returns
    -------
    list of dict
        `omero.channels`.
    """
    named = [channel.color or RGB.get(channel.name) for channel in channels]
    is_colour = {"FF0000", "00FF00", "0000FF"} <= {name for name in named if name}
    spare = iter(PALETTE * (1 + len(channels) // len(PALETTE)))
    entries = []
    for number, (channel, color, window) in enumerate(zip(channels, named, windows, strict=True)):
        shown = color in RGB.values() if is_colour else number < SHOWN
        color = color or ("FFFFFF" if len(channels) == 1 else next(spare))
        entries.append(ome_channel(channel.name, color=color, window=window, active=shown))
    return entries


def owner_record(
    info: ImageInfo, *, profile: str, recipe_digest: str, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return our own record of a store.

    Parameters
    ----------
    info : ImageInfo
        The image.
    profile : str
        How it is stored.
    recipe_digest : str
        Digest of all that the store is a function of.
    more : Mapping, optional
        What is known when all is written: maps of shards, damage, profile of colours, technical facts.

    Returns
    -------
    dict
        JSON values.
    """
    image = {
        "format": info.format,
        "fingerprint": info.fingerprint,
        "kind": info.kind,
        "modality": info.modality,
        "mpp_yx": None if info.mpp_yx is None else list(info.mpp_yx),
        "crs": info.crs,
        "affine": None if info.affine is None else list(info.affine),
        "gcps": [list(point) for point in info.gcps],
        "nodata": None if info.nodata is None else encode_fill(info.nodata, np.dtype("float64")),
        "selection": dict(info.selection),
        "datetime": info.datetime,
        "derived": list(info.derived),
        "channels": [asdict(channel) for channel in info.channels],
    }
    return {
        "store": STORE,
        "format": FORMAT,
        "version": __version__,
        "profile": profile,
        "recipe_digest": recipe_digest,
        "image": image,
        **(more or {}),
    }


def display_windows(info: ImageInfo, pixels: Array | None) -> list[tuple[float, float]]:
    """Return the values shown as darkest and brightest for each channel.

    Parameters
    ----------
    info : ImageInfo
        The image.
    pixels : ndarray, optional
        `(y, x, c)` of the coarsest level, invalid ones as NaN; not needed for 8 bits.

    Returns
    -------
    list of tuple
        What a channel states, the whole range of 8 bits, else from the 1st to the 99th percentile.
    """
    return [_window(info, number, pixels) for number in range(len(info.channels))]


def _window(info: ImageInfo, number: int, pixels: Array | None) -> tuple[float, float]:
    stated = info.channels[number].window
    if stated is not None:
        return stated
    if info.dtype == np.uint8 or pixels is None:
        return 0.0, 255.0
    known = pixels[..., number]
    known = known[np.isfinite(known)]
    low, high = (float(n) for n in np.percentile(known, (1, 99))) if known.size else (0.0, 1.0)
    return low, high if high > low else low + 1.0


def label_attributes(info: ImageInfo, layout: StoreLayout, band: ClassBand) -> dict[str, Any]:
    """Return the attributes of the group of a mask or class raster below `labels/`.

    Parameters
    ----------
    info : ImageInfo
        The raster, or the image of a mask.
    layout : StoreLayout
        Its arrays.
    band : ClassBand
        What the numbers mean.

    Returns
    -------
    dict
        OME-Zarr 0.5, section "labels", and GeoZarr.
    """
    grid, factors = grid_of_image(info, layout), [level.scale_yx for level in layout.levels]
    shapes, indices = [level.shape for level in layout.levels], [level.index for level in layout.levels]
    method = "mode", "Most frequent class under a pixel"
    ome = ome_attributes(band.name, grid, factors, channels=[], method=method, indices=indices)
    return {
        "ome": {**ome, "image-label": image_label(band)},
        **geo_attributes(grid, shapes, factors, method="mode", indices=indices),
    }


def picture(pixels: Array) -> tuple[dict[str, Any], bytes]:
    """Return a small picture as an array of one chunk: its metadata and that chunk.

    Parameters
    ----------
    pixels : ndarray
        `(y, x, c)`.

    Returns
    -------
    dict and bytes
        Axes c, y, x; the chunk lies at `c/0/0/0`.
    """
    shape, dtype = (pixels.shape[2], *pixels.shape[:2]), storable(pixels.dtype)
    layout = Layout(grid_shape=shape, codecs=tuple(inner_codecs(dtype)))
    return (
        array_metadata(shape, dtype, layout=layout, dimension_names=("c", "y", "x")),
        encode_values(pixels.transpose(2, 0, 1).astype(dtype, copy=False)),
    )


def encode_values(values: Array) -> bytes:
    """Return an array as the bytes of its one chunk."""
    compressed: bytes = Zstd(level=ZSTD_LEVEL, checksum=True).encode(np.ascontiguousarray(values))
    return compressed
