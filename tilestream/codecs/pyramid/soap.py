"""Adam in the eigenbasis of Shampoo: the optimiser of a pyramid's networks.

The gradients of a layer of few inputs are far from independent, and Adam, which scales each weight alone, takes twice
the steps. SOAP keeps means of G·Gᵀ and Gᵀ·G, and lets Adam run in their eigenvectors, which one step of an orthogonal
iteration follows now and then. Layers here have some dozens of rows and columns, so that this costs little.

Source: Vyas et al. 2024, arXiv 2409.11321, algorithm 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

BETA = 0.95
"""Of all running means."""
EPSILON = 1e-8
EVERY = 10
"""Steps between two turns of the basis."""


class Soap(torch.optim.Optimizer):
    """Steps of small tensors; the first gradient only finds the basis.

    Parameters
    ----------
    params : iterable
        Tensors or groups of them, each with a first axis of outputs.
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
                if parameter.grad is not None:
                    gradient = parameter.grad.reshape(len(parameter), -1)
                    if not self.state[parameter]:
                        self.state[parameter] = _State(gradient).__dict__
                    else:
                        found = _moved(self.state[parameter], gradient)
                        parameter.add_(found.view_as(parameter), alpha=-group["lr"])


class _State:
    """What is known of a parameter as a matrix `(m, n)`."""

    def __init__(self, gradient: Tensor) -> None:
        self.steps = 0
        self.mean, self.square = torch.zeros_like(gradient), torch.zeros_like(gradient)
        self.moments = [(1 - BETA) * gradient @ gradient.T, (1 - BETA) * gradient.T @ gradient]
        # in doubles: of 24 equal eigenvalues of nothing LAPACK's floats made NaN, or an error
        self.bases = [torch.linalg.eigh(one.double()).eigenvectors.to(one.dtype) for one in self.moments]


def _moved(state: dict[str, Any], gradient: Tensor) -> Tensor:
    """Return the direction of a step, and take the gradient into the means."""
    state["steps"] += 1
    rows, columns = state["bases"]
    state["mean"].lerp_(gradient, 1 - BETA)
    state["square"].lerp_((rows.T @ gradient @ columns).square(), 1 - BETA)
    left = 1 - BETA ** state["steps"]
    turned = (rows.T @ state["mean"] @ columns) / (state["square"].sqrt() + EPSILON)
    found: Tensor = (rows @ turned @ columns.T) * (math.sqrt(left) / left)
    for moments, product in zip(state["moments"], (gradient @ gradient.T, gradient.T @ gradient), strict=True):
        moments.lerp_(product, 1 - BETA)
    if state["steps"] % EVERY == 0:
        _turn(state)
    return found


def _turn(state: dict[str, Any]) -> None:
    """Follow the eigenvectors by a step of orthogonal iteration, in falling order of what they hold."""
    for axis, (moments, basis) in enumerate(zip(state["moments"], state["bases"], strict=True)):
        order = torch.argsort((basis.T @ moments @ basis).diagonal(), descending=True)
        state["square"] = state["square"].index_select(axis, order)
        state["bases"][axis] = torch.linalg.qr(moments @ basis[:, order]).Q
