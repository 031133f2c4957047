"""Tile matrix sets: the numbers that web maps and data cubes give to the squares of a fixed grid in a CRS.

At zoom z a set has squares of `span / 2^z` CRS units; x counts to the right and y down from the set's corner. A plan
that is snapped to such squares (`Snap`) has one of them for each of its tiles.

References
----------
OGC 17-083r4, Two Dimensional Tile Matrix Set, annex D; Bing Maps Tile System for quadkeys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.plan.snap import DRIFT_PX, Snap
from tilestream.plan.tiles import TilePlan
from tilestream.types import ImageInfo

MOST_ZOOM = 30
"""A square of Web Mercator is 4 cm wide there."""
_NEAR = 1e-6
"""How far the size of a plan's tiles may be off that of the squares, as a share; headers round."""


@dataclass(frozen=True, kw_only=True)
class TileMatrixSet:
    """A quadtree of squares in a CRS."""

    name: str
    """Name in the register of the OGC."""
    crs: str
    """`EPSG:n`."""
    corner_xy: tuple[float, float]
    """Top left corner, CRS units."""
    span: float
    """Edge of a square at zoom 0, CRS units."""

    def size(self, z: int) -> float:
        """Return the edge of a square at a zoom, CRS units."""
        if not 0 <= z <= MOST_ZOOM:
            raise ConfigError.of("`z`", got=z, expected=f"0 to {MOST_ZOOM}", do="Choose a zoom in that range.")
        return math.ldexp(self.span, -z)

    def snap(self, z: int) -> Snap:
        """Return the grid of a zoom, for `plan_tiles(..., snap=...)`.

        Parameters
        ----------
        z : int
            Zoom.

        Returns
        -------
        Snap
            Each square is one tile, whatever its pixels.
        """
        return Snap(size=self.size(z), origin_xy=self.corner_xy)

    def bounds(self, z: int, x: int, y: int) -> tuple[float, float, float, float]:
        """Return left, bottom, right and top of a square, CRS units.

        Parameters
        ----------
        z, x, y : int
            Zoom, column and row.

        Returns
        -------
        tuple of float
            Its edges.
        """
        size, (left, top) = self.size(z), self.corner_xy
        return left + x * size, top - (y + 1) * size, left + (x + 1) * size, top - y * size

    def tile_at(self, z: int, *, xy: tuple[float, float]) -> tuple[int, int, int]:
        """Return the square that a point lies in.

        Parameters
        ----------
        z : int
            Zoom.
        xy : tuple of float
            Position, CRS units.

        Returns
        -------
        tuple of int
            Zoom, column and row.
        """
        size = self.size(z)
        return z, math.floor((xy[0] - self.corner_xy[0]) / size), math.floor((self.corner_xy[1] - xy[1]) / size)


WEB_MERCATOR_QUAD = TileMatrixSet(
    name="WebMercatorQuad",
    crs="EPSG:3857",
    corner_xy=(-20037508.342789244, 20037508.342789244),
    span=40075016.685578488,
)
WORLD_CRS84_QUAD = TileMatrixSet(name="WorldCRS84Quad", crs="EPSG:4326", corner_xy=(-180.0, 90.0), span=180.0)
"""Two squares side by side at zoom 0; x is the longitude, as in every affine."""


def utm_quad(zone: int) -> TileMatrixSet:
    """Return the set of a UTM zone on WGS 84, `UTM01WGS84Quad` to `UTM60WGS84Quad`; zooms begin with 1.

    Parameters
    ----------
    zone : int
        1 to 60, of the northern CRS; south of the equator its y is below 0.

    Returns
    -------
    TileMatrixSet
        The set.
    """
    if not 1 <= zone <= 60:
        raise ConfigError.of("`zone`", got=zone, expected="1 to 60", do="Choose a zone in that range.")
    return TileMatrixSet(
        name=f"UTM{zone:02d}WGS84Quad",
        crs=f"EPSG:{32600 + zone}",
        corner_xy=(-9501965.72931276, 20003931.4586255),
        span=2 * 20003931.4586255,
    )


