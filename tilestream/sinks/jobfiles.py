"""What the job folders of TRIDENT and CLAM share: names of slides, corners of tiles, vectors in HDF5.

Both know a slide by its file name without ending, and a tile by (x, y) of its top-left corner in pixels of level 0.
Neither knows a tile without a vector: only tiles with one are written to files of features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.sinks.featureread import StoredFeatures
from tilestream.sinks.hdf5 import put_attributes, put_rows
from tilestream.sinks.rowsread import Ints

COMPOUND = (".ome", ".cog")
"""First halves of endings that have two."""


def stem_of(key: str) -> str:
    """Return the name that TRIDENT and CLAM know a slide by: its file name without ending.

    Parameters
    ----------
    key : str
        Relative path of the image.

    Returns
    -------
    str
        `b` for `a/b.ome.tif`.
    """
    stem = PurePosixPath(key).stem
    half = PurePosixPath(stem)
    return half.stem if half.suffix.lower() in COMPOUND else stem


def require_one_size(tiles: StoredFeatures, layout: str) -> None:
    """Raise `ConfigError` for tokens of several sizes, which these folders cannot tell apart."""
    if tiles.is_mixed:
        raise ConfigError.of(
            f"`{tiles.key}`",
            got="tiles of several sizes, since a budget has decided what was read",
            expected=f"tiles of one size: {layout} states it once for all",
            do="Export `--to parquet`, `anndata`, `spatialdata` or `geojson`; or embed it without --budget.",
        )


def whole_xy(tiles: StoredFeatures, rows: Ints | None = None) -> npt.NDArray[np.int64]:
    """Return the corners of tiles as whole pixels of level 0, `(n, 2)` as x, y."""
    return np.asarray(np.rint(tiles.xy(rows)), np.int64)


def put_features(file: Any, tiles: StoredFeatures, encoder: str, rows: Ints) -> Any:
    """Return the dataset `features` of an HDF5 file: the vectors of some rows."""
    pieces = tiles.pieces(encoder, rows)
    return put_rows(file, "features", pieces, rows=len(rows), row_shape=(tiles.dim(encoder),), dtype=np.float32)


def put_coords(file: Any, xy: npt.NDArray[np.int64], attributes: Mapping[str, Any]) -> None:
    """Put corners of tiles into an HDF5 file as the dataset `coords`, with what they are in its attributes."""
    coords = put_rows(file, "coords", [xy], rows=len(xy), row_shape=(2,), dtype=np.int64)
    put_attributes(coords, attributes)
