"""A scene whose bands are files of their own is one input: what reads its bands, and its class layers.

All bands are given on one grid, that of the finest band on which the others fit. A coarser band is repeated, pixel by
pixel, which is exact where its pixel is a whole number of the grid's; its own overviews serve the coarse levels in the
same way. A pixel is valid where all bands are. Layers of classes are no channels; each is an image of labels on the
grid, reduced by mode where its file has no such level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from tilestream.errors import ConfigError, DamagedError
from tilestream.kernels.resample import resample
from tilestream.sources.address import checked_index
from tilestream.sources.bandgrid import Step
from tilestream.sources.extras import Extras
from tilestream.sources.warming import warm
from tilestream.sources.window import Mask, inside_level, read_window
from tilestream.types import Array, Block, Box, Channel, ImageInfo, Source


@dataclass(frozen=True, kw_only=True)
class PlacedFile:
    """One file and how it lies on the scene's levels."""

    source: Source
    """Reads it."""
    url: str
    """Where it lies; keeps apart cached blocks of files that have one fingerprint."""
    steps: tuple[Step, ...]
    """The file's level for each level of the scene."""
    nodata: float | None = None
    """Value without a measurement by the product, besides what the file itself says."""

    def read(self, box: Box) -> tuple[Array, Mask]:
        """Return its samples and validity, `(y, x)` each, on a box of the scene."""
        step = self.steps[box.level]
        if step.ratio_yx is not None:
            pixels, valid = self._reduced(box, step.ratio_yx)
        else:
            pixels, valid = self._repeated(box, step)
        if self.nodata is not None:
            valid = valid & (pixels != self.nodata)
        return pixels, valid

    def warm(self, box: Box) -> None:
        """Fetch what a box of the scene is stored in, where the file is remote."""
        warm(self.source, self._window(box))

    def _window(self, box: Box) -> Box:
        """Return the box of the file's own level behind a box of the scene."""
        step = self.steps[box.level]
        own = self.source.info.levels[step.level].shape
        ratio_y, ratio_x = step.ratio_yx or (Fraction(1, step.factor),) * 2
        y, x = math.floor(box.y * ratio_y), math.floor(box.x * ratio_x)
        return Box(
            level=step.level,
            y=y,
            x=x,
            height=min(math.ceil(box.y_stop * ratio_y), own.y) - y,
            width=min(math.ceil(box.x_stop * ratio_x), own.x) - x,
        )

    def _repeated(self, box: Box, step: Step) -> tuple[Array, Mask]:
        factor, window = step.factor, self._window(box)
        pixels, valid = read_window(self.source, window, url=self.url)
        if factor == 1:
            return pixels[..., 0], valid
        rows = slice(box.y - window.y * factor, box.y_stop - window.y * factor)
        columns = slice(box.x - window.x * factor, box.x_stop - window.x * factor)
        found, seen = (part.repeat(factor, axis=0).repeat(factor, axis=1)[rows, columns] for part in (pixels, valid))
        return found[..., 0], seen

    def _reduced(self, box: Box, ratio_yx: tuple[Fraction, Fraction]) -> tuple[Array, Mask]:
        window = self._window(box)
        stored, stored_valid = read_window(self.source, window, url=self.url)
        pixels = np.zeros((box.height, box.width, 1), stored.dtype)
        valid = np.zeros((box.height, box.width), np.bool_)
        resample(
            stored,
            stored_valid,
            ratio_yx=ratio_yx,
            src_yx=(window.y, window.x),
            dst_yx=(box.y, box.x),
            out=pixels,
            out_valid=valid,
            kind="labels",
            threads=1,
        )
        return pixels[..., 0], valid


@dataclass(frozen=True, kw_only=True)
class Band:
    """One spectral band."""

    channel: Channel
    """Name, scale and offset."""
    file: PlacedFile
    """Its samples."""


