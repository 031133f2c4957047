"""Where the tiles or strips of one TIFF directory lie, checked against the image's size and the file's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.sources.tiffifd import Ifd, refuse
from tilestream.types import Shape

ROWS = 256
"""Rows that grouped or cut strips aim at."""
MAX_PIECE_BYTES = 1 << 30
"""Largest decoded tile or strip, bytes; a header that claims more is refused instead of allocated."""
_NONE = 1


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """What the layout of pieces follows from."""

    shape: Shape
    """Size of the image, px."""
    planes: int
    """Planes that are stored separately."""
    sample_bits: int
    """Bits of one pixel of one plane."""
    compression: int
    """Number of the compression."""

    def row_bytes(self, width: int) -> int:
        """Return the bytes of a row of one piece; rows start at whole bytes."""
        return -(-width * self.sample_bits // 8)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pieces:
    """The layout of an image's pieces."""

    piece: Shape
    """Size of one, px."""
    tiled: bool
    """Whether they are tiles."""
    offsets: npt.NDArray[np.uint64]
    """Positions `(planes, rows, columns)`."""
    counts: npt.NDArray[Any]
    """Sizes in bytes, shaped as `offsets`; uint32 where that is enough."""
    notes: tuple[str, ...] = ()
    """What was seen through."""


def parse_pieces(ifd: Ifd, pixels: Pixels) -> Pieces:
    """Return the layout of the pieces of a directory.

    Parameters
    ----------
    ifd : Ifd
        The directory.
    pixels : Pixels
        Size and coding of its image.

    Returns
    -------
    Pieces
        Tables of exactly the size that the image needs.

    Raises
    ------
    SourceError
        When the tables lie outside the file, are too short, or claim pieces too large to be meant.
    """
    file = ifd.header.file
    tiled = 322 in ifd or 324 in ifd
    offsets = ifd.array(324 if 324 in ifd else 273, limit=file.size)
    counts = ifd.array(325 if 325 in ifd else 279, limit=file.size)
    if not offsets.size or offsets.dtype.kind != "u" or (counts.size and counts.dtype.kind != "u"):
        raise refuse(file, got="no table of offsets", expected="offsets of tiles or strips")
    piece = _piece(ifd, pixels, tiled)
    if not counts.size and pixels.compression == _NONE and offsets.size == pixels.planes:
        counts = np.full(offsets.size, piece.y * pixels.row_bytes(piece.x), "u8")
    notes: tuple[str, ...] = ()
    if not tiled and offsets.size == counts.size:
        piece, notes = _overflowed(piece, counts, pixels)
    grid = (-(-pixels.shape.y // piece.y), -(-pixels.shape.x // piece.x))
    need = pixels.planes * grid[0] * grid[1]
    if offsets.size < need or counts.size < need:
        raise refuse(
            file,
            got=f"{offsets.size} offsets and {counts.size} sizes",
            expected=f"{need} for {grid[0]} x {grid[1]} tiles or strips",
        )
    where = offsets[:need].astype("u8").reshape(pixels.planes, *grid)
    sizes = counts[:need].astype("u8").reshape(pixels.planes, *grid)
    if pixels.compression == _NONE and not tiled:
        piece, where, sizes = _cut_anew(pixels.shape, piece, where, sizes, row_bytes=pixels.row_bytes(piece.x))
    if piece.y * pixels.row_bytes(piece.x) > MAX_PIECE_BYTES:
        raise refuse(
            file,
            got=f"one stored piece of {piece.y * pixels.row_bytes(piece.x)} decoded bytes",
            expected=f"at most {MAX_PIECE_BYTES}",
            do="Rewrite the image with tiles, or check that it is not damaged.",
        )
    narrow = sizes.astype("u4") if sizes.max() < 1 << 32 else sizes
    return Pieces(piece=piece, tiled=tiled, offsets=where, counts=narrow, notes=notes)


def _piece(ifd: Ifd, pixels: Pixels, tiled: bool) -> Shape:
    file = ifd.header.file
    if ifd.one(32997, 1) > 1 or ifd.one(32998, 1) > 1:
        raise refuse(file, got="volumetric tiles", expected="flat images", do="Split the volume into planes.")
    if tiled:
        piece = Shape(y=ifd.one(323, 0), x=ifd.one(322, 0))
    else:
        piece = Shape(y=min(ifd.one(278, pixels.shape.y), pixels.shape.y), x=pixels.shape.x)
    if not (0 < piece.y < 1 << 31 and 0 < piece.x < 1 << 31):
        raise refuse(file, got=f"tiles or strips of {piece.y} x {piece.x} pixels", expected="positive sizes")
    return piece


def _overflowed(piece: Shape, counts: npt.NDArray[Any], pixels: Pixels) -> tuple[Shape, tuple[str, ...]]:
    """Return the rows that uncompressed strips hold by their sizes, where RowsPerStrip overflowed."""
    stored = counts.size
    if pixels.compression != _NONE or stored <= pixels.planes * -(-pixels.shape.y // piece.y):
        return piece, ()
    rows, rest = divmod(int(counts[0]), pixels.row_bytes(piece.x))
    if rest or not rows or -(-pixels.shape.y // rows) * pixels.planes != stored:
        return piece, ()
    note = f"rows per strip taken from the strips' sizes ({rows}), because the tag contradicts them"
    return Shape(y=rows, x=piece.x), (note,)


def _cut_anew(
    shape: Shape, piece: Shape, offsets: npt.NDArray[np.uint64], counts: npt.NDArray[np.uint64], *, row_bytes: int
) -> tuple[Shape, npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return uncompressed strips that follow one another as strips of `ROWS` rows.

    So no window needs the whole of an image in one strip, and strips of few rows cost no call each.
    """
    expected = np.full(offsets.shape[1], piece.y * row_bytes, np.uint64)
    expected[-1] = (shape.y - (offsets.shape[1] - 1) * piece.y) * row_bytes
    follows = (offsets[:, :-1] + counts[:, :-1] == offsets[:, 1:]).all()
    whole = (counts[:, :-1, 0] == expected[:-1]).all() and (counts[:, -1, 0] >= expected[-1]).all()
    if not (follows and whole and offsets.min() > 0):
        return piece, offsets, counts  # sparse, damaged or spread out: every strip for itself
    starts = np.arange(0, shape.y, ROWS, dtype=np.int64)
    rows = np.minimum(ROWS, shape.y - starts)
    where = offsets[:, :1, :] + (starts * row_bytes).astype(np.uint64)[None, :, None]
    sizes = np.broadcast_to((rows * row_bytes).astype(np.uint64)[None, :, None], where.shape).copy()
    return Shape(y=min(ROWS, shape.y), x=piece.x), where, sizes
