"""Feature stores as SpatialData, laid out as LazySlide and wsidata do: tissues and tiles as shapes, a table an encoder.

The package `spatialdata` is not used: it caps Dask below the version that we need. What is written is its container
version 0.2 (shapes 0.3, tables 0.2), in Zarr v3.

References
----------
SpatialData: `_io/format.py`, `_io/io_shapes.py`, `_io/io_table.py`. wsidata: `io/_elems.py`, `_model/core.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from tilestream.codecs.durable import durable_path
from tilestream.codecs.metadata import Layout, array_metadata
from tilestream.sinks.anndatafile import TILES, Table, encoding, table_attributes
from tilestream.sinks.featureread import StoredFeatures
from tilestream.sinks.rows import RowArray, write_texts
from tilestream.sinks.tileparquet import arrow_parquet
from tilestream.sinks.tree import OWNER, TreeWriter, root_attributes
from tilestream.types import Array

TISSUES = "tissues"
NO_TISSUE = -1
"""`tissue_id` of a tile whose centre lies in no tissue, or of all where none is known."""
TRIED = "0.7.3"
"""Version of `spatialdata` with which such stores were opened and written again."""
_VERSIONS = {"container": "0.2", "shapes": "0.3", "table": "0.2"}


def write_spatialdata(
    path: Path,
    tiles: StoredFeatures,
    encoders: tuple[str, ...],
    recipe: str,
    *,
    tissues: Sequence[shapely.Polygon] = (),
    replace: bool = False,
) -> None:
    """Write one slide as a SpatialData store, committed by one rename.

    Parameters
    ----------
    path : Path
        Final place of the store.
    tiles : StoredFeatures
        The slide.
    encoders : tuple of str
        Whose vectors; each is a table `<encoder>_tiles`.
    recipe : str
        Digest by which the store is known again.
    tissues : sequence of Polygon
        Outlines in pixels of level 0, where they are known.
    replace : bool
        Whether an older store of ours may be replaced.

    Raises
    ------
    OutputError
        When the place cannot be written, or is taken.
    ConfigError
        When pyarrow is not installed.
    """
    tree = TreeWriter(path, names=("shapes", "tables"))
    tree.group("shapes")
    tree.group("tables")
    xy, sizes = tiles.xy(), tiles.sizes_yx()[:, ::-1]
    centres = xy + sizes / 2
    columns: dict[str, Any] = {
        "tile_id": np.arange(len(tiles)),
        "x": xy[:, 0],
        "y": xy[:, 1],
        "tissue_id": _tissue_of(centres, tissues),
        "status": tiles.read("status"),
    }
    boxes = np.asarray(shapely.box(*xy.T, *(xy + sizes).T), np.object_)
    _put_shapes(tree, TILES, columns, boxes)
    if tissues:
        _put_shapes(tree, TISSUES, {"tissue_id": np.arange(len(tissues))}, np.asarray(tissues, np.object_))
    attributes = {
        "spatialdata-encoding-type": "ngff:regions_table",
        "version": _VERSIONS["table"],
        **table_attributes(),
    }
    for encoder in encoders:
        Table(tiles=tiles, encoder=encoder).put(_Zarr(tree), f"tables/{encoder}_{TILES}", attributes)
    tree.commit(_root(tiles, recipe, has_tissues=bool(tissues)), replace=replace)


def spatialdata_recipe(path: Path) -> str | None:
    """Return the digest of the recipe of a store of ours, None for anything else."""
    owner = (root_attributes(path) or {}).get(OWNER)
    found = owner.get("recipe") if isinstance(owner, dict) else None
    return found if isinstance(found, str) else None


def _root(tiles: StoredFeatures, recipe: str, *, has_tissues: bool) -> dict[str, Any]:
    plan, image = tiles.plan, tiles.image
    (height, width), stored = tiles.size_yx, int(plan["level"])
    levels = image["levels_yx"]
    step = plan["step_px"] / plan["tile_px"]
    downsamples = [image["shape_yx"][0] / level[0] for level in levels]
    ratio_y, _ = (_number(text) for text in plan["ratio_yx"])
    spec = {
        "height": plan["tile_px"],
        "width": plan["tile_px"],
        "stride_height": plan["step_px"],
        "stride_width": plan["step_px"],
        "mpp": tiles.plan_mpp,
        "ops_level": stored,
        "ops_downsample": ratio_y,
        "base_level": 0,
        "base_downsample": height / plan["tile_px"],
        "base_height": height,
        "base_width": width,
        "base_stride_height": height * step,
        "base_stride_width": width * step,
        "tissue_name": TISSUES if has_tissues else None,
    }
    properties = {
        "shape": list(image["shape_yx"]),
        "mpp": tiles.mpp,
        "n_level": len(levels),
        "level_shape": [list(level) for level in levels],
        "level_downsample": downsamples,
    }
    return {
        OWNER: {"store": "spatialdata", "recipe": recipe},
        # the software is the one whose readers open it, as far as that was tried
        "spatialdata_attrs": {"version": _VERSIONS["container"], "spatialdata_software_version": TRIED},
        "tile_spec": {} if tiles.is_mixed else {TILES: spec},  # readers take it for that of every tile
        "slide_properties": properties,
    }


def _number(text: str) -> float:
    top, _, bottom = text.partition("/")
    return int(top) / int(bottom or 1)


def _tissue_of(centres: npt.NDArray[np.float64], tissues: Sequence[shapely.Polygon]) -> npt.NDArray[np.int64]:
    """Return the number of the outline that each centre lies in."""
    found = np.full(len(centres), NO_TISSUE, np.int64)
    if tissues and len(centres):
        at, number = shapely.STRtree(np.asarray(tissues, np.object_)).query(shapely.points(centres), predicate="within")
        found[at[::-1]] = number[::-1]
    return found


def _put_shapes(tree: TreeWriter, name: str, columns: Mapping[str, Any], geometries: npt.NDArray[np.object_]) -> None:
    arrow, parquet = arrow_parquet()
    space = [{"name": axis, "type": "space", "unit": "unit"} for axis in "xy"]
    identity = {
        "type": "identity",
        "input": {"name": "xy", "axes": space},
        "output": {"name": "global", "axes": space},
    }
    tree.group(
        f"shapes/{name}",
        {
            "encoding-type": "ngff:shapes",
            "axes": ["x", "y"],
            "coordinateTransformations": [identity],
            "spatialdata_attrs": {"version": _VERSIONS["shapes"]},
        },
    )
    geometry: dict[str, Any] = {"encoding": "WKB", "crs": None, "geometry_types": ["Polygon"]}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    table = arrow.table({**columns, "geometry": arrow.array(shapely.to_wkb(geometries).tolist(), arrow.binary())})
    with durable_path(tree.partial / "shapes" / name / "shapes.parquet") as path:
        parquet.write_table(table.replace_schema_metadata({b"geo": json.dumps(geo).encode()}), path)


class _Zarr:
    """Nodes of a store in the making."""

    def __init__(self, tree: TreeWriter) -> None:
        self._tree = tree

    def group(self, path: str, attributes: Mapping[str, Any]) -> None:
        self._tree.group(path, attributes)

    def rows(self, path: str, pieces: Iterable[Array], *, rows: int, row_shape: tuple[int, ...], dtype: str) -> None:
        fill = float("nan") if np.dtype(dtype).kind == "f" else 0
        with RowArray(self._tree.partial / path, dtype, row_shape=row_shape, fill_value=fill) as array:
            for piece in pieces:
                array.append(piece)
            names = (f"{path}_rows", *(f"{path}_{axis}" for axis in range(len(row_shape))))
            self._tree.array(path, array.close(names, encoding("array", "0.2.0")))

    def texts(self, path: str, texts: Sequence[str]) -> None:
        metadata = write_texts(self._tree.partial / path, list(texts), f"{path}_rows")
        self._tree.array(path, metadata | {"attributes": encoding("string-array", "0.2.0")})

    def text(self, path: str, text: str) -> None:
        layout = Layout(grid_shape=(), codecs=({"name": "vlen-utf8", "configuration": {}},))
        attributes = encoding("string", "0.2.0")
        # the one value of a scalar is its fill value: no file besides the metadata
        self._tree.array(
            path,
            array_metadata((), "string", layout=layout, dimension_names=(), fill_value=text, attributes=attributes),
        )
