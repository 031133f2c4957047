"""Tokens as GeoJSON: squares that QuPath shows as tiles with measurements, coloured by level, or a GIS in its CRS.

Coordinates are level-0 pixels from the scanned part of a slide where its format states one, as in
`tilestream.plan.geojson`; or, of georeferenced images, those of the CRS, with a member `crs` (GeoJSON 2008) that says
so. Both can be given to `where=` again. Coarse squares come first, so that finer ones are drawn over them.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.plan.geojson import origin_xy
from tilestream.types import ImageInfo

Coordinates = Literal["pixels", "crs"]
COLOURS = ((178, 24, 43), (239, 138, 98), (253, 219, 199), (209, 229, 240), (103, 169, 207), (33, 102, 172))
"""Of levels from the finest on, red to blue; what is coarser has the last one. ColorBrewer's RdBu, safe for the colour
blind."""
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:tilestream:token")


def squares_geojson(
    squares: npt.NDArray[np.float64],
    values: Mapping[str, npt.NDArray[Any]],
    info: ImageInfo,
    *,
    digest: str,
    coordinates: Coordinates = "pixels",
) -> dict[str, Any]:
    """Return squares as a FeatureCollection.

    Parameters
    ----------
    squares : ndarray of float64
        `(n, 4)`: first and last row and column as y, x, y, x in pixels of level 0; parts outside the image are cut off.
    values : Mapping
        `(n,)` measurements by name; a square has those that are finite. `level` decides colours.
    info : ImageInfo
        The image.
    digest : str
        Of the plan; makes the ids with the image's fingerprint.
    coordinates : str
        `pixels` or `crs`.

    Returns
    -------
    dict
        For `json.dump`.

    Raises
    ------
    ConfigError
        When CRS coordinates are asked for of an image that has none.
    """
    if coordinates not in ("pixels", "crs") or (coordinates == "crs" and (info.crs is None or info.affine is None)):
        raise ConfigError.of(
            "`coordinates`",
            got=f"{coordinates!r} of an image with {'no CRS' if info.crs is None else f'CRS {info.crs}'}",
            expected="`pixels`, or `crs` of a georeferenced image",
            do="Use `pixels`.",
        )
    inside = np.minimum(squares, np.tile(np.array(info.shape.yx, np.float64), 2))
    corners = inside[:, [[1, 0], [3, 0], [3, 2], [1, 2], [1, 0]]]
    placed = np.round(corners - origin_xy(info), 2) if coordinates == "pixels" else _to_crs(corners, info)
    measured = {name: np.asarray(column, np.float64).tolist() for name, column in values.items()}
    features = []
    for row, ring in enumerate(placed.tolist()):
        own = {name: float(f"{column[row]:.6g}") for name, column in measured.items() if np.isfinite(column[row])}
        properties = {
            "objectType": "tile",
            "name": f"token {row}",
            "isLocked": True,
            "color": list(COLOURS[min(int(own["level"]), len(COLOURS) - 1)]),
            "measurements": own,
        }
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(_NAMESPACE, f"{info.fingerprint}/{digest}/{row}")),
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": properties,
            }
        )
    said = {"coordinates": "pixels"} if coordinates == "pixels" else {"crs": _named(str(info.crs))}
    return {"type": "FeatureCollection", **said, "features": features}


def _to_crs(xy: npt.NDArray[np.float64], info: ImageInfo) -> npt.NDArray[np.float64]:
    assert info.affine is not None
    a, b, c, d, e, f = info.affine
    return np.asarray(xy @ np.array([[a, d], [b, e]]) + (c, f))


def _named(crs: str) -> dict[str, Any]:
    return {"type": "name", "properties": {"name": crs}}
