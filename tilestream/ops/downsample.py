"""`tilestream::downsample`: levels by a filter of `tilestream.kernels.fir` as an operation of torch, with gradients.

A level is a matrix times the pixels, so its gradient is the transpose of that matrix, edges and odd sizes included.
With pixels that are not valid the matrix is another: weights are divided by what the valid ones come to, and where that
is less than half of all, the valid ones of four are averaged (`tilestream.kernels.mip_filter`). Integers have none.
"""

from __future__ import annotations

from typing import Any

import torch

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need_kind, whole
from tilestream.kernels.fir import FILTERS, FilterName, fir_of
from tilestream.kernels.mip import MOST_LEVELS
from tilestream.kernels.mip import mip as mip_kernel
from tilestream.kernels.mip_filter_gradient import filter_gradient
from tilestream.kernels.mip_gradient import mip_gradient
from tilestream.kernels.mip_layout import level_shape

_FLOATS = (torch.float32, torch.float64)


@torch.library.custom_op("tilestream::downsample", mutates_args=())
def _downsample(a: torch.Tensor, valid: torch.Tensor | None, filter: str) -> torch.Tensor:
    out = _level_of(a)
    mask = None if valid is None else _array(valid)
    mip_kernel(_array(a), mask, filter=fir_of(filter), out=[_array(out)], stream=_stream(a))
    return out


@_downsample.register_fake
def _(a: torch.Tensor, valid: torch.Tensor | None, filter: str) -> torch.Tensor:
    return _level_of(a)


@torch.library.custom_op("tilestream::downsample_backward", mutates_args=())
def _downsample_backward(
    gradient: torch.Tensor, a: torch.Tensor, valid: torch.Tensor | None, filter: str
) -> torch.Tensor:
    out = torch.empty(a.shape, dtype=a.dtype, device=a.device)
    mask = _mask(a, valid)
    if mask is None:
        filter_gradient(_array(gradient), fir=fir_of(filter), out=_array(out), stream=_stream(a))
        return out
    weights = mask.to(torch.float64)
    share = _level_of(weights)  # of the weights of a pixel, that of its valid ones; exact enough to find half of all
    mip_kernel(_array(weights), filter=fir_of(filter), out=[_array(share)], stream=_stream(a))
    quarter = _level_of(weights)
    mip_kernel(_array(weights), levels=1, out=[_array(quarter)], stream=_stream(a))
    is_filtered, is_mean = (quarter > 0) & (share >= 0.5), (quarter > 0) & (share < 0.5)
    nothing = torch.zeros_like(gradient)
    filtered = torch.where(is_filtered, gradient / share.to(a.dtype), nothing)
    filter_gradient(_array(filtered), fir=fir_of(filter), out=_array(out), stream=_stream(a))
    mean = torch.where(is_mean, gradient / quarter.to(a.dtype), nothing)
    more = torch.empty_like(out)
    mip_gradient([_array(mean)], out=_array(more), stream=_stream(a))
    return (out + more) * mask


@_downsample_backward.register_fake
def _(gradient: torch.Tensor, a: torch.Tensor, valid: torch.Tensor | None, filter: str) -> torch.Tensor:
    return torch.empty(a.shape, dtype=a.dtype, device=a.device)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    a, valid, ctx.filter = inputs
    ctx.save_for_backward(a, valid)


def _backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
    a, valid = ctx.saved_tensors
    return torch.ops.tilestream.downsample_backward(gradient, a, valid, ctx.filter), None, None


_downsample.register_autograd(_backward, setup_context=_setup_context)


def downsample(
    a: torch.Tensor, valid: torch.Tensor | None = None, *, filter: FilterName = "lanczos", levels: int = 1
) -> list[torch.Tensor]:
    """Return the levels of a tensor by a filter, level 1 first, each made of the one before.

    Parameters
    ----------
    a : Tensor
        `(y, x)`, `(c, y, x)` or `(n, c, y, x)` on CPU or CUDA, any strides: integers of up to 32 bits or floats;
        float32 and float64 are differentiable.
    valid : Tensor of bool, optional
        `(y, x)` or, for a batch, `(n, y, x)`; pixels that are False, and pixels with a sample that is not finite,
        enter no level and get no gradient.
    filter : {"box", "binomial", "kaiser", "lanczos"}
        See `tilestream.kernels.fir`; floats are not clipped to the range of what is filtered.
    levels : int
        How many.

    Returns
    -------
    list of Tensor
        Sizes ceil(s/2) each; on CUDA on the current stream.

    Raises
    ------
    ConfigError
        When the tensor cannot be reduced, or has no gradient and one is wanted.
    """
    need_kind("downsample", "a", a, torch.Tensor, do="Use torch.as_tensor on it.")
    levels = whole("downsample", "levels", levels, least=0, most=MOST_LEVELS)
    if filter not in FILTERS:
        _refuse("filter", repr(filter), f"one of {', '.join(FILTERS)}", "Choose one.")
    if a.requires_grad and a.dtype not in _FLOATS:
        _refuse("a", f"{a.dtype} that requires a gradient", "torch.float32 or torch.float64", "Convert it first.")
    found = []
    for _ in range(levels):
        seen = None if valid is None else _halved(valid)
        a = torch.ops.tilestream.downsample(a, valid, filter)
        valid = seen
        found.append(a)
    return found


def _halved(valid: torch.Tensor) -> torch.Tensor:
    """Return where one of the four pixels under each is valid."""
    planes = valid.unsqueeze(-3) if valid.dim() > 2 else valid
    share = mip_kernel(_array(planes.to(torch.float32)), levels=1, stream=_stream(valid))[0]
    found = torch.as_tensor(share, device=valid.device) > 0
    return found.squeeze(-3) if valid.dim() > 2 else found


def _mask(a: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor | None:
    """Return which pixels enter a level, with an axis for channels where there is one; None for all."""
    finite = torch.isfinite(a)
    if valid is None and bool(finite.all()):
        return None
    mask = finite if a.dim() == 2 else finite.all(dim=-3, keepdim=True)
    return mask if valid is None else mask & (valid if a.dim() == 2 else valid.unsqueeze(-3))


def _level_of(a: torch.Tensor) -> torch.Tensor:
    return a.new_empty(level_shape(tuple(a.shape), 1))


def _array(tensor: torch.Tensor) -> Any:
    return tensor.detach() if tensor.is_cuda else tensor.detach().numpy()


def _stream(tensor: torch.Tensor) -> int:
    return int(torch.cuda.current_stream(tensor.device).cuda_stream) if tensor.is_cuda else 0


def _refuse(name: str, got: object, expected: str, do: str) -> None:
    raise ConfigError.of(f"`{name}` of `downsample`", got=got, expected=expected, do=do)
