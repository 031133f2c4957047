"""Stores whose tiles are fields: every level is decoded straight from the parameters of the tiles that it lies in.

A tile of array j·step answers levels j·step to (j + 1)·step - 1 of the image (`tilestream.sinks.fieldstore` says how a
store lies), so that a block of level l is the tile under it asked at level l % step, at a cost that goes with the
pixels of the block. To read and to unpack a tile is paid for once, as long as the cache of unpacked fields holds it. A
tile that cannot be read is damaged on each of its levels; one that is not stored is the fill value of the array.

Of tiles of the pyramid codec, which lie coarse to fine, a coarse level reads the front alone (`fieldfronts`), and a
finer one later what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from math import prod
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tilestream.cache.fields import FieldKey, field_cache
from tilestream.codecs.constanttile import KIND as CONSTANT
from tilestream.codecs.fields.decoders import decoder_of
from tilestream.codecs.neuralchunks import checked_tile
from tilestream.codecs.pyramid.shared import nets_of
from tilestream.codecs.tilecodec import BYTES_OF_PARAMETER, PYRAMID, Tile
from tilestream.codecs.tilefront import answers, front_of
from tilestream.errors import DamagedError
from tilestream.metrics import count, timed
from tilestream.sources.chunkread import REMOTE_THREADS
from tilestream.sources.extras import Extras
from tilestream.sources.fieldfronts import FrontReader
from tilestream.sources.fingerprint import digest
from tilestream.sources.ngff import read_node
from tilestream.sources.ownstore import field_record
from tilestream.sources.recognise import inside
from tilestream.sources.samples import masked
from tilestream.sources.zarr import ZarrSource
from tilestream.types import Array, Block, Box, ImageInfo, Shape

FORMAT = "fields"
"""What `info` calls such a store."""
PARAMETERS = 0.5
"""Numbers that a network has for a sample of its tile, about, when its memory is guessed: those of a hash grid."""
MOST_TRIED = 16
"""Places of an array at which a tile is looked for that tells how large networks are: much of a slide is glass."""


@dataclass(frozen=True, kw_only=True)
class FieldSource:
    """One image of a store of fields, with all its levels."""

    stored: ZarrSource
    """The arrays: levels 0, `step`, 2 `step` … of the image."""
    info: ImageInfo
    """Description with every level."""
    step: int
    """Levels that a tile answers."""
    valid: ZarrSource | None = None
    """Mask on every level, or on the finest: what is not 0 was measured."""
    backend: str | None = None
    """`cuda`: tiles are decoded by the CUDA device of the process; else by the CPU."""

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block:
        """Return one block: a tile at one of its levels.

        Parameters
        ----------
        level, iy, ix : int
            Level, and row and column in its grid of blocks.
        out : ndarray, optional
            Memory of a block `(y, x, c)`: filled, and returned as the pixels.

        Returns
        -------
        Block
            Pixels `(y, x, c)`.

        Raises
        ------
        DamagedError
            When the tile cannot be read or decoded, or is gone although it was written.
        IndexError
            When there is no such level or block.
        """
        box = self._box(level, iy, ix)
        seen = self._seen(box)
        shape = (box.height, box.width, len(self.info.channels))
        fits = out is not None and out.shape == shape and out.dtype == self.info.dtype and out.flags.writeable
        pixels = out if out is not None and fits else np.empty(shape, self.info.dtype)
        if seen is not None and not seen.any():  # what a field says where nothing was measured means nothing
            pixels[...] = 0
            return Block(pixels=pixels, valid=seen)
        self._fill(level, iy, ix, pixels)
        count("blocks_decoded")
        return masked(pixels, None, seen)

    def _seen(self, box: Box) -> npt.NDArray[np.bool_] | None:
        """Return what of a box was measured, None where everything was: a coarse pixel where any under it was."""
        if self.valid is None:
            return None
        if box.level < len(self.valid.info.levels):
            return cast("npt.NDArray[np.bool_]", self.valid.read_window(box)[:, :, 0] != 0)
        edge = 2**box.level
        under = Box(y=box.y * edge, x=box.x * edge, height=box.height * edge, width=box.width * edge)
        seen = self.valid.read_window(under.intersect(self.valid.info.levels[0].box))[:, :, 0] != 0
        starts_yx = (np.arange(0, size, edge) for size in seen.shape)
        for axis, starts in enumerate(starts_yx):
            seen = np.logical_or.reduceat(seen, starts, axis=axis)
        return cast("npt.NDArray[np.bool_]", seen)

    def _box(self, level: int, iy: int, ix: int) -> Box:
        if min(level, iy, ix) < 0 or level >= len(self.info.levels):
            raise IndexError(f"level {level}, block {iy}, {ix}: there is none")
        stored = self.info.levels[level]
        y, x = iy * stored.block.y, ix * stored.block.x
        height, width = min(stored.block.y, stored.shape.y - y), min(stored.block.x, stored.shape.x - x)
        if min(height, width) <= 0:
            raise IndexError(f"level {level}, block {iy}, {ix}: there is none")
        return Box(level=level, y=y, x=x, height=height, width=width)

    def _fill(self, level: int, iy: int, ix: int, pixels: Array) -> None:
        """Fill pixels `(y, x, c)` with a block."""
        array, deeper = divmod(level, self.step)
        tile = self._tile(array, iy, ix, deeper)
        if tile is None:
            layout = self.stored.layouts[array]
            pixels[...] = 0 if layout is None else layout.fill
            return
        box = Box(level=deeper, y=0, x=0, height=pixels.shape[0], width=pixels.shape[1])
        if (own := tile.picture.shape_at(deeper)).y < box.height or own.x < box.width:
            raise DamagedError(
                f"tile {iy}, {ix} of array {array * self.step} has {own.y} x {own.x} px at level {level}"
            )
        with timed("decode"):
            tile.decode(box, level=deeper, out=pixels.transpose(2, 0, 1), backend=self.backend)

    def _tile(self, array: int, iy: int, ix: int, level: int = 0) -> Tile | None:
        """Return a tile, unpacked, that has one of its levels; None where it is not stored."""
        key, cache = (self._identity, array, iy, ix), field_cache()
        tile = cast("Tile | None", cache.get(key, lambda: self._unpacked(key, level)))
        if tile is not None and not answers(tile, level):
            tile = self._unpacked(key, level, front=front_of(tile))
            cache.keep(key, tile)
        return tile

    def _unpacked(self, key: FieldKey, level: int, *, front: bytes = b"") -> Tile | None:
        if not front and not self._has_fronts(level):
            return self._tile_of(self._bytes(key, 0), key, level)
        try:
            return self._tile_of(self._bytes(key, level, front), key, level)
        except DamagedError:  # if it was written again between two requests, it is whole at once
            return self._tile_of(self._bytes(key, 0), key, 0)

    def _bytes(self, key: FieldKey, level: int, front: bytes = b"") -> bytes | None:
        """Return of the bytes of a tile those that a level needs beside its front, if that was read; else all."""
        _, array, iy, ix = key
        stored = partial(self.stored.stored_chunk, array, (0, iy, ix))
        if not front and not self._has_fronts(level):
            return stored()
        return self._fronts.read(stored, level, front=front)

    def _bytes_or_damage(self, key: FieldKey, level: int, front: bytes) -> bytes | DamagedError | None:
        try:
            return self._bytes(key, level, front)
        except DamagedError as error:
            return error

    def _has_fronts(self, level: int) -> bool:
        """Return whether tiles may answer one of their levels by less than all their bytes."""
        return level > 0 and self._shared[0] == PYRAMID

    @cached_property
    def _fronts(self) -> FrontReader:
        return FrontReader()

    def _tile_of(self, data: bytes | None, key: FieldKey, level: int) -> Tile | None:
        _, array, iy, ix = key
        layout = self.stored.layouts[array]
        if data is None or layout is None:
            return None
        self._know_decoder()
        try:
            with timed("unpack"):
                return checked_tile(data, shape=layout.chunks, dtype=layout.dtype, level=level)
        except DamagedError as error:
            raise DamagedError(f"`{self.stored.paths[array]}/{layout.key((0, iy, ix))}`: {error}") from error

    def _know_decoder(self) -> str | None:
        """Return the name of what tiles share, known to this process from now on; None where nothing is."""
        codec, text = self._shared
        if text is None:
            return None
        return nets_of(text).digest.hex() if codec == PYRAMID else decoder_of(text).name

    @cached_property
    def _shared(self) -> tuple[object, str | None]:
        """Return the name of the codec, and as text what its tiles share."""
        node = read_node(self.stored.group)
        settings = ({} if node is None else field_record(node) or {}).get("settings")
        if not isinstance(settings, Mapping):
            return None, None
        text = settings.get("decoder")
        return settings.get("codec"), text if isinstance(text, str) else None

    @cached_property
    def _identity(self) -> str:
        """Return what tells the tiles of this store from those of one that takes its place."""
        group = self.stored.group
        made = inside(group, "zarr.json").version() if group.is_local else None
        return f"{self.info.fingerprint} {group.url} {made}"

    def warm(self, box: Box) -> None:
        """Fetch and unpack the tiles of a box of a remote store, several at once, as far as the cache has room."""
        if self.stored.root.is_local:
            return
        (array, deeper), level = divmod(box.level, self.step), self.info.levels[box.level]
        inside_level, cache = box.intersect(level.box), field_cache()
        rows, columns = (
            range(start // block, -(-stop // block) if stop > start else 0)
            for start, stop, block in (
                (inside_level.y, inside_level.y_stop, level.block.y),
                (inside_level.x, inside_level.x_stop, level.block.x),
            )
        )
        keys = [(self._identity, array, iy, ix) for iy, ix in product(rows, columns)]
        fronts = {key: front for key in keys if (front := self._front(key, deeper)) is not None}
        if not 1 < len(fronts) <= cache.budget_bytes // self._tile_bytes:
            return
        with timed("read"), ThreadPoolExecutor(REMOTE_THREADS) as pool:
            parts = list(pool.map(lambda key: self._bytes_or_damage(key, deeper, fronts[key]), fronts))
        found = {key: part for key, part in zip(fronts, parts, strict=True) if not isinstance(part, DamagedError)}
        # the threads have no meter
        count("bytes_read", sum(len(part) - len(fronts[key]) for key, part in found.items() if part is not None))
        for key, part in found.items():
            with suppress(DamagedError):  # left to who reads it
                cache.keep(key, self._tile_of(part, key, deeper))

    def _front(self, key: FieldKey, level: int) -> bytes | None:
        """Return what is there of a tile of which a level is not; None where that is."""
        held = field_cache().peek(key)
        if held is None:
            return b""
        tile = cast("Tile | None", held[0])
        return None if tile is None or answers(tile, level) else front_of(tile)

    @property
    def _tile_bytes(self) -> int:
        """Return about what a tile takes unpacked."""
        layout = self.stored.layouts[0]
        return 1 if layout is None else max(1, int(PARAMETERS * BYTES_OF_PARAMETER * prod(layout.chunks)))

    def decode_on(self, backend: str) -> FieldSource:
        """Return the source decoded by `cpu` or `cuda`; its pixels may differ by one, so that its fingerprint does."""
        fingerprint, word = digest(self.info.fingerprint, backend), f"decoded by {backend}"
        info = replace(self.info, fingerprint=fingerprint, derived=(*self.info.derived, word))
        return replace(self, info=info, backend=backend)

    def coding(self) -> dict[str, Any]:
        """Return how the image is encoded and what that has reached.

        Returns
        -------
        dict
            JSON values: `codec`, `settings`, `tile_px`, `bpp`, `bytes`, `psnr` (dB a level, None where it is exact or
            unknown) and more that the writer has recorded; `parameters` by part and `tile_bytes` of one tile in the
            middle of the finest array in which one can be read, None where there is none.
        """
        node = read_node(self.stored.group)
        record = {} if node is None else field_record(node) or {}
        quality, settings, layout = record.get("quality"), record.get("settings"), self.stored.layouts[0]
        quality = quality if isinstance(quality, Mapping) else {}
        psnr = quality.get("psnr")
        return {
            **quality,
            "codec": record.get("codec"),
            "settings": self._shown(settings),
            "tile_px": None if layout is None else layout.chunks[1],
            **{name: _number(quality.get(name)) for name in ("bpp", "bytes")},
            "psnr": [_number(one) for one in psnr] if isinstance(psnr, list) else [],
            **self._example(),
        }

    def _shown(self, settings: Any) -> dict[str, Any]:
        """Return settings for people: a decoder is a name, not all its bytes."""
        found = dict(settings) if isinstance(settings, Mapping) else {}
        return {**found, "decoder": self._know_decoder()} if "decoder" in found else found

    def _example(self) -> dict[str, Any]:
        for array, level in enumerate(self.stored.info.levels):
            for iy, ix in _from_middle(level.blocks):
                with suppress(DamagedError):
                    data = self.stored.stored_chunk(array, (0, iy, ix))
                    tile = None if data is None else self._tile(array, iy, ix)
                    if data is not None and tile is not None and tile.kind != CONSTANT:
                        return {"parameters": dict(tile.sizes), "tile_bytes": len(data)}
        return {"parameters": None, "tile_bytes": None}

    def isel(self, **index: int) -> FieldSource:
        """Return the source itself: there is nothing to choose on."""
        return replace(self, stored=self.stored.isel(**index))

    def read_associated(self, name: str) -> Array:
        """Return the thumbnail `(y, x, c)` of a store that has one."""
        return self.stored.read_associated(name)

    def read_extras(self) -> Extras:
        """Return what the attributes say besides the pixels."""
        return self.stored.read_extras()

    def read_identifying(self, name: str) -> Array:
        """Return a picture `(y, x, c)` that may show a label; only for users who said that they want it."""
        return self.stored.read_identifying(name)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_identity"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _from_middle(blocks: Shape) -> Iterator[tuple[int, int]]:
    """Yield some places of a grid, one in the middle first, then along a diagonal."""
    yield blocks.y // 2, blocks.x // 2
    most = min(MOST_TRIED, max(blocks.yx))
    yield from ((blocks.y * n // most, blocks.x * n // most) for n in range(most))
