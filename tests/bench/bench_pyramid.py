"""Decoding tiles of the pyramid codec on one core: grids and pixels, beside the same decoder in torch, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from tests.bench.pyramid_drawn import drawn_tile
from tests.bench.table import at_least, make_row, rates
from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.pyramid.file import PyramidFile
from tilestream.codecs.pyramid.latents import decode_grids
from tilestream.codecs.pyramid.nets import PASSES, PyramidNets, grid_shapes
from tilestream.codecs.pyramid.pyramidtile import PyramidTile
from tilestream.codecs.pyramid.sectioncoder import SectionReader, table_numbers
from tilestream.codecs.pyramid.tables import table_model
from tilestream.codecs.pyramid.torchdecode import to_tensors, torch_context, torch_synthesis
from tilestream.kernels.pyramid_context import pyramid_context
from tilestream.kernels.pyramid_synthesis import pixel_samples, pyramid_synthesis
from tilestream.types import Shape

RATE_BAR = 3.0
"""Mpx/s of one core."""
TORCH_BAR = 3.0
"""Times torch."""
FIRST_BAR_MS = 250.0
EDGE_PX = 512
_WHOLE_BITS = 4


@lru_cache(maxsize=2)
def tile(edge_px: int) -> tuple[PyramidNets, list[bytes], tuple[Any, ...]]:
    """Return networks, sections and grids."""
    return drawn_tile(edge_px)


def _bits(edge_px: int) -> str:
    bpp = sum(map(len, tile(edge_px)[1])) * 8 / edge_px**2
    return f"{edge_px}² px, RGB, 7 grids, 16 features, drawn from its model at {bpp:.2f} bpp"


def torch_grids(sections: list[bytes], shape: Shape, nets: PyramidNets, dtype: torch.dtype) -> list[torch.Tensor]:
    """Return grids as `decode_grids` does, with contexts in torch and the same range coder."""
    grids = [torch.zeros(size.yx, dtype=torch.int16) for size in grid_shapes(shape, nets.scales)]
    for number, section in zip(reversed(range(nets.scales)), sections, strict=True):
        reader = SectionReader(section)
        y, x = (torch.arange(size) % 2 for size in grids[number].shape)
        for turn in range(PASSES):
            net = nets.context[nets.table[number, turn]]
            middle, index = torch_context(grids, number, turn, net, dtype=dtype)
            symbols = reader.take(table_numbers(middle.numpy(), index.numpy()))
            chosen = y[:, None] != x if turn == PASSES - 1 else (y[:, None] == turn) & (x == turn)
            grids[number][chosen] = (middle >> _WHOLE_BITS) + torch.from_numpy(symbols).to(torch.int16)
    return grids


def grids_rows(*, edge_px: int = EDGE_PX, rounds: int = 3, share: float = 1.0) -> list[dict[str, Any]]:
    """Return the rate of decoding grids, and that beside torch; bars are multiplied by `share`."""
    nets, sections, grids = tile(edge_px)
    shape, mpx = Shape(y=edge_px, x=edge_px), edge_px**2 / 1e6

    def ours() -> float:
        decode_grids(sections, grid_shapes(shape, nets.scales), nets)
        return mpx

    def rival(dtype: torch.dtype) -> float:
        torch_grids(sections, shape, nets, dtype)
        return mpx

    same = all(
        np.array_equal(a, b.numpy())
        for a, b in zip(grids, torch_grids(sections, shape, nets, torch.float64), strict=True)
    )
    assert same, "torch decodes other grids"
    # contexts in float32 may choose another model than the encoder's: with luck its grids are right, so it is not run
    value, exact = _beside(ours, lambda: rival(torch.float64), rounds=rounds)
    note = f"{_bits(edge_px)}; from bytes to grids, the range coder (constriction) in both"
    return _pair("grids", value, ("torch, float64", exact), share, note)


def synthesis_rows(*, edge_px: int = EDGE_PX, rounds: int = 3, share: float = 1.0) -> list[dict[str, Any]]:
    """Return the rate of turning grids into pixels, and that beside torch; bars are multiplied by `share`."""
    nets, _, grids = tile(edge_px)
    samples, tensors, mpx = pixel_samples([0] * 3, [255] * 3, np.uint8), to_tensors(grids), edge_px**2 / 1e6

    def ours() -> float:
        pyramid_synthesis(grids, nets, samples=samples, threads=1)
        return mpx

    def rival(dtype: torch.dtype) -> float:
        torch_synthesis(tensors, nets, dtype=dtype).clamp_(0, 255 << 6).add_(32).bitwise_right_shift_(6).to(torch.uint8)
        return mpx

    value, exact, single = _beside(ours, lambda: rival(torch.float64), lambda: rival(torch.float32), rounds=rounds)
    note = f"{_bits(edge_px)}, two convolutions; to 8-bit samples; torch in float32, not exact: {single:.3g} Mpx/s"
    return _pair("synthesis", value, ("torch, float64", exact), share, note)


def context_row(edge_px: int = EDGE_PX) -> dict[str, Any]:
    """Return the rate of the contexts alone."""
    nets, _, grids = tile(edge_px)

    def ours() -> float:
        for number in range(nets.scales):
            for turn in range(PASSES):
                pyramid_context(grids, number, turn, nets.context[nets.table[number, turn]], threads=1)
        return edge_px**2 / 1e6

    ours()
    return make_row("pyramid contexts, 1 thread", rates([ours])[0], "Mpx/s", note="a part of decoding grids")


def first_row(edge_px: int = EDGE_PX, *, bar_ms: float = FIRST_BAR_MS) -> dict[str, Any]:
    """Return how long the first tile takes from its bytes to its pixels: with no model of the coder made before."""
    nets, sections, _ = tile(edge_px)
    shape = Shape(y=edge_px, x=edge_px)
    picture = Picture(shape=shape, channels=3, dtype="uint8", low=(0.0,) * 3, high=(255.0,) * 3)
    data = PyramidFile(picture=picture, nets=nets, sections=tuple(sections)).to_bytes()
    PyramidTile.from_bytes(data).decode()
    times_ms = []
    for _ in range(5):
        table_model.cache_clear()
        start = time.perf_counter()
        PyramidTile.from_bytes(data).decode()
        times_ms.append((time.perf_counter() - start) * 1e3)
    return make_row(
        "first pyramid tile, 1 thread", statistics.median(times_ms), "ms", bar=(0.0, bar_ms),
        note=f"{_bits(edge_px)}; a file to samples, kernels compiled, models of the range coder made anew",
    )  # fmt: skip


def _beside(*contestants: Callable[[], float], rounds: int) -> list[float]:
    """Return the rates of contestants, after a turn each, with one thread of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for contestant in contestants:
                contestant()
            return rates(contestants, rounds=rounds)
    finally:
        torch.set_num_threads(before)


def _pair(what: str, value: float, rival: tuple[str, float], share: float, note: str) -> list[dict[str, Any]]:
    """Return a row with the bar of a core, and one with that beside torch."""
    return [
        make_row(f"pyramid {what}, 1 thread", value, "Mpx/s", bar=at_least(share * RATE_BAR), note=note),
        make_row(f"pyramid {what} beside torch", value, "Mpx/s", rival=rival, bar=at_least(share * TORCH_BAR)),
    ]


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    return [*grids_rows(), context_row(), *synthesis_rows(), first_row()]
