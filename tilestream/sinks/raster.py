"""A variable of a feature store as a small multiscale raster aligned to the source: one cell a tile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from tilestream.codecs.metadata import NAN_FILL_ATTRIBUTE, Layout, array_metadata, inner_codecs, is_fill, shard_layout
from tilestream.codecs.shards import ShardWriter
from tilestream.errors import ConfigError, OutputError
from tilestream.sinks.facts import stored_cells
from tilestream.sinks.ome import (
    CellGrid,
    Factor,
    geo_attributes,
    grid_mapping_attributes,
    ome_attributes,
    ome_channel,
    place_attributes,
    tuple_yx,
)
from tilestream.sinks.rows import RowArray
from tilestream.sinks.tree import OWNER, TreeWriter, check_replaceable, remove_leftovers, root_attributes
from tilestream.types import Shape

FORMAT = 1
"""Version of the layout of the store."""
CHUNK_PX = 256
"""Edge of a chunk; a power of two, which viewers ask for. Levels end when they fit into one."""
MAX_LEVELS = 16
_NAMES = tuple(str(level) for level in range(MAX_LEVELS))
_NAN = float("nan")
_METHOD = "Mean of those of the four finer cells that have a value"
_ROWS = 1 << 18


def build_raster(
    features: Path, root: Path, *, variable: str = "entropy", output: str | None = None, replace: bool = False
) -> None:
    """Write the raster of one variable of a finished feature store, committed by one rename.

    It may be killed at any moment and called again; when the raster of these features is there, nothing is done.

    Parameters
    ----------
    features : Path
        Finished feature store.
    root : Path
        Final place, `OUT/<relative path>.entropy.zarr`.
    variable : str
        Variable of group `tile`.
    output : str, optional
        One of the encoder's outputs, where the variable holds vectors.
    replace : bool
        Whether a raster of other features of ours may be replaced.

    Raises
    ------
    OutputError
        When the features cannot be read, or the place cannot be written or is taken.
    ConfigError
        When there is no such variable.

    Notes
    -----
    Memory is 4 bytes a cell and the same again for the coarser levels: 6 MB for 10^11 pixels in tiles of 256.
    """
    source = root_attributes(features)
    if source is None or OWNER not in source:
        raise OutputError.of(
            f"`{features}`", got="no feature store", expected="a finished one", do="Run `tilestream embed` first."
        )
    owner = {
        **{key: source[OWNER][key] for key in ("version", "recipe_digest", "content")},
        "store": "raster",
        "format": FORMAT,
        "variable": variable if output is None else f"{variable}/{output}",
    }
    if (root_attributes(root) or {}).get(OWNER) == owner:
        remove_leftovers(root, names=_NAMES)
        return
    cells = _read_cells(features, source["plan"], variable, output)
    grid = cell_grid(source, Shape(y=cells.shape[0], x=cells.shape[1]))
    write_raster(root, cells, grid, name=output or variable, owner=owner, replace=replace)


def write_raster(
    root: Path,
    cells: npt.NDArray[np.float32],
    grid: CellGrid,
    *,
    name: str,
    owner: dict[str, Any],
    replace: bool = False,
) -> None:
    """Write cells over an image as a multiscale raster, committed by one rename.

    Parameters
    ----------
    root : Path
        Final place.
    cells : ndarray of float32
        `(y, x)`, NaN where there is no value.
    grid : CellGrid
        Where they lie.
    name : str
        What they are.
    owner : dict
        JSON values: what the store was made of.
    replace : bool
        Whether another store of ours may be replaced.

    Raises
    ------
    OutputError
        When the place cannot be written or is taken.
    """
    if root.exists():
        check_replaceable(root, replace=replace)
    levels = list(_halve(cells))
    factors = [(float(2**n), float(2**n)) for n in range(len(levels))]
    shapes = [Shape(y=a.shape[0], x=a.shape[1]) for a in levels]
    tree = TreeWriter(root, names=_NAMES)
    for number, values in enumerate(levels):
        _write_level(tree, str(number), values, grid=grid, factor=factors[number])
    attributes = {
        OWNER: owner,
        "ome": ome_attributes(
            name, grid, factors, channels=[ome_channel(name, window=_window(cells))], method=("mean", _METHOD)
        ),
        **geo_attributes(grid, shapes, factors),
    }
    tree.commit(attributes, replace=replace)


def cell_grid(attributes: dict[str, Any], shape: Shape) -> CellGrid:
    """Return where the cells of the plan of a feature store lie.

    Parameters
    ----------
    attributes : dict
        Root attributes of the store.
    shape : Shape
        Cells along each axis.

    Returns
    -------
    CellGrid
        A cell is as large as the step between tiles and has the tile's centre.
    """
    plan, image = attributes["plan"], attributes["image"]
    step_px, scale_yx = plan["step_px"], plan["scale_yx"]
    margin_px = (plan["tile_px"] - step_px) / 2
    mpp_yx = plan["mpp_yx"]
    return CellGrid(
        shape=shape,
        size_yx=tuple_yx(step_px * scale for scale in scale_yx),
        corner_yx=tuple_yx((at + margin_px) * scale for at, scale in zip(plan["origin_yx"], scale_yx, strict=True)),
        mpp_yx=None if mpp_yx is None else tuple_yx(m / s for m, s in zip(mpp_yx, scale_yx, strict=True)),
        crs=image["crs"],
        affine=None if image["affine"] is None else tuple(image["affine"]),
    )


def _read_cells(features: Path, plan: dict[str, Any], variable: str, output: str | None) -> npt.NDArray[np.float32]:
    group = zarr.open_group(features, mode="r")["tile"]
    if not isinstance(group, zarr.Group) or variable not in group:
        raise ConfigError.of(
            f"variable `{variable}`",
            got="nothing of that name",
            expected=f"a variable of `{features}`",
            do="Correct it.",
        )
    column: int | None = None
    if output is not None:
        names = [str(name) for name in _array(group, f"feature_{variable}")[:]]
        if output not in names:
            raise ConfigError.of(
                f"output `{output}`", got="no such output", expected=f"one of {names}", do="Correct it."
            )
        column = names.index(output)
    cells = np.full(plan["grid_yx"], np.nan, np.float32)
    values, at_y, at_x, sizes = (_array(group, name) for name in (variable, "y", "x", "size"))
    scale = np.array(plan["scale_yx"])
    finest_px = plan["tile_px"] * float(scale.prod()) ** 0.5
    for start in range(0, values.shape[0], _ROWS):
        rows = slice(start, start + _ROWS)
        corner_yx = np.stack([at_y[rows], at_x[rows]], axis=1) / scale
        found = values[rows] if column is None else values[rows, column]
        iy, ix = stored_cells(corner_yx, plan).T
        if plan.get("depths"):
            _paint(cells, (iy, ix), np.rint(sizes[rows] / finest_px).astype(np.int64), found)
        else:
            cells[iy, ix] = found
    return cells


def _paint(
    cells: npt.NDArray[np.float32],
    at_yx: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    edges: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
) -> None:
    """Fill the square of each token, whose edge is a number of cells; coarse ones come first, and finer ones cover."""
    for y, x, edge, value in zip(*(each.tolist() for each in (*at_yx, edges, values)), strict=True):
        cells[y : y + edge, x : x + edge] = value


def _array(group: zarr.Group, name: str) -> Any:
    return group[name]


def _halve(cells: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the cells and coarser levels of them until one fits into a chunk."""
    yield cells
    while max(cells.shape) > CHUNK_PX:
        odd_y, odd_x = cells.shape[0] % 2, cells.shape[1] % 2
        even = np.pad(cells, ((0, odd_y), (0, odd_x)), constant_values=np.nan).astype(np.float64)
        four = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2)
        known = np.isfinite(four)
        count = known.sum(axis=(1, 3))
        total = np.where(known, four, 0.0).sum(axis=(1, 3))
        cells = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
        yield cells


