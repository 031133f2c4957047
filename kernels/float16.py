"""Float16 on the host, where Numba has no arithmetic on it: codes to numbers by a table, numbers to codes by integers.

Rounding to nearest, ties to even; overflow is infinity. Tolerance of the tests: 0 against NumPy, for every code and its
neighbours.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.kernels.language import core


@functools.cache
def half_values() -> npt.NDArray[np.float32]:
    """Return the float32 of every float16, by its bits."""
    return np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


@core
def half_code_core(value: Any) -> Any:
    """Return the 16 bits of the float16 nearest to a float32.

    Integer form after F. Giesen, "float->half variants" (public domain), `float_to_half_fast3_rtne`.
    """
    number = np.float32(value)
    bits = number.view(np.uint32)
    sign = np.uint32((bits >> np.uint32(16)) & np.uint32(0x8000))
    bits = np.uint32(bits & np.uint32(0x7FFFFFFF))
    # a normal float16: another bias, and half a unit less a bit, or half a unit where the kept part is odd
    code = np.uint32((bits + np.uint32(0xC8000FFF) + ((bits >> np.uint32(13)) & np.uint32(1))) >> np.uint32(13))
    # a subnormal one: an addition rounds at the right bit
    small = np.float32(bits.view(np.float32) + np.float32(0.5))
    if bits < np.uint32(113 << 23):
        code = np.uint32(small.view(np.uint32) - np.uint32(126 << 23))
    if bits >= np.uint32(143 << 23):
        code = np.uint32(0x7E00) if bits > np.uint32(255 << 23) else np.uint32(0x7C00)
    return np.uint16(code | sign)
