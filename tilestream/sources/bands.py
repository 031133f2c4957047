"""A scene whose bands are files of their own: one STAC item with its files beside it is one input.

All bands are given on the grid of the finest. A coarser band is repeated, pixel by pixel, which is exact where its
pixel is a whole number of the finest's; its own overviews serve the coarse levels in the same way. A pixel is valid
where all bands are. Class and quality layers (no `eo:bands`) are no channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.cache import block_cache
from tilestream.errors import ConfigError, DamagedError, SourceError
from tilestream.sources.address import checked_index
from tilestream.sources.files import File
from tilestream.sources.fingerprint import digest
from tilestream.sources.opening import open_source
from tilestream.sources.recognise import inside, list_folder, stac_item
from tilestream.sources.samples import unique_names
from tilestream.types import Array, Block, Box, Channel, ImageInfo, Level, Source, Validity

CACHE_BYTES = 64 << 20
"""Decoded blocks of coarse bands kept in a process: each serves several blocks of the scene."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """One band's file and how it lies on the scene's levels."""

    channel: Channel
    """Name, scale and offset."""
    source: Source
    """Reads its file."""
    url: str
    """Where the file lies; keeps apart cached blocks of files that have one fingerprint."""
    steps: tuple[tuple[int, int], ...] = ()
    """For each level of the scene, the band's own level and how many pixels of the scene one of its pixels covers."""


@dataclass(frozen=True, kw_only=True)
class BandsSource:
    """One scene; picklable, since its bands are."""

    bands: tuple[Band, ...]
    """In order of wavelength where the item gives it, else of the item."""
    info: ImageInfo
    """Description on the grid of the finest band."""

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
        stored = self.info.levels[level]
        block = Box(
            level=level,
            y=iy * stored.block.y,
            x=ix * stored.block.x,
            height=stored.block.y,
            width=stored.block.x,
        ).intersect(stored.box)
        pixels = np.zeros((block.height, block.width, len(self.bands)), self.info.dtype)
        valid = np.ones((block.height, block.width), np.bool_)
        for number, band in enumerate(self.bands):
            try:
                found, seen = _read(band, block)
            except DamagedError as error:
                raise DamagedError(f"band {band.channel.name}: {error}") from error
            pixels[..., number] = found
            valid &= seen
        if valid.all():
            return Block(pixels=pixels)
        pixels[~valid] = 0
        return Block(pixels=pixels, valid=valid)

    def isel(self, **index: int) -> BandsSource:
        """Return the source itself: there are no extra axes."""
        checked_index(index, {})
        return self

    def read_associated(self, name: str) -> Array:
        """Raise `ConfigError`: a scene has no associated images."""
        raise ConfigError.of(
            f"associated image `{name}`", got="a scene", expected="a slide", do="Open its file itself."
        )


