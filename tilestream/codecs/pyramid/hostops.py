"""The steps of a fit on a CPU, by kernels that make their gradients too (`tilestream.kernels.pyramid_fit`).

`fitops` chooses them; what they compute is what its plain forms do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from tilestream.codecs.pyramid.neighbours import Neighbours
from tilestream.kernels.pyramid_fit import (
    convolve,
    convolve_backward,
    mix,
    mix_backward,
    raise_columns,
    raise_columns_backward,
    raise_lines,
    raise_lines_backward,
)
from tilestream.kernels.pyramid_price import price_numbers


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


class Raised(Function):
    """`fitops.raised`."""

    @staticmethod
    def forward(ctx: Any, grids: Tensor, taps: Tensor, shape: tuple[int, int]) -> Tensor:
        """Return `(n, h, w)`."""
        grids = grids.detach().contiguous()
        middle = grids.new_empty((len(grids), shape[0], grids.shape[2]))
        out = grids.new_empty((len(grids), *shape))
        raise_lines(*_arrays(grids, taps, middle))
        raise_columns(*_arrays(middle.flatten(0, 1), taps, out.flatten(0, 1)))
        ctx.save_for_backward(grids, taps, middle)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients of grids and taps."""
        grids, taps, middle = ctx.saved_tensors
        to_middle, to_grids, to_taps = torch.empty_like(middle), torch.empty_like(grids), torch.zeros_like(taps)
        lines = [one.flatten(0, 1) for one in (gradient, middle, to_middle)]
        raise_columns_backward(*_arrays(*lines[:2], taps, lines[2], to_taps))
        raise_lines_backward(*_arrays(to_middle, grids, taps, to_grids, to_taps))
        return to_grids, to_taps, None


class Convolved(Function):
    """`fitops.convolved`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
        """Return `(c, h, w)`."""
        padded = functional.pad(values.detach()[None], (1, 1, 1, 1), mode="replicate")[0].contiguous()
        out = padded.new_empty(values.shape)
        convolve(*_arrays(padded, weights, bias, out))
        ctx.save_for_backward(padded, weights)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of values, weights and bias."""
        padded, weights = ctx.saved_tensors
        found, to_weights = torch.empty_like(padded), weights.new_empty(weights.shape)
        to_bias = weights.new_empty(len(weights))
        convolve_backward(*_arrays(gradient, padded, weights, found, to_weights, to_bias))
        for axis in (1, 2):  # what went to the margins is that of the edges they are copies of
            inner = found.narrow(axis, 1, found.shape[axis] - 2).clone()
            for edge, margin in ((0, 0), (inner.shape[axis] - 1, found.shape[axis] - 1)):
                inner.select(axis, edge).add_(found.select(axis, margin))
            found = inner
        return found, to_weights, to_bias


class Mixed(Function):
    """`fitops.mixed`."""

    @staticmethod
    def forward(ctx: Any, grids: Tensor, *layers: Tensor) -> Tensor:
        """Return `(c, n)`."""
        first, second = torch.cat(layers[:2], 1).detach(), torch.cat(layers[2:], 1).detach()
        grids = grids.detach().contiguous()
        out = grids.new_empty((len(second), grids.shape[1]))
        mix(*_arrays(grids, first, second, out))
        ctx.save_for_backward(grids, first, second)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of grids and of all parts of the layers."""
        grids, first, second = ctx.saved_tensors
        found = torch.empty_like(grids), torch.zeros_like(first), torch.zeros_like(second)
        mix_backward(*_arrays(gradient, grids, first, second, *found))
        hidden, taken = len(first), len(grids)
        return (found[0], *torch.split(found[1], [taken, 1], 1), *torch.split(found[2], [hidden, taken, 1], 1))


class Priced(Function):
    """`fitops.priced`."""

    @staticmethod
    def forward(ctx: Any, numbers: Tensor, around: Neighbours, *layers: Tensor) -> Tensor:
        """Return bits, and keep their gradients, which cost little more."""
        with_zero = torch.cat([numbers.detach(), numbers.new_zeros(1)])
        to_numbers, total, found = torch.zeros_like(with_zero), 0.0, []
        each = len(layers) // len(around.networks)
        for number, (inputs, places) in enumerate(around.networks):
            parts = layers[each * number : each * (number + 1)]
            net = torch.cat([part.detach().reshape(-1) for part in parts])
            to_net = torch.zeros_like(net)
            values, run, given, of_run = _arrays(with_zero, net, to_numbers, to_net)
            total += price_numbers(values, inputs, places, run, len(parts[0]), given, of_run)
            lengths = [part.numel() for part in parts]
            found += [one.view_as(part) for one, part in zip(torch.split(to_net, lengths), parts, strict=True)]
        ctx.save_for_backward(to_numbers[:-1], *found)
        return numbers.new_tensor(total)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of numbers and of all layers."""
        numbers, *layers = ctx.saved_tensors
        return (numbers * gradient, None, *(one * gradient for one in layers))
