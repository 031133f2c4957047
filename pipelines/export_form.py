"""What an image becomes in a file: type of samples, planes, codec, nodata, and all that its first directory says."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from tilestream import __version__
from tilestream.errors import ConfigError
from tilestream.pipelines.level_plan import LevelPlan
from tilestream.sinks.facts import image_facts
from tilestream.sinks.geotags import band_items, place_tags
from tilestream.sinks.jpegform import JpegForm
from tilestream.sinks.omexml import ome_xml
from tilestream.sinks.tiffcodec import QUALITY, TileCodec, copied_codec, tile_codec
from tilestream.sinks.tiffdirectory import Value, rational, short, text, undefined
from tilestream.sinks.tiffpyramid import TiffPyramid
from tilestream.sources.fingerprint import digest
from tilestream.types import ImageInfo

Target: TypeAlias = Literal["cog", "ome-tiff"]
TARGETS: tuple[Target, ...] = get_args(Target)
COPY = "copy"
"""The codec that codes only what is not stored as JPEG already."""
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
    """`deflate`, `zstd`, `lzw`, `none`; with loss `jpeg`; or `copy`, JPEG tiles of the source as they are stored."""
    quality: int = QUALITY
    """Of JPEG, 1 to 100."""
    threads: int | None = None
    """Threads that read, reduce and code; None = one a core. No part of the recipe."""


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
    quality = options.quality if options.codec in ("jpeg", COPY) else None
    return digest("export", FORMAT, __version__, image_facts(info), options.to, options.codec, quality)[:32]


@dataclass(frozen=True, kw_only=True)
class FileForm:
    """What one image becomes; made by `file_form`."""

    info: ImageInfo
    """Description of the source, its samples those of the file."""
    options: ExportOptions
    """What is written."""
    tiff: TiffPyramid
    """Levels, planes and codec."""
    fill: float
    """Value of pixels that were not measured."""
    recipe: str
    """Digest of what the file follows from."""
    icc: bytes | None
    """Colour profile of the source."""

    def notes(self, *, is_measured: bool, recoded: int) -> tuple[str, ...]:
        """Return what a user should know of the file.

        Parameters
        ----------
        is_measured : bool
            Whether all pixels were.
        recoded : int
            Tiles that were to be copied and could not.

        Returns
        -------
        tuple of str
            One sentence each.
        """
        notes = []
        if recoded:
            notes.append(f"tiles that are stored in another form than the others and were coded anew: {recoded:,}")
        if self.options.to == "ome-tiff" and self.tiff.nodata is None and not is_measured:
            notes.append(f"OME-TIFF cannot say which pixels were not measured: {self.fill:g}, or 0 where damaged")
        if self.options.to == "ome-tiff" and any((c.scale, c.offset) != (1, 0) for c in self.info.channels):
            notes.append("OME-TIFF has no place for the scale and offset of channels: values are as stored")
        return tuple(notes)

    def tags(self, name: str, *, damaged: int = 0) -> dict[int, Value]:
        """Return the tags of the whole image.

        Parameters
        ----------
        name : str
            Name of the image in an OME-TIFF.
        damaged : int
            Damaged blocks.

        Returns
        -------
        dict
            Values by code.

        Raises
        ------
        ConfigError
            When the format cannot hold such an image.
        """
        software = f"tilestream {__version__} export {self.recipe}"
        tags = {
            305: text(software),
            **(place_tags(self.info) if _is_on_earth(self.info) else _resolution_tags(self.info)),
        }
        if self.icc is not None:
            tags[34675] = undefined(self.icc)
        if self.info.datetime is not None:
            with suppress(ValueError):  # a range of dates is none that TIFF can hold
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


def file_form(
    info: ImageInfo,
    options: ExportOptions,
    plan: LevelPlan,
    *,
    icc: bytes | None = None,
    copied: JpegForm | None = None,
) -> FileForm:
    """Return what an image becomes.

    Parameters
    ----------
    info : ImageInfo
        What is known of the image.
    options : ExportOptions
        What is written.
    plan : LevelPlan
        Levels of the file.
    icc : bytes, optional
        Colour profile.
    copied : JpegForm, optional
        That of tiles which are copied.

    Returns
    -------
    FileForm
        With a codec that fits the samples.

    Raises
    ------
    ConfigError
        When the codec cannot hold such samples.
    """
    recipe = recipe_digest(info, options)
    info = replace(info, dtype=_stored_dtype(info))
    is_rgb, count = _is_rgb(info) if copied is None else copied.components == 3, len(info.channels)
    is_planar = options.to == "ome-tiff" and not is_rgb
    samples = 1 if is_planar else count
    if copied is None:
        codec = tile_codec(
            options.codec, dtype=info.dtype, samples=samples, kind=info.kind, is_rgb=is_rgb, quality=options.quality
        )
    else:
        codec = _copied_codec(copied, samples=samples, quality=options.quality)
    nodata = _nodata(info) if codec.is_lossless else None
    tiff = TiffPyramid(
        levels=plan.shapes,
        dtype=info.dtype,
        planes=tuple((c, c + 1) for c in range(count)) if is_planar else ((0, count),),
        codec=codec,
        tile_px=plan.tile_px,
        nodata=nodata,
        masks=options.to == "cog" and nodata is None,
        skips_fill=options.to == "cog",
    )
    shows_glass = options.to == "ome-tiff" and info.modality == "brightfield" and info.dtype == np.uint8
    fill = nodata if nodata is not None else WHITE if shows_glass else 0
    return FileForm(info=info, options=options, tiff=tiff, fill=fill, recipe=recipe, icc=icc)


def _copied_codec(form: JpegForm, *, samples: int, quality: int) -> TileCodec:
    if form.components != samples:
        raise ConfigError.of(
            "codec `copy`",
            got=f"tiles of {form.components} channel, to be stored in tiles of {samples}",
            expected="as many in both",
            do="Export to OME-TIFF, which keeps channels apart, or choose another codec.",
        )
    return copied_codec(form, quality=quality)


def _stored_dtype(info: ImageInfo) -> np.dtype[Any]:
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
