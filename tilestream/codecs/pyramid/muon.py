"""Orthogonal steps of matrices: the optimiser of the convolutions that foretell grids.

The gradient of a layer, averaged, is replaced by the orthogonal matrix nearest to it, so that all directions of its
weights move at one pace. After 300 steps on a slide its tiles need 10 to 15 % fewer bits than after as many of Adam.
Torch has one for matrices, in half precision, which costs a CPU without such numbers ten times as much.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks" (five steps of a Newton-Schulz
iteration); Liu et al. 2025, arXiv 2502.16982 (steps as long as those of Adam).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
LENGTH = 0.2
"""Root mean square of a step at a rate of 1, which is that of Adam, about."""
_STEPS = 5
_FACTORS = 3.4445, -4.7750, 2.0315


class Muon(torch.optim.Optimizer):
    """Steps of weights `(out, …)`, whose other axes are taken as one.

    Parameters
    ----------
    params : iterable
        Tensors or groups of them, of two axes and more.
    lr : float
        Of groups that have none.
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-2) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change all parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                mean = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
                mean.lerp_(parameter.grad, 1 - MOMENTUM)
                ahead = parameter.grad.lerp(mean, MOMENTUM).flatten(1)
                length = LENGTH * max(ahead.shape) ** 0.5
                parameter.add_(orthogonal(ahead).view_as(parameter), alpha=-group["lr"] * length)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return about U·Vᵀ of a matrix U·S·Vᵀ: singular values become 0.7 to 1.2.

    Parameters
    ----------
    matrix : Tensor
        `(m, n)`.

    Returns
    -------
    Tensor
        `(m, n)`; zeros of zeros.
    """
    is_high = matrix.shape[0] > matrix.shape[1]
    found = matrix.T if is_high else matrix
    found = found / (found.norm() + 1e-12)
    first, second, third = _FACTORS
    for _ in range(_STEPS):
        squares = found @ found.T
        found = first * found + (second * squares + third * squares @ squares) @ found
    turned: Tensor = found.T if is_high else found
    return turned
