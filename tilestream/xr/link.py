"""From an xarray variable back to the image whose stored pixels it is, where that can be proved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask.array
import xarray as xr
from dask.base import normalize_token
from xarray.core import indexing

from tilestream.xr.lazy import LevelArray, read_only

_WRAPPERS = (
    indexing.MemoryCachedArray,
    indexing.CopyOnWriteArray,
    indexing.LazilyIndexedArray,
    indexing.LazilyVectorizedIndexedArray,  # other order of axes, points; coordinates tell these apart
    indexing.ImplicitToExplicitIndexingAdapter,
)
"""What xarray puts around a lazy array without changing a value."""
_MOVES = ("getitem-", "transpose-", "rechunk-merge-", "rechunk-split-")
"""Layers of a Dask graph that choose or move pixels and change none."""


class StoredVariable(xr.Variable):
    """A variable of an image that was opened: it cannot be assigned to before it is loaded or computed with.

    Notes
    -----
    A subclass, against the rule of the house, since nothing less helps: xarray would load the whole level into memory
    to take one pixel, and `dask.array.store` into it loses pixels without a word.
    """

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        if stored_in(self) is not None:
            raise read_only()
        super().__setitem__(key, value)  # type: ignore[no-untyped-call]

    def __dask_tokenize__(self) -> object:
        """Return what the pixels are, without reading them: `dask.delayed` asks, and xarray would load the image."""
        data, keys = self._data, []
        while isinstance(data, _WRAPPERS):
            keys += [key for key in [getattr(data, "key", None)] if key is not None]
            data = data.array
        if not isinstance(data, LevelArray):
            return super().__dask_tokenize__()
        return normalize_token((type(self), self._dims, data, [key.tuple for key in keys], self._attrs or None))


def stored_in(variable: xr.Variable) -> LevelArray | None:
    """Return the array of stored pixels that a variable is, or is a part of.

    Parameters
    ----------
    variable : Variable
        Lazy or of dask.

    Returns
    -------
    LevelArray or None
        None where the values are in memory or may have been changed: computed with, assigned to, persisted.
    """
    data = variable._data  # what it holds, without loading it
    return _of_graph(data) if isinstance(data, dask.array.Array) else _unwrapped(data)


def is_uncut(variable: xr.Variable) -> bool:
    """Return whether a variable of stored pixels is all of them, in their order."""
    data = variable._data
    if isinstance(data, dask.array.Array):
        return len(getattr(data.dask, "layers", {})) == 2  # the image, and its chunks
    keys: list[Any] = []
    while isinstance(data, _WRAPPERS):
        keys += getattr(getattr(data, "key", None), "tuple", ())
        data = data.array
    return all(isinstance(key, slice) and key == slice(None) for key in keys)


def _unwrapped(data: Any) -> LevelArray | None:
    while isinstance(data, _WRAPPERS):
        data = data.array
    return data if isinstance(data, LevelArray) else None


def _of_graph(array: dask.array.Array) -> LevelArray | None:
    layers: Mapping[str, Any] = getattr(array.dask, "layers", {})
    origins = [name for name in layers if name.startswith("original-")]
    if len(origins) != 1:
        return None
    (origin,) = origins
    chunked = origin.removeprefix("original-")
    if any(name not in (origin, chunked) and not name.startswith(_MOVES) for name in layers):
        return None
    (value,) = dict(layers[origin]).values()
    return _unwrapped(getattr(value, "value", value))  # some versions of dask wrap what a graph holds
