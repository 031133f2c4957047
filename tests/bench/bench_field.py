"""The hash field: a step of its fit beside plain torch, its bytes beside JPEG, any level beside a reduced level 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tests.bench.bench_hash import LAYERS, TORCH_CHUNK
from tests.bench.rd_pictures import CROPS, data_folder, read_crop
from tests.bench.table import at_least, make_row, rates
from tests.bench.torch_field import TorchField
from tilestream.codecs.conventional import CONVENTIONAL
from tilestream.codecs.fields.hashfield import HashField
from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.fields.sampler import PixelSampler
from tilestream.codecs.quality import psnr
from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.mip import mip
from tilestream.ops.field import hash_encode, mlp

FIT_BAR = 3.0
"""Times the step in plain torch."""
JPEG_BAR = 0.0
"""dB over JPEG 4:2:0 of as many bytes."""
LEVEL_BAR = -1.0
"""dB of a decoded level over level 0 decoded and reduced to it."""
STEPS = 1500
CROP = "cmu-a"
QUALITIES = (35.0, 55.0, 75.0)


class FitStep:
    """One step of a fit, ours or a rival's: pixels are drawn, the loss and its gradients found, Adam moves."""

    def __init__(self, edge_px: int, log2_table: int, batch_px: int) -> None:
        noise = np.random.default_rng(3)
        levels = Levels.of(noise.integers(0, 256, (3, edge_px, edge_px), np.uint8), levels=1)
        self.sampler, self.batch_px = PixelSampler(levels), batch_px
        self.grid = HashGrid.spanning(n_max=edge_px / 2, log2_table=log2_table)
        chance = torch.Generator().manual_seed(1)
        self.table = torch.empty(self.grid.entries, 2).uniform_(-1, 1, generator=chance).requires_grad_()
        self.weights = (torch.randn(LAYERS.parameters, generator=chance) * 0.15).requires_grad_()
        self.optimiser = torch.optim.Adam([self.table, self.weights], lr=1e-4, fused=True)

    def features(self, coords: torch.Tensor) -> torch.Tensor:
        """Return what our kernels make of positions."""
        return mlp(hash_encode(coords, self.table, grid=self.grid), self.weights, layers=LAYERS)

    def __call__(self) -> float:
        """Take a step and return its Mpx."""
        drawn = self.sampler.draw(self.batch_px)
        coords, values = torch.from_numpy(drawn.coords_xy), torch.from_numpy(drawn.values)
        self.optimiser.zero_grad(set_to_none=True)
        for part, wanted in zip(coords.split(self.chunk), values.split(self.chunk), strict=True):
            loss = F.mse_loss(self.features(part), wanted, reduction="sum") / values.numel()
            loss.backward()
        self.optimiser.step()
        return self.batch_px / 1e6

    @property
    def chunk(self) -> int:
        """Return how many positions go through at once."""
        return self.batch_px


class TorchStep(FitStep):
    """The same in plain torch, all levels at once or level by level, in pieces whose temporaries fit the cache."""

    def __init__(self, edge_px: int, log2_table: int, batch_px: int, *, at_once: bool, chunk: int) -> None:
        super().__init__(edge_px, log2_table, batch_px)
        self.field = TorchField(self.grid, LAYERS, self.table, self.weights, at_once=at_once)
        self._chunk = chunk

    def features(self, coords: torch.Tensor) -> torch.Tensor:
        """Return what torch makes of positions."""
        field = self.field
        if field.at_once:
            value = field.all_levels(coords)
        else:
            value = torch.cat([field.level(coords, level) for level in range(field.levels)], dim=1)
        for matrix in field.matrices[:-1]:
            value = F.linear(value, matrix).relu()
        return F.linear(value, field.matrices[-1])

    def __call__(self) -> float:
        """Take a step; matrices are views of the weights anew, since a backward pass frees the graph behind them."""
        self.field.matrices = [
            self.weights[start : start + i * o].reshape(o, i) for i, o, start, *_ in LAYERS.layout.tolist()
        ]
        return super().__call__()

    @property
    def chunk(self) -> int:
        """Return how many positions go through at once."""
        return self._chunk


