"""The CUDA devices that a run may use, counted without touching CUDA: a process that has is bound to what it saw."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

NVML = "libnvidia-ml.so.1"
"""Comes with the driver."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
"""By this variable users and batch systems choose devices."""


def visible_devices(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the devices that CUDA would see, as entries of `CUDA_VISIBLE_DEVICES`.

    Parameters
    ----------
    environ : Mapping
        Environment variables.

    Returns
    -------
    tuple of str
        Numbers, or what the variable holds (UUIDs, slices of a device); empty without a driver.

    Notes
    -----
    As in CUDA, an entry that names no device hides itself and all after it.
    """
    count = driver_devices()
    given = environ.get(VISIBLE)
    if given is None or not count:
        return tuple(map(str, range(count)))
    found: list[str] = []
    for entry in (part.strip() for part in given.split(",")):
        is_number = entry.lstrip("-").isdigit()
        if not entry or (is_number and not 0 <= int(entry) < count) or entry in found:
            break
        if not is_number and not entry.upper().startswith(("GPU-", "MIG-")):
            break
        found.append(entry)
    return tuple(found)


def driver_devices() -> int:
    """Return the number of devices that the driver knows, 0 when there is no driver."""
    try:
        nvml = ctypes.CDLL(NVML)
    except OSError:
        return 0
    if nvml.nvmlInit_v2() != 0:  # the library is there, but no device or no right to use one
        return 0
    count = ctypes.c_uint(0)
    failed = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    nvml.nvmlShutdown()
    return 0 if failed else count.value
