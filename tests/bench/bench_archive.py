"""A slide's tiles into shards without decoding them: against `cp` and `sync` of what comes out, and as JPEG XL."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import imagecodecs
import numpy as np
import tifffile

from tests.bench.contestants import one_core
from tests.bench.gigapixel import Block, default_slide, read_block, shape_of
from tests.bench.table import at_least, make_row, rates
from tilestream.codecs.shards import ShardWriter
from tilestream.sources.encoded import archive_reason, encoded_level, read_encoded
from tilestream.sources.opening import open_source
from tilestream.sources.transcoding import find_transcoding
from tilestream.testing.slide import aperio_description, write_slide
from tilestream.types import Shape, Source

GIGAPIXELS = 1.0
SHARD_CHUNKS = 16
THREADS = 4
"""More than cores: most of the time a shard waits for the disk to say that it is safe."""
COPY_BAR = 0.5
"""Of the rate of `cp` and `sync`."""
SPLICE_BAR = 10_000
"""Tiles a second and core, read, checked and spliced."""

SAVED_BAR = 26.0
"""Percent of the bytes of a real slide's tiles that JPEG XL saves."""


def write_whole_slide(path: Path, shape: Shape) -> Path:
    """Return the path of a slide whose every tile has bytes of its own, unlike that of `write_gigapixel`."""
    slide = default_slide()
    if slide is None:
        with TemporaryDirectory() as folder:
            block = read_block(write_slide(Path(folder) / "made.svs", Shape(y=8 * 240, x=8 * 240)))
    else:
        block = read_block(slide)
    tables = block.tables or b""
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(
            _tiles(block, shape),
            shape=(*shape.yx, 3),
            dtype="u1",
            photometric="rgb" if block.is_rgb else "ycbcr",
            tile=(block.tile_px, block.tile_px),
            compression="jpeg",
            description=aperio_description(shape, mpp=block.mpp, quality=30),
            extratags=[(347, 7, len(tables), tables, True)] if tables else [],
            metadata=None,
        )
    return path


