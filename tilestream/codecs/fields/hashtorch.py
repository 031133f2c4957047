"""The hash grid and its network in plain torch: the reference that kernels are compared with, on any device.

All levels are looked up at once, corners as gathers, layers as `linear`; autograd makes the gradients. Formulas:
`tilestream.kernels.hash_vertex`, `tilestream.kernels.mlp_layers`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.mlp_layers import MlpLayers

PRIME_Y = 2654435761 - 2**32
"""The same 32 bits, signed."""
CHUNK = 1 << 14
"""Positions whose temporaries stay in a cache: on the CPU three to four times as fast as all at once."""


def reference_encode(coords_xy: torch.Tensor, table: torch.Tensor, *, grid: HashGrid) -> torch.Tensor:
    """Return the features of a 2-D grid at positions, differentiable in both.

    Parameters
    ----------
    coords_xy : Tensor of float32 or float64
        `(n, 2)`, each 0 to 1.
    table : Tensor
        `(grid.entries, grid.features)` of the same type.
    grid : HashGrid
        What the table holds.

    Returns
    -------
    Tensor
        `(n, grid.width)`, the coarsest level first.
    """
    first, size, edge, is_hashed, scales = _columns(grid, coords_xy)
    at = coords_xy[:, None, :] * scales[:, None] + 0.5
    cell = at.detach().floor()
    x_frac, y_frac = (at - cell).unbind(2)
    x, y = cell.to(torch.int32).unbind(2)

    def corner(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        hashed = (x ^ (y * PRIME_Y)) & (size - 1)
        return F.embedding(torch.where(is_hashed, hashed, (x + y * edge) % size) + first, table)

    upper = torch.lerp(corner(x, y), corner(x + 1, y), x_frac[..., None])
    lower = torch.lerp(corner(x, y + 1), corner(x + 1, y + 1), x_frac[..., None])
    return torch.lerp(upper, lower, y_frac[..., None]).flatten(1)


def _columns(grid: HashGrid, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return first entry, size, vertices along an axis, whether hashed, and scale of each level."""
    columns = torch.from_numpy(grid.layout).to(like.device)
    first, size, edge = (columns[:, k].to(torch.int32) for k in range(3))
    return first, size, edge, columns[:, 3].bool(), torch.from_numpy(grid.scales).to(like)


def reference_mlp(inputs: torch.Tensor, weights: torch.Tensor, *, layers: MlpLayers) -> torch.Tensor:
    """Return what a perceptron gives for each row of inputs, differentiable in both.

    Parameters
    ----------
    inputs : Tensor
        `(n, layers.widths[0])`.
    weights : Tensor
        `(layers.parameters,)` of the same type.
    layers : MlpLayers
        Sizes.

    Returns
    -------
    Tensor
        `(n, layers.widths[-1])`.
    """
    value = inputs
    for number, (i, o, start, bias, *_) in enumerate(layers.layout.tolist()):
        value = F.linear(
            value, weights[start : start + i * o].reshape(o, i), weights[bias : bias + o] if bias >= 0 else None
        )
        if number < len(layers.layout) - 1:
            value = F.relu(value)
    return value


@torch.inference_mode()
def reference_decode(
    table: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
    coords_xy: npt.NDArray[np.float32],
    *,
    grid: HashGrid,
    layers: MlpLayers,
    kept: int,
) -> npt.NDArray[np.float32]:
    """Return what a field gives at positions.

    Parameters
    ----------
    table, weights : ndarray of float32
        As the kernels take them.
    coords_xy : ndarray of float32
        `(n, 2)`.
    grid : HashGrid
        What the table holds.
    layers : MlpLayers
        Sizes of the network.
    kept : int
        Levels of the grid, the coarsest first; the others are 0.

    Returns
    -------
    ndarray of float32
        `(n, c)`.
    """
    held: Any = [torch.from_numpy(np.ascontiguousarray(array)) for array in (table, weights)]
    found = []
    for part in torch.split(torch.from_numpy(coords_xy), CHUNK):
        features = reference_encode(part, held[0], grid=grid)
        features[:, kept * grid.features :] = 0
        found.append(reference_mlp(features, held[1], layers=layers))
    values: npt.NDArray[np.float32] = torch.cat(found).numpy()
    return values
