"""Evenly spaced samples of a square in fixed point: where they lie in a level, and which texels they read.

Sample j of p over [first, first + size) px of level 0 lies in a level of ratio num/den at

    u_j = (first + (j + 1/2)·size/p)·num/den − 1/2

kept as 32.32 bits from float64: two numbers an axis, the first position and the step, give every position to 1e-7 px,
with one integer multiplication and no float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.language import core, floor

ONE = 2.0**32
"""Of fixed-point positions."""
BITS = 32
SNAP_PX = 2.0**-20
"""A token whose samples are this close to texels lies on them: float64 positions of tokens are rounded."""
FAR_PX = 2.0**30


@core
def lattice_core(first: Any, size: Any, patch: Any, num: Any, den: Any) -> Any:
    """Fixed-point position of the first sample of a token in a level along one axis, and the step to the next."""
    ratio = np.float64(num) / np.float64(den)
    step = min(size, FAR_PX) / np.float64(patch) * ratio
    start = (min(max(first, -FAR_PX), FAR_PX) + min(size, FAR_PX) / np.float64(patch) * 0.5) * ratio - 0.5
    nearest = floor(start + 0.5)
    if abs(step - 1.0) * np.float64(patch) < SNAP_PX and abs(start - nearest) < SNAP_PX:
        start = nearest
        step = 1.0
    return np.int64(floor(start * ONE + 0.5)), np.int64(floor(step * ONE + 0.5))


@core
def tap_core(position: Any, last: Any) -> Any:
    """First and second texel of a fixed-point position along one axis, clamped, and the weight of the second."""
    q = position >> BITS
    t = np.float32(position & 0xFFFFFFFF) * np.float32(1.0 / ONE)
    # what has no weight is not read: it may be NaN
    return min(max(q, 0), last), min(max(q + (t > 0), 0), last), t
