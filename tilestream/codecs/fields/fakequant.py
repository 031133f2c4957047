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

from tilestream.codecs.latticecodes import OF_CENTRES, OF_EDGES, Offsets
from tilestream.codecs.quantise import Lattice, best_scales, largest_code

_LEAST_SPREAD = 0.04
"""Of b, steps: less is no bit less that a range coder could save."""
_LEAST_EDGE = 16
"""Of a lattice, along its shorter edge, to be told from neighbours."""
_REACH = 3
"""Of the furthest neighbours."""
_STENCILS = ((*OF_CENTRES, ((1, 1),)), (*OF_EDGES, ((0, 1), (1, 0))))


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


def rate_bits(
    steps: torch.Tensor, starts: Sequence[int] = (0,), lattices: Sequence[Lattice] | None = None
) -> torch.Tensor:
    """Return about how many bits the entropy coder would take, differentiable.

    Parameters
    ----------
    steps : Tensor
        `(n,)`: values by their scales, not rounded, with or without noise.
    starts : sequence of int
        First index of each group.
    lattices : sequence of (tuple of int or None), optional
        Of each group, as of `Quantised.to_bytes`: there the bits are those of what neighbours do not tell, which needs
        the noise, since neighbours are rounded too.

    Returns
    -------
    Tensor
        Bits of all of them together: within 10 % of what the coder takes where they are distributed like Laplace or
        Gauss and spread over half a step or more; off by up to half where nearly all round to 0.
    """
    total = steps.new_zeros(())
    ends = [*starts[1:], len(steps)]
    for first, last, lattice in zip(starts, ends, lattices or [None] * len(ends), strict=True):
        if last > first and lattice is None:
            total = total + _laplace_bits(steps[first:last].abs())
        elif last > first and lattice is not None:
            size = lattice[0] * lattice[1]
            total = total + _lattice_bits(steps[first : first + size].view(lattice))
    return total


def _lattice_bits(values: torch.Tensor) -> torch.Tensor:
    """Return the bits of a lattice by the passes of `tilestream.codecs.latticecodes`, edges nearly as there."""
    total = values.new_zeros(())
    while min(values.shape) > _LEAST_EDGE:
        padded = torch.nn.functional.pad(values[None, None], (_REACH,) * 4, mode="reflect")[0, 0]
        for near, far, parities in _STENCILS:
            parts = [_around(padded, values.shape, at, near, far) for at in parities]
            wanted, *sums = (torch.cat([part[which] for part in parts]) for which in range(3))
            weights = _least_squares(torch.stack(sums, 1).detach(), wanted.detach())
            total = total + _laplace_bits((wanted - sums[0] * weights[0] - sums[1] * weights[1]).abs())
        values = values[::2, ::2]
    return total + _laplace_bits(values.reshape(-1).abs())


def _around(
    padded: torch.Tensor, shape: torch.Size, at: tuple[int, int], near: Offsets, far: Offsets
) -> tuple[torch.Tensor, ...]:
    """Return every second point from `at` on, and the sums of its near and of its far neighbours, each as one run."""

    def moved(down: int, right: int) -> torch.Tensor:
        rows = slice(_REACH + at[0] + down, _REACH + shape[0] + down, 2)
        columns = slice(_REACH + at[1] + right, _REACH + shape[1] + right, 2)
        return padded[rows, columns].reshape(-1)

    near_sum, far_sum = (torch.stack([moved(*offset) for offset in which]).sum(0) for which in (near, far))
    return moved(0, 0), near_sum, far_sum


def _least_squares(sums: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    normal = sums.T @ sums
    return torch.linalg.solve(normal + 1e-6 * (normal.trace() + 1) * torch.eye(2).to(normal), sums.T @ wanted)


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
