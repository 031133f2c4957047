"""What `where=` means: tissue, everything, a mask image, drawn outlines, or the area of patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import Polygon

from tilestream.errors import ConfigError, SourceError
from tilestream.plan.geojson import read_geojson
from tilestream.plan.outline import fill_polygons
from tilestream.plan.selection import Selection
from tilestream.plan.tissue import select_tissue
from tilestream.pyramid import Pyramid, open_pyramid
from tilestream.pyramid.coarse import mask_level, windows
from tilestream.sources.patchfiles import is_patch_file, read_patches
from tilestream.types import Box, ImageInfo, PlanLevel, Shape

MASK_PX = 1 << 24
"""Most cells of a mask that is given or drawn; it is finer than a tissue mask, since a person has drawn the lines."""
TILE_CELLS = 16
"""Cells along a tile when outlines are drawn as a mask; a share is then right to about 1/16 of a core's edge."""


def select(pyr: Pyramid, where: str, *, tile_level0_px: float, source_mpp: float | None = None) -> Selection:
    """Return the part of an image that `where` names.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    where : str
        `tissue`, or the path or URL of a mask image or of a GeoJSON file (`.geojson`, `.json`), or an HDF5 file of
        patches (`.h5`): the area that they cover.
    tile_level0_px : float
        Edge of a tile in level-0 pixels; outlines are drawn at least 16 cells a tile fine.
    source_mpp : float, optional
        Micrometres per pixel of level 0 that the user states.

    Returns
    -------
    Selection
        The mask.

    Raises
    ------
    ConfigError
        When the file cannot be read or does not belong to the image.
    """
    if where == "tissue":
        return select_tissue(pyr, mpp=source_mpp)
    suffix = PurePosixPath(where.split("#")[0].split("?")[0]).suffix.lower()
    if suffix in (".geojson", ".json"):
        polygons, notes = read_geojson(where, pyr.info)
        return _outlines(pyr, polygons, notes, tile_level0_px, mask_level(pyr.info, mpp=source_mpp))
    if is_patch_file(where):
        boxes, size_px = _patch_boxes(pyr, where)
        return _outlines(pyr, boxes, (), min(size_px, tile_level0_px), mask_level(pyr.info, mpp=source_mpp))
    return _mask_image(pyr, where)


def _patch_boxes(pyr: Pyramid, path: str) -> tuple[tuple[Polygon, ...], float]:
    """Return the squares that patches of a file cover, and their edge in pixels of level 0."""
    patches = read_patches(Path(path.removeprefix("file://")))
    own = pyr.levels[patches.level].scale_yx[0] if patches.level < len(pyr.levels) else None
    size_px = patches.size_level0(Path(path), own)
    x, y = patches.xy.T
    return tuple(shapely.box(x, y, x + size_px, y + size_px)), size_px


