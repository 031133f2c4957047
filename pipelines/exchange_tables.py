"""Which file a feature store becomes as a table or as objects on the slide: AnnData, SpatialData, QuPath, Parquet."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from tilestream.pipelines.exchange_form import (
    ExchangeOptions,
    Product,
    Products,
    left_out,
    recipe_digest,
    vector_bytes,
)
from tilestream.pipelines.report_colours import heat_rgba
from tilestream.sinks.anndatafile import write_h5ad
from tilestream.sinks.featureread import StoredFeatures
from tilestream.sinks.qupath import FEATURE_BYTES, MEASUREMENT_BYTES, qupath_recipe, write_qupath
from tilestream.sinks.spatialdata import spatialdata_recipe, write_spatialdata
from tilestream.sinks.storerecord import SUFFIX
from tilestream.sinks.tileparquet import SCALARS, parquet_recipe, require_place, write_parquet

ROW_BYTES = 60
"""About what a tile takes in a table besides its vectors."""
SHAPE_BYTES = 150
"""About what a polygon takes."""


def anndata_products(tiles: StoredFeatures, options: ExchangeOptions) -> Products:
    """Return one `.h5ad` an encoder, since a table holds the vectors of one."""
    encoders = options.chosen(tiles)
    files = []
    for encoder in encoders:
        recipe = recipe_digest(tiles, options, encoder)
        write = partial(write_h5ad, tiles=tiles, encoder=encoder, recipe=recipe)
        files.append(Product(name=f"{tiles.key}.{encoder}.h5ad", recipe=recipe, write=write))
    size = vector_bytes(tiles, encoders) + ROW_BYTES * len(tiles) * len(encoders)
    return Products(files=tuple(files), size_bytes=size, notes=left_out(tiles, encoders))


def spatialdata_products(tiles: StoredFeatures, options: ExchangeOptions) -> Products:
    """Return one SpatialData store: tissues and tiles as shapes, a table an encoder."""
    encoders, outline = options.chosen(tiles), _outline(tiles)
    tissues = _tissues(tiles, outline)
    recipe = recipe_digest(tiles, options, encoders, [polygon.wkt for polygon in tissues])
    write = partial(write_spatialdata, tiles=tiles, encoders=encoders, recipe=recipe, tissues=tissues)
    product = Product(
        name=f"{tiles.key}.spatialdata.zarr", recipe=recipe, write=write, recipe_of=spatialdata_recipe, is_store=True
    )
    size = vector_bytes(tiles, encoders) + (ROW_BYTES * len(encoders) + SHAPE_BYTES) * len(tiles)
    return Products(files=(product,), size_bytes=size, notes=left_out(tiles, encoders))


def geojson_products(tiles: StoredFeatures, options: ExchangeOptions) -> Products:
    """Return one GeoJSON of QuPath tiles, coloured by a value where one is wanted."""
    names = (options.value,) if options.value is not None else tuple(name for name in SCALARS if tiles.has(name))
    recipe = recipe_digest(tiles, options, options.value)
    notes: tuple[str, ...] = ()
    if options.value is not None:
        low, high = _range(tiles.values(options.value))
        notes = (f"colours go from {low:.4g} (dark) to {high:.4g} (bright) of `{options.value}`",)
    write = partial(_write_geojson, tiles=tiles, recipe=recipe, names=names, is_coloured=options.value is not None)
    product = Product(name=f"{tiles.key}.tiles.geojson", recipe=recipe, write=write, recipe_of=qupath_recipe)
    size = (FEATURE_BYTES + MEASUREMENT_BYTES * len(names)) * len(tiles)
    return Products(files=(product,), size_bytes=size, notes=notes)


def parquet_products(tiles: StoredFeatures, options: ExchangeOptions) -> Products:
    """Return one Parquet file, for scenes GeoParquet where it is wanted."""
    encoders, is_geo = options.chosen(tiles), options.to == "geoparquet"
    if is_geo:
        require_place(tiles)
    recipe = recipe_digest(tiles, options, encoders)
    write = partial(write_parquet, tiles=tiles, encoders=encoders, recipe=recipe, geo=is_geo)
    ending = ".geo.parquet" if is_geo else ".tiles.parquet"
    product = Product(name=f"{tiles.key}{ending}", recipe=recipe, write=write, recipe_of=parquet_recipe)
    size = vector_bytes(tiles, encoders) + (ROW_BYTES + (SHAPE_BYTES if is_geo else 0)) * len(tiles)
    return Products(files=(product,), size_bytes=size)


def _write_geojson(path: Path, tiles: StoredFeatures, recipe: str, names: tuple[str, ...], is_coloured: bool) -> None:
    measurements = {name: tiles.values(name) for name in names}
    about: dict[str, Any] = {"recipe": recipe}
    colours = None
    if is_coloured:
        (name,) = names
        low, high = _range(measurements[name])
        about |= {"value": name, "low": low, "high": high}
        colours = heat_rgba(measurements[name].astype(np.float32), low, high)
    write_qupath(path, tiles, about, measurements=measurements, colours=colours)


def _range(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the least and the largest value, 0 and 0 where there is none."""
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)


def _outline(tiles: StoredFeatures) -> Path:
    return tiles.folder.with_name(tiles.folder.name.removesuffix(SUFFIX) + ".tissue.geojson")


def _tissues(tiles: StoredFeatures, outline: Path) -> tuple[shapely.Polygon, ...]:
    """Return the outlines that `embed` wrote beside a store, in pixels of level 0; none where there is no such file."""
    if not outline.exists():
        return ()
    y, x = (tiles.image.get("content_yxhw") or (0, 0))[:2]
    features = json.loads(outline.read_text(encoding="utf-8"))["features"]
    parts = shapely.get_parts([shapely.geometry.shape(feature["geometry"]) for feature in features])
    moved = shapely.transform(parts, lambda xy: xy + np.array([x, y]))
    return tuple(part for part in moved if isinstance(part, shapely.Polygon))
