"""The tiles of many feature stores as lazy arrays along one dimension: reads the rows that are asked for, no others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from tilestream.codecs.checksums import checksum
from tilestream.errors import DamagedError, SourceError
from tilestream.sinks.rowsread import Ints, Positions, RowLayout, read_rows, split_rows
from tilestream.sinks.storerecord import SUFFIX, Stamp
from tilestream.sinks.tree import OWNER
from tilestream.types import Array
from tilestream.xr.grid import within

OPEN_STORES = 1024
"""Stores whose layouts are kept in a process, a few kilobytes each."""
READERS = 8
"""Threads that read stores: most of the time one waits for a disk."""


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

        def fill(part: tuple[int, slice, Positions]) -> None:
            number, own, rows = part
            found[own] = self._rows(number, name, rows)

        parts = list(split_rows(positions, self.first))
        if len(parts) > 1:
            with ThreadPoolExecutor(min(READERS, len(parts))) as pool:
                for _ in pool.map(fill, parts):
                    pass
        elif parts:
            fill(parts[0])
        return found

    def _rows(self, number: int, name: str, rows: Positions) -> Array:
        key = self.keys[number]
        path = Path(self.root) / f"{key}{SUFFIX}"
        layouts = _layouts(path, self.contents[number], _stamp(path))
        try:
            return read_rows(path / "tile" / name, layouts[name], rows)
        except DamagedError as error:
            raise DamagedError(
                f"rows of slide `{key}` cannot be read: {error}. Remove that store and run `tilestream embed` again: "
                "it is made anew."
            ) from error


def _stamp(path: Path) -> Stamp:
    """Return the state of a store; looked at before each read, since what is known of it is kept."""
    try:
        about = (path / "zarr.json").stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _gone(path) from error
    return about.st_mtime_ns, about.st_size


@lru_cache(maxsize=OPEN_STORES)
def _layouts(path: Path, content: str, stamp: Stamp) -> Mapping[str, RowLayout]:
    """Return how the variables of a store's group `tile` lie in their files; in another state it is looked at anew."""
    try:
        document = json.loads((path / "zarr.json").read_bytes())
        is_same = document["attributes"][OWNER]["content"] == content
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _gone(path) from error
    except (KeyError, TypeError, ValueError):
        is_same = False
    if not is_same:
        raise SourceError.of(
            f"`{path}`",
            got="another store than when the cohort was opened",
            expected="the same",
            do="Open the cohort again.",
        )
    return {
        node_path.removeprefix("tile/"): RowLayout.of(node)
        for node_path, node in document["consolidated_metadata"]["metadata"].items()
        if node_path.startswith("tile/") and node["data_type"] != "string"
    }


def _gone(path: Path) -> SourceError:
    return SourceError.of(
        f"`{path}`",
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
        found = self.shelf.numbers_of(as_array(positions))
        return found if back is None else found[back]


def _adapted(key: Any, shape: tuple[int, ...], read: Callable[[tuple[Any, ...]], Array]) -> Any:
    if isinstance(key, indexing.BasicIndexer | indexing.OuterIndexer):
        return read(key.tuple)  # the adapter below fails on an empty slice that runs backwards
    return indexing.explicit_indexing_adapter(key, shape, indexing.IndexingSupport.OUTER, read)


def as_array(positions: Positions) -> Ints:
    """Return positions as an array; NumPy would make a list of a range first."""
    if isinstance(positions, range):
        return np.arange(positions.start, positions.stop, positions.step)
    return np.asarray(positions, np.int64)


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
