"""The decoder of the pyramid codec in plain torch, on any device: a reference to read, and the rival of the kernels.

Sums are of whole numbers below 2^31, which float64 adds without rounding, so what it gives is equal to the kernels of
`tilestream.kernels` bit for bit. In float32 it is two to three times as fast and not exact: for comparisons of speed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from tilestream.codecs.pyramid.nets import (
    FEATURE_BITS,
    FEATURE_MOST,
    FILTER_BITS,
    LATENT_MOST,
    NEIGHBOURS,
    TAPS,
    Layer,
    PyramidNets,
)

_MIDDLE_BITS, _SCALE_BITS, _SCALE_MOST = 2, 4, 63
_MIDDLE_MOST = LATENT_MOST << FEATURE_BITS - _MIDDLE_BITS
_AROUND = {
    1: ((-1, -1), (-1, 1), (1, -1), (1, 1)),
    2: ((-1, 0), (1, 0), (0, -1), (0, 1)),
}
"""Steps to what a pass sees of its own grid."""


def torch_synthesis(
    grids: Sequence[torch.Tensor], nets: PyramidNets, level: int = 0, *, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """Return the channels of a level as they are before they become samples.

    Parameters
    ----------
    grids : sequence of tensor of int16
        `(y, x)` each, finest first, on one device; those finer than the level are not looked at.
    nets : PyramidNets
        For as many grids.
    level : int
        One that the networks have a synthesis of.
    dtype : torch.dtype
        What is computed in: float64, or float32 for a result that is not exact.

    Returns
    -------
    tensor of int16
        `(c, y, x)` on the device of the grids.
    """
    net = nets.synth[level]
    features = _features(grids[-1], dtype)[None]
    for number in range(len(grids) - 2, level - 1, -1):
        taps = torch.as_tensor(nets.filters[number], dtype=dtype, device=features.device)
        height, width = grids[number].shape
        features = _raised(_raised(features, taps, height).mT, taps, width).mT
        features = torch.cat([_features(grids[number], dtype)[None], features])
    flat = features.reshape(len(features), -1)
    hidden = _layer(net.first, flat).clamp_(0, FEATURE_MOST)
    values = _layer(net.second, torch.cat([hidden, flat])).clamp_(-FEATURE_MOST, FEATURE_MOST)
    values = values.reshape(-1, *features.shape[1:])
    for number, conv in enumerate(net.convs):
        low = -FEATURE_MOST if number == len(net.convs) - 1 else 0
        values = (values + _convolved(conv, values)).clamp_(low, FEATURE_MOST)
    return values.to(torch.int16)


def torch_context(
    grids: Sequence[torch.Tensor],
    number: int,
    turn: int,
    net: tuple[Layer, Layer, Layer],
    *,
    dtype: torch.dtype = torch.float64,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the middle and the scale that a network foretells of each latent of a pass.

    Parameters
    ----------
    grids : sequence of tensor of int16
        `(y, x)` each, finest first, on one device.
    number : int
        The grid, 0 for the finest.
    turn : int
        The pass: 0 for places of even row and column, 1 of odd row and column, 2 for the rest.
    net : tuple of Layer
        Three layers.
    dtype : torch.dtype
        As in `torch_synthesis`.

    Returns
    -------
    middle : tensor of int16
        `(n,)` in 1/16, in raster order.
    index : tensor of uint8
        `(n,)`, 0 to 63.
    """
    values = _neighbours(grids, number, turn).to(dtype) * (1 << FEATURE_BITS)
    for layer in net[:2]:
        values = _layer(layer, values).clamp_(0, FEATURE_MOST)
    middle, scale = _layer(net[2], values)
    return (
        _rounded(middle, _MIDDLE_BITS).clamp(-_MIDDLE_MOST, _MIDDLE_MOST).to(torch.int16),
        _rounded(scale, _SCALE_BITS).clamp(0, _SCALE_MOST).to(torch.uint8),
    )


