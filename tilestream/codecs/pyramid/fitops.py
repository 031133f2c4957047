"""What a fit differentiates: soft rounding, bits of a Laplace distribution, and the raising of grids.

Sources: soft rounding of Agustsson et al. 2020, arXiv 2006.09952; with noise in between, as C3 (Kim et al. 2023,
arXiv 2312.02753) and Cool-chic do it. Everything is plain torch, so that it runs on any device.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

LEAST_LOG_SCALE, MOST_LOG_SCALE = -30 * math.log(2) / 6, 33 * math.log(2) / 6
"""Natural logarithms of the scales of the first and last model of `tables`."""
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
        Their product with a matrix for rows and one for columns: at these sizes faster than shifts and sums.
    """
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


def convolved(values: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Return `(c, h, w)` plus its 3×3 convolution, edges replicated."""
    padded = functional.pad(values[None], (1, 1, 1, 1), mode="replicate")
    found: Tensor = values + functional.conv2d(padded, weights, bias)[0]
    return found