@dataclass(frozen=True, kw_only=True)
class ClassLayer:
    """One layer of classes on a scene's grid, as an image of labels."""

    file: PlacedFile
    """Its numbers."""
    info: ImageInfo
    """Description; `classes` holds its own."""

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block:
        """Return one block of class numbers.

        Parameters
        ----------
        level, iy, ix : int
            Level, and row and column in its grid of blocks.
        out : ndarray, optional
            Not used.

        Returns
        -------
        Block
            Numbers `(y, x, 1)`; where not valid that of "no data", or 0 where the layer has none.
        """
        pixels, valid = self.file.read(_block_box(self.info, level, iy, ix))
        if valid.all():
            return Block(pixels=pixels[..., None])
        return Block(pixels=np.where(valid, pixels, pixels.dtype.type(self.info.nodata or 0))[..., None], valid=valid)

    def warm(self, box: Box) -> None:
        """Fetch what a box is stored in, where the file is remote."""
        if (inside := inside_level(self.info, box)) is not None:
            self.file.warm(inside)

    def isel(self, **index: int) -> ClassLayer:
        """Return the layer itself: there are no extra axes."""
        checked_index(index, {})
        return self

    def read_associated(self, name: str) -> Array:
        """Raise `ConfigError`: a layer has no associated images."""
        raise _no_associated(name)


@dataclass(frozen=True, kw_only=True)
class BandsSource:
    """One scene; picklable, since its bands are."""

    bands: tuple[Band, ...]
    """In the order of the channels."""
    layers: tuple[ClassLayer, ...] = ()
    """Layers of classes."""
    info: ImageInfo
    """Description on the grid."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Technical facts of the product."""

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block:
        """Return one block with all bands.

        Parameters
        ----------
        level, iy, ix : int
            Level, and row and column in its grid of blocks.
        out : ndarray, optional
            Not used: what is decoded here does not fit into a caller's buffer as it is.

        Returns
        -------
        Block
            Pixels `(y, x, c)`; valid where all bands are.

        Raises
        ------
        DamagedError
            When a band cannot be decoded there; the message names it.
        """
        box = _block_box(self.info, level, iy, ix)
        pixels = np.zeros((box.height, box.width, len(self.bands)), self.info.dtype)
        valid = np.ones((box.height, box.width), np.bool_)
        for number, band in enumerate(self.bands):
            try:
                found, seen = band.file.read(box)
            except DamagedError as error:
                raise DamagedError(f"band {band.channel.name}: {error}") from error
            pixels[..., number] = found
            valid &= seen
        if valid.all():
            return Block(pixels=pixels)
        pixels[~valid] = 0
        return Block(pixels=pixels, valid=valid)

    def warm(self, box: Box) -> None:
        """Fetch what a box is stored in, band by band, where the files are remote."""
        if (inside := inside_level(self.info, box)) is not None:
            for band in self.bands:
                band.file.warm(inside)

    def isel(self, **index: int) -> BandsSource:
        """Return the source itself: there are no extra axes."""
        checked_index(index, {})
        return self

    def read_associated(self, name: str) -> Array:
        """Raise `ConfigError`: a scene has no associated images."""
        raise _no_associated(name)

    def read_extras(self) -> Extras:
        """Return what the metadata of the product say."""
        return Extras(technical=self.facts)

    def class_layer(self, name: str) -> ClassLayer:
        """Return the layer of a name that `info.classes` holds."""
        return next(layer for layer in self.layers if layer.info.classes[0].name == name)

    def pick(self, channels: tuple[int, ...]) -> BandsSource:
        """Return the scene with some of its bands on the same grid; the others are neither read nor asked for validity.

        Parameters
        ----------
        channels : tuple of int
            Indices of the channels to keep, in order.

        Returns
        -------
        BandsSource
            Fewer bands.
        """
        bands = tuple(self.bands[index] for index in channels)
        chosen = tuple(band.channel for band in bands)
        axes = {**self.info.axes, "c": len(bands)}
        return replace(self, bands=bands, info=replace(self.info, channels=chosen, axes=axes))


def _no_associated(name: str) -> ConfigError:
    return ConfigError.of(f"associated image `{name}`", got="a scene", expected="a slide", do="Open its file itself.")


def _block_box(info: ImageInfo, level: int, iy: int, ix: int) -> Box:
    stored = info.levels[level]
    y, x = iy * stored.block.y, ix * stored.block.x
    return Box(level=level, y=y, x=x, height=stored.block.y, width=stored.block.x).intersect(stored.box)
