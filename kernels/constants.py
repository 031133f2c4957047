"""Small tables that kernels only read, kept on each device after their first use.

A table is known by its bytes, so a copy on a device can never be out of date, and a repeated call over the same pyramid
sends nothing to the device: a launch, and the capture of one in a CUDA graph, need no transfer.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.kernels.language import SIMULATED, cuda
from tilestream.kernels.place import Array, Place

_KEPT = 256
"""Tables of all devices together; each is some kilobytes."""


def constant(here: Place, table: npt.NDArray[Any]) -> Array:
    """Return a small table where an operation runs.

    Parameters
    ----------
    here : Place
        Where that is.
    table : ndarray
        Some kilobytes at most, any shape; device copies of it are kept.

    Returns
    -------
    array
        One-dimensional, read-only: `table` itself on the host, or a Numba device array.
    """
    flat = np.ascontiguousarray(table).reshape(-1)
    if here.backend == "cpu":
        flat = flat.view()
        flat.flags.writeable = False
        return flat
    if SIMULATED:
        return cuda.to_device(flat)
    return _on_device(here.device, flat.dtype.str, flat.tobytes())


@functools.lru_cache(maxsize=_KEPT)
def _on_device(device: int, dtype: str, content: bytes) -> Array:
    with contextlib.nullcontext() if SIMULATED else cuda.gpus[device]:
        copy = cuda.to_device(np.frombuffer(content, dtype))
        # to_device may return before the copy has arrived, and other streams do not wait for the default one
        cuda.default_stream().synchronize()
    return copy