def matrix_tiles(plan: TilePlan, info: ImageInfo, matrix: TileMatrixSet) -> npt.NDArray[np.int64]:
    """Return zoom, column and row of the square of each of a plan's tiles, `(n, 3)` in plan order.

    Parameters
    ----------
    plan : TilePlan
        Made with `snap=matrix.snap(z)`.
    info : ImageInfo
        The image that it is for.
    matrix : TileMatrixSet
        The set.

    Returns
    -------
    ndarray of int64
        `(n, 3)`: z, x, y.

    Raises
    ------
    ConfigError
        When the plan's tiles are not the squares of the set.
    """
    if info.crs != matrix.crs or info.affine is None or info.affine[1] or info.affine[3]:
        raise ConfigError.of(
            f"`{matrix.name}`",
            got=f"an image in {info.crs}",
            expected=f"a north-up one in {matrix.crs}",
            do="Warp it first, or choose the set of its CRS.",
        )
    a, _, c, _, e, f = info.affine
    scale_yx, tile_px = plan.level.scale_yx, plan.grid.tile_px
    width, height = abs(a) * scale_yx[1] * tile_px, abs(e) * scale_yx[0] * tile_px
    z = round(math.log2(matrix.span / width))
    is_square = 0 <= z <= MOST_ZOOM and abs(width / matrix.size(z) - 1) < _NEAR and abs(height / width - 1) < _NEAR
    if not is_square or plan.grid.step_px != tile_px:
        raise ConfigError.of(
            f"`{matrix.name}`",
            got=f"tiles of {width:.8g} x {height:.8g} CRS units",
            expected="those of a zoom, without overlap",
            do="Make the plan with `snap=matrix.snap(z)`.",
        )
    units = [unit.tile_yx for unit in plan.start()]
    corners = np.concatenate(units) if units else np.zeros((0, 2), np.int64)
    centres = (corners + tile_px / 2) * np.array(scale_yx)
    columns = (a * centres[:, 1] + c - matrix.corner_xy[0]) / matrix.size(z)
    rows = (matrix.corner_xy[1] - e * centres[:, 0] - f) / matrix.size(z)
    positions = np.stack([columns, rows], axis=1)
    if positions.size and np.abs(positions % 1 - 0.5).max() * tile_px > 2 * DRIFT_PX:
        raise ConfigError.of(
            f"`{matrix.name}`",
            got="tiles of the right size that lie across its squares",
            expected="tiles that begin on its lines",
            do="Make the plan with `snap=matrix.snap(z)`.",
        )
    return np.column_stack([np.full(len(corners), z, np.int64), np.floor(positions).astype(np.int64)])


def quadkey(z: int, x: int, y: int) -> str:
    """Return the quadkey of a tile: a digit a zoom, so that a tile's key begins with that of its parent.

    Parameters
    ----------
    z, x, y : int
        Zoom, column and row.

    Returns
    -------
    str
        `z` digits from 0 to 3; empty at zoom 0.

    Raises
    ------
    ConfigError
        When there is no such tile.
    """
    if not (0 <= z <= MOST_ZOOM and 0 <= x < 2**z and 0 <= y < 2**z):
        raise ConfigError.of(
            "tile", got=(z, x, y), expected=f"zoom 0 to {MOST_ZOOM}, x and y below 2^z", do="Correct it."
        )
    return "".join(str((x >> bit & 1) | (y >> bit & 1) << 1) for bit in reversed(range(z)))


def tile_of_quadkey(key: str) -> tuple[int, int, int]:
    """Return zoom, column and row of a quadkey.

    Parameters
    ----------
    key : str
        Digits from 0 to 3.

    Returns
    -------
    tuple of int
        z, x, y.

    Raises
    ------
    ConfigError
        When it is none.
    """
    if len(key) > MOST_ZOOM or not set(key) <= set("0123"):
        raise ConfigError.of("quadkey", got=key, expected=f"at most {MOST_ZOOM} digits from 0 to 3", do="Correct it.")
    x = y = 0
    for digit in key:
        x, y = x << 1 | int(digit) & 1, y << 1 | int(digit) >> 1
    return len(key), x, y
