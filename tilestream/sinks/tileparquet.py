"""Tiles with their vectors as Parquet; those of scenes as GeoParquet, polygons in the CRS.

References
----------
GeoParquet 1.1.0: the key `geo` of the file's metadata, WKB in the primary column, the CRS as PROJJSON, and a column of
bounding boxes that it is covered by.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from tilestream.errors import ConfigError
from tilestream.sinks.featureread import PIECE_BYTES, StoredFeatures
from tilestream.sources.crs import full_wkt
from tilestream.types import TileStatus

SCALARS = ("valid", "tissue", "entropy", "relevance")
"""Values of a tile besides its vectors, where the store has them."""
_KEY = b"tilestream"
GEOMETRY, BBOX = "geometry", "bbox"


def write_parquet(path: Path, tiles: StoredFeatures, encoders: tuple[str, ...], recipe: str, *, geo: bool) -> None:
    """Write one row a tile: place, status, what is known of it, and a vector of each encoder.

    Parameters
    ----------
    path : Path
        Where to write.
    tiles : StoredFeatures
        The image.
    encoders : tuple of str
        Whose vectors: a list of fixed size in the column of that name, null where a tile has none.
    recipe : str
        Digest by which the file is known again.
    geo : bool
        Whether tiles are polygons in the image's CRS, with scene and date.

    Raises
    ------
    ConfigError
        When pyarrow is not installed, or `geo` is asked for an image without CRS.

    Notes
    -----
    About 32 MB of vectors are in memory at a time, which become one row group.
    """
    arrow, parquet = arrow_parquet()
    place = _Place.of(tiles) if geo else None
    schema = _schema(arrow, tiles, encoders, place).with_metadata(_metadata(tiles, encoders, recipe, place))
    step = max(1, PIECE_BYTES // max(1, 4 * sum(map(tiles.dim, encoders))))
    texts = ["slide", "scene", "datetime"]
    options = {"compression": "zstd", "use_dictionary": [name for name in texts if name in schema.names]}
    with parquet.ParquetWriter(path, schema, **options) as writer:
        for first in range(0, len(tiles), step):
            rows = range(first, min(first + step, len(tiles)))
            writer.write_table(arrow.table(_columns(arrow, tiles, encoders, place, rows), schema=schema))


def parquet_recipe(path: Path) -> str | None:
    """Return the digest of the recipe of a Parquet file of ours, None for any other file."""
    arrow, parquet = arrow_parquet()
    try:
        found = json.loads((parquet.read_schema(path).metadata or {})[_KEY])["recipe"]
    except (OSError, ValueError, KeyError, TypeError, arrow.ArrowException):
        return None
    return found if isinstance(found, str) else None


def arrow_parquet() -> tuple[Any, Any]:
    """Return the modules `pyarrow` and `pyarrow.parquet`.

    Raises
    ------
    ConfigError
        When they are not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError.of(
            "Parquet",
            got="no module `pyarrow`",
            expected="it installed",
            do="Run `pip install -e '.[parquet]'` in the clone.",
        ) from error
    return pyarrow, parquet


def require_place(tiles: StoredFeatures) -> None:
    """Raise `ConfigError` unless an image has a CRS and an affine."""
    crs, affine = tiles.image["crs"], tiles.image["affine"]
    if crs is None or affine is None:
        raise ConfigError.of(
            f"`{tiles.key}`",
            got="no coordinate reference system" if crs is None else "control points instead of an affine",
            expected="a scene with a coordinate reference system and an affine, as GeoParquet needs",
            do="Export it `--to parquet`, which has places in pixels; or warp it to a grid and embed that.",
        )


class _Place:
    """Where the tiles of a scene lie, and when it was taken."""

    def __init__(self, crs: dict[str, Any], affine: tuple[float, ...], corners: npt.NDArray[np.float64]) -> None:
        self.crs = crs
        self.corners = corners
        """`(n, 4, 2)` in the CRS, counterclockwise."""
        self.low, self.high = corners.min(axis=1), corners.max(axis=1)

    @classmethod
    def of(cls, tiles: StoredFeatures) -> _Place:
        """Return the places of an image's tiles."""
        require_place(tiles)
        crs, affine = tiles.image["crs"], tiles.image["affine"]
        a, b, c, d, e, f = affine
        left_top, sizes = tiles.xy(), tiles.sizes_yx()[:, ::-1]
        steps = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        if a * e - b * d > 0:  # rows run north: the order of pixels is clockwise on the map only where they run south
            around = steps
        else:
            around = steps[::-1]
        pixels = left_top[:, None, :] + around * sizes[:, None, :]
        x, y = pixels[..., 0], pixels[..., 1]
        return cls(_projjson(crs), affine, np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1))


