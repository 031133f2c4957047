"""Symmetric filters that halve an image, in integers, and the light in which they add.

    out[y] = Σ_k w_k (x[2y−k] + x[2y+1+k]) / Σ weights of the pixels that exist,   k = 0 … radius−1

so that pixel y lies on the boundary of pixels 2y and 2y+1, as the mean of two does: no filter shifts a level. Weights
are integers whose sum is a power of two, so that sums of integers are exact and the result is the same however an image
is cut. With d = (k + ½)/2, the distance in pixels of the result:

    box       1
    binomial  3 1                                              (Burt & Adelson 1983, of even length; a triangle too)
    kaiser    sinc(d) I₀(4 √(1 − (d/3)²)), d < 3               (NVIDIA Texture Tools: width 3, α 4)
    lanczos   sinc(d) sinc(d/3), d < 3                         (Lanczos 3 as Pillow has it)

the last two to 14 bits. What is averaged is the sample itself, or what it stands for:

    stored    v
    linear    intensity of sRGB: s/12.92 for s ≤ 0.04045, else ((s + 0.055)/1.055)^2.4, s = v/255    (IEC 61966-2-1)
    density   optical density −log10((v + 1)/256), see `tilestream.kernels.stain`; its mean is that of the stain

in 16 bits, and back to the nearest code: a level of one colour keeps it. Only 8-bit samples have a light.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.language import core, cuda_core
from tilestream.kernels.stain import density_table

MAX_RADIUS = 6
"""Most pixels on either side of the middle."""
BITS = 14
"""Of the weights of Kaiser and Lanczos: sums of 16-bit samples down a column fit 32 bits."""

FilterName = Literal["box", "binomial", "kaiser", "lanczos"]
FILTERS: tuple[FilterName, ...] = ("box", "binomial", "kaiser", "lanczos")
Light = Literal["stored", "linear", "density"]
LIGHTS: tuple[Light, ...] = ("stored", "linear", "density")


@dataclass(frozen=True, kw_only=True)
class Fir:
    """A separable filter that halves an image."""

    name: str
    """What a store records."""
    weights: tuple[int, ...]
    """One side, from the middle outwards; their sum is a power of two, and no more than half of them is negative."""

    def __post_init__(self) -> None:
        total, absolute = sum(self.weights), sum(map(abs, self.weights))
        fits = 1 <= len(self.weights) <= MAX_RADIUS and 0 < total <= 2 ** (BITS - 1) and absolute < 2 * total
        if not fits or total & (total - 1) or self.weights[0] <= 0:
            raise ConfigError.of(
                "`weights` of `Fir`",
                got=self.weights,
                expected=f"up to {MAX_RADIUS} integers, the first positive, sum a power of two up to {2 ** (BITS - 1)}",
                do="Scale and round them so.",
            )

    @property
    def radius(self) -> int:
        """Pixels on either side of the middle."""
        return len(self.weights)

    @property
    def shift(self) -> int:
        """The weights of both axes sum to 2^shift."""
        return 2 * sum(self.weights).bit_length()

    def halo_px(self, levels: int) -> int:
        """Return how many pixels around a part of an image its first levels depend on, one made of the other."""
        return ((1 << levels) - 1) * (self.radius - 1)


def _in_integers(weight: Callable[[float], float]) -> tuple[int, ...]:
    values = [weight((k + 0.5) / 2) for k in range(MAX_RADIUS)]
    half = 2 ** (BITS - 1)
    rounded = [round(value * half / sum(values)) for value in values]
    return (rounded[0] + half - sum(rounded), *rounded[1:])


def _sinc(x: float) -> float:
    return math.sin(math.pi * x) / (math.pi * x)


@functools.cache
def fir_of(name: str) -> Fir:
    """Return a filter by its name.

    Parameters
    ----------
    name : {"box", "binomial", "kaiser", "lanczos"}
        Which one.

    Returns
    -------
    Fir
        Its weights.

    Raises
    ------
    ConfigError
        When there is none of that name.
    """
    if name == "box":
        return Fir(name=name, weights=(1,))
    if name == "binomial":
        return Fir(name=name, weights=(3, 1))
    if name == "kaiser":
        return Fir(name=name, weights=_in_integers(lambda d: _sinc(d) * float(np.i0(4 * math.sqrt(1 - (d / 3) ** 2)))))
    if name == "lanczos":
        return Fir(name=name, weights=_in_integers(lambda d: _sinc(d) * _sinc(d / 3)))
    raise ConfigError.of("`filter`", got=repr(name), expected=f"one of {', '.join(FILTERS)}", do="Choose one.")


@functools.cache
def light_tables(light: Light) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return what 8-bit samples stand for, and where one code ends and the next begins.

    Parameters
    ----------
    light : {"linear", "density"}
        What is averaged.

    Returns
    -------
    tuple of ndarray of uint16
        `(256,)` ascending, 0 to 65535, and `(255,)`: the code of a mean is the number of edges at or below it. An edge
        is what half a code stands for.
    """
    codes = np.arange(511) / 2
    if light == "linear":
        signal = codes / 255
        values = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    else:
        # ascending, as everything that is compared with edges: the density of black less that of a code
        values = np.log10(codes + 1) / float(density_table("uint8")[0])
    ticks = np.rint(values * 65535).astype(np.uint16)
    table, edges = ticks[::2].copy(), ticks[1::2].copy()
    for array in (table, edges):
        array.flags.writeable = False
    return table, edges


def limits_of(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the smallest and largest sample of integers: negative weights reach beyond what they filter."""
    if dtype.kind not in "iu":
        return 0, 1
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


@core
def tap_core(offset: Any) -> Any:
    """Return which weight belongs to an offset from pixel 2y: 0 and 1 are the middle."""
    return -offset if offset <= 0 else offset - 1


def _codes(edges: Any, ticks: Any) -> Any:
    """Return how many of 255 ascending edges lie at or below a value."""
    code = 0
    for power in range(7, -1, -1):
        step = 1 << power
        if edges[code + step - 1] <= ticks:
            code += step
    return code


codes_core, codes_on_cuda = core(_codes), cuda_core(_codes)
