"""The networks of the pyramid codec in floating point, with the numbers of one tile: what a fit changes.

A float network works in latents, not in features, and gives pixels of 0 to 1. Hidden features have no unit of their
own: each is whatever its weights make of it, and gets its whole-number range when the networks are exported
(`export`). All numbers of a tile stand in one vector, the finest grid first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tilestream.codecs.pyramid.fitops import convolved, mixed, priced, raised
from tilestream.codecs.pyramid.neighbours import Neighbours
from tilestream.codecs.pyramid.nets import (
    CONTEXT_OUT,
    LATENT_MOST,
    MOST_CHANNELS,
    MOST_CONVS,
    MOST_SCALES,
    MOST_WIDTH,
    NEIGHBOURS,
    PASSES,
    TAPS,
    grid_shapes,
)
from tilestream.errors import ConfigError
from tilestream.kernels.pyramid_price import STEPS_A_UNIT, UNIT_MODEL
from tilestream.types import Array, Shape

BILINEAR = (0.0, 0.75, 0.25, 0.0)
_COARSE_HIDDEN, _COARSE_CONVS = 6, 1


@dataclass(frozen=True, kw_only=True)
class PyramidShape:
    """Sizes of the networks of a pyramid."""

    channels: int = 3
    """Of a pixel."""
    scales: int = 7
    """Grids."""
    hidden: int = 16
    """Features of the synthesis of level 0."""
    context: int = 4
    """Features of a context."""
    levels: int = 1
    """With a synthesis of their own, the finest first."""
    convs: int = 2
    """3×3, at the end of the synthesis of level 0."""
    coarse_hidden: int | None = None
    """Features of the synthesis of each coarser level; by default as `hidden`, and at most 6: means are easier."""
    coarse_convs: int | None = None
    """3×3 of each of these; by default as `convs`, and at most 1."""
    own_contexts: int = 0
    """Finest grids whose contexts are theirs alone; the coarser ones share theirs."""

    def __post_init__(self) -> None:
        most = {"channels": MOST_CHANNELS, "scales": MOST_SCALES, "hidden": MOST_WIDTH, "context": MOST_WIDTH}
        for name, limit in (most | {"levels": self.scales, "convs": MOST_CONVS, "own_contexts": self.scales}).items():
            value, least = getattr(self, name), 0 if name in ("convs", "own_contexts") else 1
            if type(value) is not int or not least <= value <= limit:
                raise ConfigError.of(
                    f"`{name}` of networks of a pyramid",
                    got=value,
                    expected=f"a whole number of {least} to {limit}",
                    do="Choose another.",
                )

    @property
    def table(self) -> Array:
        """Return which context serves a grid and pass."""
        grids = np.minimum(np.arange(self.scales), self.own_contexts)[:, None]
        return (grids * PASSES + np.arange(PASSES)).astype(np.int8)

    def of_level(self, level: int) -> tuple[int, int]:
        """Return the features and convolutions of the synthesis of a level."""
        if level == 0:
            return self.hidden, self.convs
        hidden = min(self.hidden, _COARSE_HIDDEN) if self.coarse_hidden is None else self.coarse_hidden
        return hidden, min(self.convs, _COARSE_CONVS) if self.coarse_convs is None else self.coarse_convs


class SynthesisTwin(nn.Module):
    """Pixels of a level from raised grids."""

    def __init__(self, shape: PyramidShape, level: int) -> None:
        super().__init__()
        grids, channels = shape.scales - level, shape.channels
        hidden, convs = shape.of_level(level)
        self.first = nn.Parameter(torch.randn(hidden, grids) / math.sqrt(grids))
        self.first_bias = nn.Parameter(torch.rand(hidden, 1) - 0.5)
        self.second = nn.Parameter(torch.randn(channels, hidden) * (0.1 / math.sqrt(hidden)))
        self.second_bias = nn.Parameter(torch.zeros(channels, 1))
        self.skip = nn.Parameter(torch.zeros(channels, grids))
        self.convs = nn.Parameter(torch.zeros(convs, channels, channels, 3, 3))
        self.conv_biases = nn.Parameter(torch.zeros(convs, channels))

    def hidden_of(self, inputs: Tensor) -> Tensor:
        """Return `(hidden, n)` of `(grids, n)`."""
        return torch.addmm(self.first_bias, self.first, inputs).relu_()

    def before_convs(self, grids: Tensor) -> list[Tensor]:
        """Return what each convolution is given, `(channels, h, w)`, from `(grids, h, w)`."""
        layers = (self.first, self.first_bias), (self.second, self.skip, self.second_bias)
        found = [mixed(grids.reshape(len(grids), -1), *layers).view(-1, *grids.shape[1:])]
        for number in range(len(self.convs) - 1):
            found.append(convolved(found[-1], self.convs[number], self.conv_biases[number]).relu())
        return found

    def forward(self, grids: Tensor) -> Tensor:
        """Return `(channels, h, w)` of `(grids, h, w)`."""
        found = self.before_convs(grids)[-1]
        return convolved(found, self.convs[-1], self.conv_biases[-1]) if len(self.convs) else found


class ContextTwin(nn.Module):
    """Middle and scale from nine neighbours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = (NEIGHBOURS, width, width, CONTEXT_OUT)
        spreads = (1 / 3, 1 / math.sqrt(width), 0.1 / math.sqrt(width))
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(sizes[n + 1], sizes[n]) * spreads[n]) for n in range(3)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(size, 1)) for size in sizes[1:])
        with torch.no_grad():
            self.biases[2][1] = UNIT_MODEL / STEPS_A_UNIT

    def hidden_of(self, inputs: Tensor, layers: int) -> Tensor:
        """Return the features after the first one or two layers, of `(9, n)`."""
        for weights, bias in zip(self.weights[:layers], self.biases[:layers], strict=True):
            inputs = torch.addmm(bias, weights, inputs).relu_()
        return inputs

    @property
    def layers(self) -> list[Tensor]:
        """Return weights and bias of each layer."""
        return [part for pair in zip(self.weights, self.biases, strict=True) for part in pair]