def _read(band: Band, block: Box) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return a band's samples and validity on a box of the scene."""
    level, factor = band.steps[block.level]
    y, x = block.y // factor, block.x // factor
    window = Box(
        level=level,
        y=y,
        x=x,
        height=-(-block.y_stop // factor) - y,
        width=-(-block.x_stop // factor) - x,
    )
    pixels, valid = read_window(band.source, band.url, window)
    rows = slice(block.y - y * factor, block.y_stop - y * factor)
    columns = slice(block.x - x * factor, block.x_stop - x * factor)
    if factor == 1:
        return pixels[..., 0], valid
    found, seen = (part.repeat(factor, axis=0).repeat(factor, axis=1)[rows, columns] for part in (pixels, valid))
    return found[..., 0], seen


def read_window(source: Source, url: str, window: Box) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return a box inside a level, put together from its blocks.

    Parameters
    ----------
    source : Source
        What reads the blocks.
    url : str
        Where it was opened.
    window : Box
        Box inside its level.

    Returns
    -------
    ndarray and ndarray of bool
        Pixels `(y, x, c)` and validity `(y, x)`.

    Raises
    ------
    DamagedError
        When one of the blocks cannot be decoded.
    """
    info = source.info
    stored = info.levels[window.level]
    pixels = np.zeros((window.height, window.width, len(info.channels)), info.dtype)
    valid = np.zeros((window.height, window.width), np.bool_)
    for iy in range(window.y // stored.block.y, -(-window.y_stop // stored.block.y)):
        for ix in range(window.x // stored.block.x, -(-window.x_stop // stored.block.x)):
            block = _block(source, url, window.level, iy, ix)
            if block is None:
                continue
            top, left = iy * stored.block.y, ix * stored.block.x
            y, x = max(window.y, top), max(window.x, left)
            y_stop, x_stop = min(window.y_stop, top + stored.block.y), min(window.x_stop, left + stored.block.x)
            to = slice(y - window.y, y_stop - window.y), slice(x - window.x, x_stop - window.x)
            of = slice(y - top, y_stop - top), slice(x - left, x_stop - left)
            pixels[to] = block.pixels[of]
            valid[to] = True if block.valid is None else block.valid[of]
    return pixels, valid


def _block(source: Source, url: str, level: int, iy: int, ix: int) -> Block | None:
    key = (f"band:{url}:{source.info.fingerprint}", level, iy, ix)
    return block_cache(CACHE_BYTES).get(key, lambda: source.read_block(level, iy, ix))


def open_bands(file: File) -> BandsSource:
    """Return a scene of single-band files as one source with named bands.

    Parameters
    ----------
    file : File
        Folder with a STAC item and the files of its assets.

    Returns
    -------
    BandsSource
        Ready to read; only headers were read.

    Raises
    ------
    SourceError
        When there is no such item, no band beside it, or the bands lie on different grids.
    """
    folder = list_folder(file)
    item = stac_item(folder) if folder else None
    if folder is None or item is None:
        raise SourceError.of(
            f"`{file.url}`", got="no STAC item with files", expected="item JSON and its assets", do="Give its folder."
        )
    try:
        chosen, left_out = _choose(item["assets"], folder.names)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise SourceError.of(
            f"`{file.url}`",
            got=f"a STAC item whose assets break the format ({type(error).__name__}: {error})",
            expected="assets as the specification describes them",
            do="Check the item with a validator.",
        ) from error
    opened = [_open(inside(file, name), channel) for name, channel in chosen]
    single = [band for band in opened if _is_band(band.source.info)]
    if not single:
        raise SourceError.of(
            f"`{file.url}`", got="no single-band file with a place", expected="the bands of a scene", do="Copy them."
        )
    finest = min((band.source.info for band in single), key=lambda info: abs(_step(info)))
    levels = _levels(finest, [band.source.info for band in single])
    bands = tuple(
        replace(band, steps=steps) for band in single if (steps := _steps(band.source.info, finest, levels)) is not None
    )
    names = {band.channel.name for band in bands}
    left_out += sorted(band.channel.name for band in opened if band.channel.name not in names)
    return BandsSource(bands=bands, info=_describe(bands, finest, levels, left_out))


def _open(file: File, channel: Channel) -> Band:
    if list_folder(file) is not None:  # which may be this very scene through a link
        raise SourceError.of(f"`{file.url}`", got="a folder", expected="the file of one band", do="Check the item.")
    return Band(channel=channel, source=open_source(file.url, options=file.options), url=file.url)


def _choose(assets: Mapping[str, Any], here: Iterable[str]) -> tuple[list[tuple[str, Channel]], list[str]]:
    """Return file name and channel of each spectral band that is there, and the names of what is left out."""
    names, found, left_out = frozenset(here), {}, []
    for key, asset in assets.items():
        name = str(asset.get("href", "")).rpartition("/")[2]
        described = asset.get("eo:bands") or asset.get("bands") or []
        if name not in names or name in found or not str(asset.get("type", "image")).startswith("image"):
            continue
        if len(described) == 1:
            found[name] = (key, described[0], (asset.get("raster:bands") or described)[0])
        else:
            left_out.append(key)
    wavelengths = [_wavelength(band) for _, band, _ in found.values()]
    order = list(found)
    if all(value is not None for value in wavelengths):
        order = [name for _, name in sorted(zip(wavelengths, order, strict=True))]
    common = [str(found[name][1].get("common_name") or found[name][1].get("eo:common_name") or "") for name in order]
    labels = [
        word if word and common.count(word) == 1 else found[name][0] for word, name in zip(common, order, strict=True)
    ]
    channels = [
        Channel(name=label, scale=float(found[name][2].get("scale", 1)), offset=float(found[name][2].get("offset", 0)))
        for label, name in zip(unique_names(labels), order, strict=True)
    ]
    return list(zip(order, channels, strict=True)), left_out


def _wavelength(band: Mapping[str, Any]) -> float | None:
    value = band.get("center_wavelength", band.get("eo:center_wavelength"))
    return float(value) if isinstance(value, int | float) else None


def _is_band(info: ImageInfo) -> bool:
    return len(info.channels) == 1 and info.affine is not None and info.affine[1] == info.affine[3] == 0


def _step(info: ImageInfo) -> float:
    return info.affine[0] if info.affine else float("inf")


def _factor(band: ImageInfo, level: Level, finest: ImageInfo, target: Level) -> int | None:
    """Return how many pixels of the scene's level one pixel of the band's covers, None unless a whole number."""
    coarse, fine = _step(band) * level.scale_yx[1], _step(finest) * target.scale_yx[1]
    factor = round(coarse / fine)
    is_whole = factor >= 1 and abs(coarse / fine - factor) * max(level.shape.yx) < 0.5
    covers = all(s * factor >= t > (s - 1) * factor for s, t in zip(level.shape.yx, target.shape.yx, strict=True))
    return factor if is_whole and covers else None


def _same_place(band: ImageInfo, finest: ImageInfo) -> bool:
    if band.affine is None or finest.affine is None or band.crs != finest.crs:
        return False
    tolerance = abs(finest.affine[0]) / 100
    return all(abs(band.affine[k] - finest.affine[k]) <= tolerance for k in (2, 5))


def _levels(finest: ImageInfo, infos: list[ImageInfo]) -> tuple[Level, ...]:
    """Return the levels of the finest band that all bands which fit level 0 can serve."""
    fit = [info for info in infos if _same_place(info, finest) and _step_at(info, finest, finest.levels[0])]
    kept = [target for target in finest.levels if all(_step_at(info, finest, target) for info in fit)]
    return tuple(
        Level(index=number, shape=level.shape, block=level.block, scale_yx=level.scale_yx)
        for number, level in enumerate(kept)
    )


def _step_at(info: ImageInfo, finest: ImageInfo, target: Level) -> tuple[int, int] | None:
    """Return the finest level of a band whose pixels are whole numbers of a level's, with that number."""
    for level in info.levels:
        factor = _factor(info, level, finest, target)
        if factor is not None:
            return level.index, factor
    return None


def _steps(info: ImageInfo, finest: ImageInfo, levels: tuple[Level, ...]) -> tuple[tuple[int, int], ...] | None:
    if not _same_place(info, finest):
        return None
    steps = tuple(step for target in levels if (step := _step_at(info, finest, target)) is not None)
    return steps if len(steps) == len(levels) else None


def _validity(infos: list[ImageInfo], nodata: float | None) -> Validity | None:
    """Return where validity comes from: where one band is not valid all are 0, so that only a nodata of 0 says it."""
    kinds = {info.validity for info in infos}
    if kinds == {None}:
        return None
    return "nodata" if nodata == 0 and "mask" not in kinds else "mask"


def _describe(bands: tuple[Band, ...], finest: ImageInfo, levels: tuple[Level, ...], left_out: list[str]) -> ImageInfo:
    infos = [band.source.info for band in bands]
    coarse = [f"{band.channel.name} x{band.steps[0][1]}" for band in bands if band.steps[0][1] > 1]
    notes: tuple[str, ...] = (f"coarser bands are repeated on the finest grid: {', '.join(coarse)}",) if coarse else ()
    if left_out:
        notes += (f"not channels (class or quality layers, or on another grid): {', '.join(left_out)}",)
    return ImageInfo(
        format="stac-bands",
        levels=levels,
        dtype=np.result_type(*(info.dtype for info in infos)),
        channels=tuple(band.channel for band in bands),
        fingerprint=digest("bands", *((band.channel.name, band.source.info.fingerprint) for band in bands)),
        modality="scene",
        crs=finest.crs,
        affine=finest.affine,
        nodata=finest.nodata,
        validity=_validity(infos, finest.nodata),
        axes={"c": len(bands), "y": finest.shape.y, "x": finest.shape.x},
        notes=notes,
    )
