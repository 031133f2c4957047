"""Reading less of one image on a device, as one path: levels, relevance, cut and gather of 273 tokens.

The allocator waits for the device, so the clock is that of the host.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from tests.bench.bench_fovea import BUDGET, EDGE_PX, LEVELS, cut_of, read_less, read_tokens, relevance_gains, square
from tests.bench.table import make_row
from tests.gpu.timing import current_stream
from tilestream.kernels import mip

BAR_US = 1000.0
"""The whole path on an H200."""
ROUNDS = 50


def path_row(dtype: str) -> dict[str, Any]:
    """Return the time of the path, after its tokens were what the host reads at their places."""
    import torch

    pixels = square()
    image = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, 0, 2))).cuda().permute(2, 0, 1)
    level_1 = mip(image, levels=1, stream=current_stream())[0]
    tokens = cut_of(relevance_gains(level_1, stream=current_stream()), stream=current_stream()).cpu().numpy()
    found = read_less(image, dtype=dtype, stream=current_stream()).float().cpu().numpy()
    expected = read_tokens([pixels, *mip(pixels, levels=LEVELS)], tokens)
    np.testing.assert_allclose(found, expected, atol=1e-5 if dtype == "float32" else 2e-3)
    times = []
    for _ in range(ROUNDS + 5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        read_less(image, dtype=dtype, stream=current_stream())
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e6)
    return make_row(
        f"{EDGE_PX}² u8 RGB to {len(expected)} of {BUDGET} tokens, {dtype}: levels, entropy, cut, gather",
        statistics.median(times[5:]), "us", bar=(0.0, BAR_US),
        note=f"from call to result on the host's clock, median of {ROUNDS}; everything allocated anew each time",
    )  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    return [path_row("float32"), path_row("float16")]
