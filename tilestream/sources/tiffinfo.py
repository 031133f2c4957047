"""The description of a TIFF image: channels, pixel size, place on Earth, nodata, kind and what lights it."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tilestream.sources import tifftable as tt
from tilestream.sources.address import default_notes
from tilestream.sources.fingerprint import digest, file_edges, file_pieces
from tilestream.sources.geokeys import GeoReference, read_georeference
from tilestream.sources.samples import default_names, unique_names, validity_of
from tilestream.sources.scales import level_scale, stretched_scale
from tilestream.sources.tiffifd import Ifd
from tilestream.sources.tifflayout import Layout
from tilestream.sources.tiffread import LevelReader, alpha_samples
from tilestream.sources.tifftable import TileTable
from tilestream.types import Channel, ImageInfo, Level, Modality

MAX_MICROSCOPE_UM = 100.0
"""A resolution in pixels per centimetre is believed to be a microscope's below this pixel size, µm; 72 dpi is 353."""


@dataclass(frozen=True, kw_only=True)
class GdalItems:
    """What GDAL's own metadata says of bands."""

    scale: Mapping[int, float]
    """Factor by sample."""
    offset: Mapping[int, float]
    """Offset by sample."""
    name: Mapping[int, str]
    """Description by sample."""
    thematic: frozenset[int]
    """Samples whose values are classes."""


def describe(layout: Layout, *, selection: Mapping[str, int], chosen: Mapping[str, int]) -> tuple[ImageInfo, bool]:
    """Return the description of the selected image, and whether palette numbers are kept as classes.

    Parameters
    ----------
    layout : Layout
        The selected image.
    selection : Mapping
        Index on each axis that is chosen on.
    chosen : Mapping
        Those that the user gave; each other axis gets a note.

    Returns
    -------
    ImageInfo, bool
        Description and whether the samples are class numbers.
    """
    table, place = layout.levels[0].tables[0], read_georeference(layout.ifd)
    is_class_raster = table.palette is not None and place.exists
    notes = [*default_notes(layout.axes, chosen), *layout.notes, *table.notes, *place.notes]
    nodata = _nodata(layout.ifd, table, notes)
    mpp_yx = _mpp(layout, place)
    if mpp_yx is None and not place.exists:
        notes.append("the pixel size (mpp) is not known")
    channels = _channels(layout, is_class_raster=is_class_raster, place=place)
    base, scale_of = table.shape, stretched_scale if place.exists else level_scale
    levels = tuple(
        Level(index=index, shape=t.shape, block=t.block, scale_yx=scale_of(base, t.shape))
        for index, t in enumerate(level.tables[0] for level in layout.levels)
    )
    dtype = np.dtype("u1") if table.palette is not None and not is_class_raster else table.dtype
    info = ImageInfo(
        format=_format(layout, place),
        levels=levels,
        dtype=dtype,
        channels=channels,
        fingerprint=_fingerprint(layout),
        kind="labels" if is_class_raster or _is_thematic(layout.ifd, table) else "intensity",
        modality=_modality(layout, place, mpp_yx),
        mpp_yx=mpp_yx,
        crs=place.crs,
        affine=place.affine,
        gcps=place.gcps,
        nodata=nodata,
        validity=validity_of(nodata, dtype, has_mask=_has_mask(layout, nodata, is_class_raster=is_class_raster)),
        axes={**layout.axes, "c": len(channels), "y": base.y, "x": base.x},
        selection=dict(selection),
        associated=() if layout.thumbnail is None else ("thumbnail",),
    )
    notes += [*_kind_notes(info), *_colour_notes(table, is_class_raster)]
    return replace(info, notes=tuple(dict.fromkeys(notes))), is_class_raster


def _has_mask(layout: Layout, nodata: float | None, *, is_class_raster: bool) -> bool:
    """Return whether more than the samples that are given says which were measured.

    Where tiles are not stored, a nodata value can stand for them; where values are inverted or looked up in a palette,
    it is none of those that are given.
    """
    level = layout.levels[0]
    table = level.tables[0]
    is_changed = LevelReader.changes_values(table, keep_classes=is_class_raster)
    is_sparse = any(not table.counts.all() or not table.offsets.all() for table in level.tables)
    by_value = is_changed if nodata is not None else is_sparse
    return level.mask is not None or bool(alpha_samples(table)) or by_value


def _format(layout: Layout, place: GeoReference) -> str:
    if layout.format != "tiff" or not place.exists:
        return layout.format
    return "cog" if layout.levels[0].tables[0].tiled and len(layout.levels) > 1 else "geotiff"


def _kind_notes(info: ImageInfo) -> list[str]:
    if info.kind == "labels":
        return ["a georeferenced image with a colour table: its numbers are classes (labels)"]
    if info.modality == "scene" and info.dtype == np.uint8 and len(info.channels) == 1:
        return ["one band of 8 bits is taken as intensity: choose #kind=labels if its numbers are classes"]
    return []


def _colour_notes(table: TileTable, is_class_raster: bool) -> list[str]:
    notes = []
    if table.photometric == tt.MINISWHITE:
        inverted = table.dtype.kind == "u"
        notes.append("white is stored as 0: values are " + ("inverted" if inverted else "left as they are stored"))
    if table.palette is not None and not is_class_raster:
        notes.append("a palette image is expanded to RGB")
    if table.orientation != 1:
        notes.append(f"orientation {table.orientation} is stated: pixels are left as they are stored")
    if 1 in table.extra and alpha_samples(table):
        notes.append("colours are premultiplied with alpha and left so")
    return notes