def _tiles(block: Block, shape: Shape) -> Iterator[bytes]:
    rows, columns = len(block.tiles), len(block.tiles[0])
    for y in range(-(-shape.y // block.tile_px)):
        for x in range(-(-shape.x // block.tile_px)):
            yield block.tiles[y % rows][x % columns]


def copy_tiles(source: Source, folder: Path) -> int:
    """Return the bytes of the shards that hold level 0 of a source, all of them safe on disk."""
    grid = source.info.levels[0].blocks
    corners = [(y, x) for y in range(0, grid.y, SHARD_CHUNKS) for x in range(0, grid.x, SHARD_CHUNKS)]
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(lambda corner: _copy_shard(source, folder, corner), corners):
            pass
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _copy_shard(source: Source, folder: Path, corner: tuple[int, int]) -> None:
    (top, left), grid = corner, source.info.levels[0].blocks
    cells = [(0, y, x) for y in range(top, top + SHARD_CHUNKS) for x in range(left, left + SHARD_CHUNKS)]
    inside = [cell for cell in cells if cell[1] < grid.y and cell[2] < grid.x]
    found = dict(zip(inside, read_encoded(source, 0, inside), strict=True))
    place = folder / "c" / "0" / str(top // SHARD_CHUNKS) / str(left // SHARD_CHUNKS)
    with ShardWriter(place, chunk_shape=encoded_level(source, 0).chunk_shape, dtype=np.dtype("u1")) as shard:
        for cell in cells:
            chunk = found.get(cell)
            if isinstance(chunk, bytes):
                shard.append_encoded(chunk)
            else:
                shard.append_missing()


def copy_row(path: Path, folder: Path, *, rounds: int = 3, bar: float = COPY_BAR) -> dict[str, Any]:
    """Return the rate at which shards of copied tiles are on disk, and that of `cp` and `sync` of the same bytes."""
    source = open_source(str(path))
    first = folder / "first"
    nbytes = copy_tiles(source, first)

    def ours() -> float:
        shutil.rmtree(folder / "ours", ignore_errors=True)
        return copy_tiles(source, folder / "ours") / 1e6

    def theirs() -> float:
        shutil.rmtree(folder / "theirs", ignore_errors=True)
        subprocess.run(["cp", "-r", str(first), str(folder / "theirs")], check=True)
        subprocess.run(["sync", "-f", str(folder)], check=True)
        return nbytes / 1e6

    rate, rival = rates([ours, theirs], rounds=rounds)
    return make_row(
        f"archive, tiles copied, {THREADS} threads",
        rate,
        "MB/s",
        rival=("cp and sync of the same shards", rival),
        bar=at_least(bar),
        note=f"{nbytes / 1e6:,.0f} MB in shards of {SHARD_CHUNKS}² tiles; each stream checked, "
        "spliced and summed, each shard and folder synced by itself",
    )


def splice_row(path: Path, *, rounds: int = 3, bar: float = SPLICE_BAR) -> dict[str, Any]:
    """Return how many tiles a second are read, checked and made to stand for themselves on one core."""
    source = open_source(str(path))
    assert archive_reason(source) is None
    grid = source.info.levels[0].blocks
    lines = range(min(grid.y, 64))

    def ours() -> float:
        for y in lines:
            chunks = read_encoded(source, 0, [(0, y, x) for x in range(grid.x)])
            assert all(isinstance(chunk, bytes) for chunk in chunks)
        return len(lines) * grid.x

    with one_core():
        (rate,) = rates([ours], rounds=rounds)
    return make_row("archive, tiles spliced, one core", rate, "tiles/s", bar=at_least(bar))


def jpegxl_rows(path: Path, *, rounds: int = 3) -> list[dict[str, Any]]:
    """Return what of the bytes of a slide's tiles is left as JPEG XL, and how fast they are stored and come back."""
    source = open_source(str(path))
    with tifffile.TiffFile(path) as file:
        before = sum(file.pages.first.databytecounts)
    transcoding = find_transcoding(source, 0)
    assert transcoding is not None
    codec, grid, tile = transcoding.codec, source.info.levels[0].blocks, source.info.levels[0].block
    cells = [(0, y, x) for y, x in np.ndindex(*grid.yx)]
    streams = [chunk[:-4] for chunk in read_encoded(source, 0, cells) if isinstance(chunk, bytes)]
    packed = [codec.encode(stream) for stream in streams]
    assert [codec.decode(one, most_px=tile.area) for one in packed] == streams
    mpx = len(streams) * tile.area / 1e6

    def pack() -> float:
        assert all(codec.encode(stream) for stream in streams)
        return mpx

    def give_back() -> float:
        assert all(codec.decode(one, most_px=tile.area) for one in packed)
        return mpx

    after, alone = sum(map(len, packed)), sum(len(imagecodecs.jpegxl_encode_jpeg(stream)) for stream in streams)
    with one_core():
        fast, back = rates([pack, give_back], rounds=rounds)
    return [
        make_row(
            "archive, JPEG tiles as JPEG XL, bytes saved",
            100 * (1 - after / before),
            "%",
            bar=at_least(SAVED_BAR),
            note=f"{path.name}: its {before:,} bytes of tiles, whose tables stand in the file once, in {after:,}; "
            f"files of libjxl of the same tiles take {alone:,}; every tile came back to the byte",
        ),
        make_row("archive, JPEG tiles into JPEG XL and checked, one core", fast, "Mpx/s"),
        make_row("archive, JPEG tiles back from JPEG XL, one core", back, "Mpx/s"),
    ]


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = write_whole_slide(folder / "slide.svs", shape_of(GIGAPIXELS))
        slide = default_slide()
        return [copy_row(path, folder), splice_row(path), *(jpegxl_rows(slide) if slide else [])]
