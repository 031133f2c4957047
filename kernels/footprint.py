"""The footprint of a sample: how many probes it is read with, how far apart, and at which level.

With the gradients (∂y/∂u, ∂x/∂u) and (∂y/∂v, ∂x/∂v) of the position in px of level 0,

    P_u = √(y_u² + x_u²),  P_v = √(y_v² + x_v²),  N = min(⌈P_max / P_min⌉, max_anisotropy),  λ = log2(P_max / N)

(EXT_texture_filter_anisotropic, the rule it suggests; Khronos registry, extension 187). The level of λ is found between
the true ratios of the levels, so that a pyramid of any ratios is read at the right resolution.
"""

from __future__ import annotations

import math
from typing import Any

from tilestream.kernels.language import core, cpu_kernel, cuda_core, floor
from tilestream.kernels.leveltable import COLUMNS, LOG2, LOG2_UNIT

_SLACK = 1e-5
"""Relative; a ratio that is a whole number stays one after rounding."""
_LEAST_PX = 2.0**-60


@core
def footprint_core(u: Any, v: Any, most: Any, real: Any) -> Any:
    """Number of probes, the longer axis, and the binary logarithm of the px of level 0 that a probe stands for."""
    length_u = real(math.sqrt(u[0] * u[0] + u[1] * u[1]))
    length_v = real(math.sqrt(v[0] * v[0] + v[1] * v[1]))
    longer, shorter, y, x = length_v, length_u, v[0], v[1]
    if length_u >= length_v:
        longer, shorter, y, x = length_u, length_v, u[0], u[1]
    probes = real(most)
    if shorter * real(most) > longer:
        probes = -floor(-(longer / shorter * real(1 - _SLACK)))
    if not probes > real(1):
        probes = real(1)
    return int(probes), y, x, real(math.log2(max(longer / probes, real(_LEAST_PX))))


@cpu_kernel
def level_of_cpu(table: Any, log2: Any, real: Any) -> Any:
    """Finer level and share of the coarser one at a resolution."""
    levels = table.size // COLUMNS
    finer = 0
    while finer + 1 < levels and real(table[(finer + 1) * COLUMNS + LOG2]) * real(1 / LOG2_UNIT) <= log2:
        finer += 1
    low = real(table[finer * COLUMNS + LOG2]) * real(1 / LOG2_UNIT)
    if finer + 1 == levels or log2 <= low:
        return finer, real(0)
    return finer, (log2 - low) / (real(table[(finer + 1) * COLUMNS + LOG2]) * real(1 / LOG2_UNIT) - low)


@cuda_core
def level_of_cuda(table: Any, log2: Any, real: Any) -> Any:
    """Finer level and share of the coarser one at a resolution."""
    levels = table.size // COLUMNS
    finer = 0
    while finer + 1 < levels and real(table[(finer + 1) * COLUMNS + LOG2]) * real(1 / LOG2_UNIT) <= log2:
        finer += 1
    low = real(table[finer * COLUMNS + LOG2]) * real(1 / LOG2_UNIT)
    share = real(0)
    if finer + 1 < levels and log2 > low:
        share = (log2 - low) / (real(table[(finer + 1) * COLUMNS + LOG2]) * real(1 / LOG2_UNIT) - low)
    return finer, share
