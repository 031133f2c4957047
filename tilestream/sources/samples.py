"""What samples mean where a format says little: axes, channel names, and which of them are measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.types import Array, Block, Validity

MOST_INTERLEAVED = 4
"""A first or last axis of at most this many entries is taken as channels when nothing names the axes."""

Y_NAMES = ("y", "lat", "latitude", "row", "northing")
X_NAMES = ("x", "lon", "longitude", "col", "column", "easting")
C_NAMES = ("c", "band", "bands", "channel", "channels", "s", "sample", "variable")


def put_pixels(target: Array, pixels: Array) -> None:
    """Copy pixels `(y, x, c)` of any strides; band by band where they are stored so, in a third of the time.

    Parameters
    ----------
    target : ndarray
        Where to, of the same shape.
    pixels : ndarray
        What.
    """
    if pixels.shape[2] > 1 and abs(pixels.strides[2]) > abs(pixels.strides[1]):
        for channel in range(pixels.shape[2]):
            target[:, :, channel] = pixels[:, :, channel]
    else:
        target[...] = pixels


def masked(pixels: Array, nodata: float | None, seen: npt.NDArray[np.bool_] | None = None) -> Block:
    """Return pixels as a block with their validity.

    Parameters
    ----------
    pixels : ndarray
        `(y, x, c)`.
    nodata : float or None
        A pixel all of whose channels hold this value is not valid (the mask of a GDAL dataset); one with any channel
        that is not finite is not valid either, since no statistic survives it.
    seen : ndarray of bool, optional
        `(y, x)`, False where a mask beside the samples says that nothing was measured.

    Returns
    -------
    Block
        Pixels, 0 where not valid; `valid` is None when everything is.
    """
    valid = seen
    # channel by channel: a reduction over so short an axis takes ten times as long
    if nodata is not None and not math.isnan(nodata):
        measured = np.asarray(pixels[:, :, 0] != nodata)
        for channel in range(1, pixels.shape[2]):
            measured |= pixels[:, :, channel] != nodata
        valid = measured if valid is None else valid & measured
    if np.issubdtype(pixels.dtype, np.inexact):
        for channel in range(pixels.shape[2]):
            finite = np.asarray(np.isfinite(pixels[:, :, channel]))
            valid = finite if valid is None else valid & finite
    if valid is None or valid.all():
        return Block(pixels=pixels)
    return Block(pixels=np.where(valid[..., None], pixels, pixels.dtype.type(0)), valid=valid)


def validity_of(nodata: float | None, dtype: np.dtype[Any], *, has_mask: bool = False) -> Validity | None:
    """Return where the validity of an image comes from.

    Parameters
    ----------
    nodata : float or None
        Stored value that means "no measurement".
    dtype : dtype
        Type of the samples; floats can say it by not being finite.
    has_mask : bool
        Whether something beside the samples can say it.

    Returns
    -------
    Validity or None
        None where every pixel was measured.
    """
    if has_mask:
        return "mask"
    return "nodata" if nodata is not None or dtype.kind == "f" else None


def guess_dims(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return names for the axes of an array that names none.

    Parameters
    ----------
    shape : tuple of int
        Its shape.

    Returns
    -------
    tuple of str
        `(y, x)`, or with channels where one end of three axes is at most 4 and the other is not.

    Raises
    ------
    ConfigError
        When the axes cannot be told apart.
    """
    if len(shape) == 2:
        return ("y", "x")
    if len(shape) == 3 and shape[2] <= MOST_INTERLEAVED < shape[0]:
        return ("y", "x", "c")
    if len(shape) == 3 and shape[0] <= MOST_INTERLEAVED < shape[2]:
        return ("c", "y", "x")
    raise ConfigError.of(
        "`array`",
        got=f"shape {shape}, whose axes cannot be told apart",
        expected="names of its axes, such as ('c', 'y', 'x')",
        do="Give `dims`, or write `dimension_names` into the Zarr array.",
    )


def canonical_dims(dims: tuple[str, ...]) -> tuple[str, ...]:
    """Return axis names with the usual words for y, x and channels turned into `y`, `x` and `c`.

    Parameters
    ----------
    dims : tuple of str
        Names as given.

    Returns
    -------
    tuple of str
        Names with exactly one `y` and `x` and at most one `c`.

    Raises
    ------
    ConfigError
        When y or x is missing, or one of the three is there twice.
    """
    words = {**dict.fromkeys(Y_NAMES, "y"), **dict.fromkeys(X_NAMES, "x"), **dict.fromkeys(C_NAMES, "c")}
    names = tuple(words.get(name.lower(), name) for name in dims)
    if names.count("y") != 1 or names.count("x") != 1 or names.count("c") > 1:
        raise ConfigError.of(
            "`dims`",
            got=dims,
            expected=f"one axis of {Y_NAMES}, one of {X_NAMES} and at most one of {C_NAMES}",
            do="Rename the axes.",
        )
    return names


def extra_axes(axes: Mapping[str, int]) -> dict[str, int]:
    """Return the axes on which an index is chosen: all but y, x and c.

    Parameters
    ----------
    axes : Mapping
        Sizes by name.

    Returns
    -------
    dict
        Sizes of the extra ones.
    """
    return {name: size for name, size in axes.items() if name not in ("y", "x", "c")}


def default_names(size: int, dtype: np.dtype[Any]) -> tuple[str, ...]:
    """Return channel names for an image that names none.

    Parameters
    ----------
    size : int
        Number of channels.
    dtype : dtype
        Type of the samples.

    Returns
    -------
    tuple of str
        `R, G, B` for three of 8 bits, else `c0, c1 …`.
    """
    if size == 3 and dtype == np.uint8:
        return ("R", "G", "B")
    return tuple(f"c{index}" for index in range(size))


def unique_names(names: list[str]) -> tuple[str, ...]:
    """Return names made unique by a number behind each repetition, since users choose channels by name.

    Parameters
    ----------
    names : list of str
        Names as stored.

    Returns
    -------
    tuple of str
        As many names, no two equal.
    """
    result: list[str] = []
    for name in names:
        candidate, number = name, 2
        while candidate in result or (candidate != name and candidate in names):
            candidate, number = f"{name}-{number}", number + 1
        result.append(candidate)
    return tuple(result)
