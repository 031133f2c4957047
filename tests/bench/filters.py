"""Filters that `map` is measured with, where workers can import them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.uint8]


def blurred(pixels: Array) -> Array:
    """Return the 3 x 3 mean of `(y, x)` or `(y, x, c)`, in this thread alone."""
    cv2.setNumThreads(1)
    return np.asarray(cv2.blur(pixels, (3, 3), borderType=cv2.BORDER_REPLICATE))


def green(x: Array) -> Array:
    """Blur the second channel of tiles `(n, c, y, x)`."""
    return np.stack([blurred(np.ascontiguousarray(tile))[None] for tile in x[:, 1]])


def rgb(x: Array) -> Array:
    """Blur all channels of tiles `(n, c, y, x)`, which lie interleaved in memory."""
    return np.stack([blurred(tile) for tile in x.transpose(0, 2, 3, 1)]).transpose(0, 3, 1, 2)


CONTRACT: dict[str, Any] = {"px": 514, "output": "dense", "halo_px": 1}
green.contract = {**CONTRACT, "dim": 1}  # type: ignore[attr-defined]
rgb.contract = {**CONTRACT, "dim": 3}  # type: ignore[attr-defined]