class PyramidModel(nn.Module):
    """Networks and the numbers of one tile."""

    def __init__(self, shape: PyramidShape, size: Shape, table: Array | None = None) -> None:
        super().__init__()
        self.shape, self.size = shape, size
        self.table = shape.table if table is None else table
        self.grid_shapes = grid_shapes(size, shape.scales)
        self.counts = [one.y * one.x for one in self.grid_shapes]
        self.numbers = nn.Parameter(torch.zeros(sum(self.counts)))
        self.filters = nn.Parameter(torch.tensor(BILINEAR).repeat(shape.scales - 1, 1).reshape(-1, TAPS))
        self.synth = [SynthesisTwin(shape, level) for level in range(shape.levels)]
        self.context = [ContextTwin(shape.context) for _ in range(int(self.table.max()) + 1)]
        self._synth, self._context = nn.ModuleList(self.synth), nn.ModuleList(self.context)  # so that they are found
        self.neighbours = Neighbours.of(size, shape.scales, self.table.tolist())

    def networks(self) -> list[nn.Parameter]:
        """Return all parameters but the numbers."""
        return [parameter for name, parameter in self.named_parameters() if name != "numbers"]

    def of_size(self, size: Shape) -> PyramidModel:
        """Return a model with equal networks for a tile of another size, whose numbers are 0."""
        found = PyramidModel(self.shape, size, self.table)
        with torch.no_grad():
            for to, own in zip(found.networks(), self.networks(), strict=True):
                to.copy_(own)
        return found

    def inputs(self, numbers: Tensor) -> list[Tensor]:
        """Return `(9, n)` neighbours of the places of each context."""
        with_zero = torch.cat([numbers, numbers.new_zeros(1)])
        return [with_zero[torch.from_numpy(around).to(numbers.device)] for around, _ in self.neighbours.networks]

    def bits(self, numbers: Tensor) -> Tensor:
        """Return the bits that a pyramid's numbers take.

        Parameters
        ----------
        numbers : Tensor
            Of all grids.

        Returns
        -------
        Tensor
            A scalar, differentiable; of numbers that are not whole what they would take if they were.
        """
        return priced(numbers, [net.layers for net in self.context], self.neighbours)

    def raised(self, grids: Tensor, to: int, size: tuple[int, int]) -> Tensor:
        """Return grids `(n, k, h, w)` of the size of grid `to + 1`, raised to that of grid `to`."""
        found = raised(grids.flatten(0, 1), self.filters[to], size)
        return found.view(*grids.shape[:2], *size)

    def raised_grids(self, numbers: Tensor, levels: int = 1) -> list[Tensor]:
        """Return `(scales − level, h, w)` for each of the finest levels, the finest first."""
        grids = [
            part.view(1, *one.yx) for part, one in zip(torch.split(numbers, self.counts), self.grid_shapes, strict=True)
        ]
        stack, found = grids[-1], [grids[-1]]
        for level in reversed(range(self.shape.scales - 1)):
            stack = torch.cat([grids[level], raised(stack, self.filters[level], self.grid_shapes[level].yx)])
            found.append(stack)
        return found[::-1][:levels]

    def pixels(self, numbers: Tensor) -> list[Tensor]:
        """Return `(channels, h, w)` of 0 to 1 (not clamped) for each level that has a synthesis, the finest first."""
        raised_grids = self.raised_grids(numbers, len(self.synth))
        return [net(grids) for net, grids in zip(self.synth, raised_grids, strict=True)]

    def grids(self) -> tuple[Array, ...]:
        """Return the numbers, rounded, as the grids of a file."""
        whole = self.numbers.detach().round().clamp(-LATENT_MOST, LATENT_MOST).cpu()
        parts: Sequence[Tensor] = torch.split(whole, self.counts)
        return tuple(
            part.numpy().astype(np.int16).reshape(one.yx) for part, one in zip(parts, self.grid_shapes, strict=True)
        )

    def set_grids(self, grids: Sequence[Array]) -> None:
        """Take the numbers of grids."""
        flat = np.concatenate([np.ravel(grid) for grid in grids]).astype(np.float32)
        with torch.no_grad():
            self.numbers.copy_(torch.from_numpy(flat))
