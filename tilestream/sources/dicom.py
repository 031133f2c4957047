"""Whole slides as DICOM: one series is one image, whatever number of files it is spread over.

Label, overview and localizer images may identify a patient: `read_identifying` alone opens them, never as a slide.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from threading import Lock

import numpy as np
from pydicom.config import IGNORE
from pydicom.uid import UID
from zict import LRU

from tilestream.errors import ConfigError, SourceError, TilestreamError
from tilestream.sources.address import checked_index, default_notes
from tilestream.sources.dicomcopy import DicomCopy
from tilestream.sources.dicomdecode import decode_frame
from tilestream.sources.dicomfile import NEVER, WSI, Identity, Instance, identify
from tilestream.sources.dicomframes import refuse
from tilestream.sources.dicomseries import Series, describe, fingerprint_of, frame_of, parse_series
from tilestream.sources.extras import Extras
from tilestream.sources.files import File
from tilestream.sources.recognise import inside, list_folder, suffix_of
from tilestream.sources.samples import extra_axes
from tilestream.types import Array, Block, Box, Cell, Encoded, EncodedLevel, ImageInfo, Source

OPEN_SERIES = 64
"""Series whose frame tables stay in one process; a table is 20 bytes a frame."""


class _Tables:
    """Parsed series of this process by fingerprint; a forked child parses its own."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._series: LRU[tuple[int, str], Series] = LRU(OPEN_SERIES, {})

    def get(self, fingerprint: str) -> Series | None:
        with self._lock:
            return self._series.get((os.getpid(), fingerprint))

    def put(self, fingerprint: str, series: Series) -> None:
        with self._lock:
            self._series[os.getpid(), fingerprint] = series

    def renew(self) -> None:
        self.__init__()  # type: ignore[misc]  # the parent may have held the lock when it forked


_tables = _Tables()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tables.renew)


