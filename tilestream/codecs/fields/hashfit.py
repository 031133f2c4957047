"""The fit of a hash field: table and network as tensors, the loss of a batch, and what quantisation adds to it.

    loss = Σ over levels k of share_k / share_0 · LEVEL_GAIN^k · MSE_k + λ · bits / pixel

A coarser level can be had better, so its errors count more. With λ > 0 the table is fitted in steps of `STEP`: with the
noise of rounding for `NOISY_SHARE` of the fit, rounded after. With `bits` alone it is rounded from `FREE_SHARE` of the
fit on, by scales of least error that are looked for anew every `SCALE_STEPS` steps until `SETTLED_SHARE`. In both the
network is rounded too in the last part. A fit whose length is not known is not rounded.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from tilestream.codecs.fields.fakequant import fake_quantise, noisy, rate_bits, scales_each
from tilestream.codecs.fields.fitting import Learned
from tilestream.codecs.fields.hashlevels import Arrays, level_grid, level_tables
from tilestream.codecs.fields.hashparts import (
    NETWORK_BITS,
    STEP,
    HashParts,
    by_group,
    footprint_weights,
    from_groups,
    level_parameters,
)
from tilestream.codecs.fields.hashsettings import HashSettings
from tilestream.codecs.fields.hashtorch import reference_encode, reference_mlp
from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.fields.probefit import ProbedTable
from tilestream.codecs.fields.probing import ProbedEntries, ProbedGrid
from tilestream.codecs.fields.sampler import PixelSampler, Samples
from tilestream.kernels.mlp_layers import MlpLayers
from tilestream.ops.field import hash_encode, mlp

TABLE_RATE = 1e-2
NETWORK_RATE = 5e-3
SCORE_RATE = 1e-1
"""Of the scores of choices, where there are some."""
NOISY_SHARE = 0.8
FREE_SHARE = 0.3
SCALE_STEPS = 10
SETTLED_SHARE = 0.7
LEVEL_GAIN = 2.0
FIRST_ENTRY = 1e-4


def first_parts(settings: HashSettings, picture: Picture) -> HashParts:
    """Return what a fit starts with: a table of nearly nothing, and a network that gives mid-grey.

    Parameters
    ----------
    settings : HashSettings
        Sizes and the seed.
    picture : Picture
        What it will stand for.

    Returns
    -------
    HashParts
        Weights uniform by the inputs of each layer; gains 1 and shifts 0.
    """
    grid = settings.grid(max(settings.n_min, picture.extent_px / 2) if settings.n_max is None else settings.n_max)
    layers = MlpLayers(widths=(grid.width, *[settings.hidden] * settings.layers, picture.channels), biases=True)
    chance = torch.Generator().manual_seed(settings.seed)
    network = torch.zeros(layers.parameters + level_parameters(grid.levels, settings.hidden, picture.levels))
    last = len(layers.layout) - 1
    for number, (inputs, outputs, start, bias, *_) in enumerate(layers.layout.tolist()):
        bound = math.sqrt((1 if number == last else 6) / inputs)
        network[start : start + inputs * outputs].uniform_(-bound, bound, generator=chance)
        if number == last:
            network[bias : bias + outputs] = 0.5
    table = torch.empty(grid.entries, grid.features).uniform_(-FIRST_ENTRY, FIRST_ENTRY, generator=chance).numpy()
    probed = None
    if settings.probing is not None:
        probing = ProbedGrid(narrow=grid, probing=settings.probing)
        probed = ProbedEntries(grid=probing, entries=table, choices=np.zeros(probing.choice_starts[-1], np.int16))
    return HashParts(
        grid=grid if probed is None else probed.grid.wide,
        layers=layers,
        extent_px=picture.extent_px,
        levels=picture.levels,
        table=table if probed is None else probed.table(),
        network=network.numpy(),
        probed=probed,
    )


class HashFit:
    """A hash field while it is fitted.

    Parameters
    ----------
    parts : HashParts
        Where it stands.
    picture : Picture
        What it is fitted to.
    sampler : PixelSampler
        Where its pixels come from.
    settings : HashSettings
        What it will be quantised to, and the seed of the noise of rounding.
    backend : {"cpu", "cuda", "torch"}
        Our kernels where the tensors are, or plain torch on the CPU.
    """

    def __init__(
        self, parts: HashParts, picture: Picture, sampler: PixelSampler, *, settings: HashSettings, backend: str
    ) -> None:
        self._settings, self._start, self._backend = settings, parts, backend
        self._device = torch.device("cuda" if backend == "cuda" else "cpu")
        self.table = self._tensor(parts.stored).requires_grad_()
        self.network = self._tensor(parts.network).requires_grad_()
        self._generator = torch.Generator(self._device).manual_seed(settings.seed)
        self._pixels = picture.shape.y * picture.shape.x
        levels, extent = range(picture.levels), parts.extent_px
        grids = [level_grid(parts.grid, level=level, extent_px=extent) for level in levels]
        self._footprints = [
            self._tensor(footprint_weights(grid, level=level, extent_px=extent))
            for level, grid in zip(levels, grids, strict=True)
        ]
        unit = sampler.shares[0] if sampler.shares[0] > 0 else 1.0
        self._level_gains = [LEVEL_GAIN**level / unit for level in levels]
        self._arrays = Arrays(of=lambda array: torch.from_numpy(array).to(self._device), join=torch.cat)
        self._scales: tuple[torch.Tensor, torch.Tensor] | None = None
        self._steps = 0
        self._probed: ProbedTable | None = None
        if parts.probed is not None:
            self._probed = ProbedTable(parts.probed.grid, self._device)
            chance = torch.Generator().manual_seed(settings.seed)
            self.scores = self._probed.new_scores(parts.probed.choices, chance).to(self._device).requires_grad_()

    def _tensor(self, values: npt.NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(values.copy()).to(self._device)

    def learned(self) -> list[Learned]:
        """Return what is fitted, and how fast."""
        found = [
            Learned(tensors=(self.table,), rate=TABLE_RATE),
            Learned(tensors=(self.network,), rate=NETWORK_RATE),
        ]
        return found if self._probed is None else [*found, Learned(tensors=(self.scores,), rate=SCORE_RATE)]

    def parts(self) -> HashParts:
        """Return where it stands."""
        stored, network = (tensor.detach().cpu().numpy().copy() for tensor in (self.table, self.network))
        choices = None if self._probed is None else self.scores.detach().argmax(1).cpu().numpy().astype(np.int16)
        return replace(self._start.with_stored(stored, choices), network=network)

    def table_scales(self) -> npt.NDArray[np.float32] | None:
        """Return the scale of each feature of each level that the fit has rounded with, None where it has not."""
        if self._settings.lmbda > 0:
            return np.full(len(self._start.table_starts), STEP, np.float32)
        if self._scales is None:
            return None
        each = by_group(self._scales[0].cpu().numpy(), self._start.stored_grid)
        return each[list(self._start.table_starts)]

    def loss_of(self, samples: Samples, share: float) -> torch.Tensor:
        """Return the loss of a batch, at 0 to 1 of the fit."""
        table, network = self._as_coded(share)
        wide = table if self._probed is None else self._probed.expand(table, self.scores)
        loss = self._distortion(samples, wide, network)
        if self._settings.lmbda > 0:
            run = torch.cat([part.T.reshape(-1) for part in torch.split(table, list(self._start.stored_grid.sizes))])
            bits = rate_bits(run / STEP, self._start.table_starts)
            loss = loss + self._settings.lmbda / self._pixels * bits
        return loss

    def _distortion(self, samples: Samples, table: torch.Tensor, network: torch.Tensor) -> torch.Tensor:
        grid, layers = self._start.grid, self._start.layers
        coords, values = (torch.from_numpy(array).to(self._device) for array in (samples.coords_xy, samples.values))
        is_plain, counts = self._backend == "torch", list(samples.counts)
        last = max(level for level, count in enumerate(counts) if count)
        tables = level_tables(table, grid, levels=last + 1, extent_px=self._start.extent_px, arrays=self._arrays)
        total = table.new_zeros(())
        for level, (part, wanted) in enumerate(
            zip(torch.split(coords, counts)[: last + 1], torch.split(values, counts)[: last + 1], strict=True)
        ):
            if len(part):
                own, means = tables[level]
                features = (reference_encode if is_plain else hash_encode)(part, means, grid=own)
                found = (reference_mlp if is_plain else mlp)(features, self._at_level(network, level), layers=layers)
                total = total + self._level_gains[level] * (found - wanted).square().sum()
        return total / values.numel()

    def _at_level(self, network: torch.Tensor, level: int) -> torch.Tensor:
        """Return the network of a level of the picture; as `HashParts.at_level` makes it."""
        grid, layers = self._start.grid, self._start.layers
        inputs, hidden, start, bias = (int(number) for number in layers.layout[0, :4])
        columns, first = self._footprints[level], network[bias : bias + hidden]
        if level:
            row = network[layers.parameters :].reshape(-1, grid.levels + hidden)[level - 1]
            columns, first = columns * (1 + row[: grid.levels]), first + row[grid.levels :]
        matrix = network[start:bias].reshape(hidden, inputs) * columns.repeat_interleave(grid.features)
        return torch.cat([matrix.reshape(-1), first, network[bias + hidden : layers.parameters]])

    def _as_coded(self, share: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return table and network as they will be after quantisation, or nearly so."""
        bits, is_rated = self._settings.bits, self._settings.lmbda > 0
        if bits is None:
            return self.table, self.network
        if is_rated and share < NOISY_SHARE:
            return noisy(self.table, self.table.new_tensor(STEP), self._generator), self.network
        if share < FREE_SHARE:
            return self.table, self.network
        if self._scales is None or (self._steps % SCALE_STEPS == 0 and share < SETTLED_SHARE):
            self._scales = self._best_scales(bits, is_rated)
        self._steps += 1
        table = fake_quantise(self.table, self._scales[0], bits)
        return table, fake_quantise(
            self.network, self._scales[1], NETWORK_BITS
        ) if share >= NOISY_SHARE else self.network

    def _best_scales(self, bits: int, is_rated: bool) -> tuple[torch.Tensor, torch.Tensor]:
        start = self._start
        of_network = scales_each(self.network, start.network_starts, NETWORK_BITS)
        if is_rated:
            return self.table.new_tensor(STEP), of_network
        run = torch.cat(
            [part.T.reshape(-1) for part in torch.split(self.table.detach(), list(start.stored_grid.sizes))]
        )
        each = scales_each(run, start.table_starts, bits).cpu().numpy()
        return self._tensor(from_groups(each, start.stored_grid)), of_network
