"""Slow sampling of a pyramid in float64, and pyramids to sample."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from tests.kernels.answers import MAX_PX


def bilinear(level, ratio_yx, at_yx):
    """Values `(c, n)` of one level `(c, y, x)` at positions of level 0; `ratio_yx` px of level 0 are one of it."""
    size = np.array(level.shape[1:])
    scale = [np.longdouble(r.denominator) / np.longdouble(r.numerator) for r in map(Fraction, ratio_yx)]
    at = np.asarray(at_yx, np.longdouble) * scale - 0.5
    whole = np.floor(at).astype(np.int64)
    t = (at - whole).astype(np.float64).T
    y0, x0 = np.clip(whole, 0, size - 1).T
    y1, x1 = np.clip(whole + 1, 0, size - 1).T
    texels = level.astype(np.float64)
    upper = (1 - t[1]) * texels[:, y0, x0] + t[1] * texels[:, y0, x1]
    lower = (1 - t[1]) * texels[:, y1, x0] + t[1] * texels[:, y1, x1]
    return (1 - t[0]) * upper + t[0] * lower


def trilinear(levels, at_yx, level, ratios=None):
    """Values `(c, n)` at positions `(n, 2)` and levels `(n,)`."""
    size = levels[0].shape[1:]
    if ratios is None:
        ratios = [[Fraction(a, b) for a, b in zip(size, each.shape[1:], strict=True)] for each in levels]
    level = np.clip(np.asarray(level, np.float64), 0, len(levels) - 1)
    finer = np.floor(level).astype(int)
    share = level - finer
    coarser = np.minimum(finer + 1, len(levels) - 1)
    every = np.stack([bilinear(each, r, at_yx) for each, r in zip(levels, ratios, strict=True)])
    columns = np.arange(len(level))
    return (1 - share) * every[finer, :, columns].T + share * every[coarser, :, columns].T


def largest(levels):
    """The range that tolerances are a part of."""
    return max(float(np.abs(each.astype(np.float64)).max()) for each in levels) or 1.0


@st.composite
def pyramids(draw, dtypes=("uint8", "uint16", "float16", "float32", "float64")):
    """Levels `(c, y, x)` of odd sizes in any memory order, with any ratios of size."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    channels = draw(st.sampled_from([1, 3, 4]))
    size = [draw(st.integers(1, MAX_PX)), draw(st.integers(1, MAX_PX))]
    noise = np.random.default_rng(draw(st.integers(0, 99)))
    order = draw(st.sampled_from(["planar", "interleaved", "reversed"]))
    levels = []
    for _ in range(draw(st.integers(1, 4))):
        if dtype.kind == "u":
            texels = noise.integers(0, np.iinfo(dtype).max, (channels, *size), dtype, endpoint=True)
        else:
            texels = (noise.standard_normal((channels, *size)) * 50).astype(dtype)
        if order == "interleaved":
            wide = np.zeros((size[0] + 1, size[1] + 2, channels), dtype)
            wide[1:, 1:-1] = np.moveaxis(texels, 0, 2)
            texels = np.moveaxis(wide[1:, 1:-1], 2, 0)
        if order == "reversed":
            texels = np.ascontiguousarray(texels[:, ::-1, ::-1])[:, ::-1, ::-1]
        levels.append(texels)
        size = [draw(st.integers(max(1, n // 3), max(1, (n + 1) // 2))) for n in size]
    return levels
