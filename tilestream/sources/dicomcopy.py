"""Frames of one level of a DICOM series as Zarr chunks, copied without being decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tilestream.codecs.imagechunks import JPEG as JPEG_CODEC
from tilestream.codecs.imagechunks import JPEG2K as JPEG2K_CODEC
from tilestream.errors import DamagedError
from tilestream.sources.dicomdecode import JPEG, JPEG2000, checked_jpeg, decode_frame, is_raw_rgb, sample_dtype
from tilestream.sources.dicomfile import Instance
from tilestream.sources.dicomframes import joined
from tilestream.sources.dicomseries import Series, frame_of
from tilestream.sources.encoded import copied, image_level
from tilestream.sources.gather import Range, gather
from tilestream.sources.jpeg2000copy import lossless_jpeg2000, stands_alone
from tilestream.sources.jpegsplice import JpegSplicer
from tilestream.sources.streamcheck import check_jpeg2000
from tilestream.types import Cell, Encoded, EncodedLevel

_ADDED_BYTES = 20
"""What a mark of colour and a checksum take at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DicomCopy:
    """Gives the frames of one level and focal plane as they are stored."""

    series: Series
    """The series."""
    level: int
    """Level."""
    plane: int
    """Focal plane."""
    path: int
    """Optical path of a series in colour."""

    @cached_property
    def spec(self) -> EncodedLevel:
        """Return how chunks decode, or why they cannot be copied."""
        instances = [part.instance for part in self.series.levels[self.level]]
        kinds = {1 if one.syntax in JPEG else 2 if one.syntax in JPEG2000 else 0 for one in instances}
        if kinds not in ({1}, {2}):
            return EncodedLevel(reason="frames are not JPEG or JPEG 2000 throughout")
        first = instances[0]
        name = JPEG_CODEC if kinds == {1} else JPEG2K_CODEC
        stored = 0
        for part in self.series.levels[self.level]:
            index = part.index[:, min(self.plane, part.index.shape[1] - 1)]
            stored += int((part.instance.table[index[index >= 0], 1].clip(0) + _ADDED_BYTES).sum())
        channels = int(first.get("SamplesPerPixel", 1))
        return image_level(name, channels=channels, tile=first.tile, stored_bytes=stored)

    def read(self, cells: Sequence[Cell]) -> list[Encoded]:
        """Return one chunk a cell, the reason why it is damaged, or None where none is stored."""
        frames = [self._frame(cell) for cell in cells]
        stored = gather([_range(*frame) if frame is not None else None for frame in frames])
        return [
            copied(data, self._copy, frame) if frame is not None else None
            for data, frame in zip(stored, frames, strict=True)
        ]

    def _frame(self, cell: Cell) -> tuple[Instance, int] | None:
        if min(cell) < 0:  # would count from the end without a word
            raise IndexError(f"chunk {cell}: negative")
        path = cell[0] if self.series.paths_are_channels else self.path
        return frame_of(self.series.levels[self.level], path, self.plane, cell[1:])

    @cached_property
    def _splice(self) -> JpegSplicer:
        return JpegSplicer()

    def _copy(self, data: bytes, frame: tuple[Instance, int]) -> bytes:
        instance, number = frame
        try:
            stream = joined(data, number) if instance.is_encapsulated else data
            if instance.syntax in JPEG2000:
                return _jpeg2000(instance, number, stream)
            stream, head = checked_jpeg(instance, stream)
        except DamagedError as error:
            text = str(error)
            raise DamagedError(text if text.startswith("frame ") else f"frame {number + 1}: {text}") from error
        return self._splice(stream, head, is_raw=is_raw_rgb(instance, head))


def _range(instance: Instance, number: int) -> Range:
    offset, length = (int(value) for value in instance.table[number])
    return instance.identity.file, offset, length


def _jpeg2000(instance: Instance, number: int, stream: bytes) -> bytes:
    head = check_jpeg2000(stream, most=instance.tile, samples=int(instance.get("SamplesPerPixel", 1)))
    if stands_alone(head, instance.tile, sample_dtype(instance)):
        return stream
    # samples that the header takes for signed, say: as the source's own decoder gives them
    return lossless_jpeg2000(decode_frame(instance, number), height=instance.tile.y)
