"""How large the networks of a tile are: they are stored with it, and a tile of few bytes cannot pay for large ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_SIZES: Final[tuple[tuple[float, Mapping[str, int]], ...]] = (
    (3e-3, {"hidden": 6, "context": 4, "convs": 1}),
    (1e-3, {"hidden": 10, "context": 6, "convs": 1}),
    (0.0, {"hidden": 16, "context": 8, "convs": 2}),
)
"""From which λ of a tile of 256 px on, which sizes: of some 450, 600 and 850 bytes."""
_PIXELS: Final = 256**2


def sizes_for(lmbda: float, pixels: int) -> Mapping[str, int]:
    """Return features and convolutions of the networks of one tile.

    Chosen by fits of a smooth and a busy crop of tissue, 256 px, at four prices: the smallest take 4 % off D + λ·R at
    5.6e-3, the largest 4 % at 6.4e-4 of the busy one. What they gain is a share of a tile, what they cost is not.

    Parameters
    ----------
    lmbda : float
        Price of a bit a pixel, where D is the mean squared error of samples of 0 to 1.
    pixels : int
        Of the tile.

    Returns
    -------
    Mapping
        `hidden`, `context` and `convs` of `model.PyramidShape`.
    """
    price = lmbda * _PIXELS / max(1, pixels)
    return next(sizes for least, sizes in _SIZES if price >= least)
