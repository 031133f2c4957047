"""Quantisation as a training sees it: rounded values whose gradients pass, noise of a step, and bits as a loss.

    straight through    v' = clip(round(v / s), −m, m) · s      dv'/dv = 1 within the range, else 0
    noise               v' = v + s · u, u uniform in ±½
    bits                Σ −log2 P(v / s), P the mass of a Laplace distribution on [x − ½, x + ½]

The gradient for scales is that of LSQ: what rounding adds within the range, ±m beyond it. P's scale b is the mean of
|x| of a group, its most likely value, and part of what is differentiated: so bits fall where a whole group shrinks.

Sources: Bengio et al., arXiv:1308.3432 (straight through); Esser et al., LSQ, arXiv:1902.08153; Ballé et al.,
arXiv:1611.01704 (noise); Girish et al., SHACIRA, arXiv:2309.15848 (bits of a table as a loss).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from tilestream.codecs.quantise import best_scales, largest_code

_LEAST_SPREAD = 0.04
"""Of b, steps: less is no bit less that a range coder could save."""


def scales_each(values: torch.Tensor, starts: Sequence[int], bits: int) -> torch.Tensor:
    """Return the scale that each value would be quantised with, those of `quantise`.

    Parameters
    ----------
    values : Tensor of float32
        `(n,)`.
    starts : sequence of int
        First index of each group.
    bits : int
        Of a code.

    Returns
    -------
    Tensor of float32
        `(n,)` without a gradient. It costs about as much as 30 passes over the values: once in some steps is enough.
    """
    found = best_scales(values.detach().cpu().numpy(), starts, bits)
    return torch.from_numpy(np.repeat(found, np.diff([*starts, len(values)]))).to(values.device)


def fake_quantise(values: torch.Tensor, scales: torch.Tensor, bits: int) -> torch.Tensor:
    """Return what quantised values would be, differentiable in both arguments.

    Parameters
    ----------
    values : Tensor
        Of any shape.
    scales : Tensor
        Positive; of a shape that broadcasts to that of `values`.
    bits : int
        Of a code.

    Returns
    -------
    Tensor
        Exactly `Quantised.values()` of the same scales.
    """
    most = largest_code(bits)
    steps = (values / scales).clamp(-most, most)
    return (steps + (steps.round() - steps).detach()) * scales


def noisy(values: torch.Tensor, scales: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Return values with the noise that rounding to `scales` would look like; parameters as of `fake_quantise`."""
    noise = torch.rand(values.shape, generator=generator, dtype=values.dtype, device=values.device)
    return values + (noise - 0.5) * scales


def rate_bits(steps: torch.Tensor, starts: Sequence[int] = (0,)) -> torch.Tensor:
    """Return about how many bits the entropy coder would take, differentiable.

    Parameters
    ----------
    steps : Tensor
        `(n,)`: values by their scales, not rounded, with or without noise.
    starts : sequence of int
        First index of each group.

    Returns
    -------
    Tensor
        Bits of all of them together: within 10 % of what the coder takes where they are distributed like Laplace or
        Gauss and spread over half a step or more; off by up to half where nearly all round to 0.
    """
    total = steps.new_zeros(())
    for first, last in zip(starts, [*starts[1:], len(steps)], strict=True):
        if last > first:
            total = total + _laplace_bits(steps[first:last].abs())
    return total


def _laplace_bits(sizes: torch.Tensor) -> torch.Tensor:
    """Return the bits of magnitudes under the Laplace distribution of their mean."""
    spread = sizes.mean().clamp_min(_LEAST_SPREAD)
    half = 0.5 / spread
    # beyond half a step the mass is e^(−x/b) · sinh(1/2b), whose logarithm does not overflow in this form
    beyond = sizes / spread - half - torch.log1p(-torch.exp(-2 * half)) + math.log(2)
    inside = sizes.clamp_max(0.5)
    mass = 1 - 0.5 * (torch.exp((inside - 0.5) / spread) + torch.exp((-inside - 0.5) / spread))
    nats = torch.where(sizes >= 0.5, beyond, -torch.log(mass))
    return nats.sum() / math.log(2)
