"""One DICOM instance: what its header says, where its frames lie, and which frame shows which tile.

Only the elements named here are parsed to read pixels, so that no patient, label or barcode field is in memory then;
`read_header`, for users who ask what the header says, is the exception.

References
----------
DICOM PS3.3 C.8.12 (whole slide microscopy), C.7.6.17 (dimension organization); PS3.5 A.4 (encapsulated frames).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.config import IGNORE, disable_value_validation
from pydicom.uid import UID

from tilestream.errors import DamagedError
from tilestream.sources.dicomframes import buffered, frame_table, joined, refuse
from tilestream.sources.files import File
from tilestream.types import Shape

WSI, SEGMENTATION = "1.2.840.10008.5.1.4.1.1.77.1.6", "1.2.840.10008.5.1.4.1.1.66.4"
NEVER = frozenset({"LABEL", "OVERVIEW", "LOCALIZER"})
"""Third value of ImageType of images that may show the slide's label: never opened as a slide."""

MOST_TILES = 1 << 26
"""Tiles in a level; more is a broken header (of 256 px tiles these are 4 terapixels)."""
MOST_FRAME_BYTES = 1 << 30
"""Decoded bytes of a frame; a header that claims more is refused, since compressed streams can claim any size."""

_SERIES = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "ImageType", "SpecimenLabelInImage")
_HEADER = (
    *_SERIES,
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("BitsAllocated", "PixelRepresentation", "TotalPixelMatrixRows", "TotalPixelMatrixColumns", "ImagedVolumeWidth"),
    *("ImagedVolumeHeight", "DimensionOrganizationType", "TotalPixelMatrixFocalPlanes", "NumberOfOpticalPaths"),
    *("OpticalPathSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "ConcatenationUID", "ConcatenationFrameOffsetNumber"),
    *("SegmentationType", "SegmentsOverlap", "SegmentSequence"),
)


_parsing = Lock()  # pydicom's switch for its complaints about odd values is global: one thread would undo another's
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_parsing.acquire, after_in_child=_parsing.release, after_in_parent=_parsing.release)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which series an instance belongs to, and what it is in it."""

    file: File
    """The instance."""
    sop_class: str
    """UID of its kind."""
    series: str
    """SeriesInstanceUID."""
    flavour: str
    """Third value of ImageType (`VOLUME`, `THUMBNAIL`, `LABEL` …), empty when there is none."""
    shows_label: bool
    """Whether the header says that the specimen's label is in the picture."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One instance with its frames; heavy tables stay in the process that parsed them."""

    identity: Identity
    """What it is."""
    header: Any
    """The parsed elements (a pydicom Dataset without patient fields)."""
    syntax: str
    """Transfer syntax UID."""
    matrix: Shape
    """Size of the image, px."""
    tile: Shape
    """Size of a frame, px."""
    frames: int
    """Number of frames."""
    table: npt.NDArray[np.int64]
    """`(frames, 2)` offset and length in the file, items included; length -1 for a frame that is cut off."""
    is_encapsulated: bool
    """Whether the range of a frame holds items."""

    @property
    def grid(self) -> Shape:
        """Return the number of tiles along each axis."""
        return Shape(y=-(-self.matrix.y // self.tile.y), x=-(-self.matrix.x // self.tile.x))

    def get(self, name: str, default: Any = None) -> Any:
        """Return an element's value, `default` when it is missing or empty."""
        value = self.header.get(name)
        return default if value in (None, "") else value

    def frame(self, number: int) -> bytes:
        """Return the stored bytes of a frame, fragments joined.

        Parameters
        ----------
        number : int
            Frame, from 0.

        Returns
        -------
        bytes
            Compressed or raw samples.

        Raises
        ------
        DamagedError
            When the file ends before the frame does, or its items are broken.
        """
        offset, length = (int(value) for value in self.table[number])
        if length < 0:
            raise DamagedError(f"frame {number + 1}: the file ends before it: it is cut")
        data = self.identity.file.read(offset, length)
        return joined(data, number) if self.is_encapsulated else data


def read_header(file: File) -> Any:
    """Return all elements before the pixels, those that identify a patient included.

    Parameters
    ----------
    file : File
        An instance.

    Returns
    -------
    pydicom.Dataset
        The header; for `read_extras` alone.

    Raises
    ------
    SourceError
        When it is no DICOM file, or its header is cut.
    """
    return _parse(file, ())[0]


def _opened(file: File) -> BinaryIO:
    if file.is_local:
        return Path(file.path).open("rb")
    return buffered(file)


def _parse(file: File, names: tuple[str, ...]) -> tuple[Any, int]:
    """Return the named elements, or all without names, and the position of the pixel data."""
    try:
        # the header's size is unknown and its sequences are nested: a buffered handle for this one parse
        with _opened(file) as handle, _parsing, disable_value_validation():
            header = pydicom.dcmread(handle, stop_before_pixels=True, specific_tags=list(names) or None)
            position = handle.tell()
            # values are converted when they are first looked at: here, where odd ones do not warn, and only once
            for _ in (*header.file_meta, *header.iterall()):
                pass
            return header, position
    except Exception as error:  # of a cut, scrambled or endlessly nested header pydicom raises what it likes
        raise refuse(file, got=f"a header that cannot be read ({error})", expected="a DICOM file") from error


def identify(file: File) -> Identity:
    """Return which series a file belongs to.

    Parameters
    ----------
    file : File
        A DICOM file.

    Returns
    -------
    Identity
        Series and kind.

    Raises
    ------
    SourceError
        When it is no DICOM file, or its header is cut.
    """
    header, _ = _parse(file, _SERIES)
    if not header.get("SOPClassUID") or not header.get("SeriesInstanceUID"):
        raise refuse(file, got="a header without kind or series: it is cut", expected="a DICOM file")
    image_type = header.get("ImageType") or []
    flavour = str(image_type[2]).upper() if not isinstance(image_type, str) and len(image_type) > 2 else ""
    return Identity(
        file=file,
        sop_class=str(header.get("SOPClassUID") or ""),
        series=str(header.get("SeriesInstanceUID") or ""),
        flavour=flavour,
        shows_label=str(header.get("SpecimenLabelInImage") or "NO").upper() == "YES",
    )


def read_instance(identity: Identity) -> Instance:
    """Return an instance with the table of its frames.

    Parameters
    ----------
    identity : Identity
        Which file.

    Returns
    -------
    Instance
        Header and frame table.

    Raises
    ------
    SourceError
        When the header lacks what a tiled image needs, or contradicts itself.
    """
    file = identity.file
    header, position = _parse(file, _HEADER)
    syntax = str(header.file_meta.get("TransferSyntaxUID") or "1.2.840.10008.1.2")
    tile = Shape(y=int(header.get("Rows") or 0), x=int(header.get("Columns") or 0))
    matrix = Shape(
        y=int(header.get("TotalPixelMatrixRows") or tile.y), x=int(header.get("TotalPixelMatrixColumns") or tile.x)
    )
    frames = int(header.get("NumberOfFrames") or 1)
    if min(tile.y, tile.x, matrix.y, matrix.x, frames) < 1 or UID(syntax, IGNORE).is_deflated:
        raise refuse(
            file,
            got=f"{frames} frames of {tile.y} x {tile.x} for an image of {matrix.y} x {matrix.x}, syntax {syntax}",
            expected="a tiled image with positive sizes",
        )
    frame_bytes = tile.area * int(header.get("SamplesPerPixel") or 1) * (int(header.get("BitsAllocated") or 8) // 8)
    if frame_bytes > MOST_FRAME_BYTES:
        raise refuse(file, got=f"frames of {frame_bytes:,} decoded bytes", expected=f"at most {MOST_FRAME_BYTES:,}")
    if frames > file.size:
        raise refuse(file, got=f"{frames} frames in {file.size} bytes", expected="at least a byte a frame")
    table, is_encapsulated = frame_table(file, header, position, frames, is_implicit=syntax == "1.2.840.10008.1.2")
    return Instance(
        identity=identity,
        header=header,
        syntax=syntax,
        matrix=matrix,
        tile=tile,
        frames=frames,
        table=table,
        is_encapsulated=is_encapsulated,
    )


def frame_index(instance: Instance, planes: int, paths: int) -> npt.NDArray[np.int32]:
    """Return which frame shows which tile.

    Parameters
    ----------
    instance : Instance
        The instance.
    planes, paths : int
        Number of focal planes and optical paths in it.

    Returns
    -------
    ndarray of int32
        `(paths, planes, rows, columns)` frame numbers, -1 where none is stored.

    Raises
    ------
    SourceError
        When positions are missing or do not lie on the grid of tiles.
    """
    grid = instance.grid
    per_frame = instance.get("PerFrameFunctionalGroupsSequence")
    organised = str(instance.get("DimensionOrganizationType", "")).upper()
    full = _checked_tiles(instance, planes, paths)
    if organised != "TILED_SPARSE" and (organised == "TILED_FULL" or not _has_positions(per_frame)):
        if instance.frames > full or (instance.frames < full and not instance.get("ConcatenationUID")):
            raise refuse(
                instance.identity.file,
                got=f"{instance.frames} frames",
                expected=f"{full}: {paths} optical paths x {planes} focal planes x {grid.y} x {grid.x} tiles",
            )
        # C.7.6.17.3: columns first, then rows, focal planes, optical paths
        index = np.full(full, -1, np.int32)
        first = int(instance.get("ConcatenationFrameOffsetNumber", 0))
        if not 0 <= first < full:
            raise refuse(instance.identity.file, got=f"frames from {first} on", expected=f"numbers below {full}")
        index[first : first + instance.frames] = np.arange(instance.frames, dtype=np.int32)[: full - first]
        return index.reshape(paths, planes, grid.y, grid.x)
    return _sparse(instance, per_frame, planes, paths)


def _checked_tiles(instance: Instance, planes: int, paths: int) -> int:
    """Return the number of tiles that the header promises, before a table of them is made."""
    full = instance.grid.area * planes * paths
    if not 0 < full <= MOST_TILES:
        raise refuse(
            instance.identity.file,
            got=f"{full:,} tiles for {instance.frames} frames",
            expected=f"1 to {MOST_TILES:,}",
        )
    return full


def _has_positions(per_frame: Any) -> bool:
    return bool(per_frame) and "PlanePositionSlideSequence" in per_frame[0]


def _sparse(instance: Instance, per_frame: Any, planes: int, paths: int) -> npt.NDArray[np.int32]:
    grid, tile = instance.grid, instance.tile
    identifiers = [str(path.get("OpticalPathIdentifier", "")) for path in instance.get("OpticalPathSequence", ())]
    positions = [frame.PlanePositionSlideSequence[0] for frame in per_frame or () if _has_positions([frame])]
    depths = sorted({float(p.get("ZOffsetInSlideCoordinateSystem") or 0) for p in positions})
    planes = max(planes, len(depths))
    _checked_tiles(instance, planes, paths)
    index = np.full((paths, planes, grid.y, grid.x), -1, np.int32)
    if len(positions) != instance.frames:
        raise refuse(
            instance.identity.file, got=f"{len(positions)} positions", expected=f"{instance.frames}, one a frame"
        )
    for number, (frame, position) in enumerate(zip(per_frame, positions, strict=True)):
        y = int(position.RowPositionInTotalImagePixelMatrix) - 1
        x = int(position.ColumnPositionInTotalImagePixelMatrix) - 1
        if y % tile.y or x % tile.x or not (0 <= y < instance.matrix.y and 0 <= x < instance.matrix.x):
            raise refuse(
                instance.identity.file,
                got=f"frame {number + 1} at row {y + 1}, column {x + 1}",
                expected=f"positions on the grid of {tile.y} x {tile.x} tiles",
                do="Frames that overlap cannot be read.",
            )
        depth = depths.index(float(position.get("ZOffsetInSlideCoordinateSystem") or 0))
        index[_path_of(frame, identifiers), depth, y // tile.y, x // tile.x] = number
    return cast("npt.NDArray[np.int32]", index)


def _path_of(frame: Any, identifiers: list[str]) -> int:
    sequence = frame.get("OpticalPathIdentificationSequence")
    name = str(sequence[0].get("OpticalPathIdentifier", "")) if sequence else ""
    return identifiers.index(name) if name in identifiers else 0
