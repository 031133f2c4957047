"""Float networks of a pyramid as whole numbers, and back.

A hidden feature may have any unit, since a rectifier commutes with positive factors: each is scaled so that its root
mean square over the tile is `HIDDEN_RMS` features of a whole-number network, which leaves 64 times as much before it
is clamped. A draft holds layers in that unit with all their digits; steps of its tensors make whole numbers of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tilestream.codecs.pyramid.model import BILINEAR, ContextTwin, PyramidModel, PyramidShape, SynthesisTwin
from tilestream.codecs.pyramid.nets import (
    FEATURE_BITS,
    FEATURE_MOST,
    FILTER_BITS,
    MOST_SHIFT,
    PIXEL_MOST,
    Layer,
    PyramidNets,
    SynthNet,
)
from tilestream.errors import ConfigError
from tilestream.types import Array, Shape

HIDDEN_RMS = 512.0
UNIT = 1 << FEATURE_BITS
"""Features of a latent of 1, and of an output of 1 of a context."""
_SUM_MOST = 0.98 * (2**31 - 1)
_WEIGHT_MOST = 32_000
_MOST_WEIGHT = int(np.iinfo(np.int16).max)
_DAMPING = 1e-3
"""Of moments, as a share: what inputs are alike by less is not made use of."""
_LEAST_HIDDEN_SHIFT = 7
"""Of a layer whose outputs are hidden: their unit is made smaller rather than having weights with fewer bits."""
Exact = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class DraftLayer:
    """A layer between features, with all digits."""

    weights: Exact
    """`(out, in)`."""
    bias: Exact
    """`(out,)`, in features."""
    moments: Exact
    """`(in + 1, in + 1)`: means of the products of what the layer is given, and of a 1 behind it, over a tile."""

    @cached_property
    def shift(self) -> int:
        """Return the largest shift at which weights have 16 bits and sums 32."""
        for shift in range(MOST_SHIFT, 0, -1):
            if self._fits(shift):
                return shift
        raise ConfigError.of(
            "a fitted network",
            got=f"weights of up to {np.abs(self.weights).max():.3g}",
            expected="sums of 32 bits",
            do="Fit with more steps, or at another price of bits.",
        )

    def _fits(self, shift: int) -> bool:
        sums = (np.abs(self.weights).sum(axis=1) * FEATURE_MOST + np.abs(self.bias)) * 2.0**shift
        return bool(sums.max() <= _SUM_MOST and np.abs(self.weights).max(initial=0) * 2.0**shift <= _WEIGHT_MOST)

    @cached_property
    def _spread(self) -> Exact:
        """Return the upper Cholesky factor of the inverse of `moments`: how an error of one weight is made up for."""
        scale = np.sqrt(np.maximum(np.diag(self.moments), 1e-12))
        alike = self.moments / np.outer(scale, scale) + _DAMPING * np.eye(len(scale))
        found: Exact = np.linalg.cholesky(np.linalg.inv(alike)).T / scale
        return found

    def whole(self, weight_zeros: int, bias_zeros: int) -> Layer:
        """Return the layer in whole numbers that end with so many zero bits.

        Weights are rounded one input after another, and those behind make up for the error, as far as inputs are
        alike; the bias is the last. Source: OPTQ (Frantar et al. 2023, arXiv 2210.17323).

        Parameters
        ----------
        weight_zeros, bias_zeros : int
            0 or more.

        Returns
        -------
        Layer
            Not checked: large steps may round sums beyond 32 bits.
        """
        steps = (weight_zeros, bias_zeros)
        if steps not in self._made:
            self._made[steps] = self._whole(*steps)
        return self._made[steps]

    @cached_property
    def _made(self) -> dict[tuple[int, int], Layer]:
        """Return the layers made before: a search for steps asks for all of them each time, and changes one."""
        return {}

    def _whole(self, weight_zeros: int, bias_zeros: int) -> Layer:
        for less in range(self.shift):  # what makes up for an error may be larger than what was there
            weights, bias = self._rounded(self.shift - less, max(0, weight_zeros - less), max(0, bias_zeros - less))
            if (np.abs(weights).sum(axis=1) * FEATURE_MOST + np.abs(bias)).max() <= _SUM_MOST:
                break
        else:  # then nothing makes up for anything
            weights = _stepped(self.weights * 2.0**self.shift, weight_zeros, _MOST_WEIGHT)
            bias, less = _stepped(self.bias * 2.0**self.shift, bias_zeros, np.iinfo(np.int32).max), 0
        return Layer(weights=weights.astype(np.int16), bias=bias.astype(np.int32), shift=self.shift - less)

    def _rounded(self, shift: int, weight_zeros: int, bias_zeros: int) -> tuple[Exact, Exact]:
        """Return weights and bias times 2^shift, rounded."""
        left = np.concatenate([self.weights, self.bias[:, None]], axis=1) * 2.0**shift
        spread, last = self._spread, len(self.moments) - 1
        for column in range(last + 1):
            zeros, most = (bias_zeros, np.iinfo(np.int32).max) if column == last else (weight_zeros, _MOST_WEIGHT)
            rounded = _stepped(left[:, column], zeros, most)
            error = (left[:, column] - rounded) / spread[column, column]
            left[:, column:] -= np.outer(error, spread[column, column:])
            left[:, column] = rounded
        return left[:, :-1], left[:, -1]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Networks between features, with all digits."""

    filters: Exact
    """`(scales − 1, 4)`, of 1,024."""
    synth: tuple[tuple[DraftLayer, ...], ...]
    """Layers of each level."""
    context: tuple[tuple[DraftLayer, ...], ...]
    """Layers of each network."""
    table: Array
    """Which of `context` serves a grid and pass."""

    @property
    def tensors(self) -> list[Exact]:
        """Return filters (less bilinear ones), then weights and bias of each layer, in the units of whole numbers."""
        layers = [layer for net in (*self.synth, *self.context) for layer in net]
        scaled = [part * 2.0**layer.shift for layer in layers for part in (layer.weights, layer.bias)]
        return [self.filters - np.array(BILINEAR) * (1 << FILTER_BITS), *scaled]

    def nets(self, zeros: Sequence[int]) -> PyramidNets:
        """Return whole-number networks.

        Parameters
        ----------
        zeros : sequence of int
            Zero bits that the numbers of each of `tensors` end with.

        Returns
        -------
        PyramidNets
            Not checked.
        """
        given = iter(zeros)
        bilinear = np.rint(np.array(BILINEAR) * (1 << FILTER_BITS))
        filters = bilinear + _stepped(self.filters - bilinear, next(given), 4096)
        synth, context = (
            [[layer.whole(next(given), next(given)) for layer in net] for net in nets]
            for nets in (self.synth, self.context)
        )
        return PyramidNets(
            filters=filters.astype(np.int16),
            synth=tuple(SynthNet(first=net[0], second=net[1], convs=tuple(net[2:])) for net in synth),
            context=tuple((net[0], net[1], net[2]) for net in context),
            table=self.table.astype(np.int8),
        )