def _window(cells: npt.NDArray[np.float32]) -> tuple[float, float]:
    known = cells[np.isfinite(cells)]
    low, high = (min(0.0, float(known.min())), float(known.max())) if known.size else (0.0, 1.0)
    return low, high if high > low else low + 1.0


def _write_level(
    tree: TreeWriter, name: str, values: npt.NDArray[np.float32], *, grid: CellGrid, factor: Factor
) -> None:
    shape = Shape(y=values.shape[0], x=values.shape[1])
    place = place_attributes(grid, shape, factor)
    tree.group(name, place)
    attributes: dict[str, Any] = {"_FillValue": NAN_FILL_ATTRIBUTE, **place}
    if grid.is_placed:
        attributes |= {"grid_mapping": "spatial_ref"}
        layout = Layout(grid_shape=(), codecs=tuple(inner_codecs(np.dtype("int64"))))
        mapping = grid_mapping_attributes(grid, factor)
        tree.array(
            f"{name}/spatial_ref", array_metadata((), "int64", layout=layout, dimension_names=(), attributes=mapping)
        )
    tree.array(f"{name}/image", _write_image(tree.partial / name / "image", values, attributes))
    _write_coordinates(tree, name, shape, grid=grid, factor=factor)


def _write_image(path: Path, values: npt.NDArray[np.float32], attributes: dict[str, Any]) -> dict[str, Any]:
    shape, dtype = (1, *values.shape), np.dtype("float32")
    chunk_shape = (1, CHUNK_PX, CHUNK_PX)
    counts = [max(1, -(-size // chunk)) for size, chunk in zip(shape, chunk_shape, strict=True)]
    with ShardWriter(path / "c" / "0" / "0" / "0", chunk_shape=chunk_shape, dtype=dtype) as shard:
        for _, iy, ix in np.ndindex(*counts):
            chunk = np.full(chunk_shape, np.nan, dtype)
            y, x = iy * CHUNK_PX, ix * CHUNK_PX
            part = values[y : y + CHUNK_PX, x : x + CHUNK_PX]
            chunk[0, : part.shape[0], : part.shape[1]] = part
            if is_fill(chunk, _NAN):
                shard.append_missing()
            else:
                shard.append(chunk)
    layout = shard_layout(dtype, chunk_shape, counts=counts)
    return array_metadata(
        shape, dtype, layout=layout, dimension_names=("c", "y", "x"), fill_value=_NAN, attributes=attributes
    )


def _write_coordinates(tree: TreeWriter, name: str, shape: Shape, *, grid: CellGrid, factor: Factor) -> None:
    """Add the centres of rows and columns, which a rotated image does not have in its CRS."""
    transform = grid.transform(factor)
    if grid.is_placed and (transform[1] or transform[3]):
        return
    for axis, size in (("y", shape.y), ("x", shape.x)):
        number = "yx".index(axis)
        if grid.is_placed:
            first, step = (transform[5], transform[4]) if axis == "y" else (transform[2], transform[0])
            centres = first + (np.arange(size) + 0.5) * step
        else:
            centres = grid.translation_yx(factor)[number] + np.arange(size) * grid.scale_yx(factor)[number]
        unit = grid.unit or (None if grid.is_placed else "px")
        attributes: dict[str, Any] = {"axis": axis.upper(), **({} if unit is None else {"units": unit})}
        with RowArray(tree.partial / name / axis, "float64", fill_value=_NAN) as array:
            array.append(centres)
            tree.array(f"{name}/{axis}", array.close((axis,), attributes))
