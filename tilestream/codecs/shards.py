"""Writes one whole Zarr v3 shard as its chunks come; nothing but the index is kept in memory."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import google_crc32c
import numpy as np
from numcodecs import Zstd

from tilestream.codecs.durable import DurableFile
from tilestream.codecs.metadata import ZSTD_LEVEL
from tilestream.codecs.wholefile import WholeFile
from tilestream.errors import ConfigError, DamagedError
from tilestream.types import Array

# Offset and length of a chunk that is not stored: Zarr v3 sharding codec, section "Binary shard format".
MISSING = (2**64 - 1, 2**64 - 1)
_CRC_BYTES = 4
WRITE_BYTES = 1 << 20
"""Chunks are handed on together from this size: few large writes and checksums let other threads run meanwhile."""


class ShardWriter:
    """A shard file that is appended to in C order of its chunks; use it as a context manager.

    Zarr libraries write shards by reading, changing and rewriting them, and lose pixels when two tasks do so at once.
    Here one owner writes the whole object once: chunks, then the index; it appears under its name at the end.

    Parameters
    ----------
    target : Path or WholeFile
        Final name of the shard, whose folder is created, or a file in the making (`Place.writer`).
    chunk_shape : sequence of int
        Shape of the inner chunks; edge chunks are padded by the caller.
    dtype : numpy.dtype
        Type of the array.
    transpose : sequence of int, optional
        Order of the axes in the stored bytes, as in the array's `transpose` codec.

    Raises
    ------
    OutputError
        When the place cannot be written.

    References
    ----------
    Zarr v3 sharding codec, https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
    """

    def __init__(
        self,
        target: Path | WholeFile,
        *,
        chunk_shape: Sequence[int],
        dtype: np.dtype[Any],
        transpose: Sequence[int] | None = None,
    ) -> None:
        self._chunk_shape = tuple(chunk_shape)
        self._dtype = dtype.newbyteorder("<")
        self._transpose = tuple(transpose) if transpose is not None else None
        self._compressor = Zstd(level=ZSTD_LEVEL, checksum=True)
        self._index: list[tuple[int, int]] = []
        self._pending: list[bytes | memoryview] = []
        self._size_bytes = self._written_bytes = 0
        self._file: WholeFile = DurableFile(target) if isinstance(target, Path) else target

    @property
    def chunks(self) -> int:
        """Return the number of chunks appended so far."""
        return len(self._index)

    @property
    def checksum(self) -> str:
        """Return the checksum of the file, final after the block has ended."""
        return self._file.checksum

    def append(self, chunk: Array) -> None:
        """Compress and append the next chunk.

        Parameters
        ----------
        chunk : numpy.ndarray
            Values of the chunk's shape and the array's type.

        Raises
        ------
        ConfigError
            When shape or type differ.
        OutputError
            When the disk is full.
        """
        if chunk.shape != self._chunk_shape or chunk.dtype.newbyteorder("<") != self._dtype:
            raise ConfigError.of(
                f"chunk {self.chunks} of `{self._file.path}`",
                got=f"{chunk.dtype} of shape {chunk.shape}",
                expected=f"{self._dtype} of shape {self._chunk_shape}",
                do="Pad edge chunks with the fill value and convert the type first.",
            )
        ordered = chunk if self._transpose is None else chunk.transpose(self._transpose)
        self.append_encoded(self._compressor.encode(np.ascontiguousarray(ordered, dtype=self._dtype)))

    def append_encoded(self, data: bytes | memoryview) -> None:
        """Append the next chunk as bytes that are encoded already.

        Parameters
        ----------
        data : bytes
            What the array's codecs decode.

        Raises
        ------
        OutputError
            When the disk is full.
        """
        self._index.append((self._size_bytes, len(data)))
        self._pending.append(data)
        self._size_bytes += len(data)
        if self._size_bytes - self._written_bytes >= WRITE_BYTES:
            self._write_pending()

    def append_missing(self, count: int = 1) -> None:
        """Say that the next chunks hold nothing but the fill value.

        Parameters
        ----------
        count : int
            Number of chunks.
        """
        self._index.extend([MISSING] * count)

    def __enter__(self) -> Self:
        self._file.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                self._write_index()
            except BaseException as failure:
                self._file.__exit__(type(failure), failure, failure.__traceback__)
                raise
        self._file.__exit__(kind, error, trace)

    def _write_pending(self) -> None:
        self._file.write(b"".join(self._pending))
        self._pending.clear()
        self._written_bytes = self._size_bytes

    def _write_index(self) -> None:
        self._write_pending()
        index = np.asarray(self._index, dtype="<u8").reshape(-1, 2).tobytes()
        self._file.write(index)
        self._file.write(struct.pack("<I", google_crc32c.value(index)))


def split_shard(data: bytes, chunks: int) -> list[bytes | memoryview | None]:
    """Return the chunks of a shard as they are stored, so that some of them can be replaced.

    Parameters
    ----------
    data : bytes
        A whole shard with its index at the end, as `ShardWriter` writes it.
    chunks : int
        Number of chunks in it.

    Returns
    -------
    list of memoryview or None
        In C order, views of `data`, None for a chunk that is not stored.

    Raises
    ------
    DamagedError
        When the index is cut, does not fit its checksum, or points outside the shard.
    """
    end = len(data) - _CRC_BYTES
    start = end - 16 * chunks
    if start < 0 or struct.pack("<I", google_crc32c.value(data[start:end])) != data[end:]:
        raise DamagedError(f"a shard of {len(data)} bytes whose index of {chunks} chunks is cut or altered")
    found: list[bytes | memoryview | None] = []
    view = memoryview(data)
    for offset, nbytes in np.frombuffer(data, "<u8", 2 * chunks, start).reshape(-1, 2).tolist():
        if (offset, nbytes) == MISSING:
            found.append(None)
        elif offset + nbytes > start:
            raise DamagedError(f"a shard of {len(data)} bytes with a chunk at {offset} of {nbytes} bytes")
        else:
            found.append(view[offset : offset + nbytes])
    return found
