"""The networks of a pyramid in floats, for many tiles at once: what shared networks are trained as.

It computes what the decoder computes in whole numbers, without its roundings, on batches and on any device of torch.
Numbers of grids are as they are; a pixel is 0 to 1. What is learned becomes `PyramidNets` by `to_nets`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tilestream.codecs.pyramid.nets import MOST_SCALES, MOST_WIDTH, NEIGHBOURS, PASSES, Layer, PyramidNets, SynthNet
from tilestream.codecs.pyramid.sharedcontext import grid_passes, laplace_bits
from tilestream.codecs.pyramid.sharedexport import float_layer, whole_filters, whole_layer
from tilestream.errors import ConfigError

BILINEAR = (0.0, 0.75, 0.25, 0.0)
PIXEL_GAIN = 255.0
"""Pixels of 0 to 1 are features over this, since the highest value of a picture is a feature of 255."""
OWN_CONTEXTS = 4
"""Finest grids whose contexts are theirs alone; the coarser ones share theirs."""
_SCALE_STEPS, _SCALE_MIDDLE, _SCALE_MOST = 4.0, 30.0, 63.0


@dataclass(frozen=True, kw_only=True)
class PyramidShape:
    """Sizes of the networks of a pyramid."""

    channels: int = 3
    """Of its pictures."""
    scales: int = 7
    """Grids of a tile."""
    hidden: int = 16
    """Features of the synthesis."""
    width: int = 16
    """Features of a context."""
    levels: int = 4
    """Finest levels with a synthesis of their own."""
    convs: int = 2
    """Convolutions of a synthesis."""

    def __post_init__(self) -> None:
        most = {"channels": 64, "scales": MOST_SCALES, "hidden": MOST_WIDTH, "width": MOST_WIDTH, "convs": 3}
        for name in (*most, "levels"):
            value, least = getattr(self, name), {"convs": 0, "scales": 2}.get(name, 1)
            limit = most.get(name, self.scales)
            if type(value) is not int or not least <= value <= limit:
                raise ConfigError.of(
                    f"`{name}` of shared networks",
                    got=value,
                    expected=f"a whole number of {least} to {limit}",
                    do="Choose another.",
                )

    @property
    def table(self) -> list[list[int]]:
        """Return which context serves each grid and pass."""
        return [[PASSES * min(grid, OWN_CONTEXTS) + which for which in range(PASSES)] for grid in range(self.scales)]


class SharedModel(nn.Module):
    """Grids to pixels of each level, and to bits.

    Parameters
    ----------
    shape : PyramidShape
        Sizes.
    """

    def __init__(self, shape: PyramidShape) -> None:
        super().__init__()
        self.shape, self.table = shape, shape.table
        self.taps = nn.Parameter(torch.tensor([BILINEAR]).repeat(shape.scales - 1, 1))
        self.synth = nn.ModuleList(
            Synthesis(shape.scales - level, shape.hidden, shape.channels, convs=shape.convs)
            for level in range(shape.levels)
        )
        self.contexts = nn.ModuleList(_context(shape.width) for _ in range(1 + max(max(row) for row in self.table)))

    @classmethod
    def of(cls, nets: PyramidNets) -> SharedModel:
        """Return networks that are known as a model."""
        first = nets.synth[0]
        model = cls(
            PyramidShape(
                channels=nets.channels,
                scales=nets.scales,
                hidden=first.hidden,
                width=len(nets.context[0][0].bias),
                levels=len(nets.synth),
                convs=len(first.convs),
            )
        )
        model.table = nets.table.tolist()
        model.contexts = nn.ModuleList(_context(len(layers[0].bias)) for layers in nets.context)
        with torch.no_grad():
            model.taps.copy_(torch.from_numpy(nets.filters / 1024))
            for part, net in zip(model.syntheses, nets.synth, strict=True):
                part.load(net)
            for number, layers in enumerate(nets.context):
                for linear, layer in zip(model.context(number), layers, strict=True):
                    weights, bias = float_layer(layer)
                    linear.weight.copy_(torch.from_numpy(weights))
                    linear.bias.copy_(torch.from_numpy(bias))
        return model

    def begin(self, colour: torch.Tensor, middle: torch.Tensor, steps: torch.Tensor) -> None:
        """Start as the inverse of a Laplacian pyramid of one colour.

        Parameters
        ----------
        colour : Tensor
            `(channels,)`: what a plain picture of 1 adds to pixels of 0 to 1.
        middle : Tensor
            `(channels,)`: what it is added to.
        steps : Tensor
            `(scales,)`: what a number of each grid stands for in the plain picture.
        """
        with torch.no_grad():
            for level, part in enumerate(self.syntheses):
                part.second.weight[:, part.first.out_features :] = colour[:, None] * steps[None, level:]
                part.second.bias.copy_(middle)
                part.first.weight *= steps[level:] / steps[level]  # coarse numbers are as large as their steps small

    @property
    def syntheses(self) -> list[Synthesis]:
        """Return what makes pixels of raised grids, for each level."""
        return cast("list[Synthesis]", list(self.synth))

    def context(self, number: int) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        """Return the layers of a context."""
        first, _, second, _, last = cast("nn.Sequential", self.contexts[number])
        return cast("tuple[nn.Linear, nn.Linear, nn.Linear]", (first, second, last))

    def to_nets(self) -> PyramidNets:
        """Return it in whole numbers; raise `DamagedError` where what was learned does not fit into 32 bits."""
        contexts = [self.context(number) for number in range(len(self.contexts))]
        return PyramidNets(
            filters=whole_filters(self.taps),
            synth=tuple(part.record() for part in self.syntheses),
            context=tuple((_whole(first), _whole(second), _whole(last)) for first, second, last in contexts),
            table=np.array(self.table, np.int8),
        ).check()

    def raised(self, grids: torch.Tensor, to: int, size: tuple[int, int]) -> torch.Tensor:
        """Return grids `(n, k, y, x)` of the size of grid `to + 1`, raised to that of grid `to`."""
        n, k = grids.shape[:2]
        flat = grids.reshape(n * k, 1, *grids.shape[2:])
        kernel = functional.pad(torch.stack([self.taps[to].flip(0), self.taps[to]]), (0, 1))
        kernel = torch.stack([kernel[0], kernel[1].roll(1)])[:, None]
        tall = functional.conv2d(functional.pad(flat, (0, 0, 2, 2), mode="replicate"), kernel[..., None])
        tall = tall.transpose(1, 2).reshape(n * k, 1, -1, flat.shape[3])[:, :, : size[0]]
        wide = functional.conv2d(functional.pad(tall, (2, 2, 0, 0), mode="replicate"), kernel[:, :, None])
        return wide.permute(0, 2, 3, 1).reshape(n, k, size[0], -1)[..., : size[1]]

    def pixels(self, grids: Sequence[torch.Tensor], *, first: int = 0, last: int = 0) -> list[torch.Tensor]:
        """Return pixels of some levels.

        Parameters
        ----------
        grids : sequence of Tensor
            `(n, 1, y, x)` each, finest first.
        first, last : int
            The finest and the coarsest level, of those with a synthesis.

        Returns
        -------
        list of Tensor
            `(n, c, y, x)` each, finest first; about 0 to 1, and not clipped.
        """
        found: list[torch.Tensor] = []
        known = grids[-1]
        for number in reversed(range(first, len(grids))):
            if number < len(grids) - 1:
                y, x = grids[number].shape[2:]
                known = torch.cat([grids[number], self.raised(known, number, (y, x))], dim=1)
            if number <= last:
                found.append(self.syntheses[number](known))
        return found[::-1]

    def bits(self, grids: Sequence[torch.Tensor], known: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
        """Return the bits of grids.

        Parameters
        ----------
        grids : sequence of Tensor
            `(n, 1, y, x)` each, finest first: what is coded.
        known : sequence of Tensor, optional
            What stands around what is coded, where it is not the same.

        Returns
        -------
        Tensor
            `(scales,)`: of each grid, all of the batch together.
        """
        coded = [grid[:, 0] for grid in grids]
        around = coded if known is None else [grid[:, 0] for grid in known]
        jobs: dict[int, list[tuple[int, torch.Tensor, torch.Tensor]]] = {}
        for number in range(len(coded)):
            for which, target, inputs in grid_passes(coded, around, number):
                jobs.setdefault(self.table[number][which], []).append((number, target, inputs))
        found: list[list[torch.Tensor]] = [[] for _ in coded]
        for index, parts in jobs.items():
            sums = self._context_bits(index, [target for _, target, _ in parts], [inputs for _, _, inputs in parts])
            for (number, _, _), own in zip(parts, sums, strict=True):
                found[number].append(own)
        return torch.stack([torch.stack(own).sum() for own in found])

    def _context_bits(
        self, index: int, targets: list[torch.Tensor], inputs: list[torch.Tensor]
    ) -> list[torch.Tensor]:  # fmt: skip
        features = torch.cat(inputs, dim=1)
        *hidden, last = self.context(index)
        for layer in hidden:
            features = torch.addmm(layer.bias[:, None], layer.weight, features).relu_()
        middle, size = torch.addmm(last.bias[:, None], last.weight, features)
        scale = torch.exp2(((_SCALE_STEPS * size).clamp(0, _SCALE_MOST) - _SCALE_MIDDLE) / 6)
        bits = laplace_bits(torch.cat(targets) - middle, scale)
        return [part.sum() for part in torch.split(bits, [len(target) for target in targets])]


class Synthesis(nn.Module):
    """Raised grids to the pixels of a level.

    Parameters
    ----------
    grids : int
        How many.
    hidden : int
        Features between.
    channels : int
        Of pixels.
    convs : int
        3×3 convolutions over these.
    """

    def __init__(self, grids: int, hidden: int, channels: int, *, convs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(grids, hidden), nn.Linear(hidden + grids, channels)
        self._convs = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="replicate") for _ in range(convs)
        )
        with torch.no_grad():
            self.first.weight.normal_(0, 0.5 / math.sqrt(grids))
            self.first.bias.uniform_(-1, 1)
            self.second.weight.normal_(0, 0.01)
            self.second.weight[:, hidden:] += 0.06  # a step of a grid is 15 of 255 at the start
            self.second.bias.fill_(0.6)
            for conv in self.convs:
                conv.weight.mul_(0.1)
                _bias(conv).zero_()

    @property
    def convs(self) -> list[nn.Conv2d]:
        """Return the convolutions over channels."""
        return cast("list[nn.Conv2d]", list(self._convs))

    def forward(self, grids: torch.Tensor) -> torch.Tensor:
        """Return `(n, c, y, x)` of raised grids `(n, k, y, x)`."""
        n, k, y, x = grids.shape
        flat = grids.reshape(n, k, y * x)
        hidden = (self.first.weight @ flat + self.first.bias[:, None]).relu_()
        middle = self.first.out_features
        values = self.second.weight[:, :middle] @ hidden + self.second.weight[:, middle:] @ flat
        values = (values + self.second.bias[:, None]).reshape(n, -1, y, x)
        for number, conv in enumerate(self.convs):
            values = values + conv(values)
            if number < len(self.convs) - 1:
                values = values.relu()
        return values

    def record(self) -> SynthNet:
        """Return it in whole numbers."""
        return SynthNet(
            first=whole_layer(self.first.weight, self.first.bias),
            second=whole_layer(self.second.weight * PIXEL_GAIN, self.second.bias * PIXEL_GAIN),
            convs=tuple(whole_layer(conv.weight.flatten(1), _bias(conv) * PIXEL_GAIN) for conv in self.convs),
        )

    def load(self, net: SynthNet) -> None:
        """Take the numbers of a record."""
        gains = [1.0, 1 / PIXEL_GAIN, *[1.0] * len(net.convs)]
        bias_gains = [1.0, *[1 / PIXEL_GAIN] * (1 + len(net.convs))]
        parts: list[nn.Linear | nn.Conv2d] = [self.first, self.second, *self.convs]
        for part, layer, gain, bias_gain in zip(parts, net.layers, gains, bias_gains, strict=True):
            weights, bias = float_layer(layer)
            part.weight.copy_(torch.from_numpy(weights * gain).reshape(part.weight.shape))
            _bias(part).copy_(torch.from_numpy(bias * bias_gain))


def _bias(part: nn.Linear | nn.Conv2d) -> torch.Tensor:
    assert part.bias is not None
    return part.bias


def _whole(layer: nn.Linear) -> Layer:
    return whole_layer(layer.weight, layer.bias)


def _context(width: int) -> nn.Sequential:
    last = nn.Linear(width, 2)
    with torch.no_grad():
        last.weight.mul_(0.3)
        last.bias.copy_(torch.tensor([0.0, _SCALE_MIDDLE / _SCALE_STEPS]))  # a scale of 1
    return nn.Sequential(nn.Linear(NEIGHBOURS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), last)
