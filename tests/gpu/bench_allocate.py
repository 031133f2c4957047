"""The allocator on a device. The host waits for it several times a call, so the clock is that of the host."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from tests.bench.table import make_row
from tests.gpu.timing import current_stream, device_us
from tilestream.kernels.allocate import allocate
from tilestream.kernels.fovea import fovea_levels

ALLOCATE_BAR_US = 2000.0
"""A million nodes on an H200."""
LEAVES = 1024
COPY_TB_S = 4.3
"""What an H200 copies, read and written, which floors are worked out with."""


def gains_of(kind: str, leaves: int) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """Return gains of a full quadtree, finest first; see tests/bench/bench_allocate.py."""
    noise, gains, edge = np.random.default_rng(4), [], leaves // 2
    while edge:
        level = len(gains)
        found = noise.gamma(0.5, 1, (edge, edge)) * 3.0**level if kind == "relevance" else noise.random((edge, edge))
        gains.append((found * (kind != "fine" or level == 0)).astype(np.float32))
        edge //= 2
    return gains


def _row(kind: str, leaves: int, budget: int, bar_us: float | None) -> dict[str, Any]:
    import torch

    gains = [torch.from_numpy(level).cuda() for level in gains_of(kind, leaves)]
    times = []
    for _ in range(23):
        torch.cuda.synchronize()
        start = time.perf_counter()
        allocate(gains, budget, stream=current_stream())
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e6)
    nodes = (4 * leaves * leaves - 1) // 3
    floor = sum(level.numel() for level in gains) * 4 / COPY_TB_S / 1e6
    return make_row(
        f"allocate, {nodes / 1e6:.1f} M nodes, {kind}, {budget:,} tokens", statistics.median(times[3:]), "us",
        bar=None if bar_us is None else (0.0, bar_us),
        note=f"from call to result on the host's clock, median of 20; gains read once: {floor:.1f} us; "
        "some 55 launches and 4 copies to the host",
    )  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    import torch

    gaze = torch.tensor([[30_000.0, 40_000.0], [90_000.0, 20_000.0]], device="cuda")
    out = torch.empty((4096, 4096), dtype=torch.float32, device="cuda")
    keywords = {"e0_px": 1024.0, "max_level": 9.0, "step_px": 32.0, "out": out}
    return [
        _row("relevance", LEAVES, 2_620, ALLOCATE_BAR_US),
        _row("relevance", LEAVES, 200_000, ALLOCATE_BAR_US),
        _row("noise", LEAVES, 20_000, None),
        _row("fine", LEAVES, 20_000, None),
        _row("relevance", 2 * LEAVES, 20_000, None),
        make_row(
            "fovea levels of 4096² cells, 2 fixations",
            device_us(lambda: fovea_levels(gaze, (4096, 4096), stream=current_stream(), **keywords)),
            "us",
            note=f"floor {4 * 4096**2 / COPY_TB_S / 1e6:.0f} us: written once",
        ),
    ]
