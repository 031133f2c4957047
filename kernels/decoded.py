"""What decoders of fields write: codes of 0 to 255 or values as they are, `(c, y, x)` of interleaved memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.hash_raster import code_core
from tilestream.kernels.language import cpu_kernel
from tilestream.kernels.place import Array, empty_like
from tilestream.kernels.rows import flat_view


@cpu_kernel
def write_codes(found: Any, channels: Any, n: Any, out: Any, to: Any, steps: Any) -> None:
    """Write channels × n values to a run as codes."""
    for i in range(channels):
        for p in range(n):
            out[to + i * steps[0] + p * steps[1]] = code_core(found[i, p])


@cpu_kernel
def write_values(found: Any, channels: Any, n: Any, out: Any, to: Any, steps: Any) -> None:
    """Write channels × n values to a run."""
    for i in range(channels):
        for p in range(n):
            out[to + i * steps[0] + p * steps[1]] = found[i, p]


def room_for(like: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return a new array of the kind of another: `(n, c)`, or `(c, y, x)` as a view of interleaved memory."""
    if len(shape) == 2:
        return empty_like(like, shape, dtype)
    memory = empty_like(like, (*shape[1:], shape[0]), dtype)
    return memory.permute(2, 0, 1) if hasattr(memory, "permute") else memory.transpose((2, 0, 1))


def outputs_of(out: Array) -> tuple[Any, bool]:
    """Return a host output as a run of float32 and one of uint8, one of them empty, and whether it is codes."""
    flat, start, steps = flat_view(out, writable=True)
    if out.dtype == np.uint8:
        return (np.empty(0, np.float32), flat, start, steps), True
    return (flat, np.empty(0, np.uint8), start, steps), False
