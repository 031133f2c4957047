"""PNG, JPEG, JPEG 2000 and WebP: formats that are decoded whole, so that the image is one block.

Only a JPEG 2000 image in tiles, as those of Sentinel-2, is read tile by tile.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import imagecodecs
import numpy as np

from tilestream.cache import limits
from tilestream.errors import ConfigError, DamagedError, TilestreamError
from tilestream.metrics import count, timed
from tilestream.sources.address import checked_index
from tilestream.sources.decoded import DecodedImages
from tilestream.sources.extras import Extras
from tilestream.sources.files import File
from tilestream.sources.fingerprint import digest, file_edges
from tilestream.sources.geokeys import GeoReference, read_georeference
from tilestream.sources.gmljp2 import find_gml, read_gml
from tilestream.sources.jp2tiles import Jp2Tiles, read_jp2_tiles
from tilestream.sources.jpegcheck import check_scan, read_head
from tilestream.sources.rasterhead import RasterHead, png_chunks, read_raster_head
from tilestream.sources.samples import default_names
from tilestream.sources.streamcheck import check_jpeg2000, check_webp
from tilestream.sources.tiffifd import iter_ifds
from tilestream.sources.window import inside_level
from tilestream.types import Array, Block, Box, Channel, ImageInfo, Level, Shape

HASHED_BYTES = 8 << 20
"""Files up to this size are hashed whole, since they have no table of tiles that would tell two apart."""

_images = DecodedImages(limits.image_bytes)


@dataclass(frozen=True, kw_only=True)
class RasterSource:
    """One image file that is decoded whole, unless it has tiles; its memory is then that of the whole image."""

    file: File
    """The file."""
    head: RasterHead
    """What its header says."""
    tiles: Jp2Tiles | None = None
    """Where the tiles of a JPEG 2000 image lie; None = the image is one block."""
    info: ImageInfo
    """Description."""

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block:
        """Return the whole image, or one tile of it; pixels whose alpha is 0 are not valid.

        Parameters
        ----------
        level, iy, ix : int
            Level 0, and the tile's row and column; all 0 where there is one block.
        out : ndarray, optional
            Not used: what is decoded here does not fit into a caller's buffer as it is.

        Returns
        -------
        Block
            Pixels `(y, x, c)` without alpha; those of a whole image are shared by all callers, not to be written to.

        Raises
        ------
        DamagedError
            When the stream is broken.
        """
        if self.tiles is not None:
            tile = self.tiles.tile
            whole = self.head.shape
            shape = Shape(y=min(tile.y, whole.y - iy * tile.y), x=min(tile.x, whole.x - ix * tile.x))
            return _decode(self.head, lambda: self._tile(iy, ix), shape)
        if (level, iy, ix) != (0, 0, 0):
            raise ConfigError.of("block", got=(level, iy, ix), expected="(0, 0, 0)", do="The image is one block.")
        key = f"{self.file.url}:{self.info.fingerprint}"
        return _images.get(key, lambda: _decode(self.head, self._whole, self.head.shape))

    def _whole(self) -> Array:
        return _pixels(self.file, self.head, self.file.read(0, self.file.size))

    def _tile(self, iy: int, ix: int) -> Array:
        if self.tiles is None:
            raise TypeError("an image without tiles")
        data = self.tiles.stream(self.file, iy, ix)
        check_jpeg2000(data)
        return np.asarray(imagecodecs.jpeg2k_decode(data))

    def warm(self, box: Box) -> None:
        """Fetch the tiles of a box, where the file is remote and has tiles."""
        if self.tiles is not None and (inside := inside_level(self.info, box)) is not None:
            self.file.warm(self.tiles.ranges(inside))

    def isel(self, **index: int) -> RasterSource:
        """Return the source itself: there are no extra axes."""
        checked_index(index, {})
        return self

    def read_associated(self, name: str) -> Array:
        """Raise `ConfigError`: such a file holds one image."""
        raise ConfigError.of(
            f"associated image `{name}`", got="a plain image", expected="a slide", do="Read it itself."
        )

    def read_extras(self) -> Extras:
        """Return the colour profile; comments, XMP and EXIF of such files are never read."""
        from tilestream.sources.icc import checked_icc, file_icc

        try:
            icc, notes = checked_icc(file_icc(self.file, self.head.format))
        except DamagedError as error:
            icc, notes = None, (str(error),)
        return Extras(icc=icc, notes=notes)


def open_raster(file: File) -> RasterSource:
    """Return a PNG, JPEG, JPEG 2000 or WebP file as a source.

    Parameters
    ----------
    file : File
        The file.

    Returns
    -------
    RasterSource
        Ready to read; only the header was read.

    Raises
    ------
    SourceError
        When the header is broken, the file is cut, or its size is absurd.
    """
    head = read_raster_head(file)
    place, notes = _place(file, head)
    tiles = None if head.codestream is None else read_jp2_tiles(file, *head.codestream)
    colours = head.samples - (head.alpha is not None)
    if not place.exists:
        notes += ("pixel size unknown: the file states none",)
    info = ImageInfo(
        format=head.format,
        levels=(Level(index=0, shape=head.shape, block=head.shape if tiles is None else tiles.tile),),
        dtype=head.dtype,
        channels=tuple(Channel(name=name) for name in default_names(colours, head.dtype)),
        fingerprint=digest(head.format, *_identity(file), *([] if tiles is None else [sorted(tiles.parts.items())])),
        modality="scene" if place.exists else "unknown",
        crs=place.crs,
        affine=place.affine,
        gcps=place.gcps,
        validity=None if head.alpha is None else "mask",
        axes={"c": colours, "y": head.shape.y, "x": head.shape.x},
        notes=(*head.notes, *notes),
    )
    return RasterSource(file=file, head=head, tiles=tiles, info=info)


def _identity(file: File) -> tuple[object, ...]:
    """Return what the fingerprint is made of: all bytes of a small file, both ends of a large one."""
    return (file.read(0, file.size),) if file.size <= HASHED_BYTES else file_edges(file)


@dataclass(frozen=True)
class _Bytes:
    """Bytes that are read like a file: the small TIFF inside a JP2 box."""

    url: str
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, nbytes: int) -> bytes:
        return self.data[offset : offset + nbytes]


def _place(file: File, head: RasterHead) -> tuple[GeoReference, tuple[str, ...]]:
    for data in head.geo:
        try:
            ifd = next(iter(iter_ifds(cast("File", _Bytes(file.url, data)))))
            place = read_georeference(ifd)
        except (TilestreamError, StopIteration):
            return GeoReference(), ("its GeoTIFF box cannot be read: no place is known",)
        return place, place.notes
    if head.format == "jp2" and file.read(0, 2) != b"\xff\x4f":
        for text in find_gml(file, 0, file.size):
            place = read_gml(text)
            return place, place.notes
    return GeoReference(), ()


def _decode(head: RasterHead, decode: Callable[[], Array], shape: Shape) -> Block:
    try:
        with timed("decode"):
            pixels = decode()
    except (RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f"{head.format.upper()} stream does not decode: {error}") from error
    count("blocks_decoded")
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    wanted = (*shape.yx, head.samples)
    if pixels.shape != wanted or pixels.dtype != head.dtype:
        raise DamagedError(f"stream decodes to {pixels.shape} {pixels.dtype}, the header says {wanted} {head.dtype}")
    pixels.setflags(write=False)
    if head.alpha is None:
        return Block(pixels=pixels)
    scanned = pixels[..., head.alpha] > 0
    colours = np.delete(pixels, head.alpha, axis=2)
    if scanned.all():
        return Block(pixels=colours)
    colours[~scanned] = 0
    return Block(pixels=colours, valid=scanned)


def _pixels(file: File, head: RasterHead, data: bytes) -> Array:
    if head.format == "png":
        _check_crcs(data, png_chunks(file))
        return np.asarray(imagecodecs.png_decode(data))
    if head.format == "jpeg":
        check_scan(data, read_head(data))
        grey: Any = "GRAYSCALE" if head.samples == 1 else "RGB"
        return np.asarray(imagecodecs.jpeg8_decode(data, outcolorspace=grey))
    if head.format == "webp":
        check_webp(data)
        return np.asarray(imagecodecs.webp_decode(data, hasalpha=head.alpha is not None))
    check_jpeg2000(data)
    return np.asarray(imagecodecs.jpeg2k_decode(data))


def _check_crcs(data: bytes, chunks: Iterator[tuple[bytes, int, int]]) -> None:
    for kind, offset, length in chunks:
        stored = int.from_bytes(data[offset + length : offset + length + 4], "big")
        if zlib.crc32(data[offset - 4 : offset + length]) != stored:
            raise DamagedError(f"PNG chunk {kind!r} at byte {offset - 8:,} fails its checksum")
