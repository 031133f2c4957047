"""Masks of tokens as attention takes them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tilestream.errors import StageError


def token_keys(mask: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return which tokens may be looked at, `[n, 1, 1, 1 + gh * gw]`: the class token and those that count.

    Parameters
    ----------
    mask : Tensor
        bool `[n, gh, gw]`, True where a token counts.
    shape : tuple of int
        What its shape has to be.

    Returns
    -------
    Tensor
        bool.

    Raises
    ------
    StageError
        When the mask is another one, or no token of a grid counts.
    """
    if mask.dtype != torch.bool or tuple(mask.shape) != shape:
        raise StageError.of(
            "mask of tokens",
            got=f"{mask.dtype} of shape {tuple(mask.shape)}",
            expected=f"bool of shape {shape}, True where a token counts",
            do="Give it one value a token.",
        )
    tokens = mask.flatten(1)  # n, gh gw
    empty = ~tokens.any(dim=1)  # n
    if bool(empty.any()):
        raise StageError.of(
            "mask of tokens",
            got=f"no token that counts in {int(empty.sum())} of {len(mask)} grids",
            expected="one or more in each",
            do="Leave such grids out: a vector of them would say nothing of the image.",
        )
    return F.pad(tokens, (1, 0), value=True)[:, None, None, :]  # n, 1, 1, 1 + gh gw
