"""Batches on their way to the device: from pinned memory that goes round, in a stream of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tilestream.errors import ConfigError
from tilestream.types import Array

RING = 3
"""Pinned buffers: one is filled, one is on its way, one waits for the device to have read it."""


@dataclass(frozen=True)
class Sent:
    """Tensors that are on the device when `wait` has returned."""

    pixels: torch.Tensor
    """`(n, c, h, w)`, channels last."""
    others: tuple[torch.Tensor, ...]
    """What is known of the tiles."""
    wait: Callable[[], None]
    """Makes the caller's stream wait for the copy."""


class HostSender:
    """Gives each batch memory of its own; there is nothing to send."""

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return an array `(n, h, w, c)` to be filled."""
        return np.empty(shape, dtype)

    def send(self, pixels: Array, *others: Array) -> Sent:
        """Return what was filled, or the first tiles of it, and what is known of them as tensors."""
        small = tuple(torch.from_numpy(values) for values in others)
        return Sent(torch.from_numpy(pixels).permute(0, 3, 1, 2), small, lambda: None)


class CudaSender:
    """Copies batches to a CUDA device beside whatever computes there.

    Parameters
    ----------
    device : torch.device
        The device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's own
        self._memory = [torch.empty(0, dtype=torch.uint8)] * RING
        self._read: list[torch.cuda.Event | None] = [None] * RING
        self._turn = 0

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return an array `(n, h, w, c)` to be filled, in pinned memory."""
        self._turn = (self._turn + 1) % RING
        read = self._read[self._turn]
        if read is not None:
            read.synchronize()  # the device has read what was in it before
        nbytes = int(np.prod(shape)) * dtype.itemsize
        if self._memory[self._turn].numel() < nbytes:
            self._memory[self._turn] = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
        return np.asarray(self._memory[self._turn].numpy()[:nbytes].view(dtype).reshape(shape))

    def send(self, pixels: Array, *others: Array) -> Sent:
        """Return what was filled, or the first tiles of it, and what is known of them, on the way to the device."""
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own
        with torch.cuda.stream(self._stream):
            sent, *small = (
                torch.from_numpy(values).to(self._device, non_blocking=True) for values in (pixels, *others)
            )
            done.record(self._stream)
        self._read[self._turn] = done

        def wait() -> None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(done)
            for tensor in (sent, *small):
                tensor.record_stream(current)  # its memory must not be given away while that stream reads it

        return Sent(sent.permute(0, 3, 1, 2), tuple(small), wait)


def new_sender(device: torch.device) -> HostSender | CudaSender:
    """Return what sends batches to a device.

    Parameters
    ----------
    device : torch.device
        `cpu` or a CUDA device.

    Returns
    -------
    HostSender or CudaSender
        For one thread.

    Raises
    ------
    ConfigError
        When there is no such device.
    """
    if device.type == "cpu":
        return HostSender()
    if device.type != "cuda" or not torch.cuda.is_available():
        raise ConfigError.of(
            f"device `{device}`",
            got="no such device in this process",
            expected="`cpu`" + (", or `cuda`" if torch.cuda.is_available() else ", since torch sees no CUDA device"),
            do="Choose another, or move the batches yourself.",
        )
    # by number: the thread that sends has a current device of its own
    return CudaSender(torch.device("cuda", torch.cuda.current_device()) if str(device) == "cuda" else device)
