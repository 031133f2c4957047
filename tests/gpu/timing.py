"""How long work takes on a device, by its own clock."""

from __future__ import annotations

import statistics
from collections.abc import Callable

_HEAD_START_CYCLES = 20_000_000
"""About 10 ms in which the device does nothing, so that the host has put all calls in line before the first runs."""


def device_us(work: Callable[[], object], *, rounds: int = 30, repeat: int = 10) -> float:
    """Return the median time of one call in microseconds, between CUDA events on torch's current stream.

    Parameters
    ----------
    work : callable
        Puts its work on `torch.cuda.current_stream()`; hand operations `stream=current_stream()`.
    rounds : int
        How many medians are taken over, after as many as three calls to warm up.
    repeat : int
        Calls between two events. The device waits before the first one, so that what a launch costs the host, tens
        of microseconds, is not measured; see `_HEAD_START_CYCLES`.

    Returns
    -------
    float
        Microseconds.
    """
    import torch

    for _ in range(3):
        work()
    torch.cuda.synchronize()
    times = []
    for _ in range(rounds):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(_HEAD_START_CYCLES)
        start.record()
        for _ in range(repeat):
            work()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) * 1e3 / repeat)
    return statistics.median(times)


def current_stream() -> int:
    """Return the handle of torch's current stream."""
    import torch

    return int(torch.cuda.current_stream().cuda_stream)
