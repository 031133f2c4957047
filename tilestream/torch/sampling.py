"""Attention by a sample: the sum of what all tiles of a bag say, from a few of them, drawn by the attention itself.

    y = Σ p_i f_i  ≈  Σ_m w_m f_(i_m),   w_m = (1 - Σ_(j<m) p_(i_j) + (k - m) p_(i_m)) / k

k tiles are drawn one after the other without replacement, each by p among those that are left. Each draw gives an
unbiased guess of y, that of the tiles drawn before plus all that is left by the one that is drawn; w are the weights of
their mean. As the gradient of y with respect to log p is a sum of the same kind, `∂y = Σ p_i f_i ∂log p_i`, the same
weights give it without bias.

References
----------
Katharopoulos & Fleuret, Processing Megapixel Images with Deep Attention-Sampling Models, ICML 2019, §3 (arXiv
1905.03711). Des Raj, JASA 51, 1956 (the estimator). Kool et al., ICML 2019 (Gumbel top-k draws so; arXiv 1903.06059).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def draw(log_p: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Return the tiles that are drawn without replacement, in the order of their drawing.

    Parameters
    ----------
    log_p : Tensor
        `[n]` logarithms of their attention; may lack a constant.
    k : int
        How many; all where there are not as many.
    generator : torch.Generator
        Of the CPU.

    Returns
    -------
    Tensor of int64
        `[min(k, n)]`.
    """
    noise = torch.empty(log_p.shape, dtype=torch.float64).exponential_(generator=generator).log()
    keys = log_p.detach().double().cpu() - noise  # Gumbel noise is minus the logarithm of exponential noise
    return torch.topk(keys, min(k, len(log_p))).indices


def importance(p: Tensor) -> Tensor:
    """Return the weights of tiles in the order of their drawing.

    Parameters
    ----------
    p : Tensor
        `[k]` attention of those that were drawn.

    Returns
    -------
    Tensor of float64
        `[k]`; of expectation p where a tile that is not drawn has 0.
    """
    p, k = p.detach().double(), len(p)
    before = torch.cumsum(p, 0) - p
    after = torch.arange(k - 1, -1, -1, dtype=torch.float64, device=p.device)
    return (torch.clamp(1 - before, min=0) + after * p) / k


def sampled_sum(log_p: Tensor, k: int, look: Callable[[Tensor], Tensor], generator: torch.Generator) -> Tensor:
    """Return Σ p_i f_i from a few tiles, with a gradient for attention and for what is seen.

    Parameters
    ----------
    log_p : Tensor
        `[n]` logarithms of the attention, normalised.
    k : int
        Tiles that are looked at; where that is all of them the sum is exact.
    look : callable
        Returns the features `[k, d]` of tiles by their numbers `[k]`.
    generator : torch.Generator
        Of the CPU.

    Returns
    -------
    Tensor
        `[d]`.
    """
    if k >= len(log_p):
        found = look(torch.arange(len(log_p)))
        return log_p.exp().to(found.dtype) @ found
    drawn = draw(log_p, k, generator)
    found = look(drawn)
    chosen = log_p[drawn.to(log_p.device)]
    weights = importance(chosen.exp()).to(found)
    # 1 in value; its gradient is that of log p
    return (weights * torch.exp(chosen - chosen.detach())) @ found
