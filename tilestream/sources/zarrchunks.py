"""Whether the files of a Zarr array are there and whole: chunks against the declared shape, indexes of shards.

A file that is absent reads as the fill value, by Zarr's own rule. Where the writer recorded which shards it wrote, one
that is gone is an error; elsewhere nobody can tell lost pixels from empty ones, so absent files are counted and told.

References
----------
Zarr v3 core, section "Chunk key encodings"; sharding codec, section "Binary shard format".
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
import google_crc32c
import numpy as np
import zarr

from tilestream.codecs.shardmap import decode_shard_map
from tilestream.errors import DamagedError, SourceError, TilestreamError
from tilestream.sources.files import File
from tilestream.sources.recognise import inside
from tilestream.sources.zarrimages import Findings, StoredImage

MOST_NAMED = 5
"""Files of one array that are named when they are missing or damaged; the rest is counted."""
_MISSING = 2**64 - 1
_METADATA = frozenset({"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"})
_STANDARD_INDEX = ["bytes", "crc32c"]


def check_chunks(image: StoredImage, findings: Findings) -> int:
    """Look at every chunk or shard of every level of an image.

    Parameters
    ----------
    image : StoredImage
        The image.
    findings : Findings
        Told what is missing, and what is damaged.

    Returns
    -------
    int
        Files that were found.
    """
    found = 0
    owner = image.node.attrs.get("tilestream")
    maps = owner.get("shards") if isinstance(owner, Mapping) else None
    for index, (path, array) in enumerate(zip(image.levels.paths, image.arrays, strict=True)):
        file = inside(image.node.file, path) if path else image.node.file
        written = maps.get(str(index)) if isinstance(maps, Mapping) else None
        found += _Files(array=array, file=file, written=written).check(f"{image.name}level {index}", findings)
    return found


class _Files:
    """The files of one array."""

    def __init__(self, *, array: zarr.Array[Any], file: File, written: Any) -> None:
        self.array = array
        self.file = file
        self.written = written
        self.piece = array.shards or array.chunks
        self.grid = tuple(-(-size // step) for size, step in zip(array.shape, self.piece, strict=True))
        self.document: Mapping[str, Any] = array.metadata.to_dict()

    def check(self, where: str, findings: Findings) -> int:
        """Report on all files and return how many there are."""
        stored = np.zeros(self.grid, np.bool_)
        strange: list[str] = []
        bad: list[str] = []
        files = dict(_listed(self.file))
        if not _METADATA & set(files):
            findings.notes.append(f"{where}: its server lists no files, so none were looked for")
            return 0
        for name, nbytes in files.items():
            if name in _METADATA:
                continue
            at = self._place(name)
            if at is None or len(at) != len(self.grid) or any(n >= most for n, most in zip(at, self.grid, strict=True)):
                strange.append(name)
                continue
            stored[at] = True
            if (reason := self._damage(name, nbytes)) is not None:
                bad.append(f"`{name}` {reason}")
        findings.problems += [f"{where}: {kind} {text}" for kind, text in self._told(bad, strange)]
        self._check_absent(where, stored, findings)
        return int(stored.sum())

    @staticmethod
    def _told(bad: list[str], strange: list[str]) -> Iterator[tuple[str, str]]:
        for kind, names in (("damaged:", bad), ("no chunk of this array:", [f"`{name}`" for name in strange])):
            yield from ((kind, name) for name in names[:MOST_NAMED])
            if len(names) > MOST_NAMED:
                yield kind, f"{len(names) - MOST_NAMED:,} more"

    def _place(self, name: str) -> tuple[int, ...] | None:
        """Return the place of a file in the grid by its name, None for one that is no chunk's."""
        separator, prefix = ".", ""
        if self.document["zarr_format"] == 2:
            separator = self.document.get("dimension_separator", ".")
        else:
            encoding = self.document["chunk_key_encoding"]
            prefix = "c" if encoding["name"] == "default" else ""
            standard = "/" if encoding["name"] == "default" else "."
            separator = (encoding.get("configuration") or {}).get("separator", standard)
        parts = name.split(separator)
        if prefix:
            if parts.pop(0) != prefix:
                return None
        elif not self.grid:
            return () if parts == ["0"] else None
        try:
            return tuple(int(part) for part in parts)
        except ValueError:
            return None

    def _damage(self, name: str, nbytes: int) -> str | None:
        """Return what is wrong with a file, None where nothing can be seen from outside its chunks."""
        if not nbytes:
            return "is empty"
        codec: Any = self.document["codecs"][0] if self.array.shards is not None else {"name": "none"}
        codec = codec.to_dict() if hasattr(codec, "to_dict") else codec
        if codec["name"] != "sharding_indexed":
            return None
        options = codec["configuration"]
        if [one["name"] for one in options["index_codecs"]] != _STANDARD_INDEX:
            return None
        chunks = math.prod(n // step for n, step in zip(self.piece, self.array.chunks, strict=True))
        try:
            return _index_damage(
                inside(self.file, name), nbytes, chunks=chunks, at_end=str(options["index_location"]).endswith("end")
            )
        except (DamagedError, SourceError) as error:
            return str(error)

    def _check_absent(self, where: str, stored: Any, findings: Findings) -> None:
        absent = np.argwhere(~stored)
        unit = "chunks" if self.array.shards is None else "shards"
        if isinstance(self.written, str):
            try:
                written = decode_shard_map(self.written, (self.grid[-2], self.grid[-1]))
            except TilestreamError as error:
                findings.problems.append(f"{where}: {error}")
                return
            lost = np.argwhere(~stored & written)
            if len(lost):
                findings.problems.append(f"{where}: {len(lost):,} {unit} were written and are gone: {_places(lost)}")
        elif len(absent):
            findings.notes.append(
                f"{where}: {len(absent):,} of {stored.size:,} {unit} are not stored and read as "
                f"{self.array.fill_value}: {_places(absent)}"
            )


def _places(places: Any) -> str:
    named = ", ".join("/".join(map(str, place)) for place in places[:MOST_NAMED].tolist())
    return named + (", …" if len(places) > MOST_NAMED else "")


def _index_damage(file: File, nbytes: int, *, chunks: int, at_end: bool) -> str | None:
    """Return what is wrong with the index of a shard, or with the places that it gives."""
    index_bytes = 16 * chunks + 4
    if nbytes < index_bytes:
        return f"has {nbytes:,} bytes, its index alone takes {index_bytes:,}: it is cut"
    raw = file.read(nbytes - index_bytes if at_end else 0, index_bytes)
    if google_crc32c.value(raw[:-4]) != struct.unpack("<I", raw[-4:])[0]:
        return "has an index that does not match its checksum"
    index = np.frombuffer(raw[:-4], "<u8").reshape(-1, 2)
    index = index[(index != _MISSING).any(axis=1)]
    low, high = (0, nbytes - index_bytes) if at_end else (index_bytes, nbytes)
    offsets, sizes = index[:, 0], index[:, 1]
    outside = (offsets < low) | (offsets > high) | (sizes > high - np.minimum(offsets, high))
    if outside.any():
        return f"has {int(outside.sum()):,} chunks outside of itself"
    return None


def _listed(file: File) -> Iterator[tuple[str, int]]:
    """Yield path and size of every file below an array's folder."""
    if not file.is_local:
        system, path = fsspec.core.url_to_fs(file.url, **file.options)
        start = path.rstrip("/") + "/"
        for key, facts in sorted(system.find(path, detail=True).items()):
            yield key.removeprefix(start), int(facts["size"])
        return
    for folder, folders, names in os.walk(file.path):
        folders.sort()
        for name in sorted(names):
            full = Path(folder, name)
            relative = full.relative_to(file.path).as_posix()
            if not name.startswith(".__"):
                yield relative, full.stat().st_size
