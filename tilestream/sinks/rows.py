"""One variable of a Zarr store, written row by row into a single shard in bounded memory."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from numcodecs import Zstd

from tilestream.codecs.durable import write_durable
from tilestream.codecs.metadata import ZSTD_LEVEL, Layout, array_metadata, is_fill, shard_layout, zstd_codec
from tilestream.codecs.shards import ShardWriter
from tilestream.types import Array

CHUNK_BYTES = 2 * 2**20
"""Aimed size of a chunk before compression: large enough for object storage, small enough to read rows alone."""

QUICK_LEVEL = -1
"""Level of zstd that leaves alone what hardly becomes smaller: such bytes decode ten times as fast."""
WORTH = 0.85
"""Share of their size that vectors have to shrink to for the usual level to be used: those of a network in float32 do
not, those in half precision, whose last bits are zeros, do."""
_SAMPLES, _SAMPLE_BYTES = 4, 1 << 14


class RowArray:
    """An array that grows along its first axis; at most one chunk of it is in memory.

    Use it as a context manager, so that no file stays open after an error; `close` alone makes it whole.

    Parameters
    ----------
    path : Path
        Folder of the array.
    dtype : numpy.dtype or str
        Type of the values.
    row_shape : sequence of int
        Shape of one row.
    fill_value : float
        Value of chunks that are not stored; a chunk that holds nothing else takes no space.
    chunk_bytes : int
        Aimed size of a chunk.
    """

    def __init__(
        self,
        path: Path,
        dtype: np.dtype[Any] | str,
        *,
        row_shape: Sequence[int] = (),
        fill_value: float,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._path = path
        self._dtype = np.dtype(dtype)
        self._row_shape = tuple(row_shape)
        self.fill_value = fill_value
        row_bytes = max(1, self._dtype.itemsize * math.prod(self._row_shape))
        self._capacity = max(1, chunk_bytes // row_bytes)
        self._pending: list[Array] = []
        self._pending_rows = 0
        self._rows = 0
        self._chunks = 0
        self._stack = ExitStack()
        self._shard: ShardWriter | None = None

    def append(self, rows: Array) -> None:
        """Take more rows.

        Parameters
        ----------
        rows : numpy.ndarray
            `(k, *row_shape)`, converted to the array's type.

        Raises
        ------
        OutputError
            When the disk is full.
        """
        rows = np.asarray(rows, dtype=self._dtype).reshape(-1, *self._row_shape)
        self._rows += len(rows)
        while len(rows):
            taken = rows[: self._capacity - self._pending_rows]
            # A copy, since a view would keep the whole part alive.
            self._pending.append(taken.copy())
            self._pending_rows += len(taken)
            rows = rows[len(taken) :]
            if self._pending_rows == self._capacity:
                self._flush(self._capacity)

    def close(self, dimension_names: Sequence[str], attributes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the metadata of the array after its shard is whole.

        Parameters
        ----------
        dimension_names : sequence of str
            Name of each axis.
        attributes : Mapping, optional
            User attributes.

        Returns
        -------
        dict
            The document for its `zarr.json`, which is not written here.

        Raises
        ------
        OutputError
            When the disk is full.
        """
        # Fewer rows than one chunk takes: the chunk is as small as the array.
        rows = self._capacity if self._chunks else max(1, self._pending_rows)
        if self._pending_rows:
            self._flush(rows)
        self._stack.close()
        chunk_shape = (rows, *self._row_shape)
        counts = (max(1, self._chunks), *(1 for _ in self._row_shape))
        return array_metadata(
            (self._rows, *self._row_shape),
            self._dtype,
            layout=shard_layout(self._dtype, chunk_shape, counts=counts),
            dimension_names=dimension_names,
            fill_value=self.fill_value,
            attributes=attributes,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _flush(self, chunk_rows: int) -> None:
        chunk = np.full((chunk_rows, *self._row_shape), self.fill_value, dtype=self._dtype)
        np.concatenate(self._pending, out=chunk[: self._pending_rows])
        self._pending, self._pending_rows = [], 0
        if is_fill(chunk, self.fill_value):
            if self._shard is not None:
                self._shard.append_missing()
        else:
            self._open(chunk.shape).append_encoded(encode_rows(chunk))
        self._chunks += 1

    def _open(self, chunk_shape: tuple[int, ...]) -> ShardWriter:
        if self._shard is None:
            # A shard without any chunk is no file at all, so it is made only now.
            path = self._path / "c" / "/".join("0" for _ in chunk_shape)
            self._shard = self._stack.enter_context(ShardWriter(path, chunk_shape=chunk_shape, dtype=self._dtype))
            self._shard.append_missing(self._chunks)
        return self._shard


def encode_rows(chunk: Array) -> bytes:
    """Return a chunk as the array's codecs decode it; vectors that hardly become smaller in the form that is fast.

    Parameters
    ----------
    chunk : ndarray
        Rows.

    Returns
    -------
    bytes
        A frame of zstd, whose level its reader need not know; equal chunks give equal bytes.
    """
    raw = np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
    is_quick = chunk.ndim > 1 and chunk.dtype.kind == "f" and not _is_worth(raw)
    return bytes(Zstd(level=QUICK_LEVEL if is_quick else ZSTD_LEVEL, checksum=True).encode(raw))


def _is_worth(raw: npt.NDArray[np.uint8]) -> bool:
    """Return whether pieces of a chunk become much smaller."""
    starts = [len(raw) * number // _SAMPLES for number in range(_SAMPLES)]
    sample = np.concatenate([raw[start : start + _SAMPLE_BYTES] for start in starts])
    return len(Zstd(level=ZSTD_LEVEL).encode(sample)) < WORTH * len(sample)


def write_texts(path: Path, texts: Sequence[str], dimension_name: str) -> dict[str, Any]:
    """Return the metadata of a 1-D array of texts after its only chunk is durable.

    Parameters
    ----------
    path : Path
        Folder of the array.
    texts : sequence of str
        Values.
    dimension_name : str
        Name of the axis.

    Returns
    -------
    dict
        The document for its `zarr.json`, which is not written here.

    References
    ----------
    Zarr extensions, data type `string` and codec `vlen-utf8`: a count, then each text's length and bytes.
    """
    encoded = [text.encode() for text in texts]
    raw = struct.pack("<I", len(encoded)) + b"".join(struct.pack("<I", len(item)) + item for item in encoded)
    if encoded:
        write_durable(path / "c" / "0", Zstd(level=ZSTD_LEVEL, checksum=True).encode(raw))
    return array_metadata(
        (len(encoded),),
        "string",
        layout=Layout(grid_shape=(max(1, len(encoded)),), codecs=({"name": "vlen-utf8"}, zstd_codec())),
        dimension_names=(dimension_name,),
        fill_value="",
    )
