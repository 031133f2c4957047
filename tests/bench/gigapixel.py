"""Slides of any size that take a few megabytes: `python tests/bench/gigapixel.py OUT.svs --gigapixels 2`.

A small slide's JPEG tiles are stored once and the tile offsets of a huge level 0 repeat them, so every tile is decoded
for real. The repeated block is periodic, hence so is each coarse level: its few different tiles are made by
down-sampling the block, and stored once too. What is left is 12 bytes a tile for offset and length, in a BigTIFF (TIFF
6.0 with 8-byte offsets).
"""

from __future__ import annotations

import argparse
import math
import os
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from tilestream.testing.slide import aperio_description, write_slide
from tilestream.types import Shape

FACTOR = 4
"""Ratio of one level to the next."""
SMALLEST_PX = 1000
"""The last level is the first whose longer side is below this."""
QUALITY = 98
"""JPEG quality of the coarse levels; high, so that levels agree within the error of level 0's own JPEG."""
SQUARE_TILES = 64
"""Edge of the squares that a sparse slide has or has not; some super-tiles, so that several are at work at once."""
REPO = Path(__file__).resolve().parents[2]

_ASCII, _SHORT, _LONG, _UNDEFINED, _LONG8 = 2, 3, 4, 7, 16
_TYPE_BYTES = {_ASCII: 1, _SHORT: 2, _LONG: 4, _UNDEFINED: 1, _LONG8: 8}


@dataclass(frozen=True, kw_only=True)
class Block:
    """The repeated part of level 0."""

    tiles: list[list[bytes]]
    """JPEG streams as they lie in the small slide, by row and column."""
    pixels: npt.NDArray[np.uint8]
    """The same, decoded: `(y, x, 3)`."""
    tile_px: int
    """Edge of a tile."""
    tables: bytes | None
    """Shared JPEG tables of the streams."""
    is_rgb: bool
    """Whether the streams hold RGB rather than YCbCr."""
    mpp: float
    """Micrometres per pixel."""


@dataclass(kw_only=True)
class _Page:
    """One IFD in the making: tags that fit in memory, and tile arrays already in the file."""

    shape: Shape
    tags: dict[int, tuple[int, Any]] = field(default_factory=dict)
    placed: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """Tag to (type, count, offset in the file)."""


def default_slide() -> Path | None:
    """Return the small real slide that is repeated unless another is named; None where it is not there."""
    data = Path(os.environ.get("TILESTREAM_DATA") or REPO.parent / "shared" / "data")
    path = data / "slides" / "CMU-1-Small-Region.svs"
    return path if path.is_file() else None


