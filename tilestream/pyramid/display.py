"""Pixels as people can look at them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tilestream.types import Array, Channel, Region


def display_pixels(region: Region, channels: Sequence[Channel] = ()) -> npt.NDArray[np.uint8]:
    """Return the pixels of a small region as people can look at them.

    Parameters
    ----------
    region : Region
        Pixels `(c, y, x)` with their validity.
    channels : sequence of Channel
        Their names.

    Returns
    -------
    ndarray of uint8
        `(y, x, 3)`; 8-bit RGB as it is, anything else stretched from the 1st to the 99th percentile of each channel:
        the channels called red, green and blue, or the first three. White where nothing was measured on RGB, black
        elsewhere.

    Notes
    -----
    The stretch is for the eye only: what a stage sees is never stretched.
    """
    pixels = region.pixels
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


def _stretch(plane: Array, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    values = plane.astype(np.float64)
    known = values[valid & np.isfinite(values)]
    if not known.size:
        return np.zeros(plane.shape, np.uint8)
    low, high = np.percentile(known, (1, 99))
    if high <= low:
        low, high = float(known.min()), max(float(known.max()), float(known.min()) + 1)
    return np.asarray(np.rint(np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1) * 255), np.uint8)
