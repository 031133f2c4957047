"""`tilestream::mip`: the levels of `tilestream.kernels.mip` as an operation of torch, with gradients.

A level is a mean, so each of its gradients adds its share to every valid pixel under it; `restart` levels go back in
one sweep. Rounding has no gradient: integers are not differentiable.
"""

from __future__ import annotations

from typing import Any

import torch

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need_kind, whole
from tilestream.kernels.mip import EXACT_LEVELS, MOST_LEVELS
from tilestream.kernels.mip import mip as mip_kernel
from tilestream.kernels.mip_gradient import mip_gradient
from tilestream.kernels.mip_layout import level_shape

_FLOATS = (torch.float32, torch.float64)


@torch.library.custom_op("tilestream::mip", mutates_args=())
def _mip(a: torch.Tensor, valid: torch.Tensor | None, levels: int, restart: int) -> list[torch.Tensor]:
    outs = [_level_of(a, level) for level in range(1, levels + 1)]
    mask = None if valid is None else _array(valid)
    mip_kernel(_array(a), mask, restart=restart, out=[_array(out) for out in outs], stream=_stream(a))
    return outs


@_mip.register_fake
def _(a: torch.Tensor, valid: torch.Tensor | None, levels: int, restart: int) -> list[torch.Tensor]:
    return [_level_of(a, level) for level in range(1, levels + 1)]


@torch.library.custom_op("tilestream::mip_backward", mutates_args=())
def _mip_backward(
    gradients: list[torch.Tensor], a: torch.Tensor, valid: torch.Tensor | None, restart: int
) -> torch.Tensor:
    masks = _masks(a, valid, len(gradients), restart)
    carried: torch.Tensor | None = None
    for first in reversed(range(0, len(gradients), restart)):
        group = gradients[first : first + restart]
        if carried is not None:
            group = [*group[:-1], group[-1] + carried]
        shape = level_shape(tuple(a.shape), first)
        carried = torch.empty(shape, dtype=a.dtype, device=a.device)
        if masks is not None:
            mask, means = masks[first // restart]
            # a share of the pixels that exist becomes one of those that are valid
            group = [torch.where(m > 0, g / m, torch.zeros_like(g)) for g, m in zip(group, means, strict=True)]
        mip_gradient([_array(g) for g in group], out=_array(carried), stream=_stream(a))
        if masks is not None:
            carried *= mask
    return torch.zeros_like(a, memory_format=torch.contiguous_format) if carried is None else carried


@_mip_backward.register_fake
def _(gradients: list[torch.Tensor], a: torch.Tensor, valid: torch.Tensor | None, restart: int) -> torch.Tensor:
    return torch.empty(a.shape, dtype=a.dtype, device=a.device)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[torch.Tensor]) -> None:
    a, valid, _, restart = inputs
    ctx.save_for_backward(a, valid)
    ctx.restart = restart
    ctx.shapes = [tuple(level.shape) for level in output]


def _backward(ctx: Any, gradients: list[torch.Tensor | None]) -> tuple[torch.Tensor, None, None, None]:
    a, valid = ctx.saved_tensors
    given = [
        a.new_zeros(shape) if gradient is None else gradient
        for gradient, shape in zip(gradients, ctx.shapes, strict=True)
    ]
    return torch.ops.tilestream.mip_backward(given, a, valid, ctx.restart), None, None, None


_mip.register_autograd(_backward, setup_context=_setup_context)


def mip(
    a: torch.Tensor, valid: torch.Tensor | None = None, *, levels: int | None = None, restart: int = EXACT_LEVELS
) -> list[torch.Tensor]:
    """Return the reduced levels of a tensor, level 1 first, each the mean of the valid pixels that exist.

    Parameters
    ----------
    a : Tensor
        `(y, x)`, `(c, y, x)` or `(n, c, y, x)` on CPU or CUDA, any strides: integers of up to 32 bits or floats;
        float32 and float64 are differentiable.
    valid : Tensor of bool, optional
        `(y, x)` or, for a batch, `(n, y, x)`; pixels that are False, and pixels with a sample that is not finite,
        enter no level and get no gradient.
    levels : int, optional
        How many; by default until one pixel is left.
    restart : int
        After how many levels sums begin anew from rounded pixels, 1 to 6.

    Returns
    -------
    list of Tensor
        Sizes ceil(s/2) each, channels together or apart as in `a`; on CUDA on the current stream.

    Raises
    ------
    ConfigError
        When the tensor cannot be reduced, or has no gradient and one is wanted.
    """
    need_kind("mip", "a", a, torch.Tensor, do="Use torch.as_tensor on it.")
    if levels is not None:
        levels = whole("mip", "levels", levels, least=0, most=MOST_LEVELS)
    if a.requires_grad and a.dtype not in _FLOATS:
        raise ConfigError.of(
            "`a` of `mip`",
            got=f"{a.dtype} that requires a gradient",
            expected="torch.float32 or torch.float64",
            do="Convert it first.",
        )
    if levels is None:
        levels = max(int(n - 1).bit_length() for n in a.shape[-2:])
    return list(torch.ops.tilestream.mip(a, valid, levels, restart))


def _masks(
    a: torch.Tensor, valid: torch.Tensor | None, levels: int, restart: int
) -> list[tuple[torch.Tensor, list[torch.Tensor]]] | None:
    """Return for each run of levels the valid pixels it comes from and their share under each of its pixels."""
    finite = torch.isfinite(a)
    if valid is None and bool(finite.all()):
        return None
    mask = finite if a.dim() == 2 else finite.all(dim=-3, keepdim=True)
    if valid is not None:
        mask = mask & (valid if a.dim() == 2 else valid.unsqueeze(-3))
    found = []
    for first in range(0, levels, restart):
        weights = mask.to(a.dtype)
        means = _mip(weights, None, min(restart, levels - first), restart)
        found.append((weights, means))
        mask = means[-1] > 0
    return found


def _level_of(a: torch.Tensor, level: int) -> torch.Tensor:
    """Return an empty level, with channels that lie together where they do in `a`."""
    shape = level_shape(tuple(a.shape), level)
    if a.dim() > 2 and shape[-3] > 1 and a.stride(-3) < a.stride(-1):
        return a.new_empty((*shape[:-3], *shape[-2:], shape[-3])).movedim(-1, -3)
    return a.new_empty(shape)


def _array(tensor: torch.Tensor) -> Any:
    return tensor.detach() if tensor.is_cuda else tensor.detach().numpy()


def _stream(tensor: torch.Tensor) -> int:
    return int(torch.cuda.current_stream(tensor.device).cuda_stream) if tensor.is_cuda else 0
