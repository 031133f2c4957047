"""Writes the pixels of super-tiles into a store: whole shards, or whole chunks where there are none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from tilestream.codecs.metadata import is_fill
from tilestream.codecs.pixelcodecs import encode_pixels
from tilestream.codecs.place import Place
from tilestream.codecs.shards import ShardWriter, split_shard
from tilestream.errors import DamagedError
from tilestream.metrics import timed
from tilestream.sinks.layout import StoreLayout, StoreLevel
from tilestream.types import Array, Box

PUTS = 8
"""Files without shards that are put at once by a task."""


@dataclass(frozen=True, kw_only=True)
class LevelWriter:
    """Writes what one task owns of the levels of one image; picklable."""

    place: Place
    """Folder of the store under construction."""
    prefix: str
    """Path of the image in it: empty, or `labels/<name>/`."""
    layout: StoreLayout
    """Its arrays."""

    def name(self, level: StoreLevel, iy: int, ix: int) -> str:
        """Return the path of a shard, or of a chunk where there are none."""
        first = "0/" if "c" in self.layout.dims else ""
        return f"{self.prefix}{level.index}/image/c/{first}{iy}/{ix}"

    def write(self, level: StoreLevel, iy: int, ix: int, pixels: Array) -> dict[str, str]:
        """Write one unit's pixels of a level and return the checksum of each object by path.

        Parameters
        ----------
        level : StoreLevel
            Which level.
        iy, ix : int
            Position in the grid of shards.
        pixels : ndarray
            `(y, x, c)`, at most the size of a shard, less at the edges of the image.

        Returns
        -------
        dict
            Empty when there is nothing but the fill value.

        Raises
        ------
        OutputError
            When the place cannot be written.
        """
        with timed("store"):  # holds the time of encoding too
            if self.layout.has_shards:
                return self._write_shard(level, iy, ix, pixels)
            return self._write_chunks(level, iy, ix, pixels)

    def _write_shard(self, level: StoreLevel, iy: int, ix: int, pixels: Array) -> dict[str, str]:
        if is_fill(pixels, self.layout.fill_value):
            return {}
        parts = (
            None if part is None or is_fill(part, self.layout.fill_value) else self.encode(level, part)
            for part in self.parts(level, pixels)
        )
        return self._pack(level, iy, ix, parts)

    def shard(self, level: StoreLevel, iy: int, ix: int) -> ShardWriter:
        """Return the shard of one unit, to be appended to in C order as a context manager; it appears at its end.

        Parameters
        ----------
        level, iy, ix
            As for `write`.

        Returns
        -------
        ShardWriter
            Takes chunks that are encoded already too.
        """
        shape = (*([self.layout.channels] if "c" in self.layout.dims else []), *level.chunk.yx)
        writer = self.place.writer(self.name(level, iy, ix))
        return ShardWriter(writer, chunk_shape=shape, dtype=self.layout.dtype)

    def _pack(self, level: StoreLevel, iy: int, ix: int, chunks: Iterable[bytes | memoryview | None]) -> dict[str, str]:
        with self.shard(level, iy, ix) as shard:
            for chunk in chunks:
                if chunk is None:
                    shard.append_missing()
                else:
                    shard.append_encoded(chunk)
        return {self.name(level, iy, ix): shard.checksum}

    def _write_chunks(self, level: StoreLevel, iy: int, ix: int, pixels: Array) -> dict[str, str]:
        chunks: dict[tuple[int, int], bytes | None] = {}
        for number, part in enumerate(self.parts(level, pixels)):
            if part is not None and not is_fill(part, self.layout.fill_value):
                y, x = iy * level.chunks + number // level.chunks, ix * level.chunks + number % level.chunks
                chunks[y, x] = self.encode(level, part)
        return self._put(level, chunks)

    def _put(self, level: StoreLevel, chunks: Mapping[tuple[int, int], bytes | None]) -> dict[str, str]:
        """Put chunks that lie by themselves, several at once: each waits for the disk or the network."""
        names = {self.name(level, iy, ix): data for (iy, ix), data in chunks.items()}
        gone = [name for name, data in names.items() if data is None]
        self.place.remove(*gone)
        kept = {name: data for name, data in names.items() if data is not None}
        with ThreadPoolExecutor(PUTS) as pool:
            return dict(zip(kept, pool.map(self.place.put, kept, kept.values()), strict=True))

    def copied_chunk(self, level: StoreLevel, chunk: bytes) -> bytes:
        """Return a chunk that a source gave as the level stores it.

        Parameters
        ----------
        level : StoreLevel
            Its level, whose chunks are copied.
        chunk : bytes
            As `EncodedSource.read_encoded` gives it.

        Returns
        -------
        bytes
            The same, or a smaller form that it can be made of again.
        """
        if level.transcoding is None:
            return chunk
        with timed("encode"):
            return level.transcoding.stored(chunk)

    def chunks_of(self, level: StoreLevel, box: Box, pixels: Array) -> dict[tuple[int, int], bytes | None]:
        """Return the chunks of a box of a level, for `replace`.

        Parameters
        ----------
        level : StoreLevel
            Which level.
        box : Box
            In pixels of the level, from chunk to chunk or to the edge of the image; inside one shard.
        pixels : ndarray
            `(y, x, c)` of the box.

        Returns
        -------
        dict
            Encoded chunks by row and column in the grid of chunks, None for those that hold nothing but the fill value.
        """
        chunks: dict[tuple[int, int], bytes | None] = {}
        for y in range(box.y, box.y_stop, level.chunk.y):
            for x in range(box.x, box.x_stop, level.chunk.x):
                part = pixels[y - box.y : y - box.y + level.chunk.y, x - box.x : x - box.x + level.chunk.x]
                is_empty = is_fill(part, self.layout.fill_value)
                chunks[y // level.chunk.y, x // level.chunk.x] = None if is_empty else self.encode(level, part)
        return chunks

    def replace(
        self, level: StoreLevel, chunks: Mapping[tuple[int, int], bytes | None], *, written: Set[str] = frozenset()
    ) -> dict[str, bool]:
        """Replace some chunks of one shard of a level, or chunks that lie by themselves.

        Parameters
        ----------
        level : StoreLevel
            Which level.
        chunks : Mapping
            Encoded chunks by row and column in the grid of chunks, None for those that are not stored any more.
        written : set of str
            Paths of what the store says was written.

        Returns
        -------
        dict
            Path of each object, and whether it is there now.

        Raises
        ------
        DamagedError
            When the shard that is there is damaged, or was written and is gone.
        OutputError
            When the place cannot be written.
        """
        if not self.layout.has_shards:
            self._put(level, chunks)
            return {self.name(level, iy, ix): data is not None for (iy, ix), data in chunks.items()}
        count = level.chunks
        iy, ix = (next(iter(chunks))[axis] // count for axis in (0, 1))
        name = self.name(level, iy, ix)
        before = self.place.get(name)
        if before is None and name in written:
            raise DamagedError(f"`{name}` was written and is gone: store the image anew (`--no-resume`)")
        nothing: list[bytes | memoryview | None] = [None] * count**2
        stored = nothing if before is None else split_shard(before, count**2)
        for (y, x), data in chunks.items():
            stored[(y - iy * count) * count + x - ix * count] = data
        is_there = any(chunk is not None for chunk in stored)
        if is_there:
            self._pack(level, iy, ix, stored)
        else:
            self.place.remove(name)
        return {name: is_there}

    def parts(self, level: StoreLevel, pixels: Array) -> Iterator[Array | None]:
        """Yield the pixels `(y, x, c)` under each chunk of a unit in C order, None for chunks outside the image."""
        for iy, ix in np.ndindex(level.chunks, level.chunks):
            y, x = iy * level.chunk.y, ix * level.chunk.x
            part = pixels[y : y + level.chunk.y, x : x + level.chunk.x]
            yield part if part.size else None

    def encode(self, level: StoreLevel, part: Array) -> bytes:
        """Return a chunk as bytes; the rest of an edge chunk is filled up.

        Parameters
        ----------
        level : StoreLevel
            Its level.
        part : ndarray
            `(y, x, c)`, at most the size of a chunk.

        Returns
        -------
        bytes
            What the codecs of the level decode.
        """
        shape = (*level.chunk.yx, part.shape[2])
        with timed("encode"):
            if part.shape != shape:
                whole = np.full(shape, self.layout.fill_value, self.layout.dtype)
                whole[: part.shape[0], : part.shape[1]] = part
                part = whole
            return encode_pixels(part.astype(self.layout.dtype, copy=False), level.codecs)
