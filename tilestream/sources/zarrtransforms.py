"""Sizes and places of levels as the metadata of OME-Zarr and GeoZarr state them.

References
----------
OME-Zarr 0.4 to 0.6, "coordinateTransformations"; Zarr conventions `multiscales` and `spatial`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def scale_of(transforms: Any, size: int) -> tuple[float, ...] | None:
    """Return the product of all scales in a list of transformations, None when there is none.

    Parameters
    ----------
    transforms : object
        `coordinateTransformations` of a level or an image.
    size : int
        Number of axes.

    Returns
    -------
    tuple of float or None
        A positive factor for each axis.

    Raises
    ------
    ValueError
        When there are not as many, or one is not above 0.
    """
    factors: tuple[float, ...] | None = None
    for transform in transforms or ():
        if transform.get("type") == "sequence":
            found = scale_of(transform["transformations"], size)
        elif transform.get("type") == "scale" and "scale" in transform:
            found = tuple(float(value) for value in transform["scale"])
        else:
            continue
        if found is None:
            continue
        if len(found) != size or not all(value > 0 for value in found):
            raise ValueError(f"scale {found} for {size} axes")
        factors = found if factors is None else times(factors, found)
    return factors


def times(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    """Return the products of two lists of numbers."""
    return tuple(a * b for a, b in zip(one, other, strict=True))


def translation_of(transforms: Any, size: int) -> tuple[float, ...] | None:
    """Return the translation in a list of transformations, which the format puts behind the scale; None without.

    Parameters
    ----------
    transforms : object
        `coordinateTransformations` of a level.
    size : int
        Number of axes.

    Returns
    -------
    tuple of float or None
        Place of the centre of the first pixel along each axis.

    Raises
    ------
    ValueError
        When there are not as many, or one is not finite.
    """
    for transform in transforms or ():
        if transform.get("type") == "sequence":
            return translation_of(transform["transformations"], size)
        if transform.get("type") == "translation" and "translation" in transform:
            found = tuple(float(value) for value in transform["translation"])
            if len(found) != size or not all(map(math.isfinite, found)):
                raise ValueError(f"translation {found} for {size} axes")
            return found
    return None


def pixel_yx(entry: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the size of a pixel along y and x by the affine of a level, None without one.

    Parameters
    ----------
    entry : Mapping
        Entry of a GeoZarr layout.

    Returns
    -------
    tuple of float or None
        Units of the affine.

    Raises
    ------
    ValueError
        When the affine has no pixels of a finite size.
    """
    if "spatial:transform" not in entry:
        return None
    a, b, _, d, e, _ = (float(value) for value in entry["spatial:transform"][:6])
    height, width = math.hypot(b, e), math.hypot(a, d)
    if not (0 < height < math.inf and 0 < width < math.inf):
        raise ValueError(f"spatial:transform {entry['spatial:transform']}")
    return height, width


def derived_factor(
    entry: Mapping[str, Any], known: Mapping[str, tuple[float, float] | None]
) -> tuple[float, float] | None:
    """Return the factors of a level by its scale relative to the one that it was derived from.

    Parameters
    ----------
    entry : Mapping
        Entry of a GeoZarr layout.
    known : Mapping
        Factors of the levels before it.

    Returns
    -------
    tuple of float or None
        Pixels of the finest level in one of it along y and x, None where that is not said.

    Raises
    ------
    ValueError
        When its scale is not positive.
    """
    finer = known.get(str(entry.get("derived_from")))
    transform = entry.get("transform")
    scale = transform.get("scale") if isinstance(transform, Mapping) else None
    if finer is None or not isinstance(scale, list) or len(scale) < 2:
        return None
    y, x = (float(value) for value in scale[-2:])
    if not (0 < y < math.inf and 0 < x < math.inf):
        raise ValueError(f"scale {scale}")
    return finer[0] * y, finer[1] * x
