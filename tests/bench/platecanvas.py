"""Canvases with one digit that is asked for: that on a plate of the wanted hue, among others on plates of other hues.

512 x 512 px of smooth ground; seven digits of scikit-learn (8 x 8 px, Alpaydin & Kaynak 1998) drawn at 12, 24 or 48 px
(0.05 to 0.9 % of the canvas), each on a square plate. A plate is seen from afar, its digit is not; all plates are
equally bright. Of the six others four show one class, the most frequent of the canvas: only who sees most of it can
tell. A digit lies inside a cell of the quadtree that is at least 1.25 times its size, anywhere in it, as a lesion of
the size of a tile lies in a tile: networks here read one token at a time and then weigh them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from tilestream.testing.noise import value_noise
from tilestream.types import Box

EDGE_PX = 512
PATCH_PX = 16
SIZES_PX = (12, 24, 48)
"""Edges of digits."""
DIGITS = 7
"""On a canvas; the first is the one that is asked for."""
SAME = 4
"""Of the others that are of one class."""
WANTED_HUE = (0.95, 0.35, 0.95)
OTHER_HUES = ((1, 0.35, 0.35), (0.35, 1, 0.35), (0.45, 0.45, 1), (1, 0.8, 0.2), (0.3, 0.95, 0.95))
_GROUND_PX = 1536
_INK = 235.0
_PLATE = 110.0
"""Brightness of ground and plates."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Canvas:
    """One canvas and what is on it."""

    pixels: Pixels
    """`(y, x, 3)`."""
    corners_yx: npt.NDArray[np.int64]
    """`(7, 2)` upper left corners of the digits, that of the wanted one first."""
    labels: npt.NDArray[np.int64]
    """`(7,)` classes of the digits."""
    size_px: int
    """Edge of the digits."""

    @property
    def frequent(self) -> int:
        """Return the class that most of the other digits have."""
        return int(np.bincount(self.labels[1:]).argmax())

    @property
    def centre_yx(self) -> tuple[float, float]:
        """Return the middle of the digit that is asked for."""
        y, x = self.corners_yx[0] + self.size_px / 2
        return float(y), float(x)


@cache
def digits() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the images `(n, 8, 8)` in 0 to 1 of scikit-learn's digits, and their classes."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return (found.images / 16).astype(np.float32), found.target.astype(np.int64)


def split(seed: int, test: int = 500) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return disjoint numbers of digits to train and to test with."""
    order = np.random.default_rng(seed).permutation(len(digits()[1]))
    return order[test:], order[:test]


@cache
def _drawn(number: int, size_px: int) -> npt.NDArray[np.float32]:
    """Return a digit at a size, `(size, size)` in 0 to 1; between its pixels linear."""
    image = digits()[0][number]
    at = (np.arange(size_px) + 0.5) * 8 / size_px - 0.5
    low = np.clip(np.floor(at).astype(int), 0, 7)
    high, part = np.minimum(low + 1, 7), np.clip(at - low, 0, 1).astype(np.float32)
    rows = image[low] * (1 - part)[:, None] + image[high] * part[:, None]
    found: npt.NDArray[np.float32] = rows[:, low] * (1 - part) + rows[:, high] * part
    return found


@cache
def _ground() -> Pixels:
    box = Box(y=0, x=0, height=_GROUND_PX, width=_GROUND_PX)
    smooth = _PLATE + 50 * (value_noise(box, cell_px=48, seed=3, octaves=4) - 0.5)
    grain = np.random.default_rng(1).normal(0, 6, (*smooth.shape, 3))
    return (smooth[..., None] + grain).clip(0, 255).astype(np.uint8)


def draw(rng: np.random.Generator, size_px: int, numbers: npt.NDArray[np.int64]) -> Canvas:
    """Return a canvas with digits out of `numbers`.

    Parameters
    ----------
    rng : Generator
        Decides everything else.
    size_px : int
        Edge of a digit.
    numbers : ndarray of int64
        Of the digits that may be drawn.

    Returns
    -------
    Canvas
        Plates do not overlap.
    """
    y0, x0 = rng.integers(0, _GROUND_PX - EDGE_PX, 2)
    pixels = _ground()[y0 : y0 + EDGE_PX, x0 : x0 + EDGE_PX].copy()
    cell = PATCH_PX
    while cell < 1.25 * size_px:
        cell *= 2
    margin = max(8, size_px // 2)
    corners: list[tuple[int, int]] = []
    while len(corners) < DIGITS:
        y, x = rng.integers(0, EDGE_PX // cell, 2) * cell + rng.integers(0, cell - size_px + 1, 2)
        if all(max(abs(y - v), abs(x - u)) >= size_px + 2 * margin for v, u in corners):
            corners.append((int(y), int(x)))
    chosen = _choose(rng, numbers)
    for place, ((y, x), number) in enumerate(zip(corners, chosen, strict=True)):
        hue = np.array(WANTED_HUE if place == 0 else OTHER_HUES[rng.integers(len(OTHER_HUES))], np.float32)
        plate = pixels[max(0, y - margin) : y + size_px + margin, max(0, x - margin) : x + size_px + margin]
        plate[:] = (0.5 * plate + 0.5 * _PLATE * hue / hue.mean()).clip(0, 255)
        ink = _drawn(int(number), size_px)[..., None]
        under = pixels[y : y + size_px, x : x + size_px]
        under[:] = under * (1 - ink) + _INK * ink
    return Canvas(pixels=pixels, corners_yx=np.array(corners, np.int64), labels=digits()[1][chosen], size_px=size_px)


def _choose(rng: np.random.Generator, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the wanted digit, four of one class, and two of two others."""
    classes = digits()[1][numbers]
    frequent, *others = rng.choice(10, 3, replace=False)
    of_class = [rng.choice(numbers[classes == one]) for one in (*[frequent] * SAME, *others)]
    return np.array([rng.choice(numbers), *of_class], np.int64)