def _projjson(crs: str) -> dict[str, Any]:
    full_wkt(crs)  # its error where pyproj is not there
    from pyproj import CRS

    found: dict[str, Any] = CRS.from_user_input(crs).to_json_dict()
    return found


def _schema(arrow: Any, tiles: StoredFeatures, encoders: tuple[str, ...], place: _Place | None) -> Any:
    fields = [
        (("slide" if place is None else "scene"), arrow.string()),
        ("tile", arrow.int64()),
        *((axis, arrow.float64()) for axis in "xy"),
        ("size", arrow.float64()),
        ("status", arrow.string()),
        *((name, arrow.float32()) for name in SCALARS if tiles.has(name)),
        *((("opened", arrow.bool_()),) if tiles.is_mixed else ()),
        *((encoder, arrow.list_(arrow.float32(), tiles.dim(encoder))) for encoder in encoders),
    ]
    if place is not None:
        box = arrow.struct([(name, arrow.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])
        date = arrow.timestamp("us", tz="UTC")
        fields += [("date", date), ("datetime", arrow.string()), (BBOX, box), (GEOMETRY, arrow.binary())]
    return arrow.schema(fields)


def _columns(
    arrow: Any, tiles: StoredFeatures, encoders: tuple[str, ...], place: _Place | None, rows: range
) -> dict[str, Any]:
    count, part = len(rows), slice(rows.start, rows.stop)
    status = tiles.read("status", rows)
    columns: dict[str, Any] = {
        ("slide" if place is None else "scene"): [tiles.key] * count,
        "tile": np.arange(rows.start, rows.stop),
        "x": tiles.read("x", rows),
        "y": tiles.read("y", rows),
        "size": tiles.read("size", rows),
        "status": [TileStatus(int(one)).name.lower() for one in status],
    }
    columns |= {name: tiles.read(name, rows) for name in SCALARS if tiles.has(name)}
    if tiles.is_mixed:
        columns["opened"] = tiles.opened()[part]
    for encoder in encoders:
        missing = tiles.read(f"{encoder}_status", rows) != TileStatus.OK
        values = arrow.array(tiles.read(encoder, rows).astype(np.float32, copy=False).ravel())
        columns[encoder] = arrow.FixedSizeListArray.from_arrays(
            values, tiles.dim(encoder), mask=arrow.array(missing) if missing.any() else None
        )
    if place is not None:
        text = tiles.image["datetime"]
        low, high = place.low[part], place.high[part]
        edges = {"xmin": low[:, 0], "ymin": low[:, 1], "xmax": high[:, 0], "ymax": high[:, 1]}
        columns["date"], columns["datetime"] = [_moment(text)] * count, [text] * count
        columns[BBOX] = arrow.StructArray.from_arrays(list(map(arrow.array, edges.values())), names=list(edges))
        columns[GEOMETRY] = shapely.to_wkb(shapely.polygons(place.corners[part]))
    return columns


def _moment(text: str | None) -> datetime | None:
    """Return when a scene was taken, of a range the beginning; None where it says nothing that is a date."""
    try:
        found = datetime.fromisoformat((text or "").partition("/")[0])
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _metadata(
    tiles: StoredFeatures, encoders: tuple[str, ...], recipe: str, place: _Place | None
) -> Mapping[bytes, bytes]:
    own = {
        "recipe": recipe,
        "image": dict(tiles.image),
        "plan": dict(tiles.plan),
        "encoders": {encoder: tiles.outputs(encoder) for encoder in encoders},
    }
    found = {_KEY: json.dumps(own).encode()}
    if place is not None:
        bounds = [*place.low.min(axis=0), *place.high.max(axis=0)] if len(place.low) else None
        geometry: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": ["Polygon"],
            "crs": place.crs,
            "edges": "planar",
            "orientation": "counterclockwise",
            "covering": {BBOX: {name: [BBOX, name] for name in ("xmin", "ymin", "xmax", "ymax")}},
        }
        geometry |= {} if bounds is None else {"bbox": bounds}
        geo = {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: geometry}}
        found[b"geo"] = json.dumps(geo).encode()
    return found
