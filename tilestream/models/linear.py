"""The linear layer of networks, by the faster of torch's two libraries where nothing is to be learned from it.

In float32 on an x86 CPU torch multiplies matrices with MKL, which on AMD runs at half the speed of oneDNN, the library
that torch has for convolutions, half types and compiled graphs. Both sum in float32.
"""

from __future__ import annotations

import platform
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Linear):
    """Layer of torch that multiplies as `linear` does."""

    def forward(self, input: Tensor) -> Tensor:
        """Return `[..., out]` of `[..., in]`."""
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x @ weight.T + bias`.

    Parameters
    ----------
    x : Tensor
        `[..., in]`.
    weight : Tensor
        `[out, in]`.
    bias : Tensor, optional
        `[out]`.

    Returns
    -------
    Tensor
        `[..., out]`.
    """
    if _is_plain(x, weight) and has_onednn():
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return found
    return F.linear(x, weight, bias)


def _is_plain(x: Tensor, weight: Tensor) -> bool:
    """Return whether it is float32 on the CPU, and neither gradients nor a half type nor a graph are asked for."""
    if torch.is_grad_enabled() or x.device.type != "cpu" or not x.numel():
        return False
    if x.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    return not (torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())


@lru_cache(maxsize=1)
def has_onednn() -> bool:
    """Return whether torch has oneDNN's linear map here, and the machine is of a kind on which it is the faster one."""
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    is_built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's own
    return is_x86 and is_built and hasattr(torch.ops.mkldnn, "_linear_pointwise")
