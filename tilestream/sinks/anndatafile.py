"""Vectors of tiles as an AnnData table, in HDF5 and in Zarr, written in AnnData's on-disk format.

The package `anndata` is not used: it holds all vectors in memory, and caps pandas below the version that others need.

References
----------
AnnData: on-disk format of version 0.8 and later (elements `anndata` and `dict` 0.1.0, `dataframe`, `array`,
`categorical`, `string` and `string-array` 0.2.0). wsidata: `io/_elems.py`, for what stands where.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tilestream.sinks.featureread import StoredFeatures
from tilestream.sinks.hdf5 import RECIPE, hdf5, put_rows
from tilestream.types import Array

TILES = "tiles"
"""Name of the tiles, which a table annotates."""
OBSERVED = ("x", "y", "valid", "tissue", "entropy", "relevance")
"""Columns of a table besides its ids, where the store has them."""


class Nodes(Protocol):
    """Where a table is written: groups and arrays by path."""

    def group(self, path: str, attributes: Mapping[str, Any]) -> None:
        """Add a group."""

    def rows(self, path: str, pieces: Iterable[Array], *, rows: int, row_shape: tuple[int, ...], dtype: str) -> None:
        """Add an array that comes in pieces."""

    def texts(self, path: str, texts: Sequence[str]) -> None:
        """Add an array of texts."""

    def text(self, path: str, text: str) -> None:
        """Add one text."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The vectors of one encoder, as a table that annotates the tiles of a slide."""

    tiles: StoredFeatures
    """The slide."""
    encoder: str
    """Whose vectors."""

    def put(self, nodes: Nodes, path: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Write the table.

        Parameters
        ----------
        nodes : Nodes
            Where.
        path : str
            Path of the table; empty for the root.
        attributes : Mapping, optional
            More attributes of it.
        """
        tiles, encoder, at = self.tiles, self.encoder, f"{path}/" if path else ""
        rows, dim = tiles.ok_rows(encoder), tiles.dim(encoder)
        nodes.group(path, encoding("anndata", "0.1.0") | dict(attributes or {}))
        nodes.rows(f"{at}X", tiles.pieces(encoder, rows), rows=len(rows), row_shape=(dim,), dtype="float32")
        self._put_obs(nodes, f"{at}obs", rows)
        nodes.group(f"{at}var", _frame(()))
        nodes.texts(f"{at}var/_index", _unique(tiles.outputs(encoder)))
        for name in ("layers", "obsm", "obsp", "varm", "varp", "uns"):
            nodes.group(f"{at}{name}", encoding("dict", "0.1.0"))
        centres = tiles.xy(rows) + tiles.sizes_yx(rows)[:, ::-1] / 2
        nodes.rows(f"{at}obsm/spatial", [centres], rows=len(rows), row_shape=(2,), dtype="float64")
        if tiles.has(encoder, "slide"):
            vector = tiles.read(encoder, group="slide")[:, None]
            place = "varm" if len(vector) == dim else "uns"  # the vector of a hierarchy has a length of its own
            nodes.rows(f"{at}{place}/agg_slide", [vector], rows=len(vector), row_shape=(1,), dtype="float32")
        self._put_uns(nodes, f"{at}uns")

    def _put_obs(self, nodes: Nodes, path: str, rows: Array) -> None:
        found = [name for name in OBSERVED if self.tiles.has(name)] + (["size"] if self.tiles.is_mixed else [])
        nodes.group(path, _frame(("tile_id", "library_id", *found)))
        nodes.texts(f"{path}/_index", [str(row) for row in rows.tolist()])
        nodes.rows(f"{path}/tile_id", [rows], rows=len(rows), row_shape=(), dtype="int64")
        nodes.group(f"{path}/library_id", encoding("categorical", "0.2.0") | {"ordered": False})
        nodes.texts(f"{path}/library_id/categories", [TILES])
        codes = np.zeros(len(rows), np.int8)
        nodes.rows(f"{path}/library_id/codes", [codes], rows=len(rows), row_shape=(), dtype="int8")
        for name in found:
            values = self.tiles.read(name, rows)
            nodes.rows(f"{path}/{name}", [values], rows=len(rows), row_shape=(), dtype=values.dtype.name)

    def _put_uns(self, nodes: Nodes, path: str) -> None:
        nodes.group(f"{path}/spatialdata_attrs", encoding("dict", "0.1.0"))
        for name, text in table_attributes().items():
            nodes.text(f"{path}/spatialdata_attrs/{name}", text)


def table_attributes() -> dict[str, str]:
    """Return which tiles a table annotates, and by which columns."""
    return {"region": TILES, "region_key": "library_id", "instance_key": "tile_id"}


def encoding(kind: str, version: str) -> dict[str, Any]:
    """Return the attributes by which AnnData knows an element."""
    return {"encoding-type": kind, "encoding-version": version}


def write_h5ad(path: Path, tiles: StoredFeatures, encoder: str, recipe: str) -> None:
    """Write the vectors of one encoder as `.h5ad`.

    Parameters
    ----------
    path : Path
        Where to write.
    tiles : StoredFeatures
        The slide.
    encoder : str
        Whose vectors.
    recipe : str
        Digest by which the file is known again.
    """
    with hdf5().File(path, "w") as file:
        Table(tiles=tiles, encoder=encoder).put(_Hdf5(file), "")
        file.attrs[RECIPE] = recipe


class _Hdf5:
    """Nodes of an HDF5 file."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._text = hdf5().string_dtype()

    def group(self, path: str, attributes: Mapping[str, Any]) -> None:
        node = self._file.require_group(path) if path else self._file
        for name, value in attributes.items():
            node.attrs[name] = np.array(value, self._text) if isinstance(value, list) else value

    def rows(self, path: str, pieces: Iterable[Array], *, rows: int, row_shape: tuple[int, ...], dtype: str) -> None:
        made = put_rows(self._file, path, pieces, rows=rows, row_shape=row_shape, dtype=dtype)
        made.attrs.update(encoding("array", "0.2.0"))

    def texts(self, path: str, texts: Sequence[str]) -> None:
        made = self._file.create_dataset(path, data=np.array(list(texts), object), dtype=self._text)
        made.attrs.update(encoding("string-array", "0.2.0"))

    def text(self, path: str, text: str) -> None:
        made = self._file.create_dataset(path, data=text, dtype=self._text)
        made.attrs.update(encoding("string", "0.2.0"))


def _frame(columns: Sequence[str]) -> dict[str, Any]:
    return encoding("dataframe", "0.2.0") | {"_index": "_index", "column-order": list(columns)}


def _unique(names: Sequence[str]) -> list[str]:
    """Return names of values that differ, as AnnData expects them; ours do."""
    return [name or str(number) for number, name in enumerate(names)]
