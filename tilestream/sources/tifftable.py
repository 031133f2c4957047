"""The tile table of one TIFF directory: where each stored piece lies and how its bytes become pixels.

A table is frozen, holds no handle and pickles to about 12 bytes a tile.

References
----------
TIFF 6.0, Adobe 1992; TIFF Technical Notes 1 to 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.sources.files import File
from tilestream.sources.tiffifd import Ifd, refuse
from tilestream.sources.tiffpieces import ROWS, Pixels, parse_pieces
from tilestream.types import Shape

MAX_SAMPLES = 1 << 14
"""Most samples a pixel; hyperspectral scenes have some hundreds."""
MAX_BLOCK_BYTES = 4 << 30
"""Most decoded bytes of the unit that is read at once, all its planes together."""

NONE, FAX_RLE, FAX3, FAX4, LZW, OLD_JPEG, JPEG, ADOBE_DEFLATE = 1, 2, 3, 4, 5, 6, 7, 8
DEFLATE, PACKBITS = 32946, 32773
APERIO_YCBCR, APERIO_RGB, JPEG2000 = 33003, 33005, 34712
LZMA, ZSTD, ZSTD_OLD, WEBP, WEBP_OLD, JPEGXL, JPEGXL_DNG = 34925, 50000, 34926, 50001, 34927, 50002, 52546

COMPRESSIONS = {
    NONE: "none", FAX_RLE: "CCITT RLE", FAX3: "CCITT group 3", FAX4: "CCITT group 4", LZW: "LZW", JPEG: "JPEG",
    ADOBE_DEFLATE: "deflate", DEFLATE: "deflate", PACKBITS: "PackBits", APERIO_YCBCR: "JPEG 2000 (YCbCr)",
    APERIO_RGB: "JPEG 2000 (RGB)", JPEG2000: "JPEG 2000", LZMA: "LZMA", ZSTD: "Zstandard", ZSTD_OLD: "Zstandard",
    WEBP: "WebP", WEBP_OLD: "WebP", JPEGXL: "JPEG XL", JPEGXL_DNG: "JPEG XL",
}  # fmt: skip
"""What can be decoded."""
_REFUSED = {
    OLD_JPEG: "old-style JPEG", 9: "JBIG", 10: "JBIG", 32766: "NeXT", 32809: "ThunderScan", 34661: "JBIG",
    34676: "SGI LogLuv", 34887: "LERC", 34892: "lossy DNG", 34933: "PNG", 22610: "JPEG XR", 34934: "JPEG XR",
    33007: "JPEG (alternative)", 50013: "Pixtiff", 65000: "EER",
}  # fmt: skip
IMAGE_CODECS = frozenset(
    {JPEG, APERIO_YCBCR, APERIO_RGB, JPEG2000, WEBP, WEBP_OLD, JPEGXL, JPEGXL_DNG, FAX_RLE, FAX3, FAX4}
)
"""Compressions whose decoder knows the shape, so that predictor and bit packing do not apply."""

MINISWHITE, MINISBLACK, RGB, PALETTE, MASK, CMYK, YCBCR = range(7)
_PHOTOMETRIC = {MINISWHITE, MINISBLACK, RGB, PALETTE, MASK, YCBCR}
_NOT_INTENSITY = {
    CMYK: "CMYK", 8: "CIE Lab", 9: "ICC Lab", 10: "ITU Lab", 32803: "a colour filter array", 32844: "LogL",
    32845: "LogLuv", 34892: "linear raw", 51177: "depth",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class TileTable:
    """All that is needed to read one stored image."""

    file: File
    """File that the positions belong to."""
    shape: Shape
    """Size of the image, px."""
    piece: Shape
    """Size of a stored tile or strip, px."""
    tiled: bool
    """Whether pieces are tiles; the last strip is shorter, an edge tile is not."""
    samples: int
    """Samples a pixel."""
    planar: bool
    """Whether every sample has pieces of its own."""
    bits: int
    """Bits a sample."""
    dtype: np.dtype[Any]
    """Type of decoded samples, native byte order; bilevel images are uint8."""
    order: str
    """Byte order of the file, `<` or `>`."""
    compression: int
    """Number of the compression."""
    predictor: int = 1
    """1 none, 2 horizontal differences, 3 floating point."""
    photometric: int = MINISBLACK
    """Colour interpretation."""
    fill_order: int = 1
    """2 when the bits of each byte are reversed."""
    t4_options: int = 0
    """Options of CCITT group 3."""
    extra: tuple[int, ...] = ()
    """Meaning of the samples beyond colour: 0 unknown, 1 premultiplied alpha, 2 alpha."""
    jpeg_tables: bytes | None = None
    """JPEG tables that all pieces share."""
    palette: npt.NDArray[np.uint8] | None = None
    """Colours `(n, 3)` of a palette image."""
    offsets: npt.NDArray[np.uint64]
    """Positions `(planes, rows, columns)` of pieces; 0 where none is stored."""
    counts: npt.NDArray[np.uint32] | npt.NDArray[np.uint64]
    """Sizes of pieces, bytes, shaped as `offsets`; 0 where none is stored."""
    orientation: int = 1
    """How the image is meant to be turned (tag 274); 1 is upright."""
    mask: bool = False
    """Whether it is marked as a validity mask."""
    notes: tuple[str, ...] = field(default=())
    """What was seen through while it was parsed."""

    @property
    def planes(self) -> int:
        """Return the number of separately stored planes."""
        return self.samples if self.planar else 1

    @property
    def piece_samples(self) -> int:
        """Return the samples a pixel in one piece."""
        return 1 if self.planar else self.samples

    @property
    def block(self) -> Shape:
        """Return the unit that is read at once: a tile, or enough whole strips for about `ROWS` rows."""
        if self.tiled:
            return self.piece
        rows = min(max(1, ROWS // self.piece.y) * self.piece.y, self.shape.y)
        return Shape(y=rows, x=self.shape.x)

    @property
    def same_kind(self) -> tuple[object, ...]:
        """Return what levels of one image have in common."""
        alpha = tuple(kind in (1, 2) for kind in self.extra)
        return self.samples, self.dtype, self.mask, self.palette is None, alpha if any(alpha) else ()


def parse_table(ifd: Ifd) -> TileTable:
    """Return the tile table of a directory, every number checked before it is used.

    Parameters
    ----------
    ifd : Ifd
        The directory.

    Returns
    -------
    TileTable
        The table.

    Raises
    ------
    SourceError
        When the directory contradicts itself or the file, or needs what is not supported; the message names it.
    """
    file = ifd.header.file
    shape = Shape(y=ifd.one(257, 0), x=ifd.one(256, 0))
    samples = ifd.one(277, 1)
    if not (0 < shape.y < 1 << 31 and 0 < shape.x < 1 << 31 and 0 < samples <= MAX_SAMPLES):
        raise refuse(
            file,
            got=f"an image of {shape.y} x {shape.x} pixels with {samples} samples each",
            expected=f"positive sizes below 2^31 and 1 to {MAX_SAMPLES} samples",
        )
    bits, dtype = _sample_type(ifd, samples)
    subfile = ifd.one(254, {2: 1}.get(ifd.one(255, 0), 0))
    planar = ifd.one(284, 1) == 2 and samples > 1
    compression, predictor, photometric = _coding(ifd, dtype)
    pixels = Pixels(
        shape=shape,
        planes=samples if planar else 1,
        sample_bits=bits * (1 if planar else samples),
        compression=compression,
    )
    stored = parse_pieces(ifd, pixels)
    tables = ifd.data(347) if compression == JPEG else b""
    return _checked_block(
        TileTable(
            file=file,
            shape=shape,
            piece=stored.piece,
            tiled=stored.tiled,
            samples=samples,
            planar=planar,
            bits=bits,
            dtype=dtype,
            order=ifd.order,
            compression=compression,
            predictor=predictor,
            photometric=photometric,
            fill_order=ifd.one(266, 1),
            t4_options=ifd.one(292, 0),
            extra=ifd.ints(338)[:samples],
            jpeg_tables=tables or None,
            palette=_palette(ifd, bits) if photometric == PALETTE else None,
            offsets=stored.offsets,
            counts=stored.counts,
            orientation=ifd.one(274, 1),
            mask=bool(subfile & 4) or photometric == MASK,
            notes=stored.notes,
        )
    )


def _checked_block(table: TileTable) -> TileTable:
    """Return the table when a whole block of it, all planes and rows together, is of a size that can be meant."""
    nbytes = table.block.area * table.samples * table.dtype.itemsize
    if nbytes > MAX_BLOCK_BYTES:
        raise refuse(
            table.file,
            got=f"blocks of {table.block.y} x {table.block.x} x {table.samples} samples, {nbytes:,} bytes decoded",
            expected=f"at most {MAX_BLOCK_BYTES:,} bytes",
            do="Rewrite the image with tiles, or check that it is not damaged.",
        )
    return table


def _sample_type(ifd: Ifd, samples: int) -> tuple[int, np.dtype[Any]]:
    file = ifd.header.file
    all_bits, formats = set(ifd.ints(258)) or {1}, set(ifd.ints(339)) or {1}
    if len(all_bits) > 1 or len(formats) > 1:
        raise refuse(
            file,
            got=f"samples of {sorted(all_bits)} bits in formats {sorted(formats)}",
            expected="one type for all samples",
            do="Rewrite the image with one type.",
        )
    bits, kind = all_bits.pop(), formats.pop()
    name = {1: "u", 2: "i", 3: "f", 4: "u"}.get(kind)
    if name == "u" and 1 <= bits <= 16:
        return bits, np.dtype("u1" if bits <= 8 else "u2")
    if (name in ("u", "i") and bits in (8, 16, 32, 64)) or (name == "f" and bits in (16, 32, 64)):
        return bits, np.dtype(f"{name}{bits // 8}")
    raise refuse(
        file,
        got=f"samples of {bits} bits in format {kind} (5 and 6 are complex)",
        expected="integers of 1 to 16, 32 or 64 bits or floats of 16, 32 or 64 bits",
        do="Rewrite the image with such a type.",
    )


def _coding(ifd: Ifd, dtype: np.dtype[Any]) -> tuple[int, int, int]:
    file = ifd.header.file
    compression, predictor = ifd.one(259, 1), ifd.one(317, 1)
    photometric = ifd.one(262, MINISBLACK)
    if compression not in COMPRESSIONS:
        name = _REFUSED.get(compression, "unknown")
        raise refuse(
            file,
            got=f"compression {compression} ({name})",
            expected="one of " + ", ".join(sorted(set(COMPRESSIONS.values()))),
            do="Rewrite the image with one of them.",
        )
    outside = photometric == YCBCR and compression not in (JPEG, APERIO_YCBCR)
    if photometric not in _PHOTOMETRIC or outside or (compression == APERIO_YCBCR and dtype != np.uint8):
        name = _NOT_INTENSITY.get(photometric, "YCbCr outside JPEG" if outside else f"with YCbCr of {dtype}")
        raise refuse(
            file,
            got=f"colour interpretation {photometric} ({name})",
            expected="grey, RGB, palette, or 8-bit YCbCr inside JPEG",
            do="Convert the image to RGB.",
        )
    _check_jpeg(ifd, compression, photometric)
    if compression in IMAGE_CODECS:
        predictor = 1
    unfit = {1: False, 2: ifd.one(258, 1) % 8 != 0, 3: dtype.kind != "f"}.get(predictor, True)
    if unfit:
        raise refuse(
            file, got=f"predictor {predictor} on {dtype}", expected="1, 2, or 3 on floats", do="Rewrite the image."
        )
    return compression, predictor, photometric


def _check_jpeg(ifd: Ifd, compression: int, photometric: int) -> None:
    bits, samples, planar = ifd.one(258, 1), ifd.one(277, 1), ifd.one(284, 1) == 2
    is_ycbcr = photometric == YCBCR or compression == APERIO_YCBCR
    if (compression == JPEG and bits != 8) or (is_ycbcr and (samples != 3 or planar)):
        raise refuse(
            ifd.header.file,
            got=f"{COMPRESSIONS[compression]} of {samples} samples of {bits} bits" + " in planes" * planar,
            expected="8 bits, and three interleaved samples for YCbCr",
            do="Rewrite the image.",
        )


def _palette(ifd: Ifd, bits: int) -> npt.NDArray[np.uint8]:
    colours = ifd.array(320).astype("u4")
    if bits > 8 or colours.size != 3 << bits:
        raise refuse(
            ifd.header.file, got=f"a palette of {colours.size} values for {bits} bits", expected=f"{3 << bits} values"
        )
    if colours.max() > 255:  # some writers store 8-bit values; libtiff tells them apart by this test
        colours >>= 8
    return np.ascontiguousarray(colours.reshape(3, -1).T.astype("u1"))
