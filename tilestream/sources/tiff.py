"""The TIFF family as a source: SVS, OME-TIFF, GeoTIFF and COG, plain and pyramidal TIFF.

A source is a small record. What was parsed stays in the process and is parsed again in another one, where the
fingerprint tells whether the file is still the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any

from zict import LRU

from tilestream.errors import ConfigError, SourceError
from tilestream.sources.address import checked_index
from tilestream.sources.extras import Extras
from tilestream.sources.files import File
from tilestream.sources.ometiff import is_ome, ome_layout
from tilestream.sources.qptiff import is_qptiff, qptiff_layout
from tilestream.sources.samples import extra_axes
from tilestream.sources.tiffcopy import TiffCopy
from tilestream.sources.tiffifd import Ifd, iter_ifds, refuse
from tilestream.sources.tiffinfo import describe
from tilestream.sources.tifflayout import Layout, aperio_layout, generic_layout
from tilestream.sources.tiffread import LevelReader, TableReader
from tilestream.sources.tifftable import TileTable, parse_table
from tilestream.types import Array, Block, Box, Cell, Encoded, EncodedLevel, ImageInfo

PARSED = 64
"""Images whose tables a process keeps; one of 100,000² pixels takes about 2 MB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Parsed:
    """An image as one process knows it."""

    info: ImageInfo
    levels: tuple[LevelReader, ...]
    thumbnail: TileTable | None
    stamp: tuple[object, ...]

    @cached_property
    def copies(self) -> tuple[TiffCopy, ...]:
        return tuple(TiffCopy(reader=reader) for reader in self.levels)


_parsed: LRU[tuple[object, ...], _Parsed] = LRU(PARSED, {})
_lock = Lock()


@dataclass(frozen=True, kw_only=True)
class TiffSource:
    """One 2-D image of a TIFF file; pickles as address, selection and fingerprint."""

    file: File
    """The file."""
    chosen: Mapping[str, int] = field(default_factory=dict)
    """Index that the user gave on extra axes."""
    fingerprint: str = ""
    """Fingerprint when it was opened; empty while it is being opened."""

    @property
    def info(self) -> ImageInfo:
        """Return the description of the selected 2-D image."""
        return self._image.info

    @cached_property
    def _image(self) -> _Parsed:
        key = (self.file.url, repr(sorted(self.file.options.items())), *sorted(self.chosen.items()))
        stamp = _stamp(self.file)
        with _lock:
            known = _parsed.get(key)
        if known is None or known.stamp != stamp:
            known = _parse(self.file, self.chosen, stamp)
            with _lock:
                _parsed[key] = known
        if self.fingerprint and known.info.fingerprint != self.fingerprint:
            raise SourceError.of(
                f"`{self.file.url}`",
                got=f"fingerprint {known.info.fingerprint[:12]}",
                expected=f"{self.fingerprint[:12]}, as when it was opened",
                do="The file changed meanwhile: open it again.",
            )
        return known

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block | None:
        """Return one decoded block, None where none is stored.

        Parameters
        ----------
        level, iy, ix : int
            Level, and row and column in its grid of blocks.
        out : ndarray, optional
            Where a full JPEG tile that needs nothing done to its pixels is decoded into.

        Returns
        -------
        Block or None
            Pixels `(y, x, c)`, edge tiles in their full size.

        Raises
        ------
        DamagedError
            When stored bytes cannot become exactly these pixels.
        IndexError
            When there is no such level or block.
        """
        if min(level, iy, ix) < 0:  # would count from the end without a word
            raise IndexError(f"level {level}, block {iy}, {ix}: negative")
        return self._image.levels[level].read_block(iy, ix, out)

    def warm(self, box: Box) -> None:
        """Fetch what a box of a level is stored in, where the file is remote."""
        if not self.file.is_local:
            self._image.levels[box.level].warm(box)

    def encoded(self, level: int) -> EncodedLevel:
        """Return how the tiles of a level decode by themselves, or why they cannot be copied."""
        return self._image.copies[level].spec

    def read_encoded(self, level: int, cells: Sequence[Cell]) -> list[Encoded]:
        """Return tiles as they are stored, each made to stand for itself.

        Parameters
        ----------
        level : int
            A level whose `encoded` gives no reason against it.
        cells : sequence of tuple
            Indices `(c, y, x)` of tiles.

        Returns
        -------
        list of bytes, DamagedError or None
            One a cell: a Zarr chunk, the reason why the tile is damaged, or None where none is stored.

        Raises
        ------
        IndexError
            When there is no such level or tile.
        SourceError
            When the file cannot be read.
        """
        return self._image.copies[level].read(cells)

    def isel(self, **index: int) -> TiffSource:
        """Return the source with another choice on its extra axes; raise `ConfigError` for one that is not there."""
        axes = extra_axes(self.info.axes)
        # the XML's axes of length 1 are no choice; asking for their only index is none either
        wanted = {name: value for name, value in index.items() if value or name in axes or name not in ("z", "t")}
        return _opened(TiffSource(file=self.file, chosen={**self.chosen, **checked_index(wanted, axes)}))

    def read_associated(self, name: str) -> Array:
        """Return the thumbnail `(y, x, c)`; label and macro images are not reached this way.

        Parameters
        ----------
        name : str
            `thumbnail`.

        Returns
        -------
        ndarray
            Pixels.

        Raises
        ------
        ConfigError
            When the image has no such picture.
        """
        table = self._image.thumbnail
        if name != "thumbnail" or table is None:
            raise ConfigError.of(
                f"associated image `{name}`",
                got=f"an image with {list(self.info.associated)}",
                expected="one of these",
                do="Choose one of them, or make a thumbnail from a coarse level.",
            )
        return TableReader(table=table).window(Box(y=0, x=0, height=table.shape.y, width=table.shape.x))

    def read_extras(self) -> Extras:
        """Return what the tags and descriptions say besides the pixels."""
        from tilestream.sources.tiffextras import tiff_extras  # most readers of pixels never need it

        _ = self._image  # which finds out when the file has changed
        fresh = File(url=self.file.url, options=self.file.options)
        layout = _layout(fresh, self.chosen)
        return tiff_extras(layout, list(iter_ifds(fresh)), series=self.chosen.get("series", 0))

    def read_identifying(self, name: str) -> Array:
        """Return a picture `(y, x, c)` that may show a label; only for users who said that they want it."""
        layout = _layout(File(url=self.file.url, options=self.file.options), self.chosen)
        table = parse_table(layout.identifying[name])
        pixels = TableReader(table=table).window(Box(y=0, x=0, height=table.shape.y, width=table.shape.x))
        return pixels if table.palette is None else table.palette[pixels[:, :, 0]]

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file, "chosen": dict(self.chosen), "fingerprint": self.fingerprint}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def open_tiff(file: File) -> TiffSource:
    """Return the source of a TIFF file; only headers are read.

    Parameters
    ----------
    file : File
        The file.

    Returns
    -------
    TiffSource
        Its first image, at the first index of every extra axis.

    Raises
    ------
    SourceError
        When it is no TIFF, is damaged in its headers, or needs a feature that is not supported; the message names it.
    """
    return _opened(TiffSource(file=file))


