"""Perturbed top-k: how probable it is that a tile is among the best k, when scores are uncertain by a little noise.

    share_i = P(i among the k greatest of s + σ z),  z ~ N(0, 1)
    ∂share_i / ∂s_j = E[(1_i(s + σ z) - 1_i(s)) z_j] / σ

Both as means over so many draws. The choice without noise, whose product with z has mean 0, is subtracted in the
gradient: it then has the same expectation and less variance.

References
----------
Berthet et al., Learning with Differentiable Perturbed Optimizers, NeurIPS 2020, Prop. 2.2 (arXiv 2002.08676).
Cordonnier et al., Differentiable Patch Selection for Image Recognition, CVPR 2021, §3 (arXiv 2104.03059), which keeps
the k places apart; here a sum over tiles follows, for which their places do not matter.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def perturbed_top_k(scores: Tensor, k: int, *, sigma: float, draws: int, generator: torch.Generator) -> Tensor:
    """Return the share of draws in which each tile is among the best.

    Parameters
    ----------
    scores : Tensor
        `[n]`.
    k : int
        How many are chosen, at most n.
    sigma : float
        Standard deviation of the noise, above 0.
    draws : int
        Draws of noise.
    generator : torch.Generator
        Of the CPU.

    Returns
    -------
    Tensor
        `[n]`, of sum k; 0 for a tile that no draw has chosen. Differentiable with respect to the scores.
    """
    noise = torch.randn((draws, len(scores)), generator=generator).to(scores)
    shares: Tensor = _PerturbedTopK.apply(scores, k, sigma, noise)  # type: ignore[no-untyped-call]  # torch's own
    return shares


class _PerturbedTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, k: int, sigma: float, noise: Tensor) -> Tensor:
        """Return the shares."""
        chosen = torch.topk(scores + sigma * noise, k, dim=1).indices  # draws, k
        plain = torch.topk(scores, k).indices
        ctx.save_for_backward(chosen, plain, noise)
        ctx.sigma = sigma
        counts = torch.zeros_like(scores).index_add_(0, chosen.flatten(), torch.ones_like(noise[:, :k]).flatten())
        return counts / len(noise)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of the scores."""
        chosen, plain, noise = ctx.saved_tensors
        grad = grads[0]
        gain = grad[chosen].sum(1) - grad[plain].sum()  # draws
        return gain @ noise / (len(noise) * ctx.sigma), None, None, None
