"""Tiles as the GeoJSON that QuPath imports: objects of type `tile` with measurements, coloured by one of them.

Coordinates are level-0 pixels as QuPath counts them, from the scanned part of a slide where its format states one (see
`tilestream.plan.geojson`).

References
----------
QuPath: its path-object JSON type adapter. `objectType` is looked for inside `properties`; ids are UUIDs; measurements
are a map from name to number.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.sinks.featureread import StoredFeatures

FEATURE_BYTES = 330
"""About how long a tile is without its measurements."""
MEASUREMENT_BYTES = 30
"""About how long a measurement is."""
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:tilestream:tile")
_HEAD_BYTES = 4096


def write_qupath(
    path: Path,
    tiles: StoredFeatures,
    recipe: Mapping[str, Any],
    *,
    measurements: Mapping[str, npt.NDArray[np.float64]],
    colours: npt.NDArray[np.uint8] | None = None,
) -> None:
    """Write all tiles of a slide, line by line.

    Parameters
    ----------
    path : Path
        Where to write.
    tiles : StoredFeatures
        The slide.
    recipe : Mapping
        What the file says of itself; with the key `recipe`, by which it is known again.
    measurements : Mapping
        `(n,)` numbers by name; a tile has those that are finite.
    colours : ndarray of uint8, optional
        `(n, 4)` red, green, blue and whether the tile has a colour.
    """
    head = {"type": "FeatureCollection", "coordinates": "pixels", "tilestream": dict(recipe)}
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, separators=(",", ":"), ensure_ascii=False)[:-1] + ',"features":[')
        for row, feature in enumerate(_features(tiles, measurements, colours)):
            file.write((",\n" if row else "\n") + json.dumps(feature, separators=(",", ":"), allow_nan=False))
        file.write("\n]}\n")


def qupath_recipe(path: Path) -> str | None:
    """Return the digest of the recipe of a file of ours, None for any other file.

    Parameters
    ----------
    path : Path
        Existing file.

    Returns
    -------
    str or None
        What stands at its beginning.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES).partition(b',"features":[')[0]
        found = json.loads(head + b"}")["tilestream"]["recipe"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def _features(
    tiles: StoredFeatures,
    measurements: Mapping[str, npt.NDArray[np.float64]],
    colours: npt.NDArray[np.uint8] | None,
) -> Iterator[dict[str, Any]]:
    content = tiles.image.get("content_yxhw") or (0, 0)
    corner = tiles.xy() - (content[1], content[0])
    sizes, opened = tiles.sizes_yx(), tiles.opened()
    fingerprint, digest = tiles.image["fingerprint"], tiles.plan["digest"]
    for row, ((left, top), (height, width)) in enumerate(zip(corner.tolist(), sizes.tolist(), strict=True)):
        if opened[row]:  # finer tiles lie in its place
            continue
        x, y = [_short(left), _short(left + width)], [_short(top), _short(top + height)]
        own = {name: float(f"{values[row]:.6g}") for name, values in measurements.items() if np.isfinite(values[row])}
        properties: dict[str, Any] = {
            "objectType": "tile",
            "name": f"tile {row}",
            "isLocked": True,
            "measurements": own,
        }
        if colours is not None and colours[row, 3]:
            properties["color"] = colours[row, :3].tolist()
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, f"{fingerprint}/{digest}/{row}")),
            "geometry": {"type": "Polygon", "coordinates": [_ring(x, y)]},
            "properties": properties,
        }


def _ring(x: Sequence[float], y: Sequence[float]) -> list[list[float]]:
    return [[x[0], y[0]], [x[1], y[0]], [x[1], y[1]], [x[0], y[1]], [x[0], y[0]]]


def _short(value: float) -> float:
    """Return a coordinate to a hundredth of a pixel, as a whole number where it is one."""
    rounded = round(value, 2)
    return int(rounded) if rounded == int(rounded) else rounded
