"""One pyramid as one file: COG or OME-TIFF."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import tifffile

from tilestream import __version__
from tilestream.codecs.durable import durable_path, explained
from tilestream.errors import ConfigError
from tilestream.kernels.bands import cores
from tilestream.pipelines.export_squares import SquareSource
from tilestream.pipelines.level_plan import LevelPlan, plan_levels
from tilestream.pipelines.level_tiles import TileMaker, make_tiles
from tilestream.pyramid.pyramid import Pyramid
from tilestream.sinks.cog import CogWriter
from tilestream.sinks.facts import image_facts
from tilestream.sinks.geotags import band_items, place_tags
from tilestream.sinks.ometiff import OmeTiffWriter
from tilestream.sinks.omexml import ome_xml
from tilestream.sinks.tiffcodec import QUALITY, tile_codec
from tilestream.sinks.tiffdirectory import Value, rational, short, text, undefined
from tilestream.sinks.tiffpyramid import TILE_PX, TiffPyramid
from tilestream.sources.extras import read_extras
from tilestream.sources.fingerprint import digest
from tilestream.types import ImageInfo

Target: TypeAlias = Literal["cog", "ome-tiff"]
TARGETS: tuple[Target, ...] = get_args(Target)
FORMAT = 1
"""Version of what the files look like; part of their recipe."""
WHITE = 255
"""What OME-TIFF shows where a brightfield slide was not scanned: glass."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What files are made of pyramids."""

    to: Target
    """`cog` or `ome-tiff`."""
    codec: str = "deflate"
    """`deflate`, `zstd`, `lzw`, `none` or, for 8 bits and with loss, `jpeg`."""
    quality: int = QUALITY
    """Of JPEG, 1 to 100."""
    threads: int | None = None
    """Threads that read, reduce and code; None = one a core. No part of the recipe."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written."""

    path: Path
    """Where it is."""
    size_bytes: int
    """Its size."""
    levels: int
    """Levels in it."""
    damage: tuple[str, ...] = ()
    """Reason of each damaged block of the source."""
    notes: tuple[str, ...] = ()
    """What the format cannot hold."""


