"""Canvases as files: tiled TIFF with JPEG tiles of 256 px and levels of exact means, as slides are stored."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from tests.bench.canvas import Canvas
from tilestream.kernels.mip import mip

BLOCK_PX = 256
LEVELS = 6
"""Level 0 and its halves down to 1/32."""
QUALITY = 85

Bytes = npt.NDArray[np.uint8]


def write_canvas(path: Path, canvas: Canvas, *, threads: int = 2) -> Path:
    """Return the path of the file that a canvas was written to, band by band.

    Parameters
    ----------
    path : Path
        TIFF to write.
    canvas : Canvas
        What is drawn.
    threads : int
        How many encode.

    Returns
    -------
    Path
        `path`.
    """
    coarse: list[list[Bytes]] = [[] for _ in range(LEVELS - 1)]
    with ThreadPoolExecutor(threads) as pool, tifffile.TiffWriter(path, bigtiff=True) as tiff:

        def level_0() -> Iterator[bytes]:
            for row in range(canvas.rows):
                band = canvas.field_rows(row)
                for kept, level in zip(coarse, mip(band, levels=LEVELS - 1), strict=True):
                    kept.append(level)
                yield from _encoded(pool, band)

        _write(tiff, canvas.shape, level_0(), subifds=LEVELS - 1)
        for bands in coarse:
            whole = np.concatenate(bands)
            _write(tiff, whole.shape, _encoded(pool, whole), subifds=None)
    return path


def _encoded(pool: ThreadPoolExecutor, image: Bytes) -> Iterator[bytes]:
    """Yield the JPEG tiles of an image, the last ones padded by repeating its edge."""
    pad = [(0, -edge % BLOCK_PX) for edge in image.shape]
    image = np.pad(image, pad, mode="edge") if any(more for _, more in pad) else image
    tiles = (
        image[y : y + BLOCK_PX, x : x + BLOCK_PX]
        for y in range(0, image.shape[0], BLOCK_PX)
        for x in range(0, image.shape[1], BLOCK_PX)
    )
    yield from pool.map(lambda tile: imagecodecs.jpeg8_encode(np.ascontiguousarray(tile), level=QUALITY), tiles)


def _write(tiff: tifffile.TiffWriter, shape: tuple[int, ...], tiles: Iterator[bytes], *, subifds: int | None) -> None:
    tiff.write(
        tiles,
        shape=shape,
        dtype=np.uint8,
        tile=(BLOCK_PX, BLOCK_PX),
        photometric="minisblack",
        compression="jpeg",
        subifds=subifds,
        subfiletype=0 if subifds else 1,
        metadata=None,
    )
