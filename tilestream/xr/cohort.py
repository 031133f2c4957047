"""Many slides as one lazy xarray dataset: their tiles one after the other, and what is known of each slide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing
from xarray.indexes import PandasIndex

from tilestream.errors import ConfigError
from tilestream.sinks.catalogue import Catalogue, Given
from tilestream.sinks.features import SCALARS
from tilestream.sinks.storerecord import SUFFIX, FeatureSet, StoreRecord
from tilestream.sinks.tables import CHAIN_POOLING, STATUS_ATTRIBUTES, chain_dimension, feature_dimension
from tilestream.types import Array
from tilestream.xr.cohortindex import DATE, SLIDE, TILE, TOLD, CohortFacts, CohortIndex
from tilestream.xr.shelf import Shelf, SlideNumbers, TileArray

RESERVED = frozenset(
    {SLIDE, TILE, DATE, "label", "id", "crs", "x", "y", "crs_x", "crs_y", "slide_of_tile", "slide_number", "status"}
    | {"n", "n_ok", "mpp", "plan_mpp", "size", "height", "width", "format", "path", *SCALARS}
    | {"relevance", "opened", "level"}
)
"""Names of a cohort's variables; a manifest's columns of these names are called `manifest_<name>`."""


_OF_TOKENS: dict[str, tuple[str, dict[str, Any]]] = {
    "size": ("float64", {"units": "px", "long_name": "edge of the core, level 0"}),
    "level": ("int16", {"long_name": "stored level that was read"}),
    "relevance": ("float32", {"long_name": "what decided whether finer tiles were read here"}),
    "opened": ("uint8", {"long_name": "1 where finer tokens have taken its place"}),
}
"""What tiles have besides where a budget has decided what was read; `size` is then of each tile, not of the slide."""


def cohort_dataset(root: Path, catalogue: Catalogue, digest: str) -> xr.Dataset:
    """Return the slides that have a feature set as one dataset; no row is read.

    Parameters
    ----------
    root : Path
        Folder of the stores.
    catalogue : Catalogue
        What lies there.
    digest : str
        The feature set.

    Returns
    -------
    Dataset
        Dimensions `slide` and `tile`; see `ts.open_cohort`.
    """
    records, one = catalogue.of_set(digest), catalogue.sets[digest]
    if one.encoder in RESERVED:
        raise ConfigError.of(
            f"encoder `{one.encoder}`",
            got="the name of another variable of a cohort",
            expected="a name of its own",
            do="Rename the encoder and run `tilestream embed` again.",
        )
    shelf = Shelf(
        root=str(root),
        keys=tuple(record.key for record in records),
        contents=tuple(record.content for record in records),
        first=np.concatenate([[0], np.cumsum([record.n for record in records], dtype=np.int64)]),
    )
    given = [catalogue.given.get(record.key, Given()) for record in records]
    notes: list[str] = []
    variables = _slide_variables(records, one, catalogue) | _tile_variables(shelf, one)
    columns = {SLIDE: np.array(shelf.keys, np.str_), **_given_columns(records, given, RESERVED | {*variables}, notes)}
    has_crs = all(record.crs is not None for record in records)
    if has_crs:
        columns["crs"] = np.array([record.crs for record in records], np.str_)
    facts = CohortFacts(
        shelf=shelf,
        columns=columns,
        size_yx=np.array([record.size_yx for record in records], np.float64),
        is_mixed=one.is_mixed,
        crs=tuple(record.crs for record in records),
    )
    coords = _coordinates(facts, one, has_crs=has_crs)
    versions = sorted({record.version for record in records})
    if len(versions) > 1:
        notes.append(f"written by several versions of tilestream: {', '.join(versions)}")
    attrs: dict[str, Any] = {"source": str(root), "encoder": one.encoder, "features": digest[:8]}
    return xr.Dataset(variables, coords=coords, attrs=attrs | ({"notes": notes} if notes else {}))


def _given_columns(
    records: Sequence[StoreRecord], given: Sequence[Given], taken: frozenset[str], notes: list[str]
) -> dict[str, Array]:
    """Return the columns of manifests that any of the slides has; `label` and `date` always, to be asked for."""
    columns: dict[str, Array] = {}
    for name in ("label", "id"):
        values = [getattr(one, name) or "" for one in given]
        if any(values) or name in TOLD:
            columns[name] = np.array(values, np.str_)
    for name in sorted({name for one in given for name in one.extra} - {DATE}):
        own = f"manifest_{name}" if name in taken else name
        columns[own] = np.array([one.extra.get(name, "") for one in given], np.str_)
    dates = [
        _date(one.extra.get(DATE) or record.datetime, record.key, notes)
        for record, one in zip(records, given, strict=True)
    ]
    columns[DATE] = np.array(dates, "datetime64[ns]")
    return columns


def _date(text: str | None, key: str, notes: list[str]) -> np.datetime64:
    import pandas as pd

    if not text:
        return np.datetime64("NaT", "ns")
    try:
        moment = pd.Timestamp(text)
    except ValueError:
        notes.append(f"`{key}`: `{text}` is no date")
        return np.datetime64("NaT", "ns")
    moment = moment.tz_convert(None) if moment.tzinfo is not None else moment
    return np.datetime64(moment.to_datetime64(), "ns")


def _coordinates(facts: CohortFacts, one: FeatureSet, *, has_crs: bool) -> xr.Coordinates:
    shelf = facts.shelf
    dimension = feature_dimension(one.encoder)
    variables: dict[Any, xr.Variable] = {name: xr.Variable(SLIDE, values) for name, values in facts.columns.items()}
    for axis in "xy":
        attrs = {"units": "px", "long_name": f"{axis} of the core's top-left corner, level 0"}
        variables[axis] = _lazy(TileArray(shelf, axis, "float64"), attrs)
    if has_crs:
        for axis in "xy":
            attrs = {"long_name": f"{axis} of the centre in the slide's `crs`"}
            variables[f"crs_{axis}"] = _lazy(TileArray(shelf, f"crs_{axis}", "float64"), attrs)
    index = CohortIndex(facts, np.arange(len(shelf.keys)), range(len(shelf)))
    indexes: dict[Any, xr.Index] = dict.fromkeys(variables, index)
    names = PandasIndex(np.array(one.outputs, dtype=object), dimension)
    variables |= names.create_variables()
    indexes[dimension] = names
    variables["slide_of_tile"] = _lazy(SlideNumbers(shelf), {"long_name": "`slide_number` of the tile's slide"})
    variables["slide_number"] = xr.Variable(SLIDE, np.arange(len(shelf.keys)))
    return xr.Coordinates(variables, indexes=indexes)


def _tile_variables(shelf: Shelf, one: FeatureSet) -> dict[str, xr.Variable]:
    name, dim = one.encoder, len(one.outputs)
    found = {name: _lazy(TileArray(shelf, name, "float32", (dim,)), {}, feature_dimension(name))}
    for status in (f"{name}_status", "status"):
        found[status] = _lazy(TileArray(shelf, status, "uint8"), dict(STATUS_ATTRIBUTES))
    found |= {scalar: _lazy(TileArray(shelf, scalar, "float32"), {}) for scalar in SCALARS}
    if one.is_mixed:
        found |= {own: _lazy(TileArray(shelf, own, dtype), attrs) for own, (dtype, attrs) in _OF_TOKENS.items()}
    return found


def _slide_variables(records: Sequence[StoreRecord], one: FeatureSet, catalogue: Catalogue) -> dict[str, xr.Variable]:
    name, digest = one.encoder, one.digest
    columns: dict[str, tuple[Callable[[StoreRecord], Any], str, dict[str, Any]]] = {
        "n": (lambda record: record.n, "int64", {"long_name": "tiles"}),
        "n_ok": (lambda record: record.n_ok, "int64", {"long_name": "tiles that could be decoded and are not empty"}),
        f"{name}_n_ok": (lambda record: record.sets[digest], "int64", {"long_name": "tiles that have a vector"}),
        "mpp": (lambda record: record.mpp, "float64", {"units": "µm", "long_name": "size of a pixel, level 0"}),
        "plan_mpp": (lambda record: record.plan_mpp, "float64", {"units": "µm", "long_name": "pixel of a tile"}),
        "size": (
            lambda record: (record.size_yx[0] * record.size_yx[1]) ** 0.5,
            "float64",
            {"units": "px", "long_name": "edge of a tile's core, level 0"},
        ),
        "height": (lambda record: record.shape_yx[0], "int64", {"units": "px", "long_name": "height of level 0"}),
        "width": (lambda record: record.shape_yx[1], "int64", {"units": "px", "long_name": "width of level 0"}),
        "format": (lambda record: record.format, "str", {}),
        "path": (lambda record: f"{record.key}{SUFFIX}", "str", {"long_name": "store, in the folder of the cohort"}),
    }
    found = {
        own: xr.Variable(SLIDE, np.array([value(record) for record in records], dtype), attrs)
        for own, (value, dtype, attrs) in columns.items()
    }
    for statistic, table in catalogue.vectors[digest].items():
        own = chain_dimension(name, SLIDE) if statistic == CHAIN_POOLING else feature_dimension(name)
        dims = (SLIDE, own)
        found[f"{name}_{statistic}"] = xr.Variable(dims, table, {"pooling": statistic})
    return found


def _lazy(array: TileArray | SlideNumbers, attrs: dict[str, Any], *further: str) -> xr.Variable:
    return xr.Variable((TILE, *further), indexing.LazilyIndexedArray(array), attrs)
