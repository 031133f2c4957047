"""Small variables of our own stores as arrays, read from their one file: an index of thousands of stores needs each."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import Zstd

from tilestream.codecs.shards import split_shard
from tilestream.errors import DamagedError
from tilestream.types import Array


def read_rows(path: Path, document: Mapping[str, Any]) -> Array:
    """Return all values of an array that `rows.RowArray` has written.

    Parameters
    ----------
    path : Path
        Folder of the array.
    document : Mapping
        Its `zarr.json`, as the metadata of the store's root repeat it.

    Returns
    -------
    ndarray
        Of the array's shape and type.

    Raises
    ------
    DamagedError
        When the file is cut or altered.

    Notes
    -----
    A tenth of the time of a Zarr library, which opens each array by itself. Meant for vectors; holds the array twice.
    """
    shape, dtype = tuple(document["shape"]), np.dtype(document["data_type"]).newbyteorder("<")
    chunk_shape = tuple(document["codecs"][0]["configuration"]["chunk_shape"])
    counts = document["chunk_grid"]["configuration"]["chunk_shape"][0] // chunk_shape[0]
    values = np.full((counts * chunk_shape[0], *shape[1:]), float(document["fill_value"]), dtype)
    file = path / "c" / "/".join("0" for _ in shape)
    if not file.exists():  # nothing but the fill value
        return values[: shape[0]]
    try:
        for number, chunk in enumerate(split_shard(file.read_bytes(), counts)):
            if chunk is not None:
                rows = np.frombuffer(Zstd().decode(chunk), dtype).reshape(chunk_shape)
                values[number * chunk_shape[0] : (number + 1) * chunk_shape[0]] = rows
    except (RuntimeError, ValueError) as error:  # what zstd says of a checksum, and NumPy of a wrong size
        raise DamagedError(f"`{file}`: {error}") from error
    return values[: shape[0]]


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
