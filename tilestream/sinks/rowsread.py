"""Rows of our own stores, read from their one file; a Zarr library takes ten times as long, thousands of times over."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import google_crc32c
import imagecodecs
import numpy as np
import numpy.typing as npt
from numcodecs import Zstd

from tilestream.codecs.shards import MISSING
from tilestream.errors import DamagedError
from tilestream.types import Array

Ints: TypeAlias = npt.NDArray[np.int64]
Positions: TypeAlias = range | Ints
"""Ascending places along an axis."""
_ENTRY_BYTES, _CRC_BYTES = 16, 4


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """How an array that `rows.RowArray` has written lies in its file."""

    shape: tuple[int, ...]
    """Rows first."""
    dtype: np.dtype[Any]
    """Type of the values."""
    chunk_rows: int
    """Rows of a chunk."""
    chunks: int
    """Chunks in the file."""
    fill_value: float
    """Value of chunks that are not stored."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Return the layout that an array's `zarr.json` states."""
        chunk_rows = int(document["codecs"][0]["configuration"]["chunk_shape"][0])
        return cls(
            shape=tuple(document["shape"]),
            dtype=np.dtype(document["data_type"]).newbyteorder("<"),
            chunk_rows=chunk_rows,
            chunks=int(document["chunk_grid"]["configuration"]["chunk_shape"][0]) // chunk_rows,
            fill_value=float(document["fill_value"]),
        )


def read_rows(path: Path, layout: RowLayout, rows: Positions | None = None) -> Array:
    """Return rows of an array that `rows.RowArray` has written.

    Parameters
    ----------
    path : Path
        Folder of the array.
    layout : RowLayout
        How it lies there.
    rows : range or ndarray of int64, optional
        Which rows, ascending; all by default.

    Returns
    -------
    ndarray
        `(len(rows), *layout.shape[1:])`.

    Raises
    ------
    DamagedError
        When the file is cut or altered.
    OSError
        When it cannot be read.

    Notes
    -----
    Reads the index of the file and the chunks that the rows are in; one of them is in memory beside the result.
    """
    rows = range(layout.shape[0]) if rows is None else rows
    found = np.empty((len(rows), *layout.shape[1:]), layout.dtype)
    file = path / "c" / "/".join("0" for _ in layout.shape)
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:  # nothing but the fill value; a store that is not there was noticed before
        found[...] = layout.fill_value
        return found
    try:
        index = _index(descriptor, layout.chunks)
        for number, own, taken in split_rows(rows, np.arange(layout.chunks + 1) * layout.chunk_rows):
            offset, nbytes = index[number]
            if (offset, nbytes) == MISSING:
                found[own] = layout.fill_value
                continue
            data, whole = os.pread(descriptor, nbytes, offset), found[own]
            if len(whole) == layout.chunk_rows:  # all of the chunk, in its order: no copy
                memory = whole.reshape(-1).view(np.uint8).data
                if len(imagecodecs.zstd_decode(data, out=memory)) != memory.nbytes:
                    raise ValueError(f"chunk {number} holds less than its {memory.nbytes} bytes")
                continue
            chunk = np.frombuffer(Zstd().decode(data), layout.dtype).reshape(layout.chunk_rows, *layout.shape[1:])
            found[own] = chunk[taken.start : taken.stop : taken.step] if isinstance(taken, range) else chunk[taken]
    except (RuntimeError, ValueError) as error:  # what zstd says of a checksum, and NumPy of a wrong size
        raise DamagedError(f"`{file}`: {error}") from error
    finally:
        os.close(descriptor)
    return found


def split_rows(rows: Positions, edges: Ints) -> Iterator[tuple[int, slice, Positions]]:
    """Yield where rows lie among intervals: number of the interval, places in `rows`, rows from its start.

    Parameters
    ----------
    rows : range or ndarray of int64
        Ascending, at least `edges[0]`, below `edges[-1]`.
    edges : ndarray of int64
        `(intervals + 1,)` ascending; intervals may be empty.

    Yields
    ------
    tuple
        Intervals in which no row lies are left out.
    """
    if not len(rows):
        return
    # from the right: an empty interval shares its start with the next one
    low, high = (int(n) - 1 for n in np.searchsorted(edges, [rows[0], rows[-1]], side="right"))
    near = edges[low : high + 2]
    if isinstance(rows, range):
        ends = np.clip(-((rows.start - near) // rows.step), 0, len(rows))
    else:
        ends = np.searchsorted(rows, near)
    for number in np.flatnonzero(np.diff(ends)):
        own, start = slice(int(ends[number]), int(ends[number + 1])), int(near[number])
        taken = rows[own]
        if isinstance(taken, range):
            yield low + int(number), own, range(taken.start - start, taken.stop - start, taken.step)
        else:
            yield low + int(number), own, taken - start


def _index(descriptor: int, chunks: int) -> list[tuple[int, int]]:
    size = os.fstat(descriptor).st_size
    start = size - _CRC_BYTES - _ENTRY_BYTES * chunks
    data = os.pread(descriptor, size - start, start) if start >= 0 else b""
    end = len(data) - _CRC_BYTES
    if start < 0 or struct.pack("<I", google_crc32c.value(data[:end])) != data[end:]:
        raise ValueError(f"{size} bytes, of which the index of {chunks} chunks is cut or altered")
    return [(int(offset), int(nbytes)) for offset, nbytes in np.frombuffer(data, "<u8", 2 * chunks).reshape(-1, 2)]


def read_texts(path: Path) -> tuple[str, ...]:
    """Return the texts that `rows.write_texts` has written.

    Parameters
    ----------
    path : Path
        Folder of the array.

    Returns
    -------
    tuple of str
        Values.

    Raises
    ------
    DamagedError
        When the file is cut or altered.
    """
    file = path / "c" / "0"
    if not file.exists():
        return ()
    try:
        raw = bytes(Zstd().decode(file.read_bytes()))
        (count,), at, texts = struct.unpack_from("<I", raw), 4, []
        for _ in range(count):
            (size,) = struct.unpack_from("<I", raw, at)
            texts.append(raw[at + 4 : at + 4 + size].decode())
            at += 4 + size
    except (RuntimeError, ValueError, struct.error) as error:
        raise DamagedError(f"`{file}`: {error}") from error
    return tuple(texts)