def export_pyramid(
    pyramid: Pyramid,
    path: Path,
    options: ExportOptions,
    *,
    name: str | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Exported:
    """Write a pyramid as one COG or OME-TIFF that appears when it is whole.

    Parameters
    ----------
    pyramid : Pyramid
        The image, of any source.
    path : Path
        File to write; a file of that name is replaced. Only one process at a time may write it.
    options : ExportOptions
        What to write.
    name : str, optional
        Name of the image in an OME-TIFF; that of the file by default.
    on_progress : callable
        Hears now and then which share of the pixels is done.

    Returns
    -------
    Exported
        What was written. Damaged blocks are not valid (COG) or black (OME-TIFF), and named.

    Raises
    ------
    ConfigError
        When the format or codec cannot hold such an image.
    OutputError
        When the file cannot be written; nothing is left behind then.
    """
    plan = plan_levels(pyramid, tile_px=TILE_PX)
    form = _Form.of(pyramid.info, options, plan, icc=read_extras(pyramid.source).icc)
    name = name or path.name
    form.tags(name)  # what cannot be written is refused before a pixel is read
    squares = SquareSource(
        pyramid=pyramid,
        plan=plan,
        dtype=form.tiff.dtype,
        nodata=form.tiff.nodata,
        fill=form.fill,
        shows_damage=options.to == "ome-tiff",
    )
    maker = TileMaker(plan=plan, read=squares.read, encode=form.tiff.encode, kind=pyramid.kind, fill=form.fill)
    total = sum(plan.shapes[level].area for level in range(len(plan.stored)))
    done, is_measured, damage = 0, True, list[str]()
    with durable_path(path) as partial, form.open(path, partial) as file:
        for made in make_tiles(maker, threads=options.threads or cores()):
            with explained(path):
                for tile in made.tiles:
                    file.add(tile)
            damage += made.damage
            done += made.pixels
            is_measured &= made.is_measured
            on_progress(done / total)
        with explained(path):
            size_bytes = file.finish(form.tags(name, damaged=len(damage)))
    return Exported(
        path=path,
        size_bytes=size_bytes,
        levels=len(plan.shapes),
        damage=tuple(damage),
        notes=form.notes(is_measured=is_measured),
    )


def recipe_digest(info: ImageInfo, options: ExportOptions) -> str:
    """Return the digest of all that the bytes of a file follow from.

    Parameters
    ----------
    info : ImageInfo
        What is known of the image.
    options : ExportOptions
        What is written.

    Returns
    -------
    str
        32 hex digits; equal for two runs that write the same file.
    """
    quality = options.quality if options.codec == "jpeg" else None
    return digest("export", FORMAT, __version__, image_facts(info), options.to, options.codec, quality)[:32]


def written_by_us(path: Path) -> str | None:
    """Return the digest of the recipe of a file that `export_pyramid` has written, None for any other.

    Parameters
    ----------
    path : Path
        Existing file.

    Returns
    -------
    str or None
        What `recipe_digest` gave.
    """
    try:
        with tifffile.TiffFile(path) as file:
            found = re.fullmatch(r"tilestream \S+ export ([0-9a-f]{32})", str(file.pages.first.software))
    except (OSError, ValueError, LookupError, tifffile.TiffFileError):
        return None
    return found[1] if found else None


@dataclass(frozen=True, kw_only=True)
class _Form:
    """What one image becomes."""

    info: ImageInfo
    """Description of the source, its samples those of the file."""
    options: ExportOptions
    tiff: TiffPyramid
    fill: float
    """Value of pixels that were not measured."""
    recipe: str
    icc: bytes | None
    """Colour profile of the source."""

    @classmethod
    def of(cls, info: ImageInfo, options: ExportOptions, plan: LevelPlan, *, icc: bytes | None) -> _Form:
        recipe = recipe_digest(info, options)
        info = replace(info, dtype=_stored_dtype(info, options))
        is_rgb, count = _is_rgb(info), len(info.channels)
        is_planar = options.to == "ome-tiff" and not is_rgb
        codec = tile_codec(
            options.codec,
            dtype=info.dtype,
            samples=1 if is_planar else count,
            kind=info.kind,
            is_rgb=is_rgb,
            quality=options.quality,
        )
        nodata = _nodata(info) if codec.is_lossless else None
        tiff = TiffPyramid(
            levels=plan.shapes,
            dtype=info.dtype,
            planes=tuple((c, c + 1) for c in range(count)) if is_planar else ((0, count),),
            codec=codec,
            nodata=nodata,
            masks=options.to == "cog" and nodata is None,
            skips_fill=options.to == "cog",
        )
        shows_glass = options.to == "ome-tiff" and info.modality == "brightfield" and info.dtype == np.uint8
        fill = nodata if nodata is not None else WHITE if shows_glass else 0
        return cls(info=info, options=options, tiff=tiff, fill=fill, recipe=recipe, icc=icc)

    def notes(self, *, is_measured: bool) -> tuple[str, ...]:
        """Return what the format cannot hold of this image."""
        notes = []
        if self.options.to == "ome-tiff" and self.tiff.nodata is None and not is_measured:
            notes.append(f"OME-TIFF cannot say which pixels were not measured: they are {self.fill:g}")
        if self.options.to == "ome-tiff" and any((c.scale, c.offset) != (1, 0) for c in self.info.channels):
            notes.append("OME-TIFF has no place for the scale and offset of channels: values are as stored")
        return tuple(notes)

    def open(self, path: Path, partial: Path) -> CogWriter | OmeTiffWriter:
        with explained(path):
            return (CogWriter if self.options.to == "cog" else OmeTiffWriter)(partial, self.tiff)

    def tags(self, name: str, *, damaged: int = 0) -> dict[int, Value]:
        """Return the tags of the whole image."""
        software = f"tilestream {__version__} export {self.recipe}"
        tags = {
            305: text(software),
            **(place_tags(self.info) if _is_on_earth(self.info) else _resolution_tags(self.info)),
        }
        if self.icc is not None:
            tags[34675] = undefined(self.icc)
        if self.info.datetime is not None:
            tags[306] = text(datetime.fromisoformat(self.info.datetime).strftime("%Y:%m:%d %H:%M:%S"))
        is_labels = self.info.kind == "labels"
        if self.options.to == "cog" or is_labels:  # OME-TIFF has no word for classes
            tags[42112] = text(band_items(self.info.channels, is_labels=is_labels, damaged=damaged))
        if self.options.to == "cog":
            return tags
        facts = {"source format": self.info.format, "source fingerprint": self.info.fingerprint}
        facts |= {"damaged blocks": str(damaged)} if damaged else {}
        xml = ome_xml(
            self.info, name=name, creator=software, identity=self.recipe, is_rgb=self.tiff.codec.is_rgb, facts=facts
        )
        return tags | {270: text(xml)}


def _stored_dtype(info: ImageInfo, options: ExportOptions) -> np.dtype[Any]:
    """Return the type of samples in the file: bool becomes uint8, byte order is the machine's."""
    dtype = np.dtype(np.uint8) if info.dtype == np.bool_ else info.dtype.newbyteorder("=")
    is_reducible = dtype.kind in "uif" and (dtype.itemsize < 8 or dtype.kind == "f" or info.kind == "labels")
    if not is_reducible:
        raise ConfigError.of(
            "export",
            got=f"samples of {info.dtype}",
            expected="floats, whole numbers of up to 32 bits, or class numbers",
            do="Convert them to such a type first.",
        )
    return dtype


def _is_rgb(info: ImageInfo) -> bool:
    names = tuple(channel.name.upper() for channel in info.channels)
    return names == ("R", "G", "B") and info.dtype.name in ("uint8", "uint16") and info.kind == "intensity"


def _nodata(info: ImageInfo) -> float | None:
    """Return the stored value that says that a pixel was not measured; floats that name none have NaN."""
    if info.dtype.kind == "f":
        return math.nan if info.nodata is None else info.nodata
    if info.nodata is None or not float(info.nodata).is_integer():
        return None
    limits = np.iinfo(info.dtype)
    return info.nodata if limits.min <= info.nodata <= limits.max else None


def _is_on_earth(info: ImageInfo) -> bool:
    """Return whether an affine leads to a map; that of a slide in OME-Zarr says no more than its pixel size."""
    return info.crs is not None or info.mpp_yx is None


def _resolution_tags(info: ImageInfo) -> dict[int, Value]:
    """Return pixels per centimetre, which readers of plain TIFF know."""
    if info.mpp_yx is None:
        return {}
    y, x = (1e4 / mpp for mpp in info.mpp_yx)
    return {282: rational(x), 283: rational(y), 296: short(3)}
