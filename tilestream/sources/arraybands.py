"""An xarray Dataset with a variable for each band, as odc-stac and rioxarray give scenes, as one array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from tilestream.errors import ConfigError
from tilestream.sources.samples import C_NAMES, X_NAMES, Y_NAMES
from tilestream.types import Channel

LAZY_PX = 1024
"""Edge of a block of a variable that is read when asked and says nothing of its own chunks."""
FILLS = ("_FillValue", "nodata", "missing_value")
"""Attributes that name the value of pixels that were not measured."""


@dataclass(frozen=True, kw_only=True)
class StackedBands:
    """The bands of a scene as one array."""

    array: xr.DataArray
    """With the axis `band`, whose labels are the names of the variables."""
    channels: tuple[Channel, ...]
    """Their names, factors and offsets."""
    notes: tuple[str, ...] = ()
    """What is in the dataset and is no band."""


def stack_bands(dataset: xr.Dataset) -> StackedBands:
    """Return the bands of a dataset as one array; nothing is computed.

    Parameters
    ----------
    dataset : Dataset
        Variables on the same y, x and other axes; class layers (CF `flag_values`) and what has no y and x are no bands.

    Returns
    -------
    StackedBands
        Of the common type of the bands.

    Raises
    ------
    ConfigError
        When there is no band, or bands differ in their axes or in their nodata.
    """
    placed = {str(name): array for name, array in dataset.data_vars.items() if _is_placed(array)}
    bands = {name: _flat(array) for name, array in placed.items() if not is_classes(array)}
    if not bands:
        raise ConfigError.of(
            "`dataset`",
            got=f"variables {[str(name) for name in dataset.data_vars]}",
            expected="numbers on axes y and x",
            do="Give the variable that is the image.",
        )
    _need_same("axes", {name: array.dims for name, array in bands.items()})
    _need_same("nodata", {name: nodata_of(array) for name, array in bands.items()})
    classes = [name for name in placed if name not in bands]
    first = next(iter(bands.values()))
    whole = xr.Dataset(bands)
    lazy = {axis: LAZY_PX if axis in first.dims[-2:] else 1 for axis in first.dims}
    if any(array.chunks is None and not array.variable._in_memory for array in bands.values()):
        whole = whole.chunk(lazy)  # stacking would read what is read when asked
    array = whole.to_dataarray("band")
    array.attrs = {**dataset.attrs, **_shared([band.attrs for band in bands.values()])}
    array.encoding = _shared([band.encoding for band in bands.values()])
    channels = tuple(
        Channel(
            name=name,
            scale=float(band.attrs.get("scale_factor", 1.0)),
            offset=float(band.attrs.get("add_offset", 0.0)),
        )
        for name, band in bands.items()
    )
    notes = (f"not channels (class or quality layers): {', '.join(classes)}",) if classes else ()
    return StackedBands(array=array, channels=channels, notes=notes)


def is_classes(array: xr.DataArray) -> bool:
    """Return whether an array holds class numbers, by the CF rule (`flag_values`, `flag_meanings`)."""
    return ("flag_values" in array.attrs or "flag_meanings" in array.attrs) and array.dtype.kind in "bui"


def nodata_of(array: xr.DataArray) -> float | None:
    """Return the value of pixels that were not measured, None where nothing names one.

    Parameters
    ----------
    array : DataArray
        Its attributes and encoding are looked at.

    Returns
    -------
    float or None
        NaN where xarray has turned the value into that.
    """
    for place in (array.attrs, array.encoding):
        for name in FILLS:
            if place.get(name) is not None and np.isscalar(place[name]):
                # a fill value that stands in the encoding only was turned into NaN when xarray decoded the array
                decoded = place is array.encoding and array.dtype.kind == "f"
                return float("nan") if decoded else float(place[name])
    return None


def _is_placed(array: xr.DataArray) -> bool:
    names = {str(dim).lower() for dim in array.dims}
    return bool(names & set(Y_NAMES)) and bool(names & set(X_NAMES)) and array.dtype.kind in "buif"


def _flat(array: xr.DataArray) -> xr.DataArray:
    """Return the array without the axis of one band that rioxarray gives each file."""
    single = [dim for dim in array.dims if str(dim).lower() in C_NAMES and array.sizes[dim] == 1]
    return array.squeeze(single, drop=True)


def _need_same(what: str, found: Mapping[str, Any]) -> None:
    if len({repr(value) for value in found.values()}) > 1:
        raise ConfigError.of(
            "bands of the dataset",
            got=f"different {what}: {dict(found)}",
            expected="the same for all",
            do="Choose bands that have the same, or bring them to it first.",
        )


def _shared(places: list[dict[Any, Any]]) -> dict[Any, Any]:
    """Return what all bands say alike."""
    first, *rest = places
    return {key: value for key, value in first.items() if all(repr(other.get(key)) == repr(value) for other in rest)}