def fit_row(
    *, edge_px: int = 512, log2_table: int = 15, batch_px: int = 1 << 15, rounds: int = 3, bar: float | None = None
) -> dict[str, Any]:
    """Return our rate of a fit on one thread beside the best of four ways to write its step in torch."""
    ours = FitStep(edge_px, log2_table, batch_px)
    rivals = [
        TorchStep(edge_px, log2_table, batch_px, at_once=at_once, chunk=chunk)
        for at_once in (True, False)
        for chunk in (batch_px, min(batch_px, TORCH_CHUNK))
    ]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for one in (ours, *rivals):
            one()
        value, *others = rates([ours, *rivals], rounds=rounds)
    finally:
        torch.set_num_threads(before)
    told = "all levels at once {:.3g}, in pieces of 16384 {:.3g}; level by level {:.3g}, in pieces {:.3g} Mpx/s"
    return make_row(
        f"fit of a hash field, L 16, F 2, T 2^{log2_table}, 32-64-64-3, a step, 1 thread",
        value,
        "Mpx/s",
        rival=("the same step in plain torch, the best of four ways", max(others)),
        bar=None if bar is None else at_least(bar),
        note=f"{batch_px:,} px a step, fused Adam in both; torch: {told.format(*others)}",
    )


def jpeg_at(codec: str, pixels: Any, bpp: float) -> float:
    """Return dB of a conventional codec at a rate, linear between its settings in the logarithm of the rate."""
    one, points = CONVENTIONAL[codec], []
    for setting in one.settings:
        data = one.encode(pixels, setting)
        points.append((np.log(8 * len(data) / pixels[0].size), psnr(one.decode(data), pixels)))
    return float(np.interp(np.log(bpp), *zip(*points, strict=True), left=np.nan, right=np.nan))


def rate_row(pixels: Any, quality: float, *, steps: int = STEPS, bar: float | None = None) -> dict[str, Any]:
    """Return how far a field of a quality is above JPEG 4:2:0 of as many bytes."""
    levels = Levels.of(pixels, levels=1)
    field = HashField.of_quality(quality, levels.picture)
    report = field.fit(levels, steps=steps)
    data = field.quantize().to_bytes()
    found = psnr(HashField.from_bytes(data).decode(), pixels)
    bpp = 8 * len(data) / pixels[0].size
    jpeg, best = (jpeg_at(codec, pixels, bpp) for codec in ("jpeg420", "jpegxl"))
    return make_row(
        f"hash field of quality {quality:g}, PSNR over JPEG 4:2:0 of as many bytes",
        found - jpeg,
        "dB",
        bar=None if bar is None else at_least(bar),
        note=f"{bpp:.2f} bpp, {found:.2f} dB; JPEG {jpeg:.2f}, JPEG XL {best:.2f} dB at that rate; float32 table "
        f"{psnr(field.decode(), pixels):.2f} dB; {steps} steps in {report.seconds:.0f} s on {CROP}, level 0 alone",
    )


def level_rows(pixels: Any, *, steps: int = STEPS, bar: float | None = None) -> list[dict[str, Any]]:
    """Return how levels on demand compare with level 0 decoded and reduced, in dB and in time a pixel."""
    levels = Levels.of(pixels, levels=4)
    field = HashField.of_quality(QUALITIES[1], levels.picture)
    field.fit(levels, steps=steps)
    stored = field.quantize()
    reduced = mip(np.ascontiguousarray(stored.decode()), levels=3, threads=1)
    found = [psnr(stored.decode(level=level), levels.pixels[level]) for level in range(4)]
    bpp = 8 * len(stored.to_bytes()) / pixels[0].size
    rows = [
        make_row(
            f"level {level} of a hash field on demand, PSNR over that of level 0 decoded and reduced",
            found[level] - psnr(reduced[level - 1], levels.pixels[level]),
            "dB",
            bar=None if bar is None else at_least(bar),
            note=f"{found[level]:.2f} dB; the field, of four levels, takes {bpp:.2f} bpp, {found[0]:.2f} dB at level 0",
        )
        for level in (1, 2, 3)
    ]

    def decoding(level: int) -> float:
        stored.decode(level=level, threads=1)
        return float(levels.pixels[level][0].size) / 1e6

    finest, *others = rates([lambda level=level: decoding(level) for level in range(4)])
    note = f"level 0: {finest:.3g}; 1 to 3: {', '.join(f'{rate:.3g}' for rate in others)} Mpx/s"
    rows.append(make_row("pixels a second of levels 1 to 3 of a hash field over level 0, 1 thread, the slowest",
                         min(others) / finest, "times", note=note))  # fmt: skip
    return rows


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark; those of tissue where real images are."""
    found = [fit_row(bar=FIT_BAR), fit_row(log2_table=19)]
    data = data_folder()
    if data is None:
        return found
    pixels = read_crop(next(crop for crop in CROPS if crop.name == CROP), data).pixels
    found += [rate_row(pixels, quality, bar=JPEG_BAR) for quality in QUALITIES]
    return found + level_rows(pixels, bar=LEVEL_BAR)