def _features(grid: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return grid.to(dtype) * (1 << FEATURE_BITS)


def _rounded(sums: torch.Tensor, shift: int) -> torch.Tensor:
    """Return sums over 2^shift, rounded, halves up."""
    return torch.floor((sums + (1 << shift - 1)) / (1 << shift))


def _layer(layer: Layer, values: torch.Tensor) -> torch.Tensor:
    weights, bias = _parts(layer, values)
    return _rounded(torch.addmm(bias[:, None], weights, values), layer.shift)


def _convolved(layer: Layer, values: torch.Tensor) -> torch.Tensor:
    weights, bias = _parts(layer, values)
    padded = functional.pad(values[None], (1, 1, 1, 1), mode="replicate")
    sums = functional.conv2d(padded, weights.reshape(len(bias), -1, 3, 3), bias)[0]
    return _rounded(sums, layer.shift)


def _parts(layer: Layer, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights and bias where the values are, of their type."""
    weights, bias = (torch.as_tensor(part).to(values) for part in (layer.weights, layer.bias))
    return weights, bias


def _raised(values: torch.Tensor, taps: torch.Tensor, size: int) -> torch.Tensor:
    """Return `(n, y, x)` with its rows raised to `size`."""
    count, high, wide = values.shape
    edge = TAPS // 2
    padded = functional.pad(values[None], (0, 0, edge, edge), mode="replicate")[0]
    # even rows begin two places before, odd ones one place
    kernels = torch.stack([functional.pad(taps.flip(0), (0, 1)), functional.pad(taps, (1, 0))])
    sums = functional.conv2d(padded[:, None], kernels[:, None, :, None])
    rows = sums.transpose(1, 2).reshape(count, 2 * high, wide)[:, :size]
    return _rounded(rows, FILTER_BITS).clamp_(-FEATURE_MOST, FEATURE_MOST)


def _neighbours(grids: Sequence[torch.Tensor], number: int, turn: int) -> torch.Tensor:
    """Return the `(9, n)` latents that a pass sees."""
    grid = grids[number]
    height, width = grid.shape
    y, x = (torch.arange(size, device=grid.device) for size in (height, width))
    odd_y, odd_x = y[:, None] % 2, x[None] % 2
    chosen = odd_y != odd_x if turn == len(_AROUND) else (odd_y == turn) & (odd_x == turn)
    i, j = torch.nonzero(chosen, as_tuple=True)
    found = torch.zeros((NEIGHBOURS, len(i)), dtype=grid.dtype, device=grid.device)
    for place, (dy, dx) in enumerate(_AROUND.get(turn, ())):
        rows, columns = _mirrored(i, dy, height), _mirrored(j, dx, width)
        inside = (rows >= 0) & (columns >= 0)
        found[place] = torch.where(inside, grid[rows, columns], 0)
    if number + 1 < len(grids):
        coarser = grids[number + 1]
        near = [(k // 2 + k % 2 * 2 - 1).clamp(0, size - 1) for k, size in zip((i, j), coarser.shape, strict=True)]
        rows_columns = ((i // 2, j // 2), (near[0], j // 2), (i // 2, near[1]), (near[0], near[1]))
        for place, at in enumerate(rows_columns, 4):
            found[place] = coarser[at]
    if number + 2 < len(grids):
        found[NEIGHBOURS - 1] = grids[number + 2][i // 4, j // 4]
    return found


def _mirrored(places: torch.Tensor, step: int, size: int) -> torch.Tensor:
    """Return places moved by a step, or the other way where that is outside, or -1 where both are."""
    there = places + step
    there = torch.where((there < 0) | (there >= size), places - step, there)
    return torch.where((there < 0) | (there >= size), -1, there)


def to_tensors(grids: Sequence[np.ndarray], device: str | torch.device = "cpu") -> list[torch.Tensor]:
    """Return grids as tensors.

    Parameters
    ----------
    grids : sequence of ndarray of int16
        `(y, x)` each.
    device : str or torch.device
        Where they go.

    Returns
    -------
    list of tensor
        On the CPU of the same memory.
    """
    return [torch.from_numpy(np.ascontiguousarray(grid)).to(device) for grid in grids]
