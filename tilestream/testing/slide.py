"""Files like those of an Aperio scanner, filled with tissue that never was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from tilestream.testing.tissue import Tissue
from tilestream.types import Box, Shape

_REDUCTION = 4
"""Ratio of one level to the next, as Aperio's scanners write it."""
_SMALLEST_PX = 256
"""No further level once the longer side is below this."""

Pixels = npt.NDArray[np.uint8]


def aperio_description(shape: Shape, *, mpp: float, reduced: Shape | None = None, quality: int = 80) -> str:
    """Return the ImageDescription by which readers know an Aperio slide and its resolution.

    Parameters
    ----------
    shape : Shape
        Size of level 0.
    mpp : float
        Micrometres per pixel of level 0.
    reduced : Shape, optional
        Size of the page when it is not level 0.
    quality : int
        JPEG quality that the text names.

    Returns
    -------
    str
        Two lines; `AppMag` follows from `mpp`.
    """
    page = reduced or shape
    arrow = "" if reduced is None else f" -> {page.x}x{page.y}"
    return (
        f"Aperio Image Library (tilestream synthetic)\r\n{shape.x}x{shape.y} [0,0 {shape.x}x{shape.y}] (240x240)"
        f"{arrow} JPEG/RGB Q={quality}|AppMag = {round(10 / mpp)}|MPP = {mpp:.6g}"
    )


def reduce_mean(pixels: Pixels, factor: int) -> Pixels:
    """Return the image with each `factor` × `factor` square replaced by its mean.

    Parameters
    ----------
    pixels : ndarray of uint8
        `(y, x, 3)`; rows and columns beyond a whole number of squares are left out.
    factor : int
        Edge of a square, px.

    Returns
    -------
    ndarray of uint8
        `(y // factor, x // factor, 3)`.
    """
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    whole = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    area = factor * factor
    total: npt.NDArray[np.uint32] = whole.sum(axis=(1, 3), dtype=np.uint32)
    return ((total + area // 2) // area).astype(np.uint8)


def write_slide(
    path: str | Path, shape: Shape, *, seed: int = 0, mpp: float = 0.5, tile_px: int = 240, identifying: bool = False
) -> Path:
    """Return the path of a pyramidal, tiled JPEG slide that was written there.

    Parameters
    ----------
    path : str or Path
        File to write; the suffix should be `.svs`.
    shape : Shape
        Size of level 0, px.
    seed : int
        Another seed, another section.
    mpp : float
        Micrometres per pixel of level 0.
    tile_px : int
        Edge of the stored tiles, px; a multiple of 16, as TIFF asks.
    identifying : bool
        Whether to add the pages that identify a patient on real slides: `label` and `macro`.

    Returns
    -------
    Path
        `path`.

    Notes
    -----
    Holds one row of tiles and the coarse levels, a sixteenth of the image, in memory.
    """
    path = Path(path)
    tissue = Tissue(shape=shape, seed=seed, mpp=mpp)
    coarse = np.zeros((shape.y // _REDUCTION, shape.x // _REDUCTION, 3), np.uint8)
    big = shape.area > 4 * 10**9  # compressed this is near the 4 GiB that a classic TIFF can address
    with tifffile.TiffWriter(path, bigtiff=big) as tiff:
        _write_page(tiff, _paint_tiles(tissue, tile_px, coarse), shape, tile_px, aperio_description(shape, mpp=mpp))
        thumbnail = reduce_mean(coarse, max(1, max(coarse.shape) // 768)) if coarse.size else coarse
        if thumbnail.size:  # Aperio's second page is a thumbnail in strips; readers rely on the order
            _write_plain(tiff, thumbnail, aperio_description(shape, mpp=mpp, reduced=_shape(thumbnail)), kind=0)
        while max(coarse.shape[:2]) >= _SMALLEST_PX:
            text = aperio_description(shape, mpp=mpp, reduced=_shape(coarse))
            _write_page(tiff, _cut_tiles(coarse, tile_px), _shape(coarse), tile_px, text)
            coarse = reduce_mean(coarse, _REDUCTION)
        if identifying:
            name = "Aperio Image Library (tilestream synthetic)\r\n{} 120x100"
            _write_plain(tiff, np.full((100, 120, 3), (255, 220, 40), np.uint8), name.format("label"), kind=1)
            _write_plain(tiff, np.full((100, 120, 3), (40, 220, 255), np.uint8), name.format("macro"), kind=9)
    return path


def _shape(pixels: Pixels) -> Shape:
    return Shape(y=pixels.shape[0], x=pixels.shape[1])


def _write_page(tiff: tifffile.TiffWriter, tiles: Iterator[Pixels], shape: Shape, tile_px: int, text: str) -> None:
    tiff.write(
        tiles,
        shape=(shape.y, shape.x, 3),
        dtype=np.uint8,
        photometric="rgb",
        tile=(tile_px, tile_px),
        compression="jpeg",
        compressionargs={"level": 80},
        description=text,
        metadata=None,
        subfiletype=0,  # Aperio marks its levels no other way than by being tiled
    )


def _write_plain(tiff: tifffile.TiffWriter, pixels: Pixels, text: str, *, kind: int) -> None:
    tiff.write(
        pixels,
        photometric="rgb",
        compression="jpeg",
        rowsperstrip=16,
        description=text,
        metadata=None,
        subfiletype=kind,
    )


def _paint_tiles(tissue: Tissue, tile_px: int, coarse: Pixels) -> Iterator[Pixels]:
    """Yield the tiles of level 0 in the order of the file and fill `coarse` with their means on the way."""
    whole = Box(y=0, x=0, height=tissue.shape.y, width=tissue.shape.x)
    for y in range(0, tissue.shape.y, tile_px):
        row = whole.intersect(Box(y=y, x=0, height=tile_px, width=tissue.shape.x))
        # painted in pieces: the painter needs a hundred bytes a pixel while it works
        pieces = [
            tissue.paint(row.intersect(Box(y=y, x=x, height=tile_px, width=4 * tile_px)))
            for x in range(0, tissue.shape.x, 4 * tile_px)
        ]
        strip = np.concatenate(pieces, axis=1)
        reduced = reduce_mean(strip, _REDUCTION)
        coarse[y // _REDUCTION : y // _REDUCTION + len(reduced)] = reduced
        yield from _cut_tiles(strip, tile_px)


def _cut_tiles(pixels: Pixels, tile_px: int) -> Iterator[Pixels]:
    """Yield whole tiles, row by row; those at the edge repeat their last pixels, which costs JPEG least."""
    for y in range(0, pixels.shape[0], tile_px):
        for x in range(0, pixels.shape[1], tile_px):
            part = pixels[y : y + tile_px, x : x + tile_px]
            missing = ((0, tile_px - part.shape[0]), (0, tile_px - part.shape[1]), (0, 0))
            yield np.pad(part, missing, mode="edge")