def draft_of(model: PyramidModel) -> Draft:
    """Return the networks of a model between features, scaled by what its numbers make of them."""
    with torch.no_grad():
        numbers = model.numbers.round()
        grids = model.raised_grids(numbers, len(model.synth))
        inputs = model.inputs(numbers)
        context = [_context_draft(net, given) for net, given in zip(model.context, inputs, strict=True)]
        synth = [_synth_draft(net, one) for net, one in zip(model.synth, grids, strict=True)]
    filters = _exact(model.filters) * (1 << FILTER_BITS)
    return Draft(filters=filters, synth=tuple(synth), context=tuple(context), table=model.table)


def _synth_draft(net: SynthesisTwin, grids: Tensor) -> tuple[DraftLayer, ...]:
    inputs = grids.reshape(len(grids), -1)
    found = net.hidden_of(inputs)
    hidden = _hidden_draft(net.first, net.first_bias, found, (inputs, np.full(len(inputs), float(UNIT))))
    second = np.concatenate([_exact(net.second) / hidden.units, _exact(net.skip) / UNIT], axis=1) * PIXEL_MOST
    given = np.concatenate([_exact(found) * hidden.units[:, None], _exact(inputs) * UNIT])
    layers = [
        hidden.layer,
        DraftLayer(weights=second, bias=_exact(net.second_bias)[:, 0] * PIXEL_MOST, moments=_moments(given)),
    ]
    convs = zip(_exact(net.convs), _exact(net.conv_biases), net.before_convs(grids), strict=True)
    for weights, bias, before in convs:
        padded = functional.pad(before[None], (1, 1, 1, 1), mode="replicate")
        patches = _exact(functional.unfold(padded, 3)[0]) * PIXEL_MOST
        layers.append(
            DraftLayer(weights=weights.reshape(len(weights), -1), bias=bias * PIXEL_MOST, moments=_moments(patches))
        )
    return tuple(layers)


def _context_draft(net: ContextTwin, inputs: Tensor) -> tuple[DraftLayer, ...]:
    units, layers, given = np.full(len(inputs), float(UNIT)), [], inputs
    for number in range(2):
        found = net.hidden_of(inputs, number + 1)
        hidden = _hidden_draft(net.weights[number], net.biases[number], found, (given, units))
        units, given = hidden.units, found
        layers.append(hidden.layer)
    bias, moments = _exact(net.biases[2])[:, 0] * UNIT, _moments(_exact(given) * units[:, None])
    return (*layers, DraftLayer(weights=_exact(net.weights[2]) * UNIT / units, bias=bias, moments=moments))


