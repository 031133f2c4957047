"""One image as levels that are read lazily, block by block."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.cache import RecentBlocks
from tilestream.cache.limits import DECODED_BYTES
from tilestream.errors import ConfigError, DamagedError
from tilestream.pyramid.chosen import choose
from tilestream.pyramid.filled import WHOLE, Filled
from tilestream.pyramid.keeping import read_block, warm_levels
from tilestream.pyramid.overview import Crop, crop, require_box
from tilestream.pyramid.planned import read_plan
from tilestream.sources.classes import Rules
from tilestream.sources.grids import gsd_of
from tilestream.sources.layers import class_layer
from tilestream.sources.opening import open_source
from tilestream.sources.samples import put_pixels
from tilestream.sources.stamps import state_of
from tilestream.sources.warming import warm
from tilestream.types import Array, Box, Channel, ImageInfo, Kind, Level, PlanLevel, Region, Source

OPEN_FIRST = "Open the image first: `tilestream.open_pyramid(path)`."
CACHE_BYTES = DECODED_BYTES
"""Decoded blocks kept in one process unless the caller says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Pyramid:
    """One 2-D image at all its resolutions; small, picklable, holds no open file."""

    source: Source
    """Reads the blocks."""
    cache_bytes: int = CACHE_BYTES
    """Budget of the process-wide cache of decoded blocks; 0 = none."""
    address: str = ""
    """Where it was opened. Keeps cached blocks apart: files without compression can have one fingerprint."""
    state: str = ""
    """Digest of what its files were when it was opened; empty where that does not tell a change of pixels."""
    keep_from: int = 0
    """Finest level whose decoded blocks are kept: 3 keeps the overview, however much is read in full resolution."""

    @property
    def info(self) -> ImageInfo:
        """Return all that is known before a pixel is read."""
        return self.source.info

    @property
    def levels(self) -> tuple[Level, ...]:
        """Return the stored levels, finest first."""
        return self.info.levels

    @property
    def axes(self) -> Mapping[str, int]:
        """Return the sizes of all axes of the source, selected or not."""
        return self.info.axes

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Return the channels in the order of the first axis of what `read` gives."""
        return self.info.channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of the samples."""
        return self.info.dtype

    @property
    def kind(self) -> Kind:
        """Return `intensity` or `labels`."""
        return self.info.kind

    @property
    def mpp(self) -> float | None:
        """Return micrometres per pixel of level 0, None when unknown."""
        return self.info.mpp

    @property
    def gsd_m(self) -> float | None:
        """Return metres per pixel of level 0 for an image with an affine in metres, None otherwise."""
        gsd_yx = gsd_of(self.info.crs, self.info.affine)
        return None if gsd_yx is None else math.sqrt(gsd_yx[0] * gsd_yx[1])

    @property
    def crs(self) -> str | None:
        """Return the coordinate reference system as text, None when unknown."""
        return self.info.crs

    @property
    def affine(self) -> tuple[float, ...] | None:
        """Return the pixel-corner affine `(a, b, c, d, e, f)` of level 0, None when unknown."""
        return self.info.affine

    @property
    def fingerprint(self) -> str:
        """Return the identity of the pixels."""
        return self.info.fingerprint

    @property
    def associated(self) -> tuple[str, ...]:
        """Return the names of associated images that cannot identify anybody."""
        return self.info.associated

    def isel(self, **index: int) -> Pyramid:
        """Return the pyramid at another index of its extra axes (`t=3`).

        Parameters
        ----------
        **index : int
            Index by axis name.

        Returns
        -------
        Pyramid
            The selected 2-D image.
        """
        return replace(self, source=self.source.isel(**index))

    def choose(
        self,
        *,
        bands: Sequence[str] = (),
        mpp: float | None = None,
        light: str | None = None,
        invalid: Rules | None = None,
        decibels: str | None = None,
    ) -> Pyramid:
        """Return the pyramid with some channels, without some classes, in decibels, at another resolution, in a light.

        Parameters
        ----------
        bands : sequence of str
            Names of the channels to keep, in order; empty = all.
        mpp : float, optional
            Micrometres per pixel of level 0, where the file states none or a wrong one.
        light : str, optional
            `brightfield` or `fluorescence`, where the file does not say what lights the image.
        invalid : Mapping, optional
            Class layer → classes whose pixels are not valid: `{"SCL": (3, 8, 9)}`, `{"QA_PIXEL": ("bit3", "snow")}`.
        decibels : str, optional
            `power` (10 log10) or `amplitude` (20 log10): what the stored values of a radar image are.

        Returns
        -------
        Pyramid
            The same pixels as chosen.
        """
        chosen = choose(self.source, bands=bands, mpp=mpp, light=light, invalid=invalid, decibels=decibels)
        return replace(self, source=chosen)

    def classes(self, name: str) -> Pyramid:
        """Return a class layer of a scene (`SCL`, a name in `info.classes`) as a pyramid of labels on its levels."""
        return replace(self, source=class_layer(self.source, name), address=f"{self.address}#classes={name}")

    def read(self, box: Box) -> Array:
        """Return the pixels of a box.

        Parameters
        ----------
        box : Box
            What to read; parts outside the image are 0, nodata is as stored.

        Returns
        -------
        ndarray
            `(c, y, x)` in the image's dtype, a strided view of interleaved memory.

        Raises
        ------
        DamagedError
            When a block inside the box cannot be decoded; `read_region` returns the rest of it.
        """
        pixels, _, filled = self._stored(box)
        if filled.damage:
            raise DamagedError("; ".join(filled.damage))
        return pixels.transpose(2, 0, 1)

    def read_region(self, box: Box) -> Region:
        """Return the pixels of a box, which of them are valid, and what was damaged.

        Parameters
        ----------
        box : Box
            What to read; it may reach outside the image.

        Returns
        -------
        Region
            Pixels `(c, y, x)`, 0 where not valid, validity `(y, x)` and the reason of each damaged block.
        """
        pixels, valid, filled = self._stored(box)
        if not filled.is_whole:
            pixels[~valid] = 0
        return Region(pixels=pixels.transpose(2, 0, 1), valid=valid, damage=filled.damage)

    def _stored(self, box: Box) -> tuple[Array, npt.NDArray[np.bool_], Filled]:
        require_box(box, self.levels)
        warm(self.source, box)
        pixels = np.empty((box.height, box.width, len(self.channels)), self.dtype)
        valid = np.ones((box.height, box.width), np.bool_)
        return pixels, valid, self.read_into(box, pixels, valid)

    def read_into(
        self, box: Box, pixels: Array, valid: npt.NDArray[np.bool_], *, recent: RecentBlocks | None = None
    ) -> Filled:
        """Fill `pixels` with a box, clear `valid` where they are not, and return what was damaged.

        Parameters
        ----------
        box : Box
            What to read.
        pixels : ndarray
            `(y, x, c)` of the box's size in the image's dtype; nodata stays as stored.
        valid : ndarray of bool
            `(y, x)`, all True: most tiles are valid throughout, and then nothing has to look at it.
        recent : RecentBlocks, optional
            Blocks that the caller's task has decoded already; takes those that it decodes now.

        Returns
        -------
        Filled
            The reason of each damaged block, and whether everything is valid.
        """
        level = self.levels[box.level]
        y, x, y_stop, x_stop = box.y, box.x, box.y_stop, box.x_stop
        is_whole = y >= 0 and x >= 0 and y_stop <= level.shape.y and x_stop <= level.shape.x
        if not is_whole:
            y, x, y_stop, x_stop = max(y, 0), max(x, 0), min(y_stop, level.shape.y), min(x_stop, level.shape.x)
            pixels[...] = 0
            valid[...] = False
        if y >= y_stop or x >= x_stop:
            return Filled(is_whole=is_whole)
        if not is_whole:
            valid[y - box.y : y_stop - box.y, x - box.x : x_stop - box.x] = True
        damage: list[str] = []
        height, width = level.block.y, level.block.x
        for iy in range(y // height, -(-y_stop // height)):
            top = iy * height
            y0, y1 = max(y, top), min(y_stop, top + height)
            for ix in range(x // width, -(-x_stop // width)):
                left = ix * width
                x0, x1 = max(x, left), min(x_stop, left + width)
                part = slice(y0 - box.y, y1 - box.y), slice(x0 - box.x, x1 - box.x)
                target = pixels[part]
                try:
                    block = read_block(self, level, (iy, ix), target, recent)
                except DamagedError as error:
                    damage.append(f"block y={iy} x={ix} of level {level.index}: {error}")
                    block = None
                if block is None:
                    target[...] = 0
                    valid[part] = is_whole = False
                    continue
                if block.pixels is not target:
                    put_pixels(target, block.pixels[y0 - top : y1 - top, x0 - left : x1 - left])
                if block.valid is not None:
                    valid[part] = block.valid[y0 - top : y1 - top, x0 - left : x1 - left]
                    is_whole = False
        return WHOLE if is_whole else Filled(damage=tuple(damage), is_whole=False)

    def read_plan(
        self,
        level: PlanLevel,
        box: Box,
        pixels: Array,
        valid: npt.NDArray[np.bool_],
        *,
        recent: RecentBlocks | None = None,
        origin_yx: tuple[int, int] = (0, 0),
    ) -> Filled:
        """Fill `pixels` and `valid` with a box of a plan's level, resampled where that is a virtual one.

        Parameters
        ----------
        level : PlanLevel
            Resolution of the box.
        box : Box
            What to read, in plan pixels; its `level` is the stored one that pixels come from.
        pixels, valid, recent
            As in `read_into`, but pixels are 0 where not valid.
        origin_yx : tuple of int
            Stored pixel at which plan pixel 0 begins; for tiles that lie between the pixels of the plan's level.

        Returns
        -------
        Filled
            The reason of each damaged block, and whether everything is valid.
        """
        return read_plan(self, level, box, pixels, valid, recent, origin_yx)

    def thumbnail(self, max_px: int = 512) -> Crop:
        """Return the whole image at most `max_px` wide and high, from the coarsest level that is large enough.

        Parameters
        ----------
        max_px : int
            Longest edge of the result, px.

        Returns
        -------
        Crop
            Pixels `(c, y, x)`; damaged blocks are not valid and named.
        """
        return self.crop(self.levels[0].box, max_px)

    def crop(self, box: Box, out_px: int) -> Crop:
        """Return a box of any level, reduced so that its longest edge is at most `out_px`.

        Parameters
        ----------
        box : Box
            What to show; it may reach outside the image.
        out_px : int
            Longest edge of the result, px; a box of fewer stored pixels is not enlarged.

        Returns
        -------
        Crop
            Pixels `(c, y, x)`, area-weighted from the coarsest level that is fine enough, which level that was, and
            where each pixel lies (`.frame`). `ts.guided_crop` makes a picture with axes of it.
        """
        return crop(self, box, out_px)

    def warm_up(self, finest: int | None = None) -> int:
        """Decode levels into the cache, coarsest first, down to `finest` or as they fit; return the bytes they take."""
        return warm_levels(self, self.keep_from if finest is None else finest)

    def read_associated(self, name: str) -> Array:
        """Return an associated image `(y, x, c)` named in `associated`."""
        if name not in self.associated:
            raise ConfigError.of(
                f"associated image `{name}`",
                got="a name that is not offered",
                expected=f"one of {list(self.associated)}",
                do="Label and macro images can identify a patient: only `ingest --keep-identifying` copies them.",
            )
        return self.source.read_associated(name)

    @cached_property
    def identity(self) -> str:
        """Return what tells the blocks of this image, as it was opened and selected, from all others in a cache."""
        selected = ",".join(f"{axis}={index}" for axis, index in sorted(self.info.selection.items()))
        names = ",".join(channel.name for channel in self.channels)
        return "#".join((self.address, self.state, self.info.fingerprint, selected, names, *self.info.derived))

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("source", "cache_bytes", "address", "state", "keep_from")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def open_pyramid(
    url: object,
    *,
    source: str | None = None,
    options: Mapping[str, Any] | None = None,
    cache_bytes: int = CACHE_BYTES,
    keep_from: int = 0,
) -> Pyramid:
    """Return any slide, scene, Zarr or array as a pyramid, without conversion and without reading pixels.

    Parameters
    ----------
    url : str, path or array
        Local path or fsspec URL, also with a selection (`image.zarr#t=3`), or a NumPy, dask or xarray array.
    source : str, optional
        Name of the family that must read it, instead of the one that its content says.
    options : Mapping, optional
        fsspec storage options.
    cache_bytes, keep_from : int
        Budget of this process's cache of decoded blocks, 0 = none; and the finest level whose blocks are kept in it.

    Returns
    -------
    Pyramid
        The lazy pyramid.

    Raises
    ------
    SourceError
        When it cannot be opened; the message says what it is and what to do.
    """
    if isinstance(url, str) or hasattr(url, "__fspath__"):
        opened = open_source(str(url), source=source, options=options)
        pyramid = Pyramid(source=opened, cache_bytes=cache_bytes, address=str(url), state=state_of(opened))
        return replace(pyramid, keep_from=keep_from)
    from tilestream.sources.array import array_source  # loads dask and xarray, which files do not need

    return Pyramid(source=array_source(url), cache_bytes=cache_bytes, keep_from=keep_from)
