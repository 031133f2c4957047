"""Feature stores as TRIDENT's job folder has them, file by file.

References
----------
TRIDENT: `trident/IO.py` and `trident/wsi_objects/WSI.py` (what is written), `slide_encoder_models/load.py` (what is
read).
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.sinks.featureread import StoredFeatures
from tilestream.sinks.hdf5 import RECIPE, hdf5, put_attributes
from tilestream.sinks.jobfiles import put_coords, put_features, stem_of, whole_xy

MAGNIFICATIONS = (80, 60, 40, 20, 10, 5, 2.5, 1.25)
"""What objectives are called; one at `10 / mpp`, where that is near enough, else the number itself."""
NEAR = 0.15
"""Relative difference up to which a resolution goes by the name of an objective; scanners differ by as much."""


def magnification(mpp: float) -> float:
    """Return the magnification that a resolution goes by.

    Parameters
    ----------
    mpp : float
        Micrometres per pixel.

    Returns
    -------
    float
        That of an objective where the resolution is within 15 % of it, else `10 / mpp` to three digits.
    """
    exact = 10 / mpp
    nearest = min(MAGNIFICATIONS, key=lambda known: abs(exact / known - 1))
    return nearest if abs(exact / nearest - 1) <= NEAR else float(f"{exact:.3g}")


def patch_attributes(tiles: StoredFeatures) -> dict[str, Any]:
    """Return what TRIDENT has to know of the patches of a slide, and besides it their true resolution.

    Parameters
    ----------
    tiles : StoredFeatures
        The slide.

    Returns
    -------
    dict
        Attributes of `coords`. `patch_size * level0_magnification // target_magnification` is `patch_size_level0`,
        since that is how TRIDENT reads patches again: where the slide's own resolution is none of an objective, its
        magnification is no whole number.

    Raises
    ------
    ConfigError
        When the resolution is not known.
    """
    mpp, plan_mpp = tiles.mpp, tiles.plan_mpp
    if mpp is None or plan_mpp is None:
        raise ConfigError.of(
            f"resolution of `{tiles.key}`",
            got="none in its metadata",
            expected="micrometres per pixel, since TRIDENT knows patches by their magnification",
            do="Embed it with the column `mpp` in a manifest (`--manifest`), or export `--to clam`, which needs none.",
        )
    size_y, size_x = tiles.size_yx
    patch, level0 = int(tiles.plan["tile_px"]), round((size_y * size_x) ** 0.5)
    target = magnification(plan_mpp)
    own = Fraction(target) * level0 / patch
    height, width = tiles.image["shape_yx"]
    return {
        "patch_size": patch,
        "patch_size_level0": level0,
        "level0_magnification": int(own) if own.denominator == 1 else _reads_back(float(own), patch, target, level0),
        "target_magnification": int(target) if float(target).is_integer() else target,
        "overlap": max(0, patch - int(tiles.plan["step_px"])),
        "name": stem_of(tiles.key),
        "level0_width": int(width),
        "level0_height": int(height),
        "mpp_level0": mpp,
        "mpp_effective": plan_mpp,
    }


def _reads_back(own: float, patch: int, target: float, level0: int) -> float:
    """Return the float at or just above a fraction from which TRIDENT's rounding down gives the size again."""
    while patch * own // target < level0:
        own = float(np.nextafter(own, np.inf))
    return own


def trident_folder(attributes: Mapping[str, Any]) -> str:
    """Return the name of the folder of patches of one kind, such as `20x_256px_0px_overlap`."""
    kind = {name: attributes[name] for name in ("target_magnification", "patch_size", "overlap")}
    return "{target_magnification:g}x_{patch_size}px_{overlap}px_overlap".format(**kind)


def write_trident_patches(path: Path, tiles: StoredFeatures, recipe: str) -> None:
    """Write `patches/<slide>_patches.h5`: all tiles of the plan.

    Parameters
    ----------
    path : Path
        Where to write.
    tiles : StoredFeatures
        The slide.
    recipe : str
        Digest by which the file is known again.
    """
    attributes = patch_attributes(tiles)
    with hdf5().File(path, "w") as file:
        file.attrs[RECIPE] = recipe
        put_coords(file, whole_xy(tiles), attributes | {"savetodir": f"{trident_folder(attributes)}/patches"})


def write_trident_features(path: Path, tiles: StoredFeatures, encoder: str, recipe: str) -> None:
    """Write `features_<encoder>/<slide>.h5`: the tiles that have a vector.

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
    attributes, rows = patch_attributes(tiles), tiles.ok_rows(encoder)
    folder = trident_folder(attributes)
    with hdf5().File(path, "w") as file:
        file.attrs[RECIPE] = recipe
        features = put_features(file, tiles, encoder, rows)
        own = {"name": stem_of(tiles.key), "savetodir": f"{folder}/features_{encoder}", "encoder": encoder}
        put_attributes(features, own)
        put_coords(file, whole_xy(tiles, rows), attributes | {"savetodir": f"{folder}/patches"})


def write_trident_slide(path: Path, tiles: StoredFeatures, encoder: str, recipe: str) -> None:
    """Write `slide_features_<encoder>/<slide>.h5`: the vector of the slide and the tiles that it comes from.

    Parameters
    ----------
    path : Path
        Where to write.
    tiles : StoredFeatures
        The slide.
    encoder : str
        Whose vector.
    recipe : str
        Digest by which the file is known again.
    """
    attributes = patch_attributes(tiles)
    folder = trident_folder(attributes)
    with hdf5().File(path, "w") as file:
        file.attrs[RECIPE] = recipe
        vector = tiles.read(encoder, group="slide").astype(np.float32)
        features = file.create_dataset("features", data=vector)
        put_attributes(features, {"name": stem_of(tiles.key), "savetodir": f"{folder}/slide_features_{encoder}"})
        coords = whole_xy(tiles, tiles.ok_rows(encoder))
        put_coords(file, coords, attributes | {"savetodir": f"{folder}/patches"})
