"""Trilinear sampling of a pyramid as a torch operation, differentiable in texels, positions and level.

    samples = sample([level_0, level_1, …], at_yx, level)

`tilestream::sample` with its backward operations `tilestream::sample_slopes` and `tilestream::sample_scatter`, on CPU
and CUDA, through `tilestream.kernels.sample` and `tilestream.kernels.sample_gradient`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tilestream.errors import ConfigError
from tilestream.kernels.sample import sample as sample_kernel
from tilestream.kernels.sample_gradient import sample_scatter as scatter_kernel
from tilestream.kernels.sample_gradient import sample_slopes as slopes_kernel


def sample(
    levels: Sequence[Tensor], at_yx: Tensor, level: Tensor | float, *, origin_yx: tuple[int, int] = (0, 0)
) -> Tensor:
    """Return a pyramid sampled at positions and levels, linear in y, x and level.

    Parameters
    ----------
    levels : sequence of Tensor of uint8, uint16, float16, float32 or float64
        `(c, y, x)` or `(y, x)`, level 0 first, in any strides and of any sizes that do not grow. Floats receive
        gradients.
    at_yx : Tensor of float32 or float64
        `(n, 2)` or `(h, w, 2)`, px of level 0 from `origin_yx`; the centre of the first texel is at (0.5, 0.5).
    level : Tensor of float32 or float64, or number
        Of each position, or of all; clamped to the levels there are, with no gradient there.
    origin_yx : tuple of int
        Where `at_yx` counts from, px of level 0.

    Returns
    -------
    Tensor
        `(c, n)` or `(c, h, w)`, without c for levels without: float64 for float64 levels, else float32.

    Raises
    ------
    ConfigError
        When something is no tensor, tensors do not belong together, or are on different devices.
    """
    given = {"at_yx": at_yx, **{f"levels[{i}]": each for i, each in enumerate(levels)}}
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise ConfigError.of(
                f"`{name}` of `sample`", got=type(value).__name__, expected="a tensor", do="Use torch.as_tensor on it."
            )
    if not isinstance(level, Tensor):
        level = torch.full((), level, dtype=at_yx.dtype, device=at_yx.device)
    if level.ndim == 0:
        level = level.expand(at_yx.shape[:-1])
    found: Tensor = torch.ops.tilestream.sample(list(levels), at_yx, level, list(origin_yx))
    return found


@torch.library.custom_op("tilestream::sample", mutates_args=())
def _sample(levels: Sequence[Tensor], at_yx: Tensor, level: Tensor, origin_yx: Sequence[int]) -> Tensor:
    arrays, at, of = [_array(each) for each in levels], _array(at_yx), _array(level)
    return _tensor(sample_kernel(arrays, at, of, origin_yx=_pair(origin_yx), stream=_stream(at_yx)))


@torch.library.custom_op("tilestream::sample_slopes", mutates_args=())
def _slopes(grad: Tensor, levels: Sequence[Tensor], at_yx: Tensor, level: Tensor, origin_yx: Sequence[int]) -> Tensor:
    arrays, at, of = [_array(each) for each in levels], _array(at_yx), _array(level)
    return _tensor(slopes_kernel(_array(grad), arrays, at, of, origin_yx=_pair(origin_yx), stream=_stream(at_yx)))


@torch.library.custom_op("tilestream::sample_scatter", mutates_args=())
def _scatter(
    grad: Tensor, levels: Sequence[Tensor], at_yx: Tensor, level: Tensor, origin_yx: Sequence[int]
) -> list[Tensor]:
    found = [torch.zeros(each.shape, dtype=_real(each), device=each.device) for each in levels]
    arrays = [_array(each) for each in found]
    scatter_kernel(
        _array(grad), arrays, _array(at_yx), _array(level), origin_yx=_pair(origin_yx), stream=_stream(at_yx)
    )
    return found


@_sample.register_fake
def _(levels: Sequence[Tensor], at_yx: Tensor, level: Tensor, origin_yx: Sequence[int]) -> Tensor:
    return at_yx.new_empty((*levels[0].shape[:-2], *at_yx.shape[:-1]), dtype=_real(levels[0]))


@_slopes.register_fake
def _(grad: Tensor, levels: Sequence[Tensor], at_yx: Tensor, level: Tensor, origin_yx: Sequence[int]) -> Tensor:
    return at_yx.new_empty((*at_yx.shape[:-1], 3), dtype=_real(levels[0]))


@_scatter.register_fake
def _(grad: Tensor, levels: Sequence[Tensor], at_yx: Tensor, level: Tensor, origin_yx: Sequence[int]) -> list[Tensor]:
    return [each.new_empty(each.shape, dtype=_real(each)) for each in levels]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    levels, at_yx, level, origin_yx = inputs
    ctx.save_for_backward(at_yx, level, *levels)
    ctx.origin_yx = origin_yx


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    at_yx, level, *levels = ctx.saved_tensors
    to_levels: list[Tensor | None] = [None] * len(levels)
    to_at = to_level = None
    wants_levels, wants_at, wants_level, _ = ctx.needs_input_grad
    wants = list(wants_levels) if isinstance(wants_levels, (list, tuple)) else [wants_levels] * len(levels)
    if any(wants):
        found = torch.ops.tilestream.sample_scatter(grad, levels, at_yx, level, ctx.origin_yx)
        to_levels = [f.to(each.dtype) if want else None for f, each, want in zip(found, levels, wants, strict=True)]
    if wants_at or wants_level:
        slopes = torch.ops.tilestream.sample_slopes(grad, levels, at_yx, level, ctx.origin_yx)
        to_at = slopes[..., :2].to(at_yx.dtype) if wants_at else None
        to_level = slopes[..., 2].to(level.dtype) if wants_level else None
    return to_levels, to_at, to_level, None


_sample.register_autograd(_backward, setup_context=_remember)


def _real(level: Tensor) -> torch.dtype:
    return torch.float64 if level.dtype == torch.float64 else torch.float32


def _pair(origin_yx: Sequence[int]) -> tuple[int, int]:
    return int(origin_yx[0]), int(origin_yx[1])


def _array(tensor: Tensor) -> Any:
    """Return the same memory as kernels take it: NumPy's on the host, the tensor itself on a device."""
    return tensor.detach() if tensor.is_cuda else tensor.detach().numpy()


def _tensor(array: Any) -> Tensor:
    return array if isinstance(array, Tensor) else torch.from_numpy(array)


def _stream(tensor: Tensor) -> int:
    return int(torch.cuda.current_stream(tensor.device).cuda_stream) if tensor.is_cuda else 0
