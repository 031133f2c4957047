"""The `zarr.json` of Zarr v3 arrays and groups, written so that equal content gives equal bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilestream.types import Array

ZSTD_LEVEL = 3
_LOOKED_AT = 16
# xarray stores a float `_FillValue` as base64 of a little-endian double; this is NaN in that form.
NAN_FILL_ATTRIBUTE = "AAAAAAAA+H8="


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How an array lies in files."""

    grid_shape: tuple[int, ...]
    """Shape of what one file holds: a shard, or a chunk where there is no sharding."""
    codecs: tuple[Mapping[str, Any], ...]
    """What turns it into bytes, as codec metadata in encoding order."""


def encode_json(document: Mapping[str, Any]) -> bytes:
    """Return JSON that depends on the content alone: sorted keys, fixed separators, UTF-8, no NaN.

    Parameters
    ----------
    document : Mapping
        JSON values.

    Returns
    -------
    bytes
        Text with a final newline.

    Raises
    ------
    ValueError
        When a number is not finite, which JSON cannot express.
    """
    text = json.dumps(document, sort_keys=True, indent=1, separators=(",", ": "), ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def encode_fill(value: float, dtype: np.dtype[Any]) -> float | int | bool | str:
    """Return a fill value as Zarr v3 metadata spells it.

    Parameters
    ----------
    value : float
        Fill value.
    dtype : numpy.dtype
        Type of the array.

    Returns
    -------
    float or int or bool or str
        JSON value; the names `NaN`, `Infinity` and `-Infinity` for floats that JSON lacks.
    """
    if dtype.kind == "b":
        return bool(value)
    if dtype.kind in "iu":
        return int(value)
    number = float(dtype.type(value))
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return number


def inner_codecs(dtype: np.dtype[Any], transpose: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Return the codecs of one chunk: optional transpose, little-endian bytes, zstd with its own checksum.

    Parameters
    ----------
    dtype : numpy.dtype
        Type of the array.
    transpose : sequence of int, optional
        Order of the axes in the stored bytes; `(1, 2, 0)` keeps `c,y,x` pixels interleaved.

    Returns
    -------
    list of dict
        Codec metadata in encoding order.
    """
    codecs: list[dict[str, Any]] = []
    if transpose is not None:
        codecs.append({"name": "transpose", "configuration": {"order": list(transpose)}})
    codecs.append(
        {"name": "bytes"} if dtype.itemsize == 1 else {"name": "bytes", "configuration": {"endian": "little"}}
    )
    codecs.append(zstd_codec())
    return codecs


def zstd_codec() -> dict[str, Any]:
    """Return the metadata of the compressor that all our files use."""
    return {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": True}}


def shard_layout(
    dtype: np.dtype[Any],
    chunk_shape: Sequence[int],
    *,
    counts: Sequence[int],
    transpose: Sequence[int] | None = None,
) -> Layout:
    """Return the layout of an array in shards as `shards.ShardWriter` writes them.

    Parameters
    ----------
    dtype : numpy.dtype
        Type of the array.
    chunk_shape : sequence of int
        Shape of the inner chunks.
    counts : sequence of int
        Chunks along each axis of a shard.
    transpose : sequence of int, optional
        See `inner_codecs`.

    Returns
    -------
    Layout
        One sharding codec with the index at the end and a CRC-32C on it.
    """
    return sharded(chunk_shape, inner_codecs(dtype, transpose), counts=counts)


def sharded(chunk_shape: Sequence[int], codecs: Sequence[Mapping[str, Any]], *, counts: Sequence[int]) -> Layout:
    """Return the layout of an array in shards, whatever the codecs of its chunks.

    Parameters
    ----------
    chunk_shape : sequence of int
        Shape of the inner chunks.
    codecs : sequence of Mapping
        Codecs of a chunk in encoding order.
    counts : sequence of int
        Chunks along each axis of a shard.

    Returns
    -------
    Layout
        One sharding codec with the index at the end and a CRC-32C on it.
    """
    configuration = {
        "chunk_shape": [int(n) for n in chunk_shape],
        "codecs": [dict(codec) for codec in codecs],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }
    return Layout(
        grid_shape=tuple(chunk * count for chunk, count in zip(chunk_shape, counts, strict=True)),
        codecs=({"name": "sharding_indexed", "configuration": configuration},),
    )


def array_metadata(
    shape: Sequence[int],
    dtype: np.dtype[Any] | str,
    *,
    layout: Layout,
    dimension_names: Sequence[str],
    fill_value: float | str = 0,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the `zarr.json` of an array.

    Parameters
    ----------
    shape : sequence of int
        Shape of the array.
    dtype : numpy.dtype or str
        Type; `string` for text.
    layout : Layout
        How it lies in files, such as `shard_layout(…)`.
    dimension_names : sequence of str
        Name of each axis.
    fill_value : float or str
        What missing chunks hold.
    attributes : Mapping, optional
        User attributes; JSON values.

    Returns
    -------
    dict
        Metadata document.
    """
    text = isinstance(dtype, str)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [int(n) for n in shape],
        "data_type": dtype if text else np.dtype(dtype).name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [int(n) for n in layout.grid_shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill_value if isinstance(fill_value, str) else encode_fill(fill_value, np.dtype(dtype)),
        "codecs": [dict(codec) for codec in layout.codecs],
        "attributes": dict(attributes or {}),
        "dimension_names": list(dimension_names),
        "storage_transformers": [],
    }


def group_metadata(
    attributes: Mapping[str, Any] | None = None, *, consolidated: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Return the `zarr.json` of a group.

    Parameters
    ----------
    attributes : Mapping, optional
        User attributes; JSON values.
    consolidated : Mapping, optional
        Metadata of all nodes below by path. It saves readers a request a node and is not part of the Zarr v3
        specification, so readers that do not know it are told that they need not.

    Returns
    -------
    dict
        Metadata document.
    """
    document: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}
    if consolidated is not None:
        nodes = {path: dict(node) for path, node in consolidated.items()}
        document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": nodes}
    return document


def is_fill(chunk: Array, fill_value: float) -> bool:
    """Return whether every value of a chunk is the fill value, NaN being equal to NaN.

    Parameters
    ----------
    chunk : numpy.ndarray
        Values of any shape.
    fill_value : float
        Fill value of the array.

    Returns
    -------
    bool
        True when the chunk need not be stored.
    """
    # nearly all chunks are told from a few of their values, and need not be looked at whole
    few = chunk[tuple(slice(None, None, max(1, size // _LOOKED_AT)) for size in chunk.shape)]
    return _all_equal(few, fill_value) and _all_equal(chunk, fill_value)


def _all_equal(values: Array, fill_value: float) -> bool:
    return bool((np.isnan(values) if math.isnan(fill_value) else values == fill_value).all())
