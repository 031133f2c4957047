"""The tiles of many feature stores as lazy arrays along one dimension: reads the rows that are asked for, no others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing

from tilestream.codecs.durable import checksum
from tilestream.errors import DamagedError, SourceError
from tilestream.sinks.storerecord import SUFFIX
from tilestream.sinks.tree import OWNER
from tilestream.types import Array
from tilestream.xr.grid import within

Ints: TypeAlias = npt.NDArray[np.int64]
Positions: TypeAlias = range | Ints
"""Places along the dimension `tile` of a cohort."""

OPEN_STORES = 64
"""Stores whose metadata are kept parsed in a process."""
SPARSE = 8
"""Rows that lie further apart than this are read one by one, others with what lies between them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shelf:
    """Which stores follow each other along the dimension `tile`; picklable, holds no open handle."""

    root: str
    """Folder of the stores."""
    keys: tuple[str, ...]
    """Key of each slide."""
    contents: tuple[str, ...]
    """What each store was made from when the index was written: another store in its place is not read in silence."""
    first: Ints
    """`(slides + 1,)` position of each slide's first tile; the last is the number of tiles."""

    @cached_property
    def token(self) -> str:
        """Return what two shelves with the same values share."""
        text = "\0".join((self.root, *self.keys, *self.contents))
        return checksum(text.encode("utf-8", "surrogateescape"))

    def __len__(self) -> int:
        """Return the number of tiles."""
        return int(self.first[-1])

    def numbers_of(self, positions: Ints) -> Ints:
        """Return the number of the slide that each position belongs to."""
        # from the right: slides without tiles share their position with the next one
        return np.asarray(np.searchsorted(self.first, positions, side="right") - 1, np.int64)

    def parts(self, positions: Positions) -> Iterator[tuple[int, slice, Positions]]:
        """Yield slide by slide: its number, the places in `positions`, and the rows of its store.

        Parameters
        ----------
        positions : range or ndarray of int64
            Ascending.

        Yields
        ------
        tuple
            Slides of which no tile is asked for are left out.
        """
        if not len(positions):
            return
        low, high = (int(n) for n in self.numbers_of(np.array([positions[0], positions[-1]])))
        edges = self.first[low : high + 2]
        if isinstance(positions, range):
            ends = np.clip(-((positions.start - edges) // positions.step), 0, len(positions))
        else:
            ends = np.searchsorted(positions, edges)
        for number in np.flatnonzero(np.diff(ends)):
            own, start = slice(int(ends[number]), int(ends[number + 1])), int(edges[number])
            taken = positions[own]
            rows: Positions = (
                range(taken.start - start, taken.stop - start, taken.step)
                if isinstance(taken, range)
                else taken - start
            )
            yield low + int(number), own, rows

    def read(self, name: str, positions: Positions, dtype: np.dtype[Any], row_shape: tuple[int, ...] = ()) -> Array:
        """Return rows of a variable of the group `tile`.

        Parameters
        ----------
        name : str
            The variable.
        positions : range or ndarray of int64
            Ascending.
        dtype : dtype
            Type of the result.
        row_shape : tuple of int
            Shape of a row.

        Returns
        -------
        ndarray
            `(len(positions), *row_shape)`.

        Raises
        ------
        SourceError
            When a store is not there any more, or is another one.
        DamagedError
            When its bytes cannot be decoded.
        """
        found = np.empty((len(positions), *row_shape), dtype)
        for number, own, rows in self.parts(positions):
            found[own] = self._rows(number, name, rows)
        return found

    def _rows(self, number: int, name: str, rows: Positions) -> Array:
        key = self.keys[number]
        try:
            array = _open_group(self.root, key, self.contents[number], os.getpid())[f"tile/{name}"]
            return np.asarray(_picked(array, rows))
        except (SourceError, MemoryError):
            raise
        except FileNotFoundError as error:
            raise _gone(self.root, key) from error
        except Exception as error:  # whatever codecs raise on bytes that were altered
            raise DamagedError(f"`{key}{SUFFIX}`: `tile/{name}` cannot be read ({error})") from error


def _picked(array: Any, rows: Positions) -> Any:
    if isinstance(rows, range):
        return array[rows.start : rows.stop : rows.step]
    span = int(rows[-1]) + 1 - int(rows[0])
    if span <= SPARSE * len(rows):
        return array[int(rows[0]) : int(rows[-1]) + 1][rows - rows[0]]
    return array.oindex[rows]


@lru_cache(maxsize=OPEN_STORES)
def _open_group(root: str, key: str, content: str, _pid: int) -> zarr.Group:
    """Return a store's root group with the metadata of all that is in it."""
    path = Path(root) / f"{key}{SUFFIX}"
    try:
        group = zarr.open_group(path, mode="r", zarr_format=3)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _gone(root, key) from error
    owner = group.attrs.get(OWNER)
    if not isinstance(owner, dict) or owner.get("content") != content:
        raise SourceError.of(
            f"`{path}`",
            got="another store than when the cohort was opened",
            expected="the same",
            do="Open the cohort again.",
        )
    return group


def _gone(root: str, key: str) -> SourceError:
    return SourceError.of(
        f"`{Path(root) / key}{SUFFIX}`",
        got="nothing there any more",
        expected="the store that was there when the cohort was opened",
        do="Open the cohort again, which leaves it out; `tilestream embed` with the same options makes it anew.",
    )


class TileArray(BackendArray):
    """A variable of the group `tile` over all stores; small, picklable, read-only.

    Parameters
    ----------
    shelf : Shelf
        The stores.
    name : str
        Variable in the stores.
    dtype : dtype
        Its type.
    row_shape : tuple of int
        Shape of a row.
    """

    def __init__(self, shelf: Shelf, name: str, dtype: np.dtype[Any] | str, row_shape: tuple[int, ...] = ()) -> None:
        self.shelf = shelf
        self.name = name
        self.dtype = np.dtype(dtype)
        self.shape = (len(shelf), *row_shape)

    def __getitem__(self, key: Any) -> Any:
        return _adapted(key, self.shape, self._read)

    def __dask_tokenize__(self) -> object:
        return "tilestream.TileArray", self.shelf.token, self.name

    def _read(self, key: tuple[Any, ...]) -> Array:
        positions, back = ascending(key[0], len(self.shelf))
        found = self.shelf.read(self.name, positions, self.dtype, self.shape[1:])
        found = found if back is None else found[back]
        return found if len(key) == 1 else found[..., key[1]]


class SlideNumbers(BackendArray):
    """The number of the slide of each tile, computed where it is looked at.

    Parameters
    ----------
    shelf : Shelf
        The stores.
    """

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.dtype = np.dtype(np.int64)
        self.shape = (len(shelf),)

    def __getitem__(self, key: Any) -> Any:
        return _adapted(key, self.shape, self._read)

    def __dask_tokenize__(self) -> object:
        return "tilestream.SlideNumbers", self.shelf.token

    def _read(self, key: tuple[Any, ...]) -> Any:
        positions, back = ascending(key[0], len(self.shelf))
        found = self.shelf.numbers_of(np.asarray(positions, np.int64))
        return found if back is None else found[back]


def _adapted(key: Any, shape: tuple[int, ...], read: Callable[[tuple[Any, ...]], Array]) -> Any:
    if isinstance(key, indexing.BasicIndexer | indexing.OuterIndexer):
        return read(key.tuple)  # the adapter below fails on an empty slice that runs backwards
    return indexing.explicit_indexing_adapter(key, shape, indexing.IndexingSupport.OUTER, read)


def ascending(key: Any, size: int) -> tuple[Positions, Any]:
    """Return the positions behind an index, ascending and none twice, and how to get from there to what was asked.

    Parameters
    ----------
    key : slice, int or ndarray of int
        Index of one axis.
    size : int
        Size of the axis.

    Returns
    -------
    positions : range or ndarray of int64
        What to read.
    back : index or None
        To be applied to what was read; None when it is what was asked.
    """
    if isinstance(key, slice):
        asked = range(size)[key]
        return (asked, None) if asked.step > 0 else (asked[::-1], slice(None, None, -1))
    at = within(np.asarray(key, np.int64), size)
    found, back = np.unique(at, return_inverse=True)
    back = back.reshape(at.shape)
    is_same = at.ndim == 1 and len(found) == len(at) and bool((found == at).all())
    return found, None if is_same else back[()]
