"""Where the frames of a DICOM instance lie: native, or encapsulated with or without an offset table.

References
----------
DICOM PS3.5, A.4.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import DamagedError, SourceError
from tilestream.sources.files import File

HEADER_BYTES = 1 << 16
"""Headers are read in pieces of this size."""
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


def refuse(file: File, *, got: str, expected: str, do: str = "Check that the file was copied whole.") -> SourceError:
    """Return the error for a file that is no slide that can be read.

    Parameters
    ----------
    file : File
        The instance.
    got, expected, do : str
        Parts of the message.

    Returns
    -------
    SourceError
        Ready to raise.
    """
    return SourceError.of(f"`{file.url}`", got=got, expected=expected, do=do)


def frame_table(
    file: File, header: Any, position: int, frames: int, *, is_implicit: bool
) -> tuple[npt.NDArray[np.int64], bool]:
    """Return where the frames of an instance lie, and whether their ranges hold items.

    Parameters
    ----------
    file : File
        The instance.
    header : Dataset
        Its parsed elements.
    position : int
        Where the pixel data element starts.
    frames : int
        Number of frames.
    is_implicit : bool
        Whether elements are written without their type.

    Returns
    -------
    ndarray of int64 and bool
        `(frames, 2)` offsets and lengths, length -1 for a frame that is cut off; one row for frames of one bit.

    Raises
    ------
    SourceError
        When there is no pixel data, or its frames cannot be told apart.
    """
    is_encapsulated, start, length = _pixel_element(file, position, is_implicit)
    if is_encapsulated:
        return _encapsulated(file, start, header, frames), True
    bits = int(header.get("BitsAllocated") or 8) * int(header.get("SamplesPerPixel") or 1)
    bits *= int(header.get("Rows") or 0) * int(header.get("Columns") or 0)
    if bits % 8:  # one-bit frames share bytes: the reader of segmentations takes them apart
        return np.array([[start, length]], np.int64), False
    first = start + np.arange(frames, dtype=np.int64) * (bits // 8)
    return np.stack([first, np.full(frames, bits // 8, np.int64)], axis=1), False


def _pixel_element(file: File, position: int, implicit: bool) -> tuple[bool, int, int]:
    """Return whether the pixel data is encapsulated, where its value starts, and its length."""
    need = 8 if implicit else 12
    head = file.read(position, need) if position + need <= file.size else b""
    if head[:4] != b"\xe0\x7f\x10\x00":
        raise refuse(file, got="no pixel data behind the header", expected="pixel data (7FE0,0010)")
    length = int.from_bytes(head[-4:], "little")
    return length == 0xFFFFFFFF, position + need, length


def _encapsulated(file: File, start: int, header: Any, frames: int) -> npt.NDArray[np.int64]:
    """Return the ranges of the frames from the extended or basic offset table, else by walking the fragments."""
    head = file.read(start, 8) if start + 8 <= file.size else b""
    size = int.from_bytes(head[4:8], "little")
    if head[:4] != _ITEM or start + 8 + size > file.size:
        raise refuse(file, got="pixel data that do not start with an offset table", expected="encapsulated frames")
    base = start + 8 + size
    extended = header.get("ExtendedOffsetTable"), header.get("ExtendedOffsetTableLengths")
    if extended[0] and extended[1] and len(extended[0]) == len(extended[1]) == 8 * frames:
        offsets, lengths = (np.frombuffer(part, "<u8").astype(np.int64) for part in extended)
        return np.stack([base + offsets, lengths + 8 + lengths % 2], axis=1)
    if size == 4 * frames:
        basic = np.frombuffer(file.read(start + 8, size), "<u4").astype(np.int64)
        if basic[0] == 0 and (np.diff(basic) > 0).all():  # it wraps around at 4 GiB
            last = _fragments(file, base + int(basic[-1]))
            stop = last[-1][0] + last[-1][1] if last else -1
            starts = base + basic
            return np.stack([starts, np.append(starts[1:], stop if stop > 0 else starts[-1] - 1) - starts], axis=1)
    return _grouped(file, _fragments(file, base), frames)


def _fragments(file: File, position: int) -> list[tuple[int, int]]:
    """Return offset and length (header included) of each fragment up to the end of the sequence or of the file."""
    found: list[tuple[int, int]] = []
    reader = io.BufferedReader(_Window(file, position), HEADER_BYTES)
    while len(head := reader.read(8)) == 8 and head[:4] == _ITEM:
        length = int.from_bytes(head[4:], "little")
        found.append((position, 8 + length))
        position += 8 + length
        if position > file.size:  # the range is kept: reading it will say that the file is cut
            break
        reader.seek(length, io.SEEK_CUR)
    return found


class _Window(io.RawIOBase):
    """A file from a position on, so that fragment heads are read through a buffer."""

    def __init__(self, file: File, start: int) -> None:
        self._file, self._start, self._at = file, start, 0
        self.name = file.url  # pydicom asks for it

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        ends = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size - self._start}
        self._at = ends[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        position = self._start + self._at
        wanted = max(0, min(len(buffer), self._file.size - position))
        data = self._file.read(position, wanted) if wanted else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def buffered(file: File) -> io.BufferedReader:
    """Return a handle on a file, local or remote, that reads pieces of 64 KiB.

    Parameters
    ----------
    file : File
        The file.

    Returns
    -------
    io.BufferedReader
        At its start; holds nothing that would have to be closed.
    """
    return io.BufferedReader(_Window(file, 0), HEADER_BYTES)


def _grouped(file: File, fragments: list[tuple[int, int]], frames: int) -> npt.NDArray[np.int64]:
    """Return the frames of fragments without an offset table: one each, or each beginning at an image's start."""
    if frames == 1 and fragments:
        stop = sum(fragments[-1])
        return np.array([[fragments[0][0], stop - fragments[0][0]]], np.int64)
    if len(fragments) > frames:
        marks = (b"\xff\xd8\xff", b"\xff\x4f\xff", b"\0\0\0\x0c")
        begins = [n for n, (at, size) in enumerate(fragments) if size > 11 and file.read(at + 8, 4).startswith(marks)]
        if len(begins) != frames or begins[0] != 0:
            raise refuse(
                file, got=f"{len(fragments)} fragments for {frames} frames and no offset table", expected="one of both"
            )
        stops = [*(fragments[n][0] for n in begins[1:]), sum(fragments[-1])]
        fragments = [(fragments[n][0], stop - fragments[n][0]) for n, stop in zip(begins, stops, strict=True)]
    missing = [(0, -1)] * (frames - len(fragments))
    return np.array(fragments + missing, np.int64).reshape(frames, 2)


def joined(data: bytes, number: int) -> bytes:
    """Return the content of the items in a range, put together.

    Parameters
    ----------
    data : bytes
        Items with their headers.
    number : int
        Frame, from 0; for the message.

    Returns
    -------
    bytes
        One compressed stream.

    Raises
    ------
    DamagedError
        When an item is broken.
    """
    parts, position = [], 0
    while position < len(data) and data[position : position + 4] != _END:
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        stop = position + 8 + length
        if data[position : position + 4] != _ITEM or stop > len(data):
            raise DamagedError(f"frame {number + 1}: broken item {data[position : position + 8].hex(' ')}")
        parts.append(data[position + 8 : stop])
        position = stop
    return b"".join(parts)
