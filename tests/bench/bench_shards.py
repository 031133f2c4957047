"""Tiles at random places of a Zarr pyramid: against zarr-python on the same store, and OpenSlide on the slide."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import tifffile
import zarr

from tests.bench.gigapixel import shape_of, write_gigapixel
from tilestream.codecs.metadata import Layout, array_metadata, encode_json, shard_layout
from tilestream.codecs.shards import ShardWriter
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
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
    archive_px: int


def make_stores(folder: Path, gigapixels: float) -> Stores:
    """Return a slide as a scanner writes it, and the same pixels in shards as we write them."""
    slide = write_gigapixel(folder / "slide.svs", shape_of(gigapixels))
    pyramid = open_pyramid(slide, cache_bytes=0)
    _write_portable(folder / "portable.zarr", pyramid)
    return Stores(
        slide, folder / "portable.zarr", folder / "archive.zarr", _write_archive(folder / "archive.zarr", slide)
    )


def _write_portable(root: Path, pyramid: Pyramid) -> None:
    shape, dtype = pyramid.levels[0].shape, np.dtype("uint8")
    chunk, counts = (3, TILE_PX, TILE_PX), (1, SHARD_CHUNKS, SHARD_CHUNKS)
    edge = TILE_PX * SHARD_CHUNKS
    for iy in range(-(-shape.y // edge)):
        for ix in range(-(-shape.x // edge)):
            pixels = pyramid.read_region(Box(y=iy * edge, x=ix * edge, height=edge, width=edge)).pixels
            with ShardWriter(
                root / "c" / "0" / str(iy) / str(ix), chunk_shape=chunk, dtype=dtype, transpose=(1, 2, 0)
            ) as shard:
                for y in range(0, edge, TILE_PX):
                    for x in range(0, edge, TILE_PX):
                        shard.append(pixels[:, y : y + TILE_PX, x : x + TILE_PX])
    layout = shard_layout(dtype, chunk, counts=counts, transpose=(1, 2, 0))
    _write_metadata(root, (3, *shape.yx), layout)


def _write_archive(root: Path, slide: Path) -> int:
    """Write the JPEG streams of a slide as they are, each with the tables that it needs, and return their edge, px."""
    with tifffile.TiffFile(slide) as tiff, slide.open("rb") as file:
        page = tiff.pages.first
        edge, rows, columns = (
            page.tilewidth,
            -(-page.imagelength // page.tilewidth),
            -(-page.imagewidth // page.tilewidth),
        )
        ranges = np.stack([page.dataoffsets, page.databytecounts], axis=1).reshape(rows, columns, 2)
        tables = (page.jpegtables or b"")[:-2]
        for iy in range(-(-rows // SHARD_CHUNKS)):
            for ix in range(-(-columns // SHARD_CHUNKS)):
                with ShardWriter(
                    root / "c" / "0" / str(iy) / str(ix), chunk_shape=(3, edge, edge), dtype=np.dtype("uint8")
                ) as shard:
                    for y in range(iy * SHARD_CHUNKS, (iy + 1) * SHARD_CHUNKS):
                        for x in range(ix * SHARD_CHUNKS, (ix + 1) * SHARD_CHUNKS):
                            if y >= rows or x >= columns:
                                shard.append_missing()
                                continue
                            file.seek(int(ranges[y, x, 0]))
                            stream = file.read(int(ranges[y, x, 1]))
                            shard.append_encoded(tables + stream[2:] if tables else stream)
        shape, colours = (3, page.imagelength, page.imagewidth), page.photometric.name
    layout = shard_layout(np.dtype("uint8"), (3, edge, edge), counts=(1, SHARD_CHUNKS, SHARD_CHUNKS))
    configuration = dict(layout.codecs[0]["configuration"])
    configuration["codecs"] = [
        {"name": "transpose", "configuration": {"order": [1, 2, 0]}},
        {"name": "imagecodecs_jpeg", "configuration": {"colorspace_jpeg": colours, "colorspace_data": "RGB"}},
    ]
    sharding = {"name": "sharding_indexed", "configuration": configuration}
    _write_metadata(root, shape, Layout(grid_shape=layout.grid_shape, codecs=(sharding,)))
    return edge


def _write_metadata(root: Path, shape: tuple[int, ...], layout: Layout) -> None:
    document = array_metadata(shape, np.dtype("uint8"), layout=layout, dimension_names="cyx", fill_value=255)
    (root / "zarr.json").write_bytes(encode_json(document))


def corners(shape_yx: tuple[int, int], step_px: int, count: int) -> Corners:
    """Return corners `(y, x)` of whole tiles on a grid, in random order, the same each time."""
    generator = np.random.default_rng(0)
    rows, columns = ((size - TILE_PX) // step_px for size in shape_yx)
    picked = generator.integers(0, (rows, columns), (count, 2)) * step_px
    return [(int(y), int(x)) for y, x in picked]


def in_threads(read: Callable[[Corners], None], places: Corners, threads: int) -> int:
    """Return the number of tiles after reading all, each thread its share."""
    if threads == 1:
        read(places)
        return len(places)
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
