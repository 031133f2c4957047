"""An image as xarray sees it: a tree with one dataset a level, nothing read."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing
from xarray.indexes import PandasIndex

from tilestream.errors import DamagedError, SourceError
from tilestream.kernels.checks import need_kind
from tilestream.pyramid.pyramid import OPEN_FIRST, Pyramid
from tilestream.types import PlanLevel
from tilestream.xr.coding import coding_of, flags_of
from tilestream.xr.index import PixelGridIndex
from tilestream.xr.lazy import AssociatedArray, LevelArray, View, chunk_of
from tilestream.xr.link import StoredVariable
from tilestream.xr.place import Place, place_of

DIMS = ("c", "y", "x")
"""Axes of an image."""


def to_datatree(pyr: Pyramid, *, mask_and_scale: bool = True) -> xr.DataTree:
    """Return an image as a lazy tree: a dataset with the variable `image` for each level; no pixel is read.

    Parameters
    ----------
    pyr : Pyramid
        Any image: what `ts.open_pyramid` returns.
    mask_and_scale : bool
        Whether nodata becomes NaN, and factor and offset of the product are applied where all channels have the same,
        as xarray does with every file. False keeps samples as they are stored.

    Returns
    -------
    DataTree
        Root attributes that describe the image; children `0`, `1` … with `image` (c, y, x), coordinates of pixel
        centres in µm or in units of the CRS, `spatial_ref`, `valid` (y, x) where something beside the samples says
        what was measured, and class layers (`SCL`) with their meanings; associated images that cannot identify a
        patient under `associated`.

    Notes
    -----
    The tree pickles to a few kB and can be used on any Dask cluster that reaches the file. `.chunk()` it, or open it by
    `xr.open_datatree(url, engine="tilestream", chunks={})`, for parallel work.
    """
    need_kind("to_datatree", "pyr", pyr, Pyramid, do=OPEN_FIRST)
    return xr.DataTree.from_dict(to_datasets(pyr, mask_and_scale=mask_and_scale))


def to_datasets(pyr: Pyramid, *, mask_and_scale: bool = True) -> dict[str, xr.Dataset]:
    """Return the datasets of an image's tree by their path.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    mask_and_scale : bool
        See `to_datatree`.

    Returns
    -------
    dict
        The root, the levels and the associated images.
    """
    attrs = image_attrs(pyr)
    found: dict[str, xr.Dataset] = {}
    for level in pyr.levels:
        own = stored_level(pyr, level.index)
        found[f"/{level.index}"] = level_dataset(pyr, own, mask_and_scale=mask_and_scale)
    for name in pyr.associated:
        try:
            found[f"/associated/{name}"] = _associated(pyr, name)
        except (DamagedError, SourceError) as error:  # it must not cost the image
            attrs["notes"] = [*attrs.get("notes", []), f"associated image {name}: {error}"]
    root = xr.Dataset(attrs=attrs)
    root.encoding = {"source": pyr.address} if pyr.address else {}
    return {"/": root, **found}


def stored_level(pyr: Pyramid, index: int) -> PlanLevel:
    """Return a stored level as the level of a plan.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    index : int
        Its number.

    Returns
    -------
    PlanLevel
        Nothing is resampled.
    """
    level = pyr.levels[index]
    return PlanLevel(stored=index, ratio_yx=(Fraction(1), Fraction(1)), shape=level.shape, scale_yx=level.scale_yx)


def level_dataset(pyr: Pyramid, level: PlanLevel, *, mask_and_scale: bool = True) -> xr.Dataset:
    """Return one level as a dataset; no pixel is read.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    level : PlanLevel
        Stored or virtual level.
    mask_and_scale : bool
        See `to_datatree`.

    Returns
    -------
    Dataset
        `image`; where something beside the samples says what was measured, `valid`; class layers under their names.
    """
    view, place = View(pyramid=pyr, level=level), place_of(pyr.info, level)
    coding, attrs = coding_of(pyr)
    encoding: dict[str, Any] = {"source": pyr.address} if pyr.address else {}
    shared = dict(encoding)
    if place.grid_mapping is not None:
        shared["grid_mapping"] = "spatial_ref"
    array = LevelArray(view, decoding=coding if mask_and_scale else None)
    chunk = chunk_of(view, len(pyr.channels) * array.dtype.itemsize)
    chunks = dict(zip(DIMS, (len(pyr.channels), *chunk.yx), strict=True))
    decoded = {**coding, "dtype": pyr.dtype} if mask_and_scale and coding else {}
    image = _lazy(array, attrs if decoded else {**attrs, **coding}, {**shared, **decoded, "preferred_chunks": chunks})
    variables = {"image": image}
    if pyr.info.validity == "mask":
        said = {"long_name": "whether the pixel was measured"}
        variables["valid"] = _lazy(
            LevelArray(view, what="valid"), said, {**shared, "preferred_chunks": {"y": chunk.y, "x": chunk.x}}
        )
    for band in pyr.info.classes:
        layer = View(pyramid=pyr.classes(band.name), level=level, image=pyr.fingerprint)
        chunked = {**shared, "preferred_chunks": {"y": chunk.y, "x": chunk.x}}
        variables[band.name] = _lazy(LevelArray(layer, what="classes"), flags_of(band, layer.pyramid.dtype), chunked)
    dataset = xr.Dataset(variables, coords=coords_of(pyr, place), attrs=_level_attrs(pyr, level))
    dataset.encoding = encoding
    return dataset


def image_attrs(pyr: Pyramid) -> dict[str, Any]:
    """Return what is known of an image as attributes that any store can hold.

    Parameters
    ----------
    pyr : Pyramid
        The image.

    Returns
    -------
    dict
        Only what is known.
    """
    info = pyr.info
    extra = {axis: size for axis, size in info.axes.items() if axis not in DIMS}
    known: dict[str, Any] = {
        "source": pyr.address,
        "fingerprint": info.fingerprint,
        "format": info.format,
        "kind": info.kind,
        "modality": info.modality,
        "mpp": info.mpp,
        "gsd_m": pyr.gsd_m,
        "crs": info.crs,
        "datetime": info.datetime,
        "derived": list(info.derived),
        "axes": ", ".join(f"{axis} {size}" for axis, size in extra.items()),
        "selection": "&".join(f"{axis}={index}" for axis, index in info.selection.items()),
        "notes": list(info.notes),
    }
    return {name: value for name, value in known.items() if value not in (None, "", [])}


def _level_attrs(pyr: Pyramid, level: PlanLevel) -> dict[str, Any]:
    attrs: dict[str, Any] = {"level": level.stored} if level.is_stored else {}
    attrs["scale_yx"] = list(level.scale_yx)
    if pyr.info.mpp_yx is not None:
        attrs["mpp_yx"] = [mpp * scale for mpp, scale in zip(pyr.info.mpp_yx, level.scale_yx, strict=True)]
    return attrs


def _lazy(array: LevelArray, attrs: Mapping[str, Any], encoding: Mapping[str, Any]) -> xr.Variable:
    data = indexing.LazilyIndexedArray(array)
    return StoredVariable(DIMS[-len(array.shape) :], data, attrs=attrs, encoding=encoding)


def coords_of(pyr: Pyramid, place: Place) -> xr.Coordinates:
    """Return the coordinates of one level: channel names, lazy pixel centres, and the CRS.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    place : Place
        Where its pixels lie.

    Returns
    -------
    Coordinates
        With the index of each.
    """
    names: xr.Index = PandasIndex(np.array([channel.name for channel in pyr.channels]), "c")
    variables, indexes = dict(names.create_variables()), {"c": names}
    if place.grid_mapping is not None:
        variables["spatial_ref"] = xr.Variable((), np.int64(0), dict(place.grid_mapping))
    for dim, grid, attrs in (("y", place.y, place.y_attrs), ("x", place.x, place.x_attrs)):
        if grid is not None:
            indexes[dim] = PixelGridIndex(grid, dim=dim)
            variables |= indexes[dim].create_variables()
            variables[dim].attrs.update(attrs)
    return xr.Coordinates(variables, indexes=indexes)


def _associated(pyr: Pyramid, name: str) -> xr.Dataset:
    array = AssociatedArray(pyr, name)
    names = {1: ["grey"], 3: ["R", "G", "B"], 4: ["R", "G", "B", "A"]}.get(array.shape[0])
    return xr.Dataset(
        {"image": (DIMS, indexing.LazilyIndexedArray(array))},
        coords={} if names is None else {"c": names},
        attrs={"associated": name},
    )
