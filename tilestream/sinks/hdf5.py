"""HDF5 files of other projects' layouts: written in large chunks, whole or not there, and known as ours again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.types import Array

if TYPE_CHECKING:
    import h5py

RECIPE = "tilestream_recipe"
"""Attribute of the root: digest of all that the file follows from. No reader of the layouts looks at it."""
CHUNK_BYTES = 1 << 20
"""Aimed size of a chunk. Its shape is no part of any layout, and chunks of one row read several times slower."""


def hdf5() -> Any:
    """Return the module `h5py`.

    Raises
    ------
    ConfigError
        When it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ConfigError.of(
            "HDF5", got="no module `h5py`", expected="it installed", do="Run `pip install -e '.[h5]'` in the clone."
        ) from error
    return h5py


def put_rows(
    group: h5py.Group, name: str, pieces: Iterable[Array], *, rows: int, row_shape: tuple[int, ...], dtype: Any
) -> h5py.Dataset:
    """Return a new dataset that holds some rows and can grow, as other projects make them.

    Parameters
    ----------
    group : h5py.Group
        Where.
    name : str
        Its name.
    pieces : iterable of ndarray
        The rows, `(k, *row_shape)` at a time.
    rows : int
        How many they are in all.
    row_shape : tuple of int
        Shape of a row.
    dtype : dtype
        Type of the values.

    Returns
    -------
    h5py.Dataset
        `(rows, *row_shape)`, in chunks of about 1 MiB.
    """
    row_bytes = max(1, np.dtype(dtype).itemsize * int(np.prod(row_shape)))
    chunk = max(1, min(rows, CHUNK_BYTES // row_bytes))
    made = group.create_dataset(
        name, shape=(rows, *row_shape), maxshape=(None, *row_shape), chunks=(chunk, *row_shape), dtype=dtype
    )
    at = 0
    for piece in pieces:
        made[at : at + len(piece)] = piece
        at += len(piece)
    return made


def put_attributes(node: h5py.HLObject, attributes: Mapping[str, Any]) -> None:
    """Set attributes as TRIDENT does: `None` is the text `None`, and a mapping is JSON.

    Parameters
    ----------
    node : h5py.HLObject
        Dataset or group.
    attributes : Mapping
        Values by name.
    """
    for name, value in attributes.items():
        if isinstance(value, Mapping):
            node.attrs[name] = json.dumps(value)
        else:
            node.attrs[name] = "None" if value is None else value


def recipe_of(path: Path) -> str | None:
    """Return the digest of the recipe of an HDF5 file of ours, None for any other file.

    Parameters
    ----------
    path : Path
        Existing file.

    Returns
    -------
    str or None
        What was put under `RECIPE`.
    """
    try:
        with hdf5().File(path, "r") as file:
            found = file.attrs.get(RECIPE)
    except OSError:
        return None
    return found if isinstance(found, str) else None
