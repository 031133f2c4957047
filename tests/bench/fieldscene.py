"""A mosaic of real scenes in which cloud is known from a class band, with the example on one side of a cut.

      the scene above the cut        | the scene below it             | Blue Marble: ice and snow, and
      (mirrored until it fills)      | (mirrored until it fills)      | no cloud, as it was composed
      here lies the example          | scored                         | scored: bright, and never cloud

A Sentinel-2 scene with its scene classification (SCL). It is cut along a row, with a strip between that is on neither
side, so that no pixel and no cloud is both example and test. Mirrored copies meet without a seam; they say nothing new,
and only make the image as large as those are that budgets are for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from tilestream.kernels.mip import mip
from tilestream.types import Box

REPO = Path(__file__).resolve().parents[2]
SCENE = "S2A_29RKH_20200219_0_L2A"
BANDS = ("B04", "B03", "B02")
"""Red, green, blue, 100 m."""
CLOUD = (8, 9, 10)
"""Classes of SCL: medium and high probability of cloud, thin cirrus."""
WHITE = 6_000
"""Stored value that becomes 255, a reflectance of 0.6, which cloud of this scene seldom exceeds."""
CUT = 144, 160
"""Rows between which the strip lies that is on neither side."""
MARBLE = "photos/bluemarble_5400x2700.jpg"
MARBLE_YX = 60, 1_340
"""Corner of the part of Blue Marble that is taken: arctic sea ice, Greenland, Europe and the Sahara."""
TILE_PX = 64
"""Edge of the stored tiles, which are those that are chosen."""
HEIGHT, EXAMPLE_PX, SCENE_PX, MARBLE_PX = 2048, 1088, 2176, 1984
"""Rows, and columns of the three parts; whole tiles, more than 5,000 columns in all."""

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class CloudMosaic:
    """A mosaic and what is known of it."""

    path: Path
    """RGB of 8 bits with coordinates, tiles of 64 px, overviews."""
    cloud: npt.NDArray[np.float64]
    """`(y, x)` share of cloud of each tile."""
    scene: Mask
    """`(y, x)` tiles of the scene that are scored."""
    marble: Mask
    """`(y, x)` tiles of Blue Marble, which are scored beside."""
    example: Box
    """A box of level 0 on the side that is not scored, of cloud by nine tenths and more."""


def scenes() -> Path | None:
    """Return the folder of the shared images; None where it does not hold what the mosaic is made of."""
    data = Path(os.environ.get("TILESTREAM_DATA") or REPO.parent / "shared" / "data")
    there = (data / "satellite" / SCENE / "SCL.tif").is_file() and (data / MARBLE).is_file()
    return data if there else None


def write_cloud_mosaic(path: Path, data: Path, *, height: int = HEIGHT) -> CloudMosaic:
    """Return the mosaic that was written.

    Parameters
    ----------
    path : Path
        File to write.
    data : Path
        Folder of the shared images.
    height : int
        Rows, a multiple of 64; less is for quick looks.

    Returns
    -------
    CloudMosaic
        The same for the same arguments.
    """
    folder = data / "satellite" / SCENE
    bands = np.stack([_band(folder / f"{band}.tif") for band in BANDS], axis=-1)
    pixels = (bands.astype(np.float32) * (255 / WHITE)).round().clip(1, 255).astype(np.uint8)
    cloud = np.isin(_band(folder / "SCL.tif"), CLOUD).repeat(2, axis=0).repeat(2, axis=1)
    above, below = slice(0, CUT[0]), slice(CUT[1], None)
    example = _densest(cloud[above])
    marble: Pixels = imagecodecs.imread(data / MARBLE)[MARBLE_YX[0] :, MARBLE_YX[1] :]
    parts = [
        (pixels[above], cloud[above], EXAMPLE_PX),
        (pixels[below], cloud[below], SCENE_PX),
        (marble[:height, :MARBLE_PX], np.zeros((height, MARBLE_PX), np.bool_), MARBLE_PX),
    ]
    mosaic = np.concatenate([_mirrored(part, height, width) for part, _, width in parts], axis=1)
    truth = np.concatenate([_mirrored(mask, height, width) for _, mask, width in parts], axis=1)
    _write(path, mosaic)
    rows, columns = (side // TILE_PX for side in truth.shape)
    column = np.arange(columns) * TILE_PX
    is_scene = (column >= EXAMPLE_PX) & (column < EXAMPLE_PX + SCENE_PX)
    is_marble = column >= EXAMPLE_PX + SCENE_PX
    return CloudMosaic(
        path=path,
        cloud=truth.reshape(rows, TILE_PX, columns, TILE_PX).mean(axis=(1, 3)),
        scene=np.broadcast_to(is_scene, (rows, columns)),
        marble=np.broadcast_to(is_marble, (rows, columns)),
        example=example,
    )


def _band(path: Path) -> npt.NDArray[np.generic]:
    with tifffile.TiffFile(path) as tiff:
        return tiff.pages.first.asarray()


def _densest(cloud: Mask, edge_px: int = TILE_PX) -> Box:
    """Return the square with the most cloud; of equal ones the one further up, then further left."""
    sums = np.pad(cloud.astype(np.int64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    held = sums[edge_px:, edge_px:] - sums[:-edge_px, edge_px:] - sums[edge_px:, :-edge_px] + sums[:-edge_px, :-edge_px]
    y, x = np.unravel_index(int(held.argmax()), held.shape)
    return Box(y=int(y), x=int(x), height=edge_px, width=edge_px)


def _mirrored(part: npt.NDArray[np.generic], height: int, width: int) -> npt.NDArray[np.generic]:
    """Return an image as large as is asked for: the part, and its mirror images where it is smaller."""
    missing = [(0, max(0, wanted - there)) for wanted, there in zip((height, width), part.shape, strict=False)]
    return np.pad(part, [*missing, *[(0, 0)] * (part.ndim - 2)], mode="symmetric")[:height, :width]


def _write(path: Path, pixels: Pixels) -> None:
    """Write a GeoTIFF with overviews on a grid of 100 m (OGC GeoTIFF 1.1; where it lies is made up)."""
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32_629)
    tags = [
        (33550, "d", 3, (100.0, 100.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 200_000.0, 3_400_000.0, 0.0), True),
        (34735, "H", len(keys), keys, True),
    ]
    levels = [pixels, *(np.ascontiguousarray(level.transpose(1, 2, 0)) for level in mip(pixels.transpose(2, 0, 1)))]
    with tifffile.TiffWriter(path) as tiff:
        for index, level in enumerate(levels):
            tiff.write(
                level, photometric="rgb", tile=(TILE_PX, TILE_PX), compression="zlib", predictor=True, metadata=None,
                subfiletype=int(index > 0), extratags=tags if index == 0 else [],
            )  # fmt: skip
            if max(level.shape[:2]) <= TILE_PX:
                break
