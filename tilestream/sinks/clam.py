"""Feature stores as CLAM's folders have them, file by file.

References
----------
CLAM: `utils/file_utils.py` and `wsi_core/WholeSlideImage.py` (what is written), `dataset_modules/dataset_h5.py` and
`dataset_modules/dataset_generic.py` (what is read).
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tilestream.sinks.featureread import StoredFeatures
from tilestream.sinks.hdf5 import RECIPE, hdf5, put_rows
from tilestream.sinks.jobfiles import put_coords, put_features, stem_of, whole_xy


def write_clam_patches(path: Path, tiles: StoredFeatures, recipe: str) -> None:
    """Write `patches/<slide>.h5`: all tiles of the plan, as squares of a stored level.

    Parameters
    ----------
    path : Path
        Where to write.
    tiles : StoredFeatures
        The slide.
    recipe : str
        Digest by which the file is known again.
    """
    plan, levels = tiles.plan, tiles.image["levels_yx"]
    stored = int(plan["level"])
    (height, width), (height0, width0) = levels[stored], tiles.image["shape_yx"]
    attributes = {
        "patch_size": clam_patch_px(tiles)[0],
        "patch_level": stored,
        "downsample": (width0 / width, height0 / height),
        "downsampled_level_dim": (width, height),
        "level_dim": (width, height),
        "name": stem_of(tiles.key),
        "save_path": "patches",
    }
    with hdf5().File(path, "w") as file:
        file.attrs[RECIPE] = recipe
        put_coords(file, whole_xy(tiles), attributes)


def clam_patch_px(tiles: StoredFeatures) -> tuple[int, float]:
    """Return the edge of a tile in whole pixels of the stored level that CLAM reads, and what it is exactly."""
    ratio = max(Fraction(text) for text in tiles.plan["ratio_yx"])
    exact = ratio * int(tiles.plan["tile_px"])
    return round(exact), float(exact)


def write_clam_features(path: Path, tiles: StoredFeatures, encoder: str, recipe: str) -> None:
    """Write `h5_files/<slide>.h5`: vectors and corners of the tiles that have one.

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
    rows = tiles.ok_rows(encoder)
    with hdf5().File(path, "w") as file:
        file.attrs[RECIPE] = recipe
        put_features(file, tiles, encoder, rows)
        put_rows(file, "coords", [whole_xy(tiles, rows)], rows=len(rows), row_shape=(2,), dtype=np.int32)


def all_vectors(tiles: StoredFeatures, encoder: str) -> npt.NDArray[np.float32]:
    """Return the vectors of the tiles that have one, `(n, d)`, as `pt_files/<slide>.pt` holds them.

    Parameters
    ----------
    tiles : StoredFeatures
        The slide.
    encoder : str
        Whose vectors.

    Returns
    -------
    ndarray of float32
        All in memory.
    """
    rows = tiles.ok_rows(encoder)
    return np.concatenate([np.empty((0, tiles.dim(encoder)), np.float32), *tiles.pieces(encoder, rows)])
