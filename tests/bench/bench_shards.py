"""Tiles at random places of a Zarr pyramid: against zarr-python on the same store, and OpenSlide on the slide."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import openslide
import zarr

from tests.bench.gigapixel import shape_of, write_gigapixel
from tests.bench.table import at_least, make_row, rates
from tilestream.codecs.metadata import Layout, array_metadata, encode_json, shard_layout
from tilestream.codecs.shards import ShardWriter
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.sources.encoded import encoded_level, read_encoded
from tilestream.types import Box

GIGAPIXELS = 0.3
TILE_PX = 256
SHARD_CHUNKS = 16
ZARR_BAR = 2.0
"""Times zarr-python's default pipeline on the same store, with as many threads."""
OPENSLIDE_BAR = 5.0
"""Times OpenSlide's `read_region` on the slide that the store was made from, one thread."""
READS = 400

Corners = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Stores:
    """A slide and two stores of its finest level: zstd, and its own JPEG streams."""

    slide: Path
    portable: Path
    archive: Path


def make_stores(folder: Path, gigapixels: float) -> Stores:
    """Return a slide as a scanner writes it, and the same pixels in shards as we write them."""
    slide = write_gigapixel(folder / "slide.svs", shape_of(gigapixels))
    pyramid = open_pyramid(slide, cache_bytes=0)
    _write_portable(folder / "portable.zarr", pyramid)
    _write_archive(folder / "archive.zarr", pyramid)
    return Stores(slide, folder / "portable.zarr", folder / "archive.zarr")


