"""Arrays that are in memory already or computed when asked for: NumPy, dask, xarray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dask
import dask.array
import dask.base
import numpy as np
import xarray as xr

from tilestream.errors import ConfigError, DamagedError
from tilestream.metrics import timed
from tilestream.sources.address import checked_index, default_notes
from tilestream.sources.arraybands import is_classes, nodata_of, stack_bands
from tilestream.sources.fingerprint import digest
from tilestream.sources.grids import Affine, grid_of
from tilestream.sources.samples import canonical_dims, default_names, extra_axes, guess_dims, masked, validity_of
from tilestream.types import Array, Block, Channel, ImageInfo, Kind, Level, Shape

BLOCK_PX = 1024
"""Edge of a block where the array has no chunks of its own."""


BAND_BYTES = 16 << 20
"""Bytes of a lazy array held at a time while it is hashed."""


@dataclass(frozen=True, kw_only=True)
class ArraySource:
    """One array as an image of one level; pickles with the array (a dask array with its graph)."""

    array: xr.DataArray
    """Axes in the given order, canonically named: `y`, `x`, `c` and the extra ones."""
    info: ImageInfo
    """Description of the selected 2-D image."""
    dates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """ISO 8601 time of each entry of an axis whose coordinate is one."""

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block:
        """Return one block, computed in this thread; pixels of nodata, or that are not finite, are not valid.

        Parameters
        ----------
        level, iy, ix : int
            Level (0), and row and column in its grid of blocks.
        out : ndarray, optional
            Not used: what is decoded here does not fit into a caller's buffer as it is.

        Returns
        -------
        Block
            Pixels `(y, x, c)`; a view where the array is in memory and everything is valid.

        Raises
        ------
        DamagedError
            When computing a lazy array fails.
        """
        block = self.info.levels[level].block
        rows, columns = slice(iy * block.y, (iy + 1) * block.y), slice(ix * block.x, (ix + 1) * block.x)
        part = self.array.isel({"y": rows, "x": columns, **self.info.selection})
        try:
            with timed("decode"):
                # one thread: many super-tiles are computed at once already
                pixels = np.asarray(part.transpose("y", "x", "c").compute(scheduler="synchronous").data)
        except Exception as error:  # the graph is the user's and may raise anything
            raise DamagedError(f"computing the array failed: {type(error).__name__}: {error}") from error
        return masked(pixels, self.info.nodata)

    def isel(self, **index: int) -> ArraySource:
        """Return the source with another choice on its extra axes."""
        chosen = {**self.info.selection, **checked_index(index, extra_axes(self.info.axes))}
        notes = tuple(note for note in self.info.notes if not any(note.startswith(f"axis {name} ") for name in index))
        taken = _datetime(self.dates, chosen)
        return replace(self, info=replace(self.info, selection=chosen, notes=notes, datetime=taken))

    def read_associated(self, name: str) -> Array:
        """Raise `ConfigError`: arrays have no associated images."""
        raise ConfigError.of(
            f"associated image `{name}`", got="an array", expected="a slide file", do="Read the array itself."
        )


def array_source(
    array: object,
    *,
    dims: Sequence[str] | None = None,
    mpp: float | tuple[float, float] | None = None,
    crs: str | None = None,
    affine: Affine | None = None,
    names: Sequence[str] | None = None,
) -> ArraySource:
    """Return the source of an array; nothing is computed.

    Parameters
    ----------
    array : ndarray, dask array, DataArray or Dataset
        Numbers of 2 or more axes; the variables of a Dataset are the bands. The fingerprint of a NumPy array is a hash
        of its bytes (about a second a GB), as is that of an xarray file that is read when asked; that of a dask array
        is the token of its graph.
    dims : sequence of str, optional
        Name of each axis (`("c", "y", "x")`); needed where they cannot be told: without it `(y, x)` and a last axis
        of at most 4 as channels are assumed. A DataArray has its own.
    mpp : float or (float, float), optional
        Micrometres per pixel, one number or y and x.
    crs : str, optional
        Coordinate reference system; a DataArray's own is used without it.
    affine : tuple of 6 float, optional
        `(a, b, c, d, e, f)` from pixel corners; a DataArray's own is used without it.
    names : sequence of str, optional
        Channel names.

    Returns
    -------
    ArraySource
        One level, in blocks of the array's chunks.

    Raises
    ------
    ConfigError
        When it is no array of numbers or its axes cannot be told.
    """
    stacked = stack_bands(array) if isinstance(array, xr.Dataset) else None
    data = _data_array(array if stacked is None else stacked.array, dims)
    grid = grid_of(data)
    dates = _dates(data) if crs or grid.crs else {}  # only of scenes: that of a slide can identify a patient
    data = _canonical(data)
    sizes = {str(name): int(size) for name, size in data.sizes.items()}
    extra = extra_axes(sizes)
    notes = default_notes(extra, {}) + (() if stacked is None else stacked.notes)
    mpp_yx = (mpp, mpp) if isinstance(mpp, int | float) else mpp or grid.mpp_yx
    if mpp_yx is None and (affine or grid.affine) is None:
        notes += ("pixel size unknown: the array states none",)
    shape, nodata = Shape(y=sizes["y"], x=sizes["x"]), nodata_of(data)
    info = ImageInfo(
        format="array",
        levels=(Level(index=0, shape=shape, block=_block(data, shape)),),
        dtype=data.dtype,
        channels=_channels(data, names) if stacked is None else stacked.channels,
        fingerprint=_fingerprint(data),
        kind=_kind(data),
        modality="scene" if crs or grid.crs else "unknown",
        mpp_yx=mpp_yx,
        crs=crs or grid.crs,
        affine=affine or grid.affine,
        nodata=nodata,
        validity=validity_of(nodata, data.dtype),
        axes=sizes,
        selection=dict.fromkeys(extra, 0),
        datetime=_datetime(dates, dict.fromkeys(extra, 0)),
        notes=notes,
    )
    return ArraySource(array=data, info=info, dates=dates)


def _data_array(array: object, dims: Sequence[str] | None) -> xr.DataArray:
    if isinstance(array, xr.DataArray):
        data = array
    else:
        raw: Any = array if isinstance(array, dask.array.Array) else np.asanyarray(array)
        data = xr.DataArray(raw, dims=tuple(dims or guess_dims(raw.shape))) if _fits(raw, dims) else xr.DataArray(0)
    if data.ndim < 2 or data.dtype.kind not in "buif" or 0 in data.shape:
        raise ConfigError.of(
            "`array`",
            got=f"{type(array).__name__} of shape {getattr(array, 'shape', None)}, dims {dims}",
            expected="real numbers on 2 or more axes, none of length 0, and as many `dims` as axes",
            do="Give a NumPy, dask or xarray array.",
        )
    return data


def _fits(raw: Any, dims: Sequence[str] | None) -> bool:
    return raw.ndim >= 2 and (dims is None or len(dims) == raw.ndim)


def _canonical(data: xr.DataArray) -> xr.DataArray:
    """Return the array with its axes called y, x and c; only the names of channels are kept of its coordinates."""
    names = canonical_dims(tuple(map(str, data.dims)))
    channel = next((old for old, new in zip(data.dims, names, strict=True) if new == "c"), None)
    bare = data.drop_vars([name for name in data.coords if name != channel])
    named = bare.rename({old: new for old, new in zip(data.dims, names, strict=True) if old != new})
    return named if "c" in named.dims else named.expand_dims("c", axis=-1)


def _block(data: xr.DataArray, shape: Shape) -> Shape:
    chunks = data.chunksizes
    if "y" not in chunks:
        return Shape(y=min(BLOCK_PX, shape.y), x=min(BLOCK_PX, shape.x))
    return Shape(y=max(chunks["y"]), x=max(chunks["x"]))


def _channels(data: xr.DataArray, names: Sequence[str] | None) -> tuple[Channel, ...]:
    size = data.sizes["c"]
    if names is None:
        names = _names(data)
    if len(names) != size or len(set(names)) != size:
        raise ConfigError.of(
            "`names`", got=list(names), expected=f"{size} different names", do="Give one name for each channel."
        )
    scale, offset = data.attrs.get("scale_factor", 1.0), data.attrs.get("add_offset", 0.0)
    return tuple(Channel(name=name, scale=float(scale), offset=float(offset)) for name in names)


def _names(data: xr.DataArray) -> Sequence[str]:
    """Return the names of channels: those of the axis, or those that rioxarray puts beside its bare numbers."""
    size, long_name = data.sizes["c"], data.attrs.get("long_name")
    labels = data["c"].values if "c" in data.coords else None
    is_named = labels is not None and labels.dtype.kind not in "iu"
    if not is_named and isinstance(long_name, list | tuple) and len(set(long_name)) == len(long_name) == size:
        return [str(name) for name in long_name]
    return default_names(size, data.dtype) if labels is None else [str(label) for label in labels]


def _dates(data: xr.DataArray) -> dict[str, tuple[str, ...]]:
    times = {str(name): data[name].values for name in data.dims if name in data.coords and data[name].dtype.kind == "M"}
    return {name: tuple(np.datetime_as_string(values, "s").tolist()) for name, values in times.items()}


def _datetime(dates: Mapping[str, Sequence[str]], selection: Mapping[str, int]) -> str | None:
    return next((entries[selection[name]] + "Z" for name, entries in dates.items() if name in selection), None)


def _kind(data: xr.DataArray) -> Kind:
    """Return `labels` for class numbers by the CF rule (`flag_values`, `flag_meanings`), else `intensity`."""
    return "labels" if is_classes(data) else "intensity"


def _bands(data: xr.DataArray) -> Iterator[bytes]:
    """Yield the bytes of bands of rows."""
    rows = max(1, BAND_BYTES // max(1, data.nbytes // data.sizes["y"]))
    for y in range(0, data.sizes["y"], rows):
        yield np.ascontiguousarray(data.isel(y=slice(y, y + rows)).values).tobytes()


def _fingerprint(data: xr.DataArray) -> str:
    raw = data.variable._data  # what the variable holds, without loading it
    if data.chunks is not None:
        return digest("array", dask.base.tokenize(data))
    if not isinstance(raw, np.ndarray):  # of a file that xarray reads when it is asked, and would keep if asked for all
        return digest("array", data.dtype.str, data.dims, data.shape, *_bands(data))
    rows = (np.ascontiguousarray(row).tobytes() for row in raw)
    return digest("array", data.dtype.str, data.dims, data.shape, *rows)
