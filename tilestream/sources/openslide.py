"""Slides that only OpenSlide reads (NDPI, MRXS, VMS, VMU, BIF, SCN, Philips, Sakura), as a grid of virtual blocks.

OpenSlide positions are pixels of level 0 and are divided by the level's downsample, so a window that starts between
two pixels of its level is interpolated. The blocks are therefore laid so that each starts on a whole pixel; where the
downsample allows none (4.0002…), blocks are the 4096 px pieces into which OpenSlide itself cuts a large region. Either
way the blocks are bit-equal to one `read_region` of the whole level. OpenSlide checks streams as its JPEG library
does: a cut file fails to open or to read, a flipped bit may pass.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from openslide import OpenSlide, OpenSlideCache, OpenSlideError, OpenSlideUnsupportedFormatError

from tilestream.errors import DamagedError, SourceError
from tilestream.metrics import count, timed
from tilestream.sources.address import checked_index
from tilestream.sources.extras import Extras
from tilestream.sources.files import File
from tilestream.sources.fingerprint import digest, file_edges
from tilestream.sources.scales import level_scale
from tilestream.types import Array, Block, Box, Channel, ImageInfo, Level, Modality, Shape

BLOCK_PX = 1024
"""Edge of a virtual block: large against OpenSlide's cost a call, 3 MiB decoded."""
PIECE_PX = 4096
"""Edge of the pieces into which OpenSlide cuts a region; a fixed number in its source (`openslide_read_region`)."""
HANDLES = 4
"""Slides kept open in one thread."""
CACHE_BYTES = 32 << 20
"""OpenSlide's own tile cache, one for all handles of a process: it only has to bridge neighbouring blocks."""
SAFE_ASSOCIATED = frozenset({"thumbnail"})
"""Associated images that show the scanned area only; everything else may hold a label."""


ALWAYS_WHOLE = frozenset({"hamamatsu"})
"""Vendors whose formats have no way to leave a tile out; of all others OpenSlide's alpha may say so."""


