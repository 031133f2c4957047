"""Windows of a Zarr array read chunk by chunk in the calling thread: what is asked for, and nothing around it.

zarr-python spends more time around a chunk of 256 x 256 pixels than in decoding it, and asks for the index of the shard
each time. Here a tile costs one read of exactly its bytes, and is decoded into the caller's memory where it fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from tilestream.errors import DamagedError
from tilestream.metrics import count, timed
from tilestream.sources.chunkcodecs import ChunkDecoder
from tilestream.sources.files import File
from tilestream.sources.recognise import LFS_MAGIC, inside
from tilestream.sources.samples import put_pixels
from tilestream.sources.shardindex import LFS_REASON, ShardIndex, indexes, read_index
from tilestream.sources.zarrlayout import ChunkLayout
from tilestream.types import Array, Box

REMOTE_THREADS = 8
"""Chunks that are objects of their own are asked for at the same time, where each answer takes its time."""

Place = tuple[int, ...]
"""Position in the grid of chunks, or of files, of an array."""
Span = tuple[int, int]
"""First byte, and how many."""


class ChunkReader:
    """Reads windows of one array; safe under threads, made again in each process.

    Parameters
    ----------
    folder : File
        Folder of the array.
    layout : ChunkLayout
        Where its chunks lie.
    dims : sequence of str
        Names of its axes, with one `y`, one `x` and at most one `c`.
    fingerprint : str
        Identity of the store, by which the indexes of its shards are kept.
    written : ndarray of bool, optional
        `(y, x)` files that were written, where the store says so: one that is gone is then damage, not background.
    """

    def __init__(
        self,
        folder: File,
        layout: ChunkLayout,
        *,
        dims: Sequence[str],
        fingerprint: str,
        written: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self._folder, self._layout, self._dims, self._written = folder, layout, tuple(dims), written
        # A store that is built again in its old place has the same fingerprint, and its shards are other files.
        made = inside(folder, "zarr.json").version() if folder.is_local else None
        self._identity = f"{fingerprint} {folder.url} {made}"
        # Remote shards that are not there: glass is large, and each of its tiles would cost a request for nothing.
        self._absent: set[Place] = set()
        self._decoder = ChunkDecoder(layout.codec, layout.chunks)
        self._fill = layout.dtype.type(layout.fill)
        self._y, self._x = self._dims.index("y"), self._dims.index("x")
        c = self._dims.index("c") if "c" in self._dims else None
        self._channels, self._chunk_channels = (1, 1) if c is None else (layout.shape[c], layout.chunks[c])
        self._extra = any(name not in ("y", "x", "c") for name in self._dims)
        left = [self._dims[axis] for axis in range(len(dims)) if self._dims[axis] in ("y", "x", "c")]
        self._turn = tuple(left.index(name) for name in ("y", "x", "c") if name in left)
        # Stored as (y, x, c), whole pixels, nothing else beside them: a chunk is decoded where the caller wants it.
        order = [
            self._dims[axis] for axis in layout.codec.order if layout.chunks[axis] > 1 or axis in (self._y, self._x)
        ]
        self._direct = order in (["y", "x"], ["y", "x", "c"]) and self._chunk_channels == self._channels

    def read(self, box: Box, selection: Mapping[str, int], out: Array | None = None) -> Array:
        """Return the samples of a window with all channels.

        Parameters
        ----------
        box : Box
            Window inside the array.
        selection : Mapping
            Index on each further axis.
        out : ndarray, optional
            `(y, x, c)` of a whole chunk, which is decoded into it where it can be.

        Returns
        -------
        ndarray
            `(y, x, c)` of the window, `out` itself where that was filled; may be a view, may be read-only.

        Raises
        ------
        DamagedError
            When a chunk cannot become samples, or is gone although it was written.
        SourceError
            When the store cannot be read, or a shard was changed under the reader's hands.
        """
        places = self._places(box, selection)
        stored = self._fetch(places)
        if len(places) > 1:
            return self._gather(box, selection, list(zip(places, stored, strict=True)), out)
        place, data = places[0], stored[0]
        chunk_y, chunk_x = self._layout.chunks[self._y], self._layout.chunks[self._x]
        if data is None:
            return self._filled(box, out)
        if self._direct and _is_whole(out, (chunk_y, chunk_x, self._channels), self._layout.dtype):
            memory = out.reshape(self._decoder.shape)
            pixels = (
                out if (found := self._decode(place, data, memory)) is memory else self._as_pixels(found, selection)
            )
        else:
            pixels = self._as_pixels(self._decode(place, data, None), selection)
        top, left = box.y - place[self._y] * chunk_y, box.x - place[self._x] * chunk_x
        if (top, left, box.height, box.width) == (0, 0, chunk_y, chunk_x) and pixels.shape[2] == self._channels:
            return pixels
        return pixels[top : top + box.height, left : left + box.width, : self._channels]

    def stored(self, place: Place, span: Span | None = None) -> bytes | None:
        """Return the bytes of a chunk, None where none is stored; raise `DamagedError` when they cannot be read.

        Of a span of them, fewer come where the chunk ends before it does.
        """
        return self._fetch([place], span)[0]

    def _places(self, box: Box, selection: Mapping[str, int]) -> list[Place]:
        """Return the chunks that a window touches."""
        ranges: list[Sequence[int]] = []
        for name, size, chunk in zip(self._dims, self._layout.shape, self._layout.chunks, strict=True):
            if name == "y":
                ranges.append(range(box.y // chunk, -(-box.y_stop // chunk)))
            elif name == "x":
                ranges.append(range(box.x // chunk, -(-box.x_stop // chunk)))
            elif name == "c":
                ranges.append(range(-(-size // chunk)))
            else:
                ranges.append((selection.get(name, 0) // chunk,))
        return list(product(*ranges))

    def _filled(self, box: Box, out: Array | None) -> Array:
        shape = (box.height, box.width, self._channels)
        if not _is_whole(out, shape, self._layout.dtype):
            return np.full(shape, self._fill)
        out[...] = self._fill
        return out

    def _gather(
        self, box: Box, selection: Mapping[str, int], stored: list[tuple[Place, bytes | None]], out: Array | None
    ) -> Array:
        """Return a window that several chunks make up."""
        shape = (box.height, box.width, self._channels)
        pixels = out if _is_whole(out, shape, self._layout.dtype) else np.empty(shape, self._layout.dtype)
        memory = np.empty(self._decoder.shape, self._layout.dtype)
        c = self._dims.index("c") if "c" in self._dims else None
        for place, data in stored:
            y, own_y = _overlap(place[self._y], self._layout.chunks[self._y], box.y, box.height)
            x, own_x = _overlap(place[self._x], self._layout.chunks[self._x], box.x, box.width)
            channels, own = _overlap(0 if c is None else place[c], self._chunk_channels, 0, self._channels)
            if data is None:
                pixels[y, x, channels] = self._fill
            else:
                chunk = self._as_pixels(self._decode(place, data, memory), selection)
                put_pixels(pixels[y, x, channels], chunk[own_y, own_x, own])
        return pixels

    def _decode(self, place: Place, data: bytes, memory: Array | None) -> Array:
        try:
            with timed("decode"):
                return self._decoder.decode(data, memory)
        except DamagedError as error:
            reason = LFS_REASON if data.startswith(LFS_MAGIC) else str(error)
            raise DamagedError(f"{self._name(place)}: {reason}") from error

    def _as_pixels(self, stored: Array, selection: Mapping[str, int]) -> Array:
        """Return samples in stored order as a view `(y, x, c)`."""
        chunk = self._decoder.in_array_order(stored)
        if self._extra:
            chunk = chunk[
                tuple(
                    slice(None) if name in ("y", "x", "c") else selection.get(name, 0) % size
                    for name, size in zip(self._dims, self._layout.chunks, strict=True)
                )
            ]
        chunk = chunk.transpose(self._turn)
        return chunk if chunk.ndim == 3 else chunk[..., None]

    def warm(self, box: Box, selection: Mapping[str, int]) -> None:
        """Fetch the chunks of a window from remote shards ahead of reading them; what is damaged is left to `read`.

        Parameters
        ----------
        box : Box
            Window inside the array.
        selection : Mapping
            Index on each further axis.
        """
        if self._folder.is_local or self._layout.index is None:
            return
        for shard, wanted in self._by_shard(self._places(box, selection)).items():
            with suppress(DamagedError):
                index = self._index(shard)
                found = [] if index is None else [index.locate(inner) for _, inner in wanted]
                ranges = [where for where in found if where is not None]
                if index is not None and len(ranges) > 1:  # one chunk is one request anyway
                    index.warm(ranges)

    def _by_shard(self, places: list[Place]) -> dict[Place, list[tuple[int, Place]]]:
        """Return by shard the numbers of the places in it, and where they are inside."""
        counts = () if self._layout.index is None else self._layout.index.counts
        shards: dict[Place, list[tuple[int, Place]]] = {}
        for number, place in enumerate(places):
            shard = tuple(at // n for at, n in zip(place, counts, strict=True))
            shards.setdefault(shard, []).append((number, tuple(at % n for at, n in zip(place, counts, strict=True))))
        return shards

    def _fetch(self, places: list[Place], span: Span | None = None) -> list[bytes | None]:
        """Return the stored bytes of chunks, or of a span of each, None for those that are not stored."""
        if self._layout.index is None:
            return self._fetch_files(places, span)
        found: list[bytes | None] = [None] * len(places)
        for shard, wanted in self._by_shard(places).items():
            index = self._index(shard)
            if index is None:
                continue
            ranges = [(number, where) for number, inner in wanted if (where := index.locate(inner)) is not None]
            try:
                for _, (_, nbytes) in ranges:
                    self._decoder.require_plausible(nbytes)
                parts = index.read([_inside(where, span) for _, where in ranges])
            except DamagedError as error:
                raise DamagedError(f"shard `{self._layout.key(shard)}`: {error}") from error
            for (number, _), part in zip(ranges, parts, strict=True):
                found[number] = part
        return found

    def _index(self, shard: Place) -> ShardIndex | None:
        layout = self._layout
        form, name = layout.index, layout.key(shard)
        if form is None:
            return None

        def load() -> ShardIndex | None:
            return read_index(inside(self._folder, name), form)

        if shard in self._absent:
            return None
        try:
            index = indexes.get((self._identity, name), load)
        except DamagedError as error:
            raise DamagedError(f"shard `{name}`: {error}") from error
        if index is None:
            self._require_unwritten(shard)
            if not self._folder.is_local:
                self._absent.add(shard)
        return index

    def _fetch_files(self, places: list[Place], span: Span | None) -> list[bytes | None]:
        """Return the content of the files of chunks, or a span of each, None for those that are not there."""
        files = [inside(self._folder, self._layout.key(place)) for place in places]
        most = self._decoder.most_bytes

        def read(file: File) -> bytes | None:
            return file.read_whole(most) if span is None else file.read_part(*_inside((0, most), span))

        if self._folder.is_local or len(files) == 1:
            found = [read(file) for file in files]
        else:
            with timed("read"), ThreadPoolExecutor(REMOTE_THREADS) as pool:
                found = list(pool.map(read, files))
            count("bytes_read", sum(len(data) for data in found if data is not None))  # the threads have no meter
        for place, data in zip(places, found, strict=True):
            if data is None:
                self._require_unwritten(place)
        return found

    def _require_unwritten(self, place: Place) -> None:
        """Raise `DamagedError` when the store says that a file was written which is not there."""
        if self._written is not None and self._written[place[self._y], place[self._x]]:
            raise DamagedError(f"`{self._layout.key(place)}` is gone: the store says that it was written")

    def _name(self, place: Place) -> str:
        layout = self._layout
        if layout.index is None:
            return f"chunk `{layout.key(place)}`"
        shard = [at // n for at, n in zip(place, layout.index.counts, strict=True)]
        return f"chunk {place} in shard `{layout.key(shard)}`"


def _is_whole(out: Array | None, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> TypeGuard[Array]:
    """Return whether memory can take exactly these samples."""
    return (
        out is not None and out.shape == shape and out.dtype == dtype and out.flags.c_contiguous and out.flags.writeable
    )


def _inside(where: Span, span: Span | None) -> Span:
    """Return a span of a chunk as one of what the chunk lies in."""
    (offset, size), (start, nbytes) = where, span or (0, where[1])
    start = min(start, size)
    return offset + start, min(nbytes, size - start)


def _overlap(number: int, chunk: int, start: int, size: int) -> tuple[slice, slice]:
    """Return what a chunk and a window share along one axis, in the window and in the chunk."""
    low, high = max(number * chunk, start), min((number + 1) * chunk, start + size)
    return slice(low - start, high - start), slice(low - number * chunk, high - number * chunk)
