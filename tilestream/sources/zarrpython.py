"""Zarr arrays read by zarr-python: those whose layout or codecs are not known here."""

from __future__ import annotations

import os
from threading import Lock
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore
from zict import LRU

from tilestream.errors import DamagedError, SourceError
from tilestream.metrics import count, timed
from tilestream.sources.files import File
from tilestream.sources.recognise import LFS_MAGIC
from tilestream.sources.shardindex import LFS_REASON
from tilestream.types import Array

OPEN_ARRAYS = 256
"""Zarr arrays whose metadata stay parsed in one process."""


class _MeteredStore(WrapperStore[Any]):
    """A store that counts the bytes it gives, for the figures of the task that asked."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        buffer = await super().get(key, prototype, byte_range)
        if buffer is not None:
            count("bytes_read", len(buffer))
        return buffer


class _Arrays:
    """Open arrays of this process by fingerprint and path; a forked child opens its own."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: LRU[tuple[int, str, str], zarr.Array[Any]] = LRU(OPEN_ARRAYS, {})

    def get(self, root: File, path: str, fingerprint: str) -> zarr.Array[Any]:
        key = (os.getpid(), fingerprint, f"{root.url}/{path}")
        with self._lock:
            if key in self._open:
                return self._open[key]
        array = open_array(root, path)
        with self._lock:
            self._open[key] = array
        return array

    def renew(self) -> None:
        self.__init__()  # type: ignore[misc]  # the parent may have held the lock when it forked


_arrays = _Arrays()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_arrays.renew)


def open_array(root: File, path: str) -> zarr.Array[Any]:
    """Return one array of a store, opened for reading.

    Parameters
    ----------
    root : File
        Folder of the store.
    path : str
        Path of the array in it; empty for the root itself.

    Returns
    -------
    zarr.Array
        The array; nothing but its metadata has been read.

    Raises
    ------
    SourceError
        When it is missing or zarr cannot make sense of its metadata.
    """
    try:
        if root.is_local:
            store: Any = LocalStore(root.path, read_only=True)
        else:
            store = FsspecStore.from_url(root.url, storage_options=dict(root.options), read_only=True)
        return zarr.open_array(_MeteredStore(store), path=path, mode="r")
    except Exception as error:  # codecs and stores raise what they like
        raise SourceError.of(
            f"`{root.url}`",
            got=f"array `{path or '/'}`: {type(error).__name__}: {error}",
            expected="a Zarr array whose metadata and codecs are known",
            do="Check that the store is complete and its codecs are installed.",
        ) from error


def read_with_zarr(root: File, path: str, fingerprint: str, index: tuple[int | slice, ...]) -> Array:
    """Return part of an array as zarr-python reads it.

    Parameters
    ----------
    root : File
        Folder of the image.
    path : str
        Path of the array in it.
    fingerprint : str
        Identity of the store, by which open arrays are kept.
    index : tuple of int and slice
        What to read.

    Returns
    -------
    ndarray
        The samples; axes with a number in `index` are gone.

    Raises
    ------
    DamagedError
        When a chunk cannot be read or decoded.
    SourceError
        When the array cannot be opened, or a chunk may not be read.
    """
    array = _arrays.get(root, path, fingerprint)
    try:
        with timed("decode"):
            return np.asarray(array[index])
    except PermissionError as error:
        raise SourceError.of(
            f"`{root.url}`", got=str(error).lower(), expected="a readable chunk", do="Check its permissions."
        ) from error
    except Exception as error:  # each codec has its own errors, some of them plain RuntimeError
        raise DamagedError(_reason(root, array, index, error)) from error


def _reason(root: File, array: zarr.Array[Any], index: tuple[int | slice, ...], error: Exception) -> str:
    if root.is_local:
        chunk = [
            (part.start or 0 if isinstance(part, slice) else part) // size
            for part, size in zip(index, array.chunks, strict=True)
        ]
        key = array.metadata.encode_chunk_key(tuple(chunk))
        file = File(url=f"{root.path}/{array.path}/{key}")
        if file.exists and file.size < 512 and file.read(0, file.size).startswith(LFS_MAGIC):
            return LFS_REASON
    return f"Zarr chunk: {type(error).__name__}: {error}"
