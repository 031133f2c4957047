"""Satellite scenes that never were, as GeoTIFF with bands, coordinates, nodata and overviews."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from tilestream.testing.noise import Floats, value_noise
from tilestream.types import Box, Shape

BANDS = ("blue", "green", "red", "nir")
"""Bands of a scene, in stored order."""
NODATA = 0
"""Stored value outside the footprint."""
_REFLECTANCE = {
    "water": (0.06, 0.05, 0.03, 0.02),
    "soil": (0.10, 0.14, 0.19, 0.28),
    "crop": (0.03, 0.07, 0.04, 0.45),
    "cloud": (0.70, 0.72, 0.74, 0.78),
}
_SCALE = 10_000
"""Stored value of reflectance 1, as Sentinel-2 has it."""

Pixels = npt.NDArray[np.uint16]


def paint_scene(shape: Shape, *, seed: int = 0) -> Pixels:
    """Return reflectances of land, water, fields and clouds inside a tilted footprint.

    Parameters
    ----------
    shape : Shape
        Size, px.
    seed : int
        Another seed, another scene.

    Returns
    -------
    ndarray of uint16
        `(y, x, 4)`, bands as in `BANDS`, reflectance times 10,000; `NODATA` outside the footprint.
    """
    box = Box(y=0, x=0, height=shape.y, width=shape.x)
    edge = max(shape.yx)
    height = value_noise(box, cell_px=edge / 3, seed=seed + 1, octaves=6)
    land = np.clip((height - np.float32(0.45)) * 60, 0, 1)
    field = value_noise(box, cell_px=9, seed=seed + 2) * value_noise(box, cell_px=90, seed=seed + 3, octaves=2)
    green = np.clip((field - np.float32(0.2)) * 5, 0, 1)
    cloud = np.clip((value_noise(box, cell_px=edge / 6, seed=seed + 4, octaves=5) - np.float32(0.62)) * 9, 0, 1)
    shade = np.float32(0.85) + np.float32(0.3) * value_noise(box, cell_px=4, seed=seed + 5, octaves=2)

    def mix(low: str, high: str | Floats, share: Floats) -> Floats:
        first = np.array(_REFLECTANCE[low], np.float32)
        second = np.array(_REFLECTANCE[high], np.float32) if isinstance(high, str) else high
        return first * (1 - share[..., None]) + second * share[..., None]

    ground = mix("soil", "crop", green) * shade[..., None]
    scene = mix("water", ground, land)
    scene += (np.array(_REFLECTANCE["cloud"], np.float32) - scene) * cloud[..., None]
    stored = np.clip(np.rint(scene * _SCALE), 1, 65_535).astype(np.uint16)  # 0 is kept for nodata
    stored[~_footprint(shape)] = NODATA
    return stored


def _footprint(shape: Shape) -> npt.NDArray[np.bool_]:
    """Return where the tilted swath of the sensor lies: all but two corners."""
    y = np.arange(shape.y, dtype=np.float32)[:, None] / shape.y
    x = np.arange(shape.x, dtype=np.float32)[None, :] / shape.x
    return (np.abs(x - y * np.float32(0.15) - np.float32(0.425)) < np.float32(0.46)).astype(np.bool_)


def write_scene(
    path: str | Path,
    shape: Shape,
    *,
    seed: int = 0,
    gsd_m: float = 10.0,
    epsg: int = 32633,
    tile_px: int = 256,
) -> Path:
    """Return the path of a four-band GeoTIFF with overviews that was written there.

    Parameters
    ----------
    path : str or Path
        File to write.
    shape : Shape
        Size of level 0, px.
    seed : int
        Another seed, another scene.
    gsd_m : float
        Edge of a pixel on the ground, metres.
    epsg : int
        Projected coordinate system in metres.
    tile_px : int
        Edge of the stored tiles, px.

    Returns
    -------
    Path
        `path`.
    """
    path = Path(path)
    pixels = paint_scene(shape, seed=seed)
    options: dict[str, Any] = {
        "photometric": "minisblack",
        "planarconfig": "contig",
        "extrasamples": ("unspecified",) * (len(BANDS) - 1),
        "tile": (tile_px, tile_px),
        "compression": "zlib",
        "predictor": True,
        "metadata": None,
    }
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, extratags=_geo_tags(gsd_m, epsg), **options)
        while max(pixels.shape[:2]) > tile_px:
            pixels = _halve(pixels)
            tiff.write(pixels, subfiletype=1, extratags=[_nodata_tag()], **options)
    return path


def _halve(pixels: Pixels) -> Pixels:
    """Return the next overview: the mean of what is valid in each 2 × 2 square, the edge ones of what exists."""
    height, width, bands = pixels.shape
    even = np.zeros((height + height % 2, width + width % 2, bands), np.uint32)
    even[:height, :width] = pixels
    squares = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2, bands)
    count = (squares != NODATA).sum(axis=(1, 3))
    total = squares.sum(axis=(1, 3))
    return np.where(count > 0, (total + count // 2) // np.maximum(count, 1), NODATA).astype(np.uint16)


def _nodata_tag() -> tuple[int, str, int, str, bool]:
    return (42113, "s", 0, str(NODATA), True)


def _geo_tags(gsd_m: float, epsg: int) -> list[tuple[Any, ...]]:
    """Return the tags of OGC GeoTIFF 1.1 for a projected system and a pixel grid, and GDAL's for the bands."""
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, epsg)
    bands = "".join(
        f'<Item name="DESCRIPTION" sample="{index}" role="description">{name}</Item>'
        f'<Item name="SCALE" sample="{index}" role="scale">{1 / _SCALE}</Item>'
        for index, name in enumerate(BANDS)
    )
    return [
        (33550, "d", 3, (gsd_m, gsd_m, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 500_000.0, 5_000_000.0, 0.0), True),
        (34735, "H", len(keys), keys, True),
        (42112, "s", 0, f"<GDALMetadata>{bands}</GDALMetadata>", True),
        _nodata_tag(),
    ]