def _write_portable(root: Path, pyramid: Pyramid) -> None:
    """Write the pixels of a slide with zstd."""
    shape, edge = pyramid.levels[0].shape, TILE_PX * SHARD_CHUNKS
    chunk, counts = (3, TILE_PX, TILE_PX), (1, SHARD_CHUNKS, SHARD_CHUNKS)
    for iy in range(-(-shape.y // edge)):
        for ix in range(-(-shape.x // edge)):
            pixels = pyramid.read_region(Box(y=iy * edge, x=ix * edge, height=edge, width=edge)).pixels
            with _shard(root, iy, ix, chunk) as shard:
                for y in range(0, edge, TILE_PX):
                    for x in range(0, edge, TILE_PX):
                        shard.append(pixels[:, y : y + TILE_PX, x : x + TILE_PX])
    _write_metadata(root, pyramid, shard_layout(np.dtype("uint8"), chunk, counts=counts, transpose=(1, 2, 0)))


def _write_archive(root: Path, pyramid: Pyramid) -> None:
    """Write the JPEG streams of a slide as they are, each with the tables that it needs."""
    level = encoded_level(pyramid.source, 0)
    blocks = pyramid.levels[0].blocks
    edge = SHARD_CHUNKS
    for iy in range(-(-blocks.y // edge)):
        for ix in range(-(-blocks.x // edge)):
            cells = [(0, iy * edge + y, ix * edge + x) for y in range(edge) for x in range(edge)]
            there = [cell for cell in cells if cell[1] < blocks.y and cell[2] < blocks.x]
            chunks = dict(zip(there, read_encoded(pyramid.source, 0, there), strict=True))
            with _shard(root, iy, ix, level.chunk_shape) as shard:
                for cell in cells:
                    chunk = chunks.get(cell)
                    if isinstance(chunk, bytes):
                        shard.append_encoded(chunk)
                    else:
                        shard.append_missing()
    layout = shard_layout(np.dtype("uint8"), level.chunk_shape, counts=(1, edge, edge))
    configuration = {**layout.codecs[0]["configuration"], "codecs": list(level.codecs)}
    sharding = {"name": "sharding_indexed", "configuration": configuration}
    _write_metadata(root, pyramid, Layout(grid_shape=layout.grid_shape, codecs=(sharding,)))


def _shard(root: Path, iy: int, ix: int, chunk_shape: Sequence[int]) -> ShardWriter:
    path = root / "c" / "0" / str(iy) / str(ix)
    return ShardWriter(path, chunk_shape=chunk_shape, dtype=np.dtype("uint8"), transpose=(1, 2, 0))


def _write_metadata(root: Path, pyramid: Pyramid, layout: Layout) -> None:
    shape = (3, *pyramid.levels[0].shape.yx)
    document = array_metadata(shape, np.dtype("uint8"), layout=layout, dimension_names="cyx", fill_value=255)
    (root / "zarr.json").write_bytes(encode_json(document))


def corners(shape_yx: tuple[int, int], count: int) -> Corners:
    """Return corners `(y, x)` of whole tiles of the grid, in random order, the same each time."""
    generator = np.random.default_rng(0)
    picked = generator.integers(0, [size // TILE_PX for size in shape_yx], (count, 2)) * TILE_PX
    return [(int(y), int(x)) for y, x in picked]


def in_threads(read: Callable[[Corners], None], places: Corners, threads: int) -> int:
    """Return the number of tiles after reading all, each thread its share."""
    workers = [threading.Thread(target=read, args=(places[first::threads],)) for first in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return len(places)


def read_ours(pyramid: Pyramid, places: Corners) -> None:
    """Read tiles through a pyramid, as users and the xarray engine do; its cache of decoded blocks is off."""
    for y, x in places:
        pyramid.read(Box(y=y, x=x, height=TILE_PX, width=TILE_PX))


def read_zarr(array: zarr.Array[Any], places: Corners) -> None:
    """Read the same tiles with zarr-python."""
    for y, x in places:
        array[:, y : y + TILE_PX, x : x + TILE_PX]


def read_openslide(slide: openslide.OpenSlide, places: Corners) -> None:
    """Read the same tiles of the slide itself."""
    for y, x in places:
        slide.read_region((x, y), 0, (TILE_PX, TILE_PX))


def require_equal(pyramid: Pyramid, array: zarr.Array[Any], places: Corners) -> None:
    """Raise `AssertionError` unless both read the same pixels: a wrong tile is made in no time."""
    for y, x in places:
        box = Box(y=y, x=x, height=TILE_PX, width=TILE_PX)
        np.testing.assert_array_equal(pyramid.read(box), array[:, y : y + TILE_PX, x : x + TILE_PX])


def zarr_row(store: Path, *, threads: int, rounds: int, bar: float | None = ZARR_BAR) -> dict[str, Any]:
    """Return the rates of random tiles of a store, ours and zarr-python's."""
    pyramid, array = open_pyramid(store, cache_bytes=0), zarr.open_array(store, mode="r")
    places = corners(pyramid.levels[0].shape.yx, READS)
    require_equal(pyramid, array, places[:5])
    ours, theirs = (partial(read, reader) for read, reader in ((read_ours, pyramid), (read_zarr, array)))
    found = rates([partial(in_threads, read, places, threads) for read in (ours, theirs)], rounds=rounds)
    return make_row(
        f"random tiles of {store.stem}, {threads} thread{'s'[: threads - 1]}",
        found[0],
        "tiles/s",
        rival=("zarr-python, default pipeline", found[1]),
        bar=None if bar is None else at_least(bar),
        note=f"{READS} tiles of {TILE_PX} px on a grid of {TILE_PX} px, the same for both; no cache of decoded blocks",
    )


def openslide_row(store: Path, slide: Path, *, rounds: int, bar: float | None = OPENSLIDE_BAR) -> dict[str, Any]:
    """Return the rates of random tiles, ours of a store and OpenSlide's of the slide that it was made from."""
    pyramid = open_pyramid(store, cache_bytes=0)
    places = corners(pyramid.levels[0].shape.yx, READS)
    with openslide.OpenSlide(slide) as opened:
        opened.set_cache(openslide.OpenSlideCache(0))
        contestants = [partial(read_ours, pyramid), partial(read_openslide, opened)]
        found = rates([partial(in_threads, read, places, 1) for read in contestants], rounds=rounds)
    chunk = pyramid.levels[0].block.x
    return make_row(
        f"random tiles of {store.stem}, one thread, against the slide",
        found[0],
        "tiles/s",
        rival=("OpenSlide read_region", found[1]),
        bar=None if bar is None else at_least(bar),
        note=f"{READS} tiles of {TILE_PX} px; the store's chunks are of {chunk} px, the slide's tiles of 240 px: a "
        "tile that is none of these costs the decoding of four or more; both caches off",
    )


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with TemporaryDirectory() as folder:
        stores = make_stores(Path(folder), GIGAPIXELS)
        return [
            zarr_row(stores.portable, threads=1, rounds=5),
            zarr_row(stores.portable, threads=2, rounds=5),
            openslide_row(stores.portable, stores.slide, rounds=5),
            zarr_row(stores.archive, threads=1, rounds=5, bar=None),
            openslide_row(stores.archive, stores.slide, rounds=5, bar=None),
        ]
