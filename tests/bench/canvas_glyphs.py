"""Handwritten digits as drawings of any size, all with the same histogram of ink: only the shape tells a class.

scikit-learn's bundled digits (1,797 of 8 x 8 px, from the UCI set "Optical Recognition of Handwritten Digits") are
enlarged by cubic splines, turned a little, and their grey levels replaced by rank: the pixel of rank q of a drawing
gets ink(q), the same for all. So drawings of one size hold equally much ink and have equal contrast and entropy by
construction, a thin one as much as a fat zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt
from scipy import ndimage

SIZES_PX = (100, 124)
"""Least and most edge of a drawing, both included."""
TURN_DEGREES = 10.0
"""Most that a drawing is turned, either way."""
DIGIT_PX, PAD_PX, MARGIN_PX = 8, 2, 0.4
"""Edge of a digit, what is put around it to work on, and the margin that a drawing shows, in its pixels."""
PAPER_SHARE, FULL_SHARE = 0.78, 0.84
"""Ranks below the first have no ink, those above the second all of it."""
PARTS = ("train", "tune", "test")
PART_SHARES = (0.5, 0.15, 0.35)
"""Of the digits of each class; drawings of one digit are in one part only."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Glyph:
    """A drawing, made when its ink is first asked for."""

    digit: int
    """What it shows, 0 to 9."""
    source: int
    """Number of the digit in the data set."""
    edge: int
    """Of the drawing, px."""
    degrees: float
    """By how much it is turned."""

    @cached_property
    def ink(self) -> Floats:
        """Return `(edge, edge)`, 0 to 1."""
        return draw(digits()[0][self.source], self.edge, degrees=self.degrees)


@cache
def digits() -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return the digits `(1797, 8, 8)`, 0 to 16, and what they are."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.images.astype(np.float32), found.target.astype(np.int64)


def split(seed: int) -> dict[str, npt.NDArray[np.int64]]:
    """Return which digits train, tune and test canvases may use; no digit is in two parts, each class in all."""
    rng = np.random.default_rng((seed, 1797))
    parts: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in PARTS}
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(digits()[1] == digit))
        cuts = np.rint(np.cumsum(PART_SHARES)[:-1] * len(members)).astype(int)
        for name, chosen in zip(PARTS, np.split(members, cuts), strict=True):
            parts[name].append(chosen)
    return {name: np.sort(np.concatenate(chosen)) for name, chosen in parts.items()}


def ink_of(edge: int) -> Floats:
    """Return the ink of the pixels of a drawing from the least to the most."""
    rank = (np.arange(edge * edge, dtype=np.float32) + 0.5) / (edge * edge)
    ramp = np.clip((rank - PAPER_SHARE) / (FULL_SHARE - PAPER_SHARE), 0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def draw(image: Floats, edge: int, *, degrees: float = 0.0) -> Floats:
    """Return a digit as the ink of `(edge, edge)` pixels.

    Parameters
    ----------
    image : ndarray of float32
        `(8, 8)`.
    edge : int
        Of the drawing, px.
    degrees : float
        By how much it is turned about its centre.

    Returns
    -------
    ndarray of float32
        0 to 1; its sorted values are `ink_of(edge)`.
    """
    turned = ndimage.rotate(np.pad(image, PAD_PX), degrees, reshape=False, order=3, mode="nearest")
    # ranks of flat paper would be noise: what is nearer to the strokes comes first
    shape = ndimage.gaussian_filter(turned, 0.35) + 0.05 * ndimage.gaussian_filter(turned, 2.0)
    across = enlarging(edge)
    values = across @ shape @ across.T
    levels = np.rint((values - values.min()) / (np.ptp(values) + 1e-9) * 65535).astype(np.uint16)
    ink = np.empty(edge * edge, np.float32)
    ink[np.argsort(levels, axis=None, kind="stable")] = ink_of(edge)
    return ink.reshape(edge, edge)


@cache
def enlarging(edge: int) -> Floats:
    """Return `(edge, 12)`: by it a row of a padded digit becomes one of a drawing, by cubic splines."""
    at = ((np.arange(edge) + 0.5) / edge - 0.5) * (DIGIT_PX + 2 * MARGIN_PX) + (DIGIT_PX - 1) / 2 + PAD_PX
    units = np.eye(DIGIT_PX + 2 * PAD_PX)
    return np.stack([ndimage.map_coordinates(unit, at[None], order=3, mode="nearest") for unit in units], 1)


@cache
def glyphs(seed: int, part: str, variants: int) -> tuple[tuple[Glyph, ...], ...]:
    """Return the drawings of a part by class, `variants` of each digit, turned at random.

    Sizes of a class are evenly spaced and dealt out at random: a few hundred sizes drawn for each class would differ
    between classes, and be used so often that it shows.
    """
    classes = digits()[1]
    rng = np.random.default_rng((seed, PARTS.index(part), variants))
    found = []
    for digit in range(10):
        sources = [source for source in split(seed)[part] if classes[source] == digit for _ in range(variants)]
        edges = rng.permutation(np.rint(np.linspace(*SIZES_PX, len(sources))).astype(int))
        turns = rng.uniform(-TURN_DEGREES, TURN_DEGREES, len(sources))
        found.append(
            tuple(
                Glyph(digit=digit, source=int(source), edge=int(edge), degrees=float(turn))
                for source, edge, turn in zip(sources, edges, turns, strict=True)
            )
        )
    return tuple(found)