def _moments(given: Exact) -> Exact:
    """Return the means of products of inputs `(in, n)` and a 1 behind them."""
    count = max(1, given.shape[1])
    found = np.eye(len(given) + 1)
    found[:-1, :-1] = given @ given.T / count
    found[-1, :-1] = found[:-1, -1] = given.sum(axis=1) / count
    return found


@dataclass(frozen=True, kw_only=True)
class _Hidden:
    layer: DraftLayer
    units: Exact
    """`(out,)`: features that a hidden 1 is."""


def _hidden_draft(weights: Tensor, bias: Tensor, found: Tensor, given: tuple[Tensor, Exact]) -> _Hidden:
    """Return a layer to hidden features from inputs and their units, and the units of what it gives."""
    inputs, units = given
    exact, offset = _exact(weights) / units, _exact(bias)[:, 0]
    rms = np.sqrt(np.square(_exact(found)).mean(axis=1)) if found.shape[1] else np.ones(len(exact))
    sums = np.abs(exact).sum(axis=1) * FEATURE_MOST + np.abs(offset)
    most = _SUM_MOST / 2**_LEAST_HIDDEN_SHIFT / np.maximum(sums, 1e-9)
    widest = _WEIGHT_MOST / 2**_LEAST_HIDDEN_SHIFT / np.maximum(np.abs(exact).max(axis=1), 1e-9)
    made = np.minimum(np.minimum(HIDDEN_RMS / np.maximum(rms, 1e-3), most), widest)
    is_dead = rms <= 0
    layer = DraftLayer(
        weights=np.where(is_dead[:, None], 0.0, exact * made[:, None]),
        bias=np.where(is_dead, 0.0, offset * made),
        moments=_moments(_exact(inputs) * units[:, None]),
    )
    return _Hidden(layer=layer, units=made)


def model_of(nets: PyramidNets, size: Shape) -> PyramidModel:
    """Return a model with the networks of a file; its numbers are 0.

    Parameters
    ----------
    nets : PyramidNets
        Whose coarser levels have as many hidden features each, and whose contexts are as wide as each other.
    size : Shape
        Of the finest grid.

    Returns
    -------
    PyramidModel
        A hidden 1 of it is `HIDDEN_RMS` features.
    """
    shape = PyramidShape(
        channels=nets.channels,
        scales=nets.scales,
        hidden=nets.synth[0].hidden,
        context=len(nets.context[0][0].bias),
        levels=len(nets.synth),
        convs=len(nets.synth[0].convs),
        coarse_hidden=nets.synth[-1].hidden,
        coarse_convs=len(nets.synth[-1].convs),
    )
    model = PyramidModel(shape, size, table=nets.table)
    with torch.no_grad():
        model.filters.copy_(torch.from_numpy(nets.filters / (1 << FILTER_BITS)))
        for twin, given in zip(model.synth, nets.synth, strict=True):
            _read_synth(twin, given)
        for context, layers in zip(model.context, nets.context, strict=True):
            for number, layer in enumerate(layers):
                above = UNIT if number == 2 else HIDDEN_RMS
                below = UNIT if number == 0 else HIDDEN_RMS
                weights, bias = _floats(layer)
                context.weights[number].copy_(torch.from_numpy(weights * (below / above)))
                context.biases[number].copy_(torch.from_numpy(bias[:, None] / above))
    return model


def _read_synth(twin: SynthesisTwin, given: SynthNet) -> None:
    weights, bias = _floats(given.first)
    twin.first.copy_(torch.from_numpy(weights * (UNIT / HIDDEN_RMS)))
    twin.first_bias.copy_(torch.from_numpy(bias[:, None] / HIDDEN_RMS))
    weights, bias = _floats(given.second)
    twin.second.copy_(torch.from_numpy(weights[:, : given.hidden] * (HIDDEN_RMS / PIXEL_MOST)))
    twin.skip.copy_(torch.from_numpy(weights[:, given.hidden :] * (UNIT / PIXEL_MOST)))
    twin.second_bias.copy_(torch.from_numpy(bias[:, None] / PIXEL_MOST))
    for number, conv in enumerate(given.convs):
        weights, bias = _floats(conv)
        twin.convs[number].copy_(torch.from_numpy(weights.reshape(twin.convs[number].shape)))
        twin.conv_biases[number].copy_(torch.from_numpy(bias / PIXEL_MOST))


def _floats(layer: Layer) -> tuple[Exact, Exact]:
    step = 2.0**-layer.shift
    return layer.weights.astype(np.float64) * step, layer.bias.astype(np.float64) * step


def _exact(tensor: Tensor) -> Exact:
    found: Exact = tensor.detach().double().cpu().numpy()
    return found


def _stepped(values: Exact, zeros: int, most: int) -> Exact:
    """Return the nearest whole numbers that end with so many zero bits."""
    step = 2.0**zeros
    limit = most // int(step)
    found: Exact = np.clip(np.rint(values / step), -limit, limit) * step
    return found