class _Pool(threading.local):
    """Open slides of one thread, dropped after a fork."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.slides: dict[str, OpenSlide] = {}

    def get(self, path: str) -> OpenSlide:
        if self.pid != os.getpid():
            self.pid, self.slides = os.getpid(), {}
        slide = self.slides.pop(path, None)
        if slide is None:
            slide = _open(path)
            while len(self.slides) >= HANDLES:
                self.slides.pop(next(iter(self.slides))).close()
        self.slides[path] = slide  # last used last
        return slide

    def drop(self, path: str) -> None:
        slide = self.slides.pop(path, None)
        if slide is not None:
            slide.close()


_pool = _Pool()
_caches: dict[int, OpenSlideCache] = {}


def _open(path: str) -> OpenSlide:
    try:
        slide = OpenSlide(path)
    except (OpenSlideError, OpenSlideUnsupportedFormatError, OSError) as error:
        raise SourceError.of(
            f"`{path}`",
            got=str(error) or "a file that OpenSlide does not know",
            expected="a slide that OpenSlide reads",
            do="Check that the file, and for MRXS and VMS its companion files, are complete.",
        ) from error
    # setdefault is atomic; a forked child makes its own, since the parent's may be locked
    slide.set_cache(_caches.setdefault(os.getpid(), OpenSlideCache(CACHE_BYTES)))
    return slide


@dataclass(frozen=True, kw_only=True)
class OpenSlideSource:
    """One slide read through OpenSlide, with one handle a thread."""

    file: File
    """The slide's main file; local."""

    @cached_property
    def info(self) -> ImageInfo:
        """Return what OpenSlide says of the slide."""
        return _describe(self.file, _pool.get(self.file.path))

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block:
        """Return one block; pixels that were never scanned (alpha 0) are not valid.

        Parameters
        ----------
        level, iy, ix : int
            Level, and row and column in its grid of blocks.
        out : ndarray, optional
            Not used: what is decoded here does not fit into a caller's buffer as it is.

        Returns
        -------
        Block
            Pixels `(y, x, 3)` uint8, cropped at the edges of the level.

        Raises
        ------
        DamagedError
            When OpenSlide fails on it; the handle is reopened by the next call, since OpenSlide keeps failing on one
            that has failed.
        """
        stored = self.info.levels[level]
        y, x = iy * stored.block.y, ix * stored.block.x
        height, width = min(stored.block.y, stored.shape.y - y), min(stored.block.x, stored.shape.x - x)
        slide = _pool.get(self.file.path)
        try:
            downsample = slide.level_downsamples[level]  # by which OpenSlide divides positions of level 0
            with timed("decode"):
                rgba = np.asarray(slide.read_region((int(x * downsample), int(y * downsample)), level, (width, height)))
        except OpenSlideError as error:
            _pool.drop(self.file.path)
            raise DamagedError(f"OpenSlide: {error}") from error
        count("blocks_decoded")
        scanned = rgba[..., 3] > 0
        pixels = np.ascontiguousarray(rgba[..., :3])
        return Block(pixels=pixels, valid=None if scanned.all() else scanned)

    def isel(self, **index: int) -> OpenSlideSource:
        """Return the source itself: OpenSlide shows no extra axes."""
        checked_index(index, {})
        return self

    def read_associated(self, name: str) -> Array:
        """Return an associated image `(y, x, 3)`; label and macro images are refused."""
        if name not in self.info.associated:
            raise SourceError.of(
                f"associated image `{name}`",
                got=f"a request on `{self.file.name}`",
                expected=f"one of {list(self.info.associated)}",
                do="Label and macro images can identify a patient: only `ingest --keep-identifying` copies them.",
            )
        return np.asarray(_pool.get(self.file.path).associated_images[name].convert("RGB"))

    def read_extras(self) -> Extras:
        """Return what OpenSlide's properties say besides the pixels."""
        from tilestream.sources.openslideextras import openslide_extras

        slide = _pool.get(self.file.path)
        names = tuple(sorted(set(slide.associated_images) - SAFE_ASSOCIATED))
        return openslide_extras(slide, identifying_images=names)

    def read_identifying(self, name: str) -> Array:
        """Return a picture `(y, x, 3)` that may show a label; only for users who said that they want it."""
        try:
            return np.asarray(_pool.get(self.file.path).associated_images[name].convert("RGB"))
        except OpenSlideError as error:
            _pool.drop(self.file.path)
            raise DamagedError(f"associated image `{name}`: OpenSlide: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def open_openslide(file: File) -> OpenSlideSource:
    """Return a slide read through OpenSlide.

    Parameters
    ----------
    file : File
        Main file of the slide.

    Returns
    -------
    OpenSlideSource
        Ready to read; its header has been parsed once.

    Raises
    ------
    SourceError
        When the file is remote, unknown to OpenSlide or incomplete.
    """
    if not file.is_local:
        raise SourceError.of(
            f"`{file.url}`",
            got="a remote file of a format that only OpenSlide reads",
            expected="a local path",
            do="Copy it, with its companion files, to a local disk.",
        )
    source = OpenSlideSource(file=file)
    _ = source.info
    return source


def detect(file: File) -> str | None:
    """Return the vendor that OpenSlide sees in a local file, None when it knows none.

    Parameters
    ----------
    file : File
        Any file.

    Returns
    -------
    str or None
        OpenSlide's vendor name.
    """
    if not file.is_local:
        return None
    try:
        return OpenSlide.detect_format(file.path)
    except OpenSlideError:
        return None


def _describe(file: File, slide: OpenSlide) -> ImageInfo:
    properties = slide.properties
    vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")
    levels = tuple(_level(index, slide) for index in range(slide.level_count))
    mpp_yx = _mpp(properties)
    notes = () if mpp_yx else ("pixel size unknown: the slide states none",)
    return ImageInfo(
        format=f"openslide-{vendor}",
        levels=levels,
        dtype=np.dtype(np.uint8),
        channels=tuple(Channel(name=name) for name in "RGB"),
        fingerprint=_fingerprint(file, slide, levels),
        modality=_modality(properties),
        mpp_yx=mpp_yx,
        validity=None if vendor in ALWAYS_WHOLE else "mask",
        axes={"c": 3, "y": levels[0].shape.y, "x": levels[0].shape.x},
        content=_bounds(properties, levels[0]),
        associated=tuple(sorted(SAFE_ASSOCIATED.intersection(slide.associated_images))),
        notes=notes,
    )


def _level(index: int, slide: OpenSlide) -> Level:
    width, height = slide.level_dimensions[index]
    downsample = float(slide.level_downsamples[index])
    edge, shape = block_edge(downsample), Shape(y=height, x=width)
    return Level(
        index=index,
        shape=shape,
        block=Shape(y=edge, x=edge),
        # not OpenSlide's downsample, which is the ratio of sizes that are rounded
        scale_yx=level_scale(Shape(y=slide.level_dimensions[0][1], x=slide.level_dimensions[0][0]), shape),
    )


def block_edge(downsample: float) -> int:
    """Return the edge of a level's blocks, px: each must start on a whole pixel of the level.

    Parameters
    ----------
    downsample : float
        Pixels of level 0 in one of the level.

    Returns
    -------
    int
        1024 or 2048 where that many pixels are a whole number of level-0 pixels, else 4096.
    """
    for edge in (BLOCK_PX, 2 * BLOCK_PX):
        if (edge * downsample).is_integer():
            return edge
    return PIECE_PX


def _mpp(properties: Mapping[str, str]) -> tuple[float, float] | None:
    try:
        y, x = float(properties[openslide.PROPERTY_NAME_MPP_Y]), float(properties[openslide.PROPERTY_NAME_MPP_X])
    except (KeyError, ValueError):
        return None
    return (y, x) if 0 < y < float("inf") and 0 < x < float("inf") else None


def _bounds(properties: Mapping[str, str], level: Level) -> Box | None:
    names = (
        openslide.PROPERTY_NAME_BOUNDS_Y,
        openslide.PROPERTY_NAME_BOUNDS_X,
        openslide.PROPERTY_NAME_BOUNDS_HEIGHT,
        openslide.PROPERTY_NAME_BOUNDS_WIDTH,
    )
    try:
        y, x, height, width = (int(properties[name]) for name in names)
    except (KeyError, ValueError):
        return None
    return Box(y=y, x=x, height=max(0, height), width=max(0, width)).intersect(level.box)


def _modality(properties: Mapping[str, str]) -> Modality:
    """Return the modality by the scanner's own words, never by pixels; brightfield where it says nothing.

    Hamamatsu writes the emission wavelength of the filter cube into the shading data of a fluorescence capture;
    3DHISTECH names the slide type.
    """
    for name, value in properties.items():
        if name.startswith("hamamatsu.") and re.search(r"EmissionWaveLength=\s*\d", value):
            return "fluorescence"
        if name.startswith("mirax.") and name.endswith("SLIDE_TYPE") and "FLUORESCENCE" in value.upper():
            return "fluorescence"
    return "brightfield"


def _fingerprint(file: File, slide: OpenSlide, levels: tuple[Level, ...]) -> str:
    companions: list[tuple[str, int]] = []
    folder = Path(file.path).with_suffix("")
    if folder.is_dir():  # MRXS keeps its pixels in the folder of the same stem
        companions = sorted((entry.name, entry.stat().st_size) for entry in folder.iterdir() if entry.is_file())
    shapes = [
        (level.shape.yx, (downsample, downsample))
        for level, downsample in zip(levels, map(float, slide.level_downsamples), strict=True)
    ]
    quickhash = slide.properties.get(openslide.PROPERTY_NAME_QUICKHASH1)
    return digest("openslide", *file_edges(file), quickhash, shapes, companions)