def read_block(slide: Path) -> Block:
    """Return the largest part of a slide that is whole tiles and a multiple of four of them."""
    with tifffile.TiffFile(slide) as tiff:
        page = tiff.pages.first
        if not page.is_tiled or page.compression != 7 or page.tilewidth != page.tilelength:
            raise SystemExit(f"`{slide}`: got {page.compression!r}, expected square JPEG tiles. Name another slide.")
        edge = page.tilewidth
        rows, columns = (max(1, size // edge // FACTOR * FACTOR) for size in page.shape[:2])
        across = -(-page.shape[1] // edge)
        places = [[y * across + x for x in range(columns)] for y in range(rows)]
        read = tiff.filehandle.read_segments
        flat = [index for row in places for index in row]
        found = read([page.dataoffsets[i] for i in flat], [page.databytecounts[i] for i in flat], flat, sort=False)
        streams = {index: bytes(data or b"") for data, index in found}
        text = page.description
        return Block(
            tiles=[[streams[index] for index in row] for row in places],
            pixels=np.ascontiguousarray(page.asarray()[: rows * edge, : columns * edge]),
            tile_px=edge,
            tables=page.jpegtables,
            is_rgb=int(page.photometric) == 2,
            mpp=float(text.partition("MPP = ")[2].partition("|")[0] or 0.5),
        )


def write_gigapixel(path: str | Path, shape: Shape, *, slide: Path | None = None, is_sparse: bool = False) -> Path:
    """Return the path of a slide of the given size that was written there.

    Parameters
    ----------
    path : str or Path
        File to write.
    shape : Shape
        Size of level 0, px.
    slide : Path, optional
        Tiled JPEG slide to repeat; else CMU-1-Small-Region.svs of the shared data, else one made by code.
    is_sparse : bool
        Leave out three quarters of the tiles of level 0, in squares of `SQUARE_TILES`, as scanners do with glass: the
        rest is as on any slide, but a run is done in a quarter of the time.

    Returns
    -------
    Path
        `path`.
    """
    path = Path(path)
    slide = slide or default_slide()
    if slide is None:
        with tempfile.TemporaryDirectory() as folder:
            block = read_block(write_slide(Path(folder) / "made.svs", Shape(y=8 * 240, x=8 * 240)))
    else:
        block = read_block(slide)
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))  # the first IFD's offset is filled in at the end
        pages = [_level_0(file, block, shape, is_sparse=is_sparse)]
        levels = _coarse_levels(file, block, shape)
        pages.append(_thumbnail(file, block, shape))
        _write_pages(file, pages + levels)
    return path


def _level_0(file: BinaryIO, block: Block, shape: Shape, *, is_sparse: bool) -> _Page:
    page = _new_page(block, shape, aperio_description(shape, mpp=block.mpp, quality=30))
    if block.tables:
        page.tags[347] = (_UNDEFINED, block.tables)
    _place_tiles(file, page, block.tiles, block.tile_px, is_sparse=is_sparse)
    return page


def _coarse_levels(file: BinaryIO, block: Block, shape: Shape) -> list[_Page]:
    pages = []
    period = block.pixels.astype(np.float64)  # means of means stay exact: each level rounds once, from here
    reduced = shape
    while max(reduced.yx) >= SMALLEST_PX:
        reduced = Shape(y=reduced.y // FACTOR, x=reduced.x // FACTOR)
        period = _reduce(_repeat_to_multiple(period, FACTOR))
        whole = _repeat_to_multiple(period, block.tile_px)
        page = _new_page(block, reduced, aperio_description(shape, mpp=block.mpp, reduced=reduced, quality=QUALITY))
        _place_tiles(file, page, _encode_tiles(whole, block), block.tile_px)
        pages.append(page)
    return pages


def _repeat_to_multiple(period: npt.NDArray[np.float64], edge: int) -> npt.NDArray[np.float64]:
    """Return the periodic image over so many periods that its size is a multiple of `edge`."""
    counts = [math.lcm(size, edge) // size for size in period.shape[:2]]
    return np.tile(period, (*counts, 1))


def _reduce(pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    height, width = pixels.shape[0] // FACTOR, pixels.shape[1] // FACTOR
    reduced: npt.NDArray[np.float64] = pixels.reshape(height, FACTOR, width, FACTOR, 3).mean(axis=(1, 3))
    return reduced


def _encode_tiles(pixels: npt.NDArray[np.float64], block: Block) -> list[list[bytes]]:
    stored = np.rint(pixels).astype(np.uint8)
    edge = block.tile_px
    colour = {"outcolorspace": "RGB"} if block.is_rgb else {"outcolorspace": "YCBCR", "subsampling": "444"}
    return [
        [
            imagecodecs.jpeg8_encode(
                np.ascontiguousarray(stored[y : y + edge, x : x + edge]), level=QUALITY, colorspace="RGB", **colour
            )
            for x in range(0, stored.shape[1], edge)
        ]
        for y in range(0, stored.shape[0], edge)
    ]


def _new_page(block: Block, shape: Shape, text: str) -> _Page:
    page = _Page(shape=shape)
    page.tags = {
        254: (_LONG, [0]),
        256: (_LONG, [shape.x]),
        257: (_LONG, [shape.y]),
        258: (_SHORT, [8, 8, 8]),
        259: (_SHORT, [7]),
        262: (_SHORT, [2 if block.is_rgb else 6]),
        270: (_ASCII, text.encode() + b"\0"),
        277: (_SHORT, [3]),
        284: (_SHORT, [1]),
    }
    return page


def _place_tiles(file: BinaryIO, page: _Page, tiles: list[list[bytes]], edge: int, *, is_sparse: bool = False) -> None:
    """Write the different tiles once, then offset and length of every tile of the page."""
    offsets = np.empty((len(tiles), len(tiles[0])), "<u8")
    lengths = np.empty(offsets.shape, "<u4")
    for y, row in enumerate(tiles):
        for x, stream in enumerate(row):
            offsets[y, x], lengths[y, x] = file.tell(), len(stream)
            file.write(stream)
    rows, columns = -(-page.shape.y // edge), -(-page.shape.x // edge)
    page.tags[322] = (_SHORT, [edge])
    page.tags[323] = (_SHORT, [edge])
    if page.tags[262][1] == [6]:
        page.tags[530] = (_SHORT, _subsampling(tiles[0][0]))
    for tag, kind, values in ((324, _LONG8, offsets), (325, _LONG, lengths)):
        file.write(b"\0" * (-file.tell() % 8))
        page.placed[tag] = (kind, rows * columns, file.tell())
        across = np.arange(columns) % values.shape[1]
        for y in range(rows):  # a row at a time: a terapixel has millions of tiles
            row = values[y % values.shape[0], across]
            if is_sparse:
                row[(np.arange(columns) // SQUARE_TILES + y // SQUARE_TILES) % 4 != 0] = 0
            file.write(row.tobytes())


def _subsampling(stream: bytes) -> list[int]:
    """Return the sampling factors that the frame header of a JPEG stream states for its first component."""
    at = 2
    while stream[at + 1] not in (0xC0, 0xC1, 0xC2):
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    factors = stream[at + 11]
    return [factors >> 4, factors & 15]


def _thumbnail(file: BinaryIO, block: Block, shape: Shape) -> _Page:
    """Return a page of one strip: readers take an Aperio file's second page for the thumbnail."""
    scale = max(1, max(shape.yx) // 512)
    size = Shape(y=max(1, shape.y // scale), x=max(1, shape.x // scale))
    # nearest pixels of the periodic image are enough here, nobody measures on a thumbnail
    y = (np.arange(size.y) * scale) % block.pixels.shape[0]
    x = (np.arange(size.x) * scale) % block.pixels.shape[1]
    pixels = block.pixels[y[:, None], x[None, :]]
    page = _new_page(block, size, aperio_description(shape, mpp=block.mpp, reduced=size, quality=QUALITY))
    colour = "RGB" if block.is_rgb else "YCBCR"
    stream = imagecodecs.jpeg8_encode(pixels, level=QUALITY, colorspace="RGB", outcolorspace=colour, subsampling="444")
    page.tags |= {273: (_LONG8, [file.tell()]), 278: (_LONG, [size.y]), 279: (_LONG, [len(stream)])}
    if not block.is_rgb:
        page.tags[530] = (_SHORT, [1, 1])
    file.write(stream)
    return page


def _write_pages(file: BinaryIO, pages: list[_Page]) -> None:
    link = 8  # where the offset of the next IFD belongs
    for page in pages:
        entries = dict(page.placed)
        inline = {}
        for tag, (kind, value) in page.tags.items():
            data = (
                value if isinstance(value, bytes) else b"".join(v.to_bytes(_TYPE_BYTES[kind], "little") for v in value)
            )
            count = len(data) // _TYPE_BYTES[kind]
            if len(data) <= 8:
                inline[tag] = data.ljust(8, b"\0")
                entries[tag] = (kind, count, 0)
            else:
                entries[tag] = (kind, count, file.tell())
                file.write(data)
        file.write(b"\0" * (-file.tell() % 8))
        start = file.tell()
        file.write(struct.pack("<Q", len(entries)))
        for tag in sorted(entries):
            kind, count, offset = entries[tag]
            file.write(struct.pack("<HHQ", tag, kind, count) + inline.get(tag, struct.pack("<Q", offset)))
        end = file.tell()
        file.write(struct.pack("<Q", 0))
        file.seek(link)
        file.write(struct.pack("<Q", start))
        file.seek(0, os.SEEK_END)
        link = end


def shape_of(gigapixels: float) -> Shape:
    """Return the size of a square image of so many 10⁹ pixels."""
    edge = round(math.sqrt(gigapixels * 1e9))
    return Shape(y=edge, x=edge)


def main() -> None:
    """Write one slide as the command line asks."""
    parser = argparse.ArgumentParser(description="Write a valid pyramidal slide of any size in a few megabytes.")
    parser.add_argument("out", type=Path, help="file to write, .svs")
    parser.add_argument("--gigapixels", type=float, default=1.0, help="size in 10^9 pixels (default 1)")
    parser.add_argument("--slide", type=Path, help="tiled JPEG slide whose tiles are repeated")
    options = parser.parse_args()
    path = write_gigapixel(options.out, shape_of(options.gigapixels), slide=options.slide)
    print(f"{path}: {options.gigapixels:g} gigapixels in {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