def _channels(layout: Layout, *, is_class_raster: bool, place: GeoReference) -> tuple[Channel, ...]:
    table = layout.levels[0].tables[0]
    if table.palette is not None:
        return tuple(Channel(name=name) for name in (["class"] if is_class_raster else "RGB"))
    kept = [index for index in range(table.samples) if index not in alpha_samples(table)]
    if layout.channels and len(layout.levels[0].tables) == 1:
        names = [layout.channels[index] for index in kept]
    elif layout.channels:
        names = list(layout.channels)
    elif table.photometric in (tt.RGB, tt.YCBCR) and len(kept) >= 3:
        names = ["R", "G", "B", *(f"c{index}" for index in kept[3:])]
    else:
        count = len(kept) * len(layout.levels[0].tables)
        names = [f"band{index + 1}" for index in kept] if place.exists else list(default_names(count, table.dtype))
    items, colors = _gdal_items(layout.ifd), dict(enumerate(layout.colors))
    if len(layout.levels[0].tables) == 1:
        names = [items.name.get(index) or name for index, name in zip(kept, names, strict=True)]
        return tuple(
            Channel(
                name=name,
                scale=items.scale.get(index, 1.0),
                offset=items.offset.get(index, 0.0),
                color=colors.get(index),
            )
            for index, name in zip(kept, unique_names(names), strict=True)
        )
    return tuple(Channel(name=name, color=colors.get(index)) for index, name in enumerate(unique_names(names)))


def _gdal_items(ifd: Ifd) -> GdalItems:
    found: dict[str, dict[int, str]] = {"scale": {}, "offset": {}, "description": {}, "layer": {}}
    text = ifd.text(42112)
    try:
        root = ET.fromstring(text) if text else None  # expat limits entity expansion by itself
    except ET.ParseError:
        root = None
    for item in [] if root is None else root.iter("Item"):
        role = "layer" if item.get("name") == "LAYER_TYPE" else item.get("role", "")
        sample = item.get("sample", "0")
        if role in found and sample.isascii() and sample.isdecimal():
            found[role][int(sample)] = (item.text or "").strip()
    return GdalItems(
        scale=_numbers(found["scale"]),
        offset=_numbers(found["offset"]),
        name=found["description"],
        thematic=frozenset(sample for sample, word in found["layer"].items() if word == "thematic"),
    )


def _is_thematic(ifd: Ifd, table: TileTable) -> bool:
    """Return whether GDAL's item LAYER_TYPE says of every sample that its numbers are classes."""
    is_whole = table.dtype.kind in "ui" and table.palette is None
    return is_whole and _gdal_items(ifd).thematic >= frozenset(range(table.samples))


def _numbers(texts: Mapping[int, str]) -> dict[int, float]:
    values = {}
    for sample, text in texts.items():
        try:
            values[sample] = float(text)
        except ValueError:
            continue
    return values


def _nodata(ifd: Ifd, table: TileTable, notes: list[str]) -> float | None:
    text = ifd.text(42113)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        notes.append(f"nodata {text!r} is not a number and is ignored")
        return None
    if table.dtype.kind == "f":
        return value
    limits = np.iinfo(table.dtype)
    if not math.isfinite(value) or value != int(value) or not limits.min <= value <= limits.max:
        notes.append(f"nodata {text} does not occur in {table.dtype} and is ignored")
        return None
    return value


def _mpp(layout: Layout, place: GeoReference) -> tuple[float, float] | None:
    if layout.mpp_yx is not None or place.exists:
        return layout.mpp_yx
    if layout.ifd.one(296, 2) != 3:  # dots per inch are about print, even where they look small enough
        return None
    sizes = []
    for code in (283, 282):
        per_cm = (layout.ifd.floats(code) or (0.0,))[0]
        if not per_cm > 1e4 / MAX_MICROSCOPE_UM or per_cm > 1e8:
            return None
        sizes.append(1e4 / per_cm)
    return sizes[0], sizes[1]


def _modality(layout: Layout, place: GeoReference, mpp_yx: tuple[float, float] | None) -> Modality:
    table = layout.levels[0].tables[0]
    is_rgb8 = table.dtype == np.uint8 and table.photometric in (tt.RGB, tt.YCBCR) and table.samples >= 3
    if place.exists:
        return "scene"
    is_slide = layout.format in ("aperio-svs", "ome-tiff", "qptiff") or (mpp_yx is not None and len(layout.levels) > 1)
    if is_rgb8 and is_slide:
        return "brightfield"
    is_stained = layout.format == "qptiff" or (layout.format == "ome-tiff" and len(layout.channels) > 1)
    if is_stained and not is_rgb8:
        return "fluorescence"
    return "unknown"


def _fingerprint(layout: Layout) -> str:
    file = layout.ifd.header.file
    parts: list[object] = list(file_edges(file))
    if layout.levels[0].tables[0].compression == tt.NONE:
        parts += file_pieces(file)
    for level in layout.levels:
        for table in (*level.tables, *(() if level.mask is None else (level.mask,))):
            parts += [table.file.size, table.shape, table.piece, table.compression, table.predictor, table.photometric]
            parts += [table.jpeg_tables or b"", table.offsets.tobytes(), table.counts.astype("u8").tobytes()]
    return digest(*parts)
