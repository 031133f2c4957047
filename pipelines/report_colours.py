"""Colours of heat maps and time bars, chosen so that colour-blind readers and grey printers keep the order."""

from __future__ import annotations

import imagecodecs
import numpy as np
import numpy.typing as npt

# Every tenth of viridis (van der Walt and Smith 2015, CC0): even in lightness, safe for all forms of colour blindness.
_VIRIDIS = (
    "440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151", "bddf26", "fde725",
)  # fmt: skip
# Okabe and Ito 2008, the order changed so that neighbours in a bar also differ in lightness; the last is Tol's wine.
_CATEGORIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#882255")
OTHER = "#999999"


def stops() -> tuple[str, ...]:
    """Return the colours of the scale from low to high, evenly spaced, as CSS."""
    return tuple(f"#{stop}" for stop in _VIRIDIS)


def category(number: int) -> str:
    """Return the CSS colour of the n-th part of a bar."""
    return _CATEGORIES[number] if number < len(_CATEGORIES) else OTHER


def heat_rgba(values: npt.NDArray[np.float32], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Return the colours of some values; transparent where there is none.

    Parameters
    ----------
    values : ndarray of float32
        `(y, x)`, NaN where nothing is known.
    low, high : float
        Values of the first and last colour.

    Returns
    -------
    ndarray of uint8
        `(y, x, 4)`.
    """
    table = np.array([[int(stop[i : i + 2], 16) for i in (0, 2, 4)] for stop in _VIRIDIS], np.float64)
    known = np.isfinite(values)
    place = np.clip((np.where(known, values, low) - low) / max(high - low, 1e-12), 0, 1) * (len(table) - 1)
    below = np.minimum(place.astype(np.int64), len(table) - 2)
    part = (place - below)[..., None]
    rgb = table[below] * (1 - part) + table[below + 1] * part
    return np.concatenate([np.rint(rgb), np.where(known, 255, 0)[..., None]], axis=-1).astype(np.uint8)


def heat_png(values: npt.NDArray[np.float32], low: float, high: float) -> bytes:
    """Return a heat map as PNG, one pixel a value.

    Parameters
    ----------
    values : ndarray of float32
        `(y, x)`, NaN where nothing is known.
    low, high : float
        Values of the first and last colour.

    Returns
    -------
    bytes
        PNG file.
    """
    return bytes(imagecodecs.png_encode(heat_rgba(values, low, high), level=9))