@dataclass(frozen=True, kw_only=True)
class DicomSource:
    """One series; pickles without its frame tables, which the other side parses again."""

    file: File
    """Folder or file that the user named."""
    series: str
    """SeriesInstanceUID."""
    all_series: tuple[str, ...]
    """Slides in the folder, in order of their UID; one when a file was named."""
    info: ImageInfo
    """Description of the selected 2-D image."""

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block | None:
        """Return one tile with all channels, cropped at the edges of the level; None where one of them is not stored.

        Parameters
        ----------
        level, iy, ix : int
            Level, and row and column in its grid of tiles.
        out : ndarray, optional
            Not used: what is decoded here does not fit into a caller's buffer as it is.

        Returns
        -------
        Block or None
            Pixels `(y, x, c)`.

        Raises
        ------
        DamagedError
            When a frame is cut or broken.
        """
        stored = self.info.levels[level]
        height, width = min(stored.block.y, stored.shape.y - iy * stored.block.y), stored.shape.x - ix * stored.block.x
        frames = self._frames(level, iy, ix)
        found = [frame for frame in frames if frame is not None]
        if len(found) < len(frames):
            return None
        decoded = [decode_frame(*frame) for frame in found]
        pixels = decoded[0] if len(decoded) == 1 else np.concatenate(decoded, axis=2)
        return Block(pixels=pixels[:height, :width])

    def warm(self, box: Box) -> None:
        """Fetch the frames of a box of a level, where the files are remote."""
        if self.file.is_local:
            return
        stored = self.info.levels[box.level]
        box = box.intersect(stored.box)
        rows = range(box.y // stored.block.y, -(-box.y_stop // stored.block.y))
        columns = range(box.x // stored.block.x, -(-box.x_stop // stored.block.x))
        ranges: dict[str, list[tuple[int, int]]] = {}
        files: dict[str, File] = {}
        found = [one for iy, ix in product(rows, columns) for one in self._frames(box.level, iy, ix)]
        for instance, number in filter(None, found):
            file = instance.identity.file
            offset, nbytes = (int(value) for value in instance.table[number])
            ranges.setdefault(file.url, []).append((offset, nbytes))
            files[file.url] = file
        for url, wanted in ranges.items():
            files[url].warm([(offset, nbytes) for offset, nbytes in wanted if nbytes > 0])

    def _frames(self, level: int, iy: int, ix: int) -> list[tuple[Instance, int] | None]:
        """Return where the frames of a tile are, one for each optical path that is read."""
        series, selection = self._parsed(), self.info.selection
        paths = range(series.paths) if series.paths_are_channels else (selection.get("path", 0),)
        return [frame_of(series.levels[level], path, selection.get("z", 0), (iy, ix)) for path in paths]

    def encoded(self, level: int) -> EncodedLevel:
        """Return how the frames of a level decode by themselves, or why they cannot be copied."""
        return self._copy(level).spec

    def read_encoded(self, level: int, cells: Sequence[Cell]) -> list[Encoded]:
        """Return frames as they are stored, each made to stand for itself.

        Parameters
        ----------
        level : int
            A level whose `encoded` gives no reason against it.
        cells : sequence of tuple
            Indices `(c, y, x)` of tiles.

        Returns
        -------
        list of bytes, DamagedError or None
            One a cell: a Zarr chunk, the reason why the frame is damaged, or None where none is stored.

        Raises
        ------
        IndexError
            When there is no such level or tile.
        SourceError
            When a file cannot be read.
        """
        return self._copy(level).read(cells)

    def _copy(self, level: int) -> DicomCopy:
        selection = self.info.selection
        return DicomCopy(series=self._parsed(), level=level, plane=selection.get("z", 0), path=selection.get("path", 0))

    def isel(self, **index: int) -> Source:
        """Return the source with another focal plane (`z`), optical path (`path`) or slide (`series`)."""
        chosen = {**self.info.selection, **checked_index(index, extra_axes(self.info.axes))}
        if "series" in index:
            rest = {name: value for name, value in chosen.items() if name != "series"}
            other = _source(self.file, self.all_series, chosen["series"], asked=True)
            return other.isel(**{name: value for name, value in rest.items() if value})
        notes = tuple(note for note in self.info.notes if not any(note.startswith(f"axis {n} has") for n in index))
        return replace(self, info=replace(self.info, selection=chosen, notes=notes))

    def read_associated(self, name: str) -> Array:
        """Raise `ConfigError`: no associated image of a series is offered."""
        raise ConfigError.of(
            f"associated image `{name}`",
            got="a DICOM series",
            expected="no name: label, overview and localizer images can identify a patient",
            do="Read the slide itself.",
        )

    def read_extras(self) -> Extras:
        """Return what the header of the finest level says besides the pixels."""
        from tilestream.sources.dicomextras import dicom_extras

        return dicom_extras(self._parsed().first.identity, _instances(self.file, self.series))

    def read_identifying(self, name: str) -> Array:
        """Return a picture `(y, x, c)` that may show a label; only for users who said that they want it."""
        from tilestream.sources.dicomextras import picture_pixels, pictures_of

        return picture_pixels(pictures_of(_instances(self.file, self.series))[name])

    def _parsed(self) -> Series:
        series = _tables.get(self.info.fingerprint)
        if series is None:
            series = parse_series(_members(self.file, self.series))
            if (now := fingerprint_of(series)) != self.info.fingerprint:
                raise SourceError.of(
                    f"`{self.file.url}`",
                    got=f"a series with fingerprint {now[:12]}",
                    expected=f"{self.info.fingerprint[:12]}, as when it was opened",
                    do="Do not change files while they are read.",
                )
            _tables.put(now, series)
        return series


def open_dicom(file: File) -> DicomSource:
    """Return a slide stored as a DICOM series.

    Parameters
    ----------
    file : File
        A folder with the files of one or more series, or one file: the others of its series lie beside it.

    Returns
    -------
    DicomSource
        The slide.

    Raises
    ------
    SourceError
        When there is no slide in it; annotations and other kinds of DICOM are named for what they are.
    """
    if list_folder(file) is not None:
        slides = {one.series for one in _identities(file) if one.sop_class == WSI and one.flavour not in NEVER}
        if not slides:
            raise refuse(file, got="no slide", expected="whole slide microscopy images", do="Give another folder.")
        return _source(file, tuple(sorted(slides)), 0, asked=False)
    identity = identify(file)
    if identity.sop_class != WSI:
        raise refuse(
            file,
            got=f"DICOM of the kind {UID(identity.sop_class, IGNORE).name or 'unknown'}, no image of a slide",
            expected="whole slide microscopy",
            do="Give the slide that it belongs to.",
        )
    if identity.flavour in NEVER or identity.shows_label:
        raise refuse(
            file,
            got=f"a {identity.flavour.lower() or 'label'} image of a slide",
            expected="the slide itself (ImageType VOLUME)",
            do="Such images can identify a patient and are never opened as one.",
        )
    return _source(file, (identity.series,), 0, asked=True)


def _identities(folder: File) -> Iterable[Identity]:
    listed = list_folder(folder)
    for name in sorted(listed.names if listed else ()):
        file = inside(folder, name)
        if suffix_of(name) not in ("dcm", "dicom", "") and not name.replace(".", "").isdigit():
            continue
        if file.exists and file.size > 132 and file.read(128, 4) == b"DICM":
            yield identify(file)


def _instances(file: File, series: str) -> list[Identity]:
    """Return the images of a series in a folder or beside a file, its pictures of the label too."""
    folder = file if list_folder(file) is not None else File(url=_parent(file.url), options=file.options)
    if list_folder(folder) is None:  # a web server: nothing beside the file can be found
        return [identify(file)]
    return [one for one in _identities(folder) if one.series == series and one.sop_class == WSI]


def _members(file: File, series: str) -> list[Identity]:
    """Return the instances of a series that are part of its slide."""
    members = _instances(file, series)
    kept = [one for one in members if one.flavour not in NEVER | {"THUMBNAIL"} and not one.shows_label]
    if not kept:
        raise refuse(file, got=f"{len(members)} files without a slide among them", expected="ImageType VOLUME")
    return kept


def _parent(url: str) -> str:
    return url.rpartition("/")[0] if "/" in url else "."


def _source(file: File, all_series: tuple[str, ...], number: int, *, asked: bool) -> DicomSource:
    try:
        series = parse_series(_members(file, all_series[number]))
        info = describe(series)
    except TilestreamError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:  # of elements' values
        raise refuse(file, got=f"a header with {type(error).__name__}: {error}", expected="a slide's header") from error
    sizes = {"series": len(all_series)} if len(all_series) > 1 else {}
    notes = default_notes(sizes, {"series": 0} if asked else {})
    chosen = dict.fromkeys(sizes, number)
    info = replace(
        info, axes={**info.axes, **sizes}, selection={**info.selection, **chosen}, notes=(*info.notes, *notes)
    )
    _tables.put(info.fingerprint, series)
    return DicomSource(file=file, series=all_series[number], all_series=all_series, info=info)
