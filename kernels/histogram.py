"""Histograms of 8-bit codes, one a tile and channel, over valid pixels only.

    histogram[n, ch, v] = #{pixels of tile n with code v in channel ch}

Integer counts: tolerance of the tests is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from tilestream.errors import ConfigError
from tilestream.kernels.rows import flat_rows


@njit(nogil=True, cache=True)
def _histogram_cpu(source: Any, valid: Any, masked: bool, out: Any) -> None:
    flat, tile_step, row_step, height, width = source
    channels = out.shape[1]
    for i in range(out.shape[0]):
        for y in range(height):
            start = i * tile_step + y * row_step
            row = flat[start : start + width * channels]
            for ch in range(channels):
                table = out[i, ch]
                for x in range(width):
                    table[row[x * channels + ch]] += 1 if not masked or valid[i, y, x] else 0


def histogram(pixels: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.uint32]:
    """Return how many valid pixels of each tile have each code, by channel.

    Parameters
    ----------
    pixels : ndarray of uint8
        `(n, c, h, w)` codes; views of interleaved memory are read in place.
    valid : ndarray of bool, optional
        `(n, h, w)`; by default every pixel is valid.

    Returns
    -------
    ndarray of uint32
        `(n, c, 256)`.

    Raises
    ------
    ConfigError
        When the samples are not 8-bit codes or the shapes do not belong together.
    """
    n, channels, height, width = pixels.shape
    if pixels.dtype != np.uint8 or (valid is not None and valid.shape != (n, height, width)):
        raise ConfigError.of(
            "`histogram`",
            got=f"{pixels.dtype} {pixels.shape}, valid {None if valid is None else valid.shape}",
            expected="uint8 (n, c, h, w), valid (n, h, w)",
            do="Turn samples into codes with `tilestream.kernels.companding.compand` first.",
        )
    flat, (tile_step, row_step) = flat_rows(np.moveaxis(pixels, 1, 3))
    mask = np.ones((1, 1, 1), np.bool_) if valid is None else np.ascontiguousarray(valid)
    out = np.zeros((n, channels, 256), np.uint32)
    _histogram_cpu((flat, tile_step, row_step, height, width), mask, valid is not None, out)
    return out