def _opened(source: TiffSource) -> TiffSource:
    return TiffSource(file=source.file, chosen=source.chosen, fingerprint=source.info.fingerprint)


def needs_openslide(file: File) -> bool:
    """Return whether a TIFF is of a scanner whose directories alone do not give its pixels.

    These are Hamamatsu NDPI (each level one JPEG), Ventana BIF (overlapping tiles), Leica SCN (several areas), Philips
    (padded levels) and Trestle (overlaps).

    Parameters
    ----------
    file : File
        A TIFF file.

    Returns
    -------
    bool
        False also for a file that is no TIFF.
    """
    try:
        return _is_scanner_format([ifd for _, ifd in zip(range(3), iter_ifds(file), strict=False)])
    except SourceError:
        return False


def _is_scanner_format(ifds: Sequence[Ifd]) -> bool:
    first = ifds[0]
    if 65420 in first or 65426 in first:  # Hamamatsu
        return True
    text, software = first.text(270)[:4096], first.text(305)
    if software.startswith(("Philips", "MedScan")) or "http://www.leica-microsystems.com/scn/" in text:
        return True
    return any(b"iScan" in ifd.data(700)[:65536] for ifd in ifds if 700 in ifd)  # Ventana


def _stamp(file: File) -> tuple[object, ...]:
    """Return size and time of a local file, which tell a change during a run; size and entity tag of a remote one."""
    if not file.is_local:
        return file.size, file.seen.version
    try:
        found = os.stat(file.path)
    except OSError as error:
        raise SourceError.of(
            f"`{file.url}`",
            got=(error.strerror or str(error)).lower(),
            expected="a readable file",
            do="Check the path and permissions.",
        ) from error
    return found.st_size, found.st_mtime_ns


def _parse(file: File, chosen: Mapping[str, int], stamp: tuple[object, ...]) -> _Parsed:
    fresh = File(url=file.url, options=file.options)  # a size remembered from before a change would mislead
    try:
        layout = _layout(fresh, chosen)
        selection = {name: chosen.get(name, 0) for name in layout.axes}
        info, keep = describe(layout, selection=selection, chosen=chosen)
    except (OverflowError, MemoryError, RecursionError) as error:
        raise SourceError.of(
            f"`{file.url}`",
            got=f"headers that lead to {type(error).__name__}",
            expected="sizes that make sense",
            do="Check that the file was copied whole.",
        ) from error
    levels = tuple(LevelReader(level=level, nodata=info.nodata, keep_classes=keep) for level in layout.levels)
    return _Parsed(info=info, levels=levels, thumbnail=layout.thumbnail, stamp=stamp)


def _layout(file: File, chosen: Mapping[str, int]) -> Layout:
    ifds = list(iter_ifds(file))
    description = ifds[0].text(270)
    if _is_scanner_format(
        ifds[:3]
    ):  # also keeps its label and macro images, which are directories like any other, inside
        raise refuse(
            file,
            got="a scanner's format whose tiles overlap, are padded or are one large JPEG",
            expected="tiles that stand for themselves",
            do="Read it with OpenSlide.",
        )
    if description.startswith("Aperio"):
        return aperio_layout(ifds)
    if is_qptiff(description):
        return qptiff_layout(ifds)
    if is_ome(description):
        return ome_layout(ifds, series=chosen.get("series", 0), z=chosen.get("z", 0), t=chosen.get("t", 0))
    page = chosen.get("page", 0)
    return generic_layout(ifds, page=page, outer=_outer(file, ifds), mask=() if page else _beside(file, ".msk"))


def _outer(file: File, ifds: list[Ifd]) -> list[Ifd]:
    """Return the directories of an external overview file, where there is one and none are inside."""
    if any(ifd.one(254, 0) & 1 for ifd in ifds) or file.name.lower().endswith(".ovr"):
        return []
    return _beside(file, ".ovr")


def _beside(file: File, ending: str) -> list[Ifd]:
    """Return the directories of GDAL's file for overviews or the mask of an image, where there is one."""
    beside = file.beside(file.name + ending)
    return list(iter_ifds(beside)) if beside.exists else []
