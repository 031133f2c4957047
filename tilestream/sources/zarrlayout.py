"""Where the chunks of a Zarr array lie and how they are encoded, from its metadata alone.

Only what is understood to the last word is taken: any unknown key, codec, option, type or value makes the answer None,
and zarr-python reads the array instead.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilestream.sources.chunkcodecs import ChunkCodec, named_configuration, parse_codecs, parse_compressor
from tilestream.sources.chunkimages import picture_size
from tilestream.sources.ngff import Node

MOST_INDEX_BYTES = 64 << 20
"""Shards with larger indexes (four million chunks) are left to zarr-python."""
_INDEX_ENTRY_BYTES, _CRC_BYTES = 16, 4
_REQUIRED_3 = frozenset(
    {"zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs"}
)
_OPTIONAL_3 = frozenset({"attributes", "dimension_names", "storage_transformers"})
_REQUIRED_2 = frozenset({"zarr_format", "shape", "chunks", "dtype", "compressor", "fill_value", "order", "filters"})
_TYPES_3 = frozenset({"bool", "float16", "float32", "float64"}) | {
    f"{s}int{n}" for s in ("", "u") for n in (8, 16, 32, 64)
}
_TYPE_2 = re.compile(r"[<>|][biuf][1248]")
_LITTLE = ("bytes", {"endian": "little"})
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True, kw_only=True)
class IndexForm:
    """Form of the index of a shard."""

    counts: tuple[int, ...]
    """Chunks along each axis of a shard."""
    at_end: bool
    """Whether it stands at the end of the shard or at its start."""
    has_crc: bool
    """Whether a CRC-32C follows it."""

    @property
    def nbytes(self) -> int:
        """Return its size with the checksum."""
        return _INDEX_ENTRY_BYTES * math.prod(self.counts) + _CRC_BYTES * self.has_crc


@dataclass(frozen=True, kw_only=True)
class ChunkLayout:
    """Where the chunks of an array lie and how they are encoded."""

    shape: tuple[int, ...]
    """Shape of the array."""
    chunks: tuple[int, ...]
    """Shape of a chunk, the unit that is decoded."""
    dtype: np.dtype[Any]
    """Native type of the samples."""
    fill: float
    """What chunks hold that are not stored; an integer for types other than floats."""
    codec: ChunkCodec
    """How a chunk is encoded."""
    key_start: str = ""
    """What the names of chunks begin with."""
    separator: str = "/"
    """What stands between the numbers in a name."""
    index: IndexForm | None = None
    """Index of the shards, None where each chunk is a file of its own."""

    @property
    def stored(self) -> tuple[int, ...]:
        """Return the shape of what one file holds: a shard, or a chunk."""
        if self.index is None:
            return self.chunks
        return tuple(chunk * count for chunk, count in zip(self.chunks, self.index.counts, strict=True))

    @property
    def files(self) -> tuple[int, ...]:
        """Return the number of files along each axis when none is left out."""
        return tuple(-(-size // stored) for size, stored in zip(self.shape, self.stored, strict=True))

    def key(self, place: Sequence[int]) -> str:
        """Return the name of the file at a place in the grid of files, relative to the array."""
        return self.key_start + self.separator.join(map(str, place))


def layout_of(node: Node) -> ChunkLayout | None:
    """Return the layout of an array, None when it is not one that is known here.

    Parameters
    ----------
    node : Node
        The array.

    Returns
    -------
    ChunkLayout or None
        The layout; None says nothing about whether zarr-python can read it.
    """
    content = json.loads(node.documents[0]) if node.is_array else {}
    version = content.get("zarr_format")
    if version == 3:
        return _layout_3(content)
    return _layout_2(content) if version == 2 else None


def _layout_3(content: Mapping[str, Any]) -> ChunkLayout | None:
    if not _REQUIRED_3 <= set(content) <= _REQUIRED_3 | _OPTIONAL_3 or content.get("storage_transformers"):
        return None
    shape, name = _sizes(content["shape"]), content["data_type"]
    grid, keys = named_configuration(content["chunk_grid"]), _keys(content["chunk_key_encoding"])
    if shape is None or keys is None or grid is None or not isinstance(name, str) or name not in _TYPES_3:
        return None
    stored = _sizes(grid[1].get("chunk_shape")) if grid[0] == "regular" and len(grid[1]) == 1 else None
    dtype, names = np.dtype(name), content.get("dimension_names")
    fill = _fill(content["fill_value"], dtype)
    if stored is None or len(stored) != len(shape) or 0 in stored or fill is None:
        return None
    if names is not None and not (isinstance(names, list) and len(names) == len(shape)):
        return None
    inner = _sharding(content["codecs"], stored)
    index, chunks, codecs = inner if inner is not None else (None, stored, content["codecs"])
    codec = parse_codecs(codecs, dtype, len(shape))
    if codec is None or not _fits(codec, chunks):
        return None
    return ChunkLayout(
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill=fill,
        codec=codec,
        key_start=keys[0],
        separator=keys[1],
        index=index,
    )


def _layout_2(content: Mapping[str, Any]) -> ChunkLayout | None:
    if not _REQUIRED_2 <= set(content) <= _REQUIRED_2 | {"dimension_separator"} or content["filters"] is not None:
        return None
    shape, chunks, name = _sizes(content["shape"]), _sizes(content["chunks"]), content["dtype"]
    if shape is None or chunks is None or len(chunks) != len(shape) or not shape or 0 in chunks:
        return None
    separator = content.get("dimension_separator", ".")
    if content["order"] not in ("C", "F") or separator not in (".", "/"):
        return None
    if not isinstance(name, str) or not _TYPE_2.fullmatch(name):
        return None
    try:
        dtype = np.dtype(name)
    except TypeError:
        return None
    fill = 0 if content["fill_value"] is None else _fill(content["fill_value"], dtype)
    axes = tuple(range(len(shape)))
    codec = parse_compressor(content["compressor"], dtype, axes if content["order"] == "C" else axes[::-1])
    if fill is None or codec is None or not _fits(codec, chunks):
        return None
    native = dtype.newbyteorder("=")
    return ChunkLayout(shape=shape, chunks=chunks, dtype=native, fill=fill, codec=codec, separator=separator)


def _sizes(value: Any) -> tuple[int, ...] | None:
    is_sizes = isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)
    return tuple(value) if is_sizes else None


def _fits(codec: ChunkCodec, chunks: tuple[int, ...]) -> bool:
    return codec.image is None or picture_size([chunks[axis] for axis in codec.order]) is not None


def _keys(encoding: Any) -> tuple[str, str] | None:
    """Return what the names of chunks begin with, and what stands between their numbers."""
    named = named_configuration(encoding)
    if named is None or named[0] not in ("default", "v2") or not set(named[1]) <= {"separator"}:
        return None
    separator = named[1].get("separator", "/" if named[0] == "default" else ".")
    if separator not in ("/", "."):
        return None
    return (f"c{separator}" if named[0] == "default" else ""), separator


def _fill(value: Any, dtype: np.dtype[Any]) -> float | None:
    """Return a fill value, None for a form that is left to zarr-python (bits in hex, numbers of another kind)."""
    if dtype.kind == "b":
        return int(value) if isinstance(value, bool) else None
    if dtype.kind == "f":
        if isinstance(value, str):
            return _NUMBERS.get(value)
        is_number = type(value) in (int, float) and not abs(value) > np.finfo(dtype).max
        return float(value) if is_number else None
    limits = np.iinfo(dtype)
    return value if type(value) is int and limits.min <= value <= limits.max else None


def _sharding(codecs: Any, stored: tuple[int, ...]) -> tuple[IndexForm, tuple[int, ...], Any] | None:
    """Return form of the index, shape and codecs of the chunks inside; None where the codecs are no plain sharding."""
    named = named_configuration(codecs[0]) if isinstance(codecs, list) and len(codecs) == 1 else None
    if named is None or named[0] != "sharding_indexed":
        return None
    options = named[1]
    chunks = _sizes(options.get("chunk_shape"))
    required = {"chunk_shape", "codecs", "index_codecs"}
    if chunks is None or len(chunks) != len(stored) or not required <= set(options) <= required | {"index_location"}:
        return None
    where, has_crc = options.get("index_location", "end"), _index_crc(options["index_codecs"])
    if where not in ("start", "end") or has_crc is None or 0 in chunks:
        return None
    if any(size % chunk for size, chunk in zip(stored, chunks, strict=True)):
        return None
    counts = tuple(size // chunk for size, chunk in zip(stored, chunks, strict=True))
    form = IndexForm(counts=counts, at_end=where == "end", has_crc=has_crc)
    return (form, chunks, options["codecs"]) if form.nbytes <= MOST_INDEX_BYTES else None


def _index_crc(codecs: Any) -> bool | None:
    """Return whether a checksum follows an index of plain little-endian numbers, None for any other form."""
    named = [named_configuration(codec) for codec in codecs] if isinstance(codecs, list) else []
    if named == [_LITTLE]:
        return False
    return True if named == [_LITTLE, ("crc32c", {})] else None
