"""Entropy maps on a device, against the time that reading the pixels once takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.bench.table import make_row
from tests.gpu.timing import current_stream, device_us
from tilestream.kernels.structure_tensor import structure_tensor
from tilestream.kernels.tile_entropy import tile_entropy

EDGE_PX = 4096
TILE_PX = 64
ENTROPY_BAR_US = 30.0
"""Entropy of an RGBA image of 4096² on an H200."""
COPY_TB_S = 4.3
"""What an H200 copies, read and written, which floors are worked out with."""


def captured(work: Callable[[], object]) -> Callable[[], object]:
    """Return a CUDA graph of `work`, which replays without the host's cost of a launch."""
    import torch

    for _ in range(3):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    replay: Callable[[], object] = graph.replay
    return replay


def _row(name: str, image: Any, out: Any, bar_us: float | None, *, graph: bool) -> dict[str, Any]:
    def work() -> object:
        return tile_entropy(image, tile_px=TILE_PX, out=out, stream=current_stream())

    value = device_us(captured(work) if graph else work)
    size = image.numel() * image.element_size()
    how = "replayed as a CUDA graph" if graph else "launched from Python each time"
    return make_row(
        f"entropy of {name}{', CUDA graph' if graph else ''}", value, "us",
        bar=None if bar_us is None else (0.0, bar_us),
        note=f"{size / 1e6:.1f} MB read once, floor {size / COPY_TB_S / 1e6:.1f} us at {COPY_TB_S} TB/s; {how}",
    )  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    import torch

    shape = (EDGE_PX, EDGE_PX, 4)
    noise = torch.randint(0, 256, shape, dtype=torch.uint8, device="cuda").permute(2, 0, 1)
    glass = torch.full(shape, 243, dtype=torch.uint8, device="cuda").permute(2, 0, 1)
    rgb = torch.randint(0, 256, (*shape[:2], 3), dtype=torch.uint8, device="cuda").permute(2, 0, 1)
    grid = EDGE_PX // TILE_PX
    out = torch.empty((4, grid, grid), dtype=torch.float32, device="cuda")
    floats = noise[0].float()
    tensor = torch.empty((3, EDGE_PX, EDGE_PX), dtype=torch.float32, device="cuda")
    size = 4 * tensor.numel()
    return [
        _row("4096² RGBA noise", noise, out, ENTROPY_BAR_US, graph=True),
        _row("4096² RGBA glass", glass, out, ENTROPY_BAR_US, graph=True),
        _row("4096² RGBA noise", noise, out, None, graph=False),
        _row("4096² RGB noise", rgb, out[:3], None, graph=True),
        _row("4096² of one channel", noise.contiguous()[0], out[0], None, graph=True),
        make_row(
            "structure tensor of 4096² float32, sigma 1.5",
            device_us(captured(lambda: structure_tensor(floats, 1.5, out=tensor, stream=current_stream()))),
            "us",
            note=f"floor {(size + size / 3) / COPY_TB_S / 1e6:.0f} us: one plane read, three written",
        ),
    ]
