"""Scalar maths of reading a pyramid at any position: what every sampler shares, on CPU and CUDA.

Texel centres are at +0.5; outside the image the nearest texel is read (clamp to edge):

    value(y, x, L) = (1 − f)·B(l0) + f·B(l0 + 1),    l0 = ⌊L⌋, f = L − l0, L clamped to the levels there are
    B(l)           = bilinear between the four texels of level l around u = y·num/den − 1/2, v = x·num/den − 1/2

(OpenGL 4.6 core, §8.14, with the true ratio num/den of each level in place of 2^l). How a position keeps its precision
is in `tilestream.kernels.leveltable`. `exact` is the type of positions and `real` that of results: float32 for both on
the hot path, so that no float64 occurs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.language import core, cpu_kernel, cuda_core, floor
from tilestream.kernels.leveltable import COLUMNS, RECIPROCAL_BITS

_FAR_PX = 2.0**31
"""Positions are clamped to this before they become integers; it is farther than any image reaches."""


@core
def split_core(at: Any, origin: Any, size: Any, exact: Any, real: Any) -> Any:
    """Whole px and fraction of a coordinate of level 0, clamped to the image; what is not a number is at 0."""
    far = exact(_FAR_PX)
    if not at > -far:
        at = -far
    if at > far:
        at = far
    whole = floor(at)
    fraction = real(at - exact(whole))
    i = np.int64(whole) + origin
    if i < 0 or i >= size:
        i = 0 if i < 0 else size
        fraction = real(0)
    return i, fraction


@core
def shift_core(at: Any, delta: Any, origin: Any, size: Any, exact: Any, real: Any) -> Any:
    """Do what `split_core` does, `delta` px further on, without rounding the coordinate."""
    far = exact(_FAR_PX)
    if not at > -far:
        at = -far
    if at > far:
        at = far
    if not delta > -real(_FAR_PX):
        delta = -real(_FAR_PX)
    if delta > real(_FAR_PX):
        delta = real(_FAR_PX)
    whole = floor(at)
    fraction = real(at - whole) + delta
    more = floor(fraction)
    fraction -= more
    i = np.int64(whole) + np.int64(more) + origin
    if i < 0 or i >= size:
        i = 0 if i < 0 else size
        fraction = real(0)
    return i, fraction


@core
def place_core(at: Any, num: Any, den: Any, reciprocal: Any, real: Any) -> Any:
    """Texel and weight of the next one, along one axis, of a position of level 0."""
    q = (at[0] * reciprocal) >> RECIPROCAL_BITS
    rest = at[0] * num - q * den
    if rest >= den:
        rest -= den
        q += 1
    t = real(rest) / real(den) + at[1] * (real(num) / real(den)) - real(0.5)
    whole = floor(t)
    return q + np.int64(whole), t - whole


@core
def axis_core(at: Any, axis: Any, real: Any) -> Any:
    """Where the two texels around a position lie in memory along one axis, and the weight of the second."""
    step, length, num, den, reciprocal = axis
    q, t = place_core(at, num, den, reciprocal, real)
    return min(max(q, 0), length - 1) * step, min(max(q + 1, 0), length - 1) * step, t


@core
def level_core(level: Any, levels: Any, exact: Any, real: Any) -> Any:
    """Finer level and share of the coarser one, 0 at the last level; what is not a number is level 0."""
    top = exact(levels - 1)
    if not level > exact(0):
        level = exact(0)
    if level > top:
        level = top
    whole = floor(level)
    return np.int64(whole), real(level - exact(whole))


@core
def mix_core(a: Any, b: Any, c: Any, d: Any, ty: Any, tx: Any) -> Any:
    """Bilinear mean of upper left, upper right, lower left and lower right."""
    upper = a + tx * (b - a)
    lower = c + tx * (d - c)
    return upper + ty * (lower - upper)


@cpu_kernel
def corners_cpu(table: Any, level: Any, y: Any, x: Any, real: Any) -> Any:
    """Where the four texels around a position lie in memory, and the weights of the lower and the right ones."""
    k = level * COLUMNS
    upper, lower, ty = axis_core(y, (table[k + 3], table[k + 4], table[k + 5], table[k + 6], table[k + 7]), real)
    left, right, tx = axis_core(x, (table[k + 8], table[k + 9], table[k + 10], table[k + 11], table[k + 12]), real)
    start = table[k]
    return start + upper + left, start + upper + right, start + lower + left, start + lower + right, ty, tx


@cpu_kernel
def texel_cpu(flat: Any, halves: Any, k: Any, real: Any) -> Any:
    """Return a sample as a real number, through the table of `tilestream.kernels.float16` where there is one."""
    i = np.uint64(k)  # never negative: Numba need not look
    return real(halves[np.uint64(flat[i])]) if halves.size > 1 else real(flat[i])


@cpu_kernel
def bilinear_cpu(flat: Any, halves: Any, corners: Any, offset: Any, real: Any) -> Any:
    """Bilinear mean at `corners` in the channel that lies `offset` samples on."""
    a, b, c, d, ty, tx = corners
    return mix_core(
        texel_cpu(flat, halves, a + offset, real), texel_cpu(flat, halves, b + offset, real),
        texel_cpu(flat, halves, c + offset, real), texel_cpu(flat, halves, d + offset, real), ty, tx,
    )  # fmt: skip


@cuda_core
def corners_cuda(table: Any, level: Any, y: Any, x: Any, real: Any) -> Any:
    """Where the four texels around a position lie in memory, and the weights of the lower and the right ones."""
    k = level * COLUMNS
    upper, lower, ty = axis_core(y, (table[k + 3], table[k + 4], table[k + 5], table[k + 6], table[k + 7]), real)
    left, right, tx = axis_core(x, (table[k + 8], table[k + 9], table[k + 10], table[k + 11], table[k + 12]), real)
    start = table[k]
    return start + upper + left, start + upper + right, start + lower + left, start + lower + right, ty, tx


@cuda_core
def bilinear_cuda(flat: Any, corners: Any, offset: Any, real: Any) -> Any:
    """Bilinear mean at `corners` in the channel that lies `offset` samples on."""
    a, b, c, d, ty, tx = corners
    return mix_core(
        real(flat[a + offset]), real(flat[b + offset]), real(flat[c + offset]), real(flat[d + offset]), ty, tx
    )
