"""Outlines of masks as polygons, and masks of polygons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import MultiPolygon, Polygon

from tilestream.plan.selection import Selection
from tilestream.types import Shape


def mask_outline(selection: Selection) -> tuple[Polygon, ...]:
    """Return the exact outline of a selection: rectilinear polygons with holes in level-0 pixels.

    Parameters
    ----------
    selection : Selection
        The mask.

    Returns
    -------
    tuple of Polygon
        Valid, without overlap, ordered by their top and left; corners rounded to 1/100 px.
    """
    faces = _faces(selection.mask)
    scale_y, scale_x = selection.scale_yx

    def to_level0(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(np.round(np.minimum(xy * (scale_x, scale_y), selection.area.xy), 2))

    polygons = [part for part in shapely.transform(faces, to_level0) if not part.is_empty]
    return tuple(sorted(polygons, key=lambda part: (part.bounds[1], part.bounds[0], part.bounds[3], part.bounds[2])))


def _faces(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.object_]:
    """Return the polygons of True pixels, with integer corners and no vertex between two collinear edges."""
    padded = np.pad(mask, 1).astype(np.int8)
    lines = np.concatenate([_runs(np.diff(padded, axis=0)), _runs(np.diff(padded, axis=1).T)[:, :, ::-1]])
    if not len(lines):
        return np.empty(0, np.object_)
    # Every boundary edge bounds a face of selected pixels on one side and one of the rest on the other: a planar graph
    # whose faces shapely finds with their holes, in time linear in the edges (a union of runs took five times as long).
    edges = cast("npt.NDArray[np.object_]", shapely.linestrings(lines - 1))
    faces = shapely.get_parts(shapely.polygonize(edges))
    x, y = (np.floor(axis).astype(np.int64) for axis in shapely.get_coordinates(shapely.point_on_surface(faces)).T)
    return np.asarray(faces[mask[y, x]], np.object_)


def _runs(steps: npt.NDArray[np.int8]) -> npt.NDArray[np.float64]:
    """Return runs of equal steps other than 0 along rows as segments `(n, 2, 2)` of x, y in padded pixels.

    A change of sign ends a run: there two regions touch at a corner, which must be a node of the graph.
    """
    wide = np.pad(steps, ((0, 0), (1, 1)))
    change = wide[:, 1:] != wide[:, :-1]
    row, begin = np.nonzero(change & (wide[:, 1:] != 0))
    stop = np.nonzero(change & (wide[:, :-1] != 0))[1]
    y = row + 1
    return np.stack([np.stack([begin, y], axis=1), np.stack([stop, y], axis=1)], axis=1).astype(np.float64)


def fill_polygons(
    polygons: Sequence[Polygon | MultiPolygon], shape: Shape, *, scale_yx: tuple[float, float], area: Shape
) -> npt.NDArray[np.bool_]:
    """Return the mask pixels whose centre lies inside polygons.

    Parameters
    ----------
    polygons : sequence of Polygon or MultiPolygon
        Valid, in level-0 pixels; they may overlap.
    shape : Shape
        Size of the mask.
    scale_yx : tuple of float
        Level-0 pixels per mask pixel.
    area : Shape
        Size of level 0. Where the last mask pixels reach beyond it, the centre of their inner part counts.

    Returns
    -------
    ndarray of bool
        `(y, x)`.

    Notes
    -----
    Scanline fill by winding: an edge of an outer ring adds 1 to each row whose centre it crosses where it enters and
    takes 1 where it leaves, from the first pixel whose centre is not left of the crossing; holes the other way round;
    a pixel is inside where the running sum along the row is above 0. Edges are half-open, so a shared corner counts
    once.
    """
    winding = np.zeros((shape.y, shape.x + 1), np.int32)
    upper, lower, weight = _edges(polygons, scale_yx)
    extent_yx = area.y / scale_yx[0], area.x / scale_yx[1]
    first, last = (_centres_before(end[:, 1], shape.y, extent_yx[0]) for end in (upper, lower))
    spans = np.maximum(last - first, 0)
    edge = np.repeat(np.arange(len(spans)), spans)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(spans) - spans, spans)
    slope = (lower - upper)[edge, 0] / (lower - upper)[edge, 1]
    crossing = upper[edge, 0] + (_centres(shape.y, extent_yx[0])[row] - upper[edge, 1]) * slope
    column = _centres_before(crossing, shape.x, extent_yx[1])
    np.add.at(winding, (row, column), weight[edge])
    np.cumsum(winding, axis=1, out=winding)
    return np.asarray(winding[:, :-1] > 0)


def _centres(count: int, extent: float) -> npt.NDArray[np.float64]:
    """Return the centres of cells; that of the last one is of its part below `extent`."""
    centres = np.arange(count) + 0.5
    centres[-1] = (count - 1 + np.clip(extent, count - 1, count)) / 2
    return np.asarray(centres)


def _centres_before(values: npt.NDArray[np.float64], count: int, extent: float) -> npt.NDArray[np.int64]:
    """Return how many centres lie below each value."""
    before = np.clip(np.ceil(values - 0.5), 0, count - 1).astype(np.int64)
    return np.asarray(before + (values > _centres(count, extent)[-1]), np.int64)


def _edges(
    polygons: Sequence[Polygon | MultiPolygon], scale_yx: tuple[float, float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Return upper and lower ends `(n, 2)` in mask pixels of all edges that cross rows, and +1 where one enters."""
    rings, owner = shapely.get_rings(shapely.get_parts(list(polygons)), return_index=True)
    outer = np.diff(owner, prepend=-1) != 0
    turn = np.where(shapely.is_ccw(rings) == outer, 1, -1)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    xy = xy / (scale_yx[1], scale_yx[0])
    same = ring[1:] == ring[:-1]
    start, stop, turn = xy[:-1][same], xy[1:][same], turn[ring[:-1][same]]
    crosses = start[:, 1] != stop[:, 1]
    start, stop, turn = start[crosses], stop[crosses], turn[crosses]
    down = start[:, 1] < stop[:, 1]
    weight = np.where(down, -turn, turn).astype(np.int32)
    return np.where(down[:, None], start, stop), np.where(down[:, None], stop, start), weight
