"""Images through a network one by one, so that the bits of a vector depend on its image alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def singly(network: Callable[..., Tensor], *batches: Tensor) -> Tensor:
    """Return what a network makes of a batch.

    Parameters
    ----------
    network : callable
        Returns one row an image.
    *batches : Tensor
        What it takes, each `[n, …]`.

    Returns
    -------
    Tensor
        `[n, …]`.

    Notes
    -----
    Libraries choose how they multiply by the number of rows and the order in memory, and with that the last bits of a
    sum. On a CPU, where no gradients are recorded, images therefore go through by themselves and in one order: whatever
    else is in a batch, a tile gives the same bits. One image of 200 px is work enough for that to cost nothing.
    """
    if torch.is_grad_enabled() or batches[0].device.type != "cpu":
        return network(*batches)
    batches = tuple(batch.contiguous() for batch in batches)
    if len(batches[0]) < 2:
        return network(*batches)
    return torch.cat([network(*(batch[k : k + 1] for batch in batches)) for k in range(len(batches[0]))])
