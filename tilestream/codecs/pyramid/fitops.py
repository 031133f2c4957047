"""What a fit differentiates: soft rounding, the price of numbers, the raising of grids, and the synthesis of channels.

Each is plain torch, so that it runs on any device; on a CPU a kernel does the same in a fraction of the time
(`hostops`).

Sources: soft rounding of Agustsson et al. 2020, arXiv 2006.09952; with noise in between, as C3 (Kim et al. 2023,
arXiv 2312.02753) and Cool-chic do it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from tilestream.codecs.pyramid.hostops import Convolved, Mixed, Priced, Raised
from tilestream.codecs.pyramid.neighbours import Neighbours
from tilestream.kernels.pyramid_price import (
    LEAST_LOG_SCALE,
    LOG_SCALE_STEP,
    MOST_LOG_SCALE,
    STEPS_A_UNIT,
    UNIT_MODEL,
)

_LEAST_PROBABILITY = 1e-7
_HALF = 0.5


def soft_round(values: Tensor, temperature: float) -> Tensor:
    """Return numbers drawn towards whole ones: rounded at a temperature of 0, as they are at a high one."""
    whole = torch.floor(values)
    inner = torch.tanh((values - whole - _HALF) / temperature)
    return whole + _HALF + inner * (_HALF / math.tanh(_HALF / temperature))


def rounded_straight(values: Tensor) -> Tensor:
    """Return rounded numbers whose gradient is that of the numbers themselves."""
    return values + (torch.round(values) - values).detach()


def laplace_bits(values: Tensor, middles: Tensor, log_scales: Tensor) -> Tensor:
    """Return the sum of the bits of whole numbers under Laplace distributions over bins of one.

    Parameters
    ----------
    values, middles : Tensor
        `(n,)`.
    log_scales : Tensor
        `(n,)`, natural logarithms; clamped to what the tables have.

    Returns
    -------
    Tensor
        A scalar.
    """
    inverse = torch.exp(-log_scales.clamp(LEAST_LOG_SCALE, MOST_LOG_SCALE))
    distance = (values - middles).abs()
    tail = (_HALF - distance.clamp(min=_HALF)) * inverse + torch.log(-torch.expm1(-inverse) / 2)
    near = distance.clamp(max=_HALF)
    inside = torch.log(1 - torch.exp(-_HALF * inverse) * torch.cosh(near * inverse) + _LEAST_PROBABILITY)
    return torch.where(distance > _HALF, tail, inside).sum() * (-1 / math.log(2))


def raised(grids: Tensor, taps: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return `(n, h, w)` grids at twice their size, by the symmetric filter of the decoder.

    Parameters
    ----------
    grids : Tensor
        `(n, ceil(h/2), ceil(w/2))`.
    taps : Tensor
        `(4,)`, 1 in sum for a flat grid to stay as it is.
    shape : tuple of int
        `(h, w)`.

    Returns
    -------
    Tensor
        On a device their product with a matrix for rows and one for columns: faster than shifts and sums.
    """
    if grids.device.type == "cpu":
        return _applied(Raised, grids, taps, shape)
    return raised_plain(grids, taps, shape)


def raised_plain(grids: Tensor, taps: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return what `raised` does, on any device."""
    rows, columns = (
        torch.tensordot(taps, _selection(coarse, fine).to(taps), 1)
        for coarse, fine in zip(grids.shape[1:], shape, strict=True)
    )
    found: Tensor = (rows @ grids) @ columns.T
    return found


@lru_cache(maxsize=32)
def _selection(coarse: int, fine: int) -> Tensor:
    """Return `(4, fine, coarse)`: what each tap takes for each row that it makes."""
    found = torch.zeros(4, fine, coarse)
    rows = torch.arange(fine)
    for tap in range(4):
        taken = torch.where(rows % 2 == 1, rows // 2 - 1 + tap, rows // 2 + 1 - tap).clamp(0, coarse - 1)
        found[tap, rows, taken] = 1
    return found


def _applied(function: Any, *given: Any) -> Tensor:
    return cast("Tensor", function.apply(*given))


def convolved(values: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Return `(c, h, w)` plus its 3×3 convolution, edges replicated."""
    if values.device.type == "cpu":
        return _applied(Convolved, values, weights, bias)
    return convolved_plain(values, weights, bias)


def convolved_plain(values: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Return what `convolved` does, on any device."""
    padded = functional.pad(values[None], (1, 1, 1, 1), mode="replicate")
    found: Tensor = values + functional.conv2d(padded, weights, bias)[0]
    return found


def mixed(grids: Tensor, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Return channels of raised grids.

    Parameters
    ----------
    grids : Tensor
        `(g, n)`.
    first : sequence of Tensor
        Weights `(k, g)` and bias `(k, 1)` of the hidden features.
    second : sequence of Tensor
        Weights of those, `(c, k)`, weights of the grids, `(c, g)`, and bias `(c, 1)`.

    Returns
    -------
    Tensor
        `(c, n)`.
    """
    if grids.device.type == "cpu":
        return _applied(Mixed, grids, *first, *second)
    return mixed_plain(grids, first, second)


def mixed_plain(grids: Tensor, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Return what `mixed` does, on any device."""
    hidden = torch.addmm(first[1], first[0], grids).relu_()
    return torch.addmm(torch.addmm(second[2], second[0], hidden), second[1], grids)


def priced(numbers: Tensor, nets: Sequence[Sequence[Tensor]], around: Neighbours) -> Tensor:
    """Return the bits of whole numbers under the models that their neighbours choose.

    Parameters
    ----------
    numbers : Tensor
        `(n,)`, of all grids, the finest first.
    nets : sequence of sequence of Tensor
        Weights `(out, in)` and bias `(out, 1)` of each of the three layers of each network.
    around : Neighbours
        Where each number has its neighbours.

    Returns
    -------
    Tensor
        A scalar; of numbers that are not whole what they would take if they were.
    """
    if numbers.device.type == "cpu":
        return _applied(Priced, numbers, around, *(part for net in nets for part in net))
    return priced_plain(numbers, nets, around)


def priced_plain(numbers: Tensor, nets: Sequence[Sequence[Tensor]], around: Neighbours) -> Tensor:
    """Return what `priced` does, on any device."""
    with_zero = torch.cat([numbers, numbers.new_zeros(1)])
    total = numbers.new_zeros(())
    for net, (inputs, places) in zip(nets, around.networks, strict=True):
        found = with_zero[torch.from_numpy(inputs).to(numbers.device)]
        for weights, bias in zip(net[0:4:2], net[1:4:2], strict=True):
            found = torch.addmm(bias, weights, found).relu()
        told = torch.addmm(net[5], net[4], found)
        log_scales = (told[1] * STEPS_A_UNIT - UNIT_MODEL) * LOG_SCALE_STEP
        total = total + laplace_bits(numbers[torch.from_numpy(places).to(numbers.device)], told[0], log_scales)
    return total
