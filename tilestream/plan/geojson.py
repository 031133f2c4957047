"""Polygons as the GeoJSON that QuPath edits, and back.

Coordinates are level-0 pixels with x to the right and y down. QuPath puts its origin at the scanned part of a slide
where the format states one (`ImageInfo.content`): that offset is taken off when writing and put back when reading.

An image with a CRS can be meant either way, so the file has to say so: the member `crs` (GeoJSON 2008) means
coordinates in that CRS, the member `"coordinates": "pixels"`, which this module writes, means pixels. On an image
without CRS, coordinates are pixels whatever the file says: some tools write a `crs` only to quiet a library.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import Polygon
from shapely.geometry import shape as to_geometry
from shapely.geometry.base import BaseGeometry

from tilestream.errors import ConfigError
from tilestream.types import ImageInfo

COLOR = (230, 120, 40)
"""Outline colour in viewers: orange, seldom seen in stains."""
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:tilestream:outline")


def to_geojson(polygons: Sequence[Polygon], info: ImageInfo, *, name: str = "Tissue") -> dict[str, Any]:
    """Return polygons as a FeatureCollection of QuPath annotations.

    Parameters
    ----------
    polygons : sequence of Polygon
        In level-0 pixels.
    info : ImageInfo
        The image; its fingerprint makes the ids, its scanned part the origin.
    name : str
        Classification.

    Returns
    -------
    dict
        For `json.dump`; the same polygons give the same text.
    """
    x, y = origin_xy(info)
    features = [
        {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, f"{info.fingerprint}/{name}/{index}")),
            "geometry": shapely.geometry.mapping(shapely.transform(polygon, lambda xy: np.round(xy - (x, y), 2))),
            "properties": {
                "objectType": "annotation",
                "classification": {"name": name, "color": list(COLOR)},
                "isLocked": False,
            },
        }
        for index, polygon in enumerate(polygons)
    ]
    return {"type": "FeatureCollection", "coordinates": "pixels", "features": features}


def read_geojson(url: str, info: ImageInfo) -> tuple[tuple[Polygon, ...], tuple[str, ...]]:
    """Return the polygons of a GeoJSON file in level-0 pixels of an image, and what had to be mended.

    Parameters
    ----------
    url : str
        Path or fsspec URL: a FeatureCollection, an array of Features, a Feature or a geometry.
    info : ImageInfo
        The image.

    Returns
    -------
    polygons : tuple of Polygon
        Valid; they may overlap. Empty when the file holds no feature.
    notes : tuple of str
        Rings that crossed themselves, points and lines that were left out.

    Raises
    ------
    ConfigError
        When it is no GeoJSON, holds features but no area, or leaves open what its coordinates are.
    """
    try:
        with fsspec.open(url, "rt", encoding="utf-8-sig") as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise _error(url, str(error) or type(error).__name__, "a readable GeoJSON file", "Check the path.") from error
    geometries = [_geometry(url, index, value) for index, value in enumerate(_geometries(url, content))]
    polygons, repaired, left_out = _areas(geometries)
    if geometries and not polygons:
        raise _error(url, "points or lines only", "polygons", "Draw areas, or export them with their geometry.")
    notes: tuple[str, ...] = (f"{repaired} outlines crossed themselves and were repaired",) if repaired else ()
    notes += (f"{left_out} objects without area left out",) if left_out else ()
    moved = shapely.transform(np.asarray(polygons, np.object_), _to_pixels(url, content, info))
    return tuple(moved), notes


def _error(url: str, got: str, expected: str, do: str) -> ConfigError:
    return ConfigError.of(f"`{url}`", got=got, expected=expected, do=do)


def origin_xy(info: ImageInfo) -> tuple[int, int]:
    """Return where QuPath counts pixels from: the scanned part of a slide where its format states one."""
    return (0, 0) if info.content is None else (info.content.x, info.content.y)


def _geometries(url: str, content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, list):
        for value in content:
            yield from _geometries(url, value)
    elif not isinstance(content, dict) or "type" not in content:
        raise _error(url, type(content).__name__, "GeoJSON objects with a `type`", "Export it as GeoJSON.")
    elif content["type"] == "FeatureCollection":
        yield from _geometries(url, content.get("features") or [])
    elif content["type"] == "Feature":
        if content.get("geometry") is not None:
            yield content["geometry"]
    else:
        yield content


def _geometry(url: str, index: int, value: dict[str, Any]) -> BaseGeometry:
    try:
        with np.errstate(invalid="ignore"):  # NaN is refused below, with its place
            geometry: BaseGeometry = shapely.force_2d(to_geometry(value))
    except (shapely.errors.ShapelyError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise _error(url, f"object {index}: {error}", "a GeoJSON geometry", "Correct or remove that object.") from error
    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        raise _error(url, f"object {index}: NaN or infinity", "finite coordinates", "Correct or remove that object.")
    return geometry


def _areas(geometries: Sequence[BaseGeometry]) -> tuple[list[Polygon], int, int]:
    """Return the polygons inside all geometries, and how many of these had to be repaired and hold no area."""
    found: list[Polygon] = []
    repaired = left_out = 0
    for geometry in geometries:
        valid = geometry if geometry.is_valid else shapely.make_valid(geometry)
        repaired += valid is not geometry
        before = len(found)
        stack: list[BaseGeometry] = [valid]
        while stack:
            part = stack.pop()
            if isinstance(part, Polygon) and part.area > 0:
                found.append(part)
            elif part.geom_type in ("MultiPolygon", "GeometryCollection"):
                stack.extend(shapely.get_parts(part))
        left_out += len(found) == before
    return found, repaired, left_out


def _to_pixels(url: str, content: Any, info: ImageInfo) -> Any:
    """Return the function from the file's coordinates `(n, 2)` to level-0 pixels."""
    members = content if isinstance(content, dict) else {}
    crs = members.get("crs")
    if info.crs is None or members.get("coordinates") == "pixels":
        return lambda xy: xy + origin_xy(info)
    if crs is None or info.affine is None:
        raise _error(
            url,
            "an image with a CRS, and coordinates that may be pixels, degrees or its units",
            'the member `crs` or `"coordinates": "pixels"`',
            "Add one of them at the top level of the file.",
        )
    project = _projection(url, crs, info.crs)
    a, b, c, d, e, f = info.affine
    inverse = np.linalg.inv(np.array([[a, b], [d, e]]))

    def convert(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray((project(xy) - (c, f)) @ inverse.T)

    return convert


def _projection(url: str, crs: Any, wanted: str) -> Any:
    """Return the function from the file's CRS to the image's."""
    name = str(crs.get("properties", {}).get("name", "") if isinstance(crs, dict) else crs)
    if name.startswith("urn:ogc:def:crs:"):
        parts = name.split(":")
        name = f"{parts[4]}:{parts[-1]}"
    if name.upper() == wanted.upper():
        return lambda xy: xy
    try:
        import pyproj

        transform = pyproj.Transformer.from_crs(name, wanted, always_xy=True)
    except ImportError as error:
        raise _error(
            url,
            f"coordinates in {name}",
            f"{wanted}, the image's CRS",
            "Run `pip install -e '.[geo]'`, or reproject it.",
        ) from error
    except pyproj.exceptions.CRSError as error:
        raise _error(url, f"crs {name!r}", "a known CRS such as `EPSG:32629`", "Correct the member `crs`.") from error
    return lambda xy: np.stack(transform.transform(xy[:, 0], xy[:, 1]), axis=1)
