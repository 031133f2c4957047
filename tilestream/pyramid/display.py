"""Pixels as people can look at them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tilestream.types import Array, Channel, Kind, Region

GOLDEN = 0.6180339887498949
"""Step of hues from one class to the next: neighbours differ much, and none comes twice."""
UNMEASURED = (188, 188, 188), (128, 128, 128)
"""Ground and lines of the hatch where nothing was measured."""
DAMAGED = (236, 200, 180), (178, 60, 0)
"""Ground and lines of the cross-hatch where blocks are damaged."""
HATCH_PX = 8
"""From one line of a hatch to the next."""


def display_pixels(
    region: Region, channels: Sequence[Channel] = (), *, kind: Kind = "intensity"
) -> npt.NDArray[np.uint8]:
    """Return the pixels of a small region as people can look at them.

    Parameters
    ----------
    region : Region
        Pixels `(c, y, x)` with their validity.
    channels : sequence of Channel
        Their names.
    kind : {"intensity", "labels"}
        What the samples are.

    Returns
    -------
    ndarray of uint8
        `(y, x, 3)`; 8-bit RGB as it is, anything else stretched from the 1st to the 99th percentile of each channel:
        the channels called red, green and blue, or the first three. White where nothing was measured on RGB, black
        elsewhere. Labels: a colour for each class number, the same in every image, and dark grey for 0.

    Notes
    -----
    The stretch is for the eye only: what a stage sees is never stretched.
    """
    pixels = region.pixels
    if kind == "labels":
        shown = _class_colours(pixels[0])
        shown[~region.valid] = 0
        return shown
    names = [channel.name.lower() for channel in channels]
    rgb = (
        pixels.dtype == np.uint8
        and pixels.shape[0] == 3
        and (not names or names[:3] in (["r", "g", "b"], ["red", "green", "blue"]))
    )
    if rgb:
        shown = np.array(pixels.transpose(1, 2, 0), np.uint8)
    else:
        named = [names.index(name) for name in ("red", "green", "blue") if name in names]
        chosen = named if len(named) == 3 else range(min(3, pixels.shape[0]))
        planes = [_stretch(pixels[c], region.valid) for c in chosen]
        planes += [planes[0] if len(planes) == 1 else np.zeros_like(planes[0])] * (3 - len(planes))
        shown = np.stack(planes, axis=-1)
    shown[~region.valid] = 255 if rgb else 0
    return shown


def hatch(shown: npt.NDArray[np.uint8], unknown: npt.NDArray[np.bool_], damaged: npt.NDArray[np.bool_]) -> None:
    """Mark in a picture where nothing was measured with a hatch, and where blocks are damaged with a cross-hatch.

    Parameters
    ----------
    shown : ndarray of uint8
        `(y, x, 3)` from `display_pixels`; written to.
    unknown : ndarray of bool
        `(y, x)`, where nothing was measured.
    damaged : ndarray of bool
        `(y, x)`, where blocks are damaged; goes before the other.
    """
    row, column = np.ogrid[: unknown.shape[0], : unknown.shape[1]]
    up, down = (row + column) % HATCH_PX == 0, (row - column) % HATCH_PX == 0
    for where, lines, (ground, ink) in ((unknown, up, UNMEASURED), (damaged, up | down, DAMAGED)):
        shown[where] = ground
        shown[where & lines] = ink


def _class_colours(labels: Array) -> npt.NDArray[np.uint8]:
    """Return a colour for each class number: hues a golden step apart, full and half light in turn."""
    numbers, place = np.unique(labels, return_inverse=True)
    hue = np.asarray(numbers, np.float64)[:, None] * GOLDEN + np.array([0.0, 2 / 3, 1 / 3])
    colours = np.clip(np.abs(hue % 1 * 6 - 3) - 1, 0, 1) * 0.85 + 0.1
    colours *= np.where(numbers % 2, 1.0, 0.65)[:, None]
    colours[numbers == 0] = 0.2
    return np.asarray(np.rint(colours * 255), np.uint8)[place.reshape(labels.shape)]


def _stretch(plane: Array, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    values = plane.astype(np.float64)
    known = values[valid & np.isfinite(values)]
    if not known.size:
        return np.zeros(plane.shape, np.uint8)
    low, high = np.percentile(known, (1, 99))
    if high <= low:
        low, high = float(known.min()), max(float(known.max()), float(known.min()) + 1)
    return np.asarray(np.rint(np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1) * 255), np.uint8)