def _outlines(
    pyr: Pyramid, polygons: Sequence[Polygon], notes: tuple[str, ...], tile_px: float, level: PlanLevel
) -> Selection:
    # A whole fraction of the tissue grid: an outline traced on that grid is taken back to the very same pixels.
    finest = int((MASK_PX / level.shape.area) ** 0.5)
    fraction = max(1, min(-int(-TILE_CELLS * max(level.scale_yx) // tile_px), finest))
    area = pyr.info.shape
    scale_yx = level.scale_yx[0] / fraction, level.scale_yx[1] / fraction
    shape = Shape(
        y=min(level.shape.y * fraction, ceil(area.y / scale_yx[0])),
        x=min(level.shape.x * fraction, ceil(area.x / scale_yx[1])),
    )
    mask = fill_polygons(polygons, shape, scale_yx=scale_yx, area=area) if polygons else np.zeros(shape.yx, np.bool_)
    return Selection(name="outline", mask=mask, scale_yx=scale_yx, area=area, notes=notes)


def _mask_image(pyr: Pyramid, url: str) -> Selection:
    try:
        other = open_pyramid(url)
    except SourceError as error:
        raise ConfigError.of(
            f"`where={url}`",
            got=str(error),
            expected="`tissue`, `all`, or a mask or GeoJSON file",
            do="Check the path.",
        ) from error
    area, own = pyr.info.shape, other.info.shape
    if not _same_aspect(area, own):
        raise ConfigError.of(
            f"mask `{url}`",
            got=f"{own.y} x {own.x} px",
            expected=f"the shape of the image, {area.y} x {area.x} px, or that shape reduced by one factor",
            do="Export the mask of this very image, uncropped.",
        )
    _check_place(pyr.info, other.info, url)
    picture = _read_mask(other, url)
    scale_yx = area.y / own.y * picture.ratio, area.x / own.x * picture.ratio
    return Selection(name="mask", mask=picture.mask, scale_yx=scale_yx, area=area, notes=picture.notes)


def _check_place(image: ImageInfo, mask: ImageInfo, url: str) -> None:
    """Raise `ConfigError` when both are georeferenced and do not cover the same ground to a mask pixel."""
    if image.crs is None or mask.crs is None or image.affine is None or mask.affine is None:
        return
    pixel_x, pixel_y = (abs(mask.affine[k]) + abs(mask.affine[k + 1]) for k in (0, 3))
    ends = zip(_corners(image.shape, image.affine), _corners(mask.shape, mask.affine), strict=True)
    apart = any(abs(a[0] - b[0]) > pixel_x or abs(a[1] - b[1]) > pixel_y for a, b in ends)
    if image.crs != mask.crs or apart:
        raise ConfigError.of(
            f"mask `{url}`",
            got=f"{mask.crs} at {mask.affine}",
            expected=f"the ground of the image, {image.crs} at {image.affine}",
            do="Warp the mask to the grid of the image.",
        )


def _corners(shape: Shape, affine: tuple[float, ...]) -> list[tuple[float, float]]:
    a, b, c, d, e, f = affine
    return [(a * x + b * y + c, d * x + e * y + f) for y in (0, shape.y) for x in (0, shape.x)]


def _same_aspect(area: Shape, mask: Shape) -> bool:
    """Return whether one factor takes an image's size to a mask's, each rounded either way."""
    low = max(area.y / (mask.y + 1), area.x / (mask.x + 1))
    high = min(area.y / max(mask.y - 1, 1e-9), area.x / max(mask.x - 1, 1e-9))
    return low < high


@dataclass(frozen=True, kw_only=True, eq=False)
class _Mask:
    """A mask image as booleans."""

    mask: npt.NDArray[np.bool_]
    """`(y, x)`."""
    ratio: int
    """Pixels of the mask image per mask pixel."""
    notes: tuple[str, ...]
    """That it was reduced."""


def _read_mask(other: Pyramid, url: str) -> _Mask:
    """Return where a mask image is not 0, reduced by majority when it is very large."""
    level0 = other.levels[0]
    ratio = 1
    while -(-level0.shape.y // ratio) * -(-level0.shape.x // ratio) > MASK_PX:
        ratio += 1
    shape = Shape(y=-(-level0.shape.y // ratio), x=-(-level0.shape.x // ratio))
    mask = np.zeros(shape.yx, np.bool_)
    reduced = PlanLevel(stored=0, ratio_yx=(Fraction(ratio), Fraction(ratio)), shape=shape, scale_yx=(ratio, ratio))
    for box in windows(reduced, level0, pixel_bytes=len(other.channels) * other.dtype.itemsize):
        region = other.read_region(
            Box(y=box.y * ratio, x=box.x * ratio, height=box.height * ratio, width=box.width * ratio)
        )
        if region.damage:
            raise ConfigError.of(
                f"mask `{url}`", got=region.damage[0], expected="a mask without damage", do="Export the mask again."
            )
        wanted = (region.pixels != 0).any(axis=0) & region.valid
        count = wanted.reshape(box.height, ratio, box.width, ratio).sum(axis=(1, 3), dtype=np.int64)
        mask[box.slices_yx] = 2 * count >= ratio * ratio
    return _Mask(mask=mask, ratio=ratio, notes=(f"mask reduced {ratio} times",) if ratio > 1 else ())
