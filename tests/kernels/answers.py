"""The ways to run an operation that must give one answer: serial, parallel, and CUDA, simulated or real.

A test takes the fixture `on` and calls `on(histogram, pixels, valid)` with NumPy arrays; it gets NumPy arrays back.
TILESTREAM_TEST_BACKEND=cuda chooses CUDA in place of the CPU: with NUMBA_ENABLE_CUDASIM=1 in Numba's simulator, which
runs a thread in a millisecond, so arrays are tiny there; else on the device of the machine.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np

ON_CUDA = os.environ.get("TILESTREAM_TEST_BACKEND") == "cuda"
SIMULATED = ON_CUDA and os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
NAMES = (("simulator",) if SIMULATED else ("device",)) if ON_CUDA else ("serial", "parallel")
MAX_PX = 9 if SIMULATED else 70
"""Longest edge that properties should try."""


class Answer:
    """One way to run operations."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def is_cuda(self) -> bool:
        return self.name in ("simulator", "device")

    def __call__(self, operation: Callable[..., Any], *arrays: Any, **keywords: Any) -> Any:
        """Run it on arrays moved to where it runs, and move back what it returns."""
        if self.name == "serial":
            keywords = {"threads": 1, **keywords}
        if self.name == "parallel":
            keywords = {"threads": 2, **keywords}
        moved = {name: self.put(value) for name, value in keywords.items()}
        return self.get(operation(*[self.put(array) for array in arrays], **moved))

    def put(self, value: Any) -> Any:
        """Return a value with its arrays moved to where operations run, their strides kept."""
        if isinstance(value, (list, tuple)):
            return type(value)(self.put(item) for item in value)
        if not isinstance(value, np.ndarray) or not self.is_cuda:
            return value
        if self.name == "simulator":
            from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

            return FakeCUDAArray(value)
        return _on_device(value)

    def get(self, value: Any) -> Any:
        """Return a result with its arrays on the host."""
        if isinstance(value, (list, tuple)):
            return type(value)(self.get(item) for item in value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.replace(
                value, **{f.name: self.get(getattr(value, f.name)) for f in dataclasses.fields(value)}
            )
        if hasattr(value, "cpu"):
            return value.cpu().numpy()
        if hasattr(value, "copy_to_host"):
            return value.copy_to_host()
        return value


def _on_device(array: np.ndarray[Any, Any]) -> Any:
    """Return a torch tensor on the device with the strides of `array`: all memory that it spans is moved."""
    import torch

    if 0 in array.shape or any(step < 0 for step in array.strides):  # torch has no negative steps
        return torch.from_numpy(array.copy()).cuda()  # which a lone sample with a negative step would not be otherwise
    memory = np.lib.stride_tricks.as_strided(
        array, (sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)) // array.itemsize + 1,),
        (array.itemsize,),
    )  # fmt: skip
    steps = [step // array.itemsize for step in array.strides]
    return torch.as_strided(torch.from_numpy(memory.copy()).cuda(), array.shape, steps)
