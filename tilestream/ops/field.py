"""`tilestream::hash_encode` and `tilestream::mlp`: a neural field's two halves as operations of torch, with gradients.

The gradients of tables and weights are the same in every run (`tilestream.kernels.hash_gradient`,
`tilestream.kernels.mlp_gradient`); they are not differentiable in turn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tilestream.kernels.hash_encode import hash_encode as encode_kernel
from tilestream.kernels.hash_gradient import hash_encode_backward as encode_backward_kernel
from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.mlp import mlp as mlp_kernel
from tilestream.kernels.mlp_gradient import mlp_backward as mlp_backward_kernel
from tilestream.kernels.mlp_layers import MlpLayers


def _sizes(grid: HashGrid) -> list[int]:
    """Return the whole numbers of a grid; a scale that levels are capped at as the bits of its float32."""
    first, scale, vertices = grid.capped or (0, 0.0, 0)
    capped = [first, int(np.float32(scale).view(np.int32)), vertices] if grid.capped else []
    return [grid.levels, grid.features, grid.log2_table, grid.n_min, grid.dims, *capped]


def _grid(sizes: list[int], growth: float) -> HashGrid:
    levels, features, log2_table, n_min, dims, *capped = sizes
    return HashGrid(
        levels=levels, features=features, log2_table=log2_table, n_min=n_min, growth=growth, dims=dims,
        capped=(capped[0], float(np.int32(capped[1]).view(np.float32)), capped[2]) if capped else None,
    )  # fmt: skip


@torch.library.custom_op("tilestream::hash_encode", mutates_args=())
def _hash_encode(
    coords: torch.Tensor, table: torch.Tensor, each: torch.Tensor | None, most: float, sizes: list[int], growth: float,
    deterministic: bool,
) -> torch.Tensor:  # fmt: skip
    grid = _grid(sizes, growth)
    out = coords.new_empty((coords.shape[0], grid.width))
    encode_kernel(
        _array(coords), _array(table), grid=grid, max_level=most if each is None else _array(each), out=_array(out),
        stream=_stream(coords), threads=_threads(),
    )  # fmt: skip
    return out


@_hash_encode.register_fake
def _(
    coords: torch.Tensor, table: torch.Tensor, each: torch.Tensor | None, most: float, sizes: list[int], growth: float,
    deterministic: bool,
) -> torch.Tensor:  # fmt: skip
    return coords.new_empty((coords.shape[0], sizes[0] * sizes[1]))


@torch.library.custom_op("tilestream::hash_encode_backward", mutates_args=())
def _hash_encode_backward(
    gradient: torch.Tensor, coords: torch.Tensor, table: torch.Tensor, each: torch.Tensor | None, most: float,
    sizes: list[int], growth: float, deterministic: bool, to_table: bool, to_coords: bool,
) -> list[torch.Tensor]:  # fmt: skip
    of_table, of_coords = encode_backward_kernel(
        _array(gradient), _array(coords), _array(table), grid=_grid(sizes, growth),
        max_level=most if each is None else _array(each), to_table=to_table, to_coords=to_coords,
        deterministic=deterministic, stream=_stream(coords), threads=_threads(),
    )  # fmt: skip
    nothing = coords.new_empty((0,))
    return [
        nothing.to(table.dtype) if of_table is None else torch.as_tensor(of_table).to(table.dtype),
        nothing.clone() if of_coords is None else torch.as_tensor(of_coords),
    ]


@_hash_encode_backward.register_fake
def _(
    gradient: torch.Tensor, coords: torch.Tensor, table: torch.Tensor, each: torch.Tensor | None, most: float,
    sizes: list[int], growth: float, deterministic: bool, to_table: bool, to_coords: bool,
) -> list[torch.Tensor]:  # fmt: skip
    return [
        table.new_empty(table.shape if to_table else (0,)),
        coords.new_empty(coords.shape if to_coords else (0,)),
    ]


def _keep_encoding(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    coords, table, each, *ctx.settings = inputs
    ctx.save_for_backward(coords, table, each)


def _encode_backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    to_coords, to_table = ctx.needs_input_grad[:2]
    of_table, of_coords = torch.ops.tilestream.hash_encode_backward(
        gradient, *ctx.saved_tensors, *ctx.settings, to_table, to_coords
    )
    return of_coords if to_coords else None, of_table if to_table else None, None, None, None, None, None


_hash_encode.register_autograd(_encode_backward, setup_context=_keep_encoding)


@torch.library.custom_op("tilestream::mlp", mutates_args=())
def _mlp(inputs: torch.Tensor, weights: torch.Tensor, widths: list[int], biases: bool, activation: str) -> torch.Tensor:
    layers = MlpLayers(widths=tuple(widths), biases=biases, activation=activation)  # type: ignore[arg-type]
    out = inputs.new_empty((inputs.shape[0], widths[-1]))
    mlp_kernel(
        _array(inputs), _array(weights), layers=layers, out=_array(out), stream=_stream(inputs), threads=_threads()
    )  # fmt: skip
    return out


@_mlp.register_fake
def _(inputs: torch.Tensor, weights: torch.Tensor, widths: list[int], biases: bool, activation: str) -> torch.Tensor:
    return inputs.new_empty((inputs.shape[0], widths[-1]))


@torch.library.custom_op("tilestream::mlp_backward", mutates_args=())
def _mlp_backward(
    gradient: torch.Tensor, inputs: torch.Tensor, weights: torch.Tensor, widths: list[int], biases: bool,
    activation: str, to_inputs: bool,
) -> list[torch.Tensor]:  # fmt: skip
    of_weights, of_inputs = mlp_backward_kernel(
        _array(gradient), _array(inputs), _array(weights),
        layers=MlpLayers(widths=tuple(widths), biases=biases, activation=activation),  # type: ignore[arg-type]
        to_inputs=to_inputs, stream=_stream(inputs), threads=_threads(),
    )  # fmt: skip
    return [
        torch.as_tensor(of_weights).to(weights.dtype),
        inputs.new_empty((0,)) if of_inputs is None else torch.as_tensor(of_inputs),
    ]


@_mlp_backward.register_fake
def _(
    gradient: torch.Tensor, inputs: torch.Tensor, weights: torch.Tensor, widths: list[int], biases: bool,
    activation: str, to_inputs: bool,
) -> list[torch.Tensor]:  # fmt: skip
    return [weights.new_empty(weights.shape), inputs.new_empty(inputs.shape if to_inputs else (0,))]


def _keep_network(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    values, weights, *ctx.settings = inputs
    ctx.save_for_backward(values, weights)


def _network_backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    to_inputs = ctx.needs_input_grad[0]
    of_weights, of_inputs = torch.ops.tilestream.mlp_backward(gradient, *ctx.saved_tensors, *ctx.settings, to_inputs)
    return of_inputs if to_inputs else None, of_weights, None, None, None


_mlp.register_autograd(_network_backward, setup_context=_keep_network)


def hash_encode(
    coords_xyz: torch.Tensor,
    table: torch.Tensor,
    *,
    grid: HashGrid,
    max_level: float | torch.Tensor | None = None,
    deterministic: bool = True,
) -> torch.Tensor:
    """Return the features of a hash grid at positions, differentiable in positions and table.

    Parameters
    ----------
    coords_xyz : Tensor of float32 or float64
        `(n, 2)` x, y or `(n, 3)` x, y, z on CPU or CUDA, each 0 to 1; any strides.
    table : Tensor
        `(grid.entries, grid.features)`, contiguous; of the type of the coordinates, or float16 with float32.
    grid : HashGrid
        What the table holds.
    max_level : float or Tensor of float32, optional
        Levels above this number are zero; one for all, or `(n,)`.
    deterministic : bool
        Whether the gradient of the table is the same in every run on CUDA, as it always is on the CPU.

    Returns
    -------
    Tensor
        `(n, grid.width)`, the coarsest level first; on CUDA on the current stream.

    Raises
    ------
    ConfigError
        When types or shapes do not fit the grid.
    """
    each = max_level if isinstance(max_level, torch.Tensor) else None
    most = float(grid.levels if max_level is None or each is not None else max_level)
    sizes = _sizes(grid)
    found: torch.Tensor = torch.ops.tilestream.hash_encode(
        coords_xyz, table, each, most, sizes, grid.growth, deterministic
    )
    return found


def mlp(inputs: torch.Tensor, weights: torch.Tensor, *, layers: MlpLayers) -> torch.Tensor:
    """Return what a perceptron gives for each row of inputs, differentiable in inputs and weights.

    Parameters
    ----------
    inputs : Tensor of float32 or float64
        `(n, layers.widths[0])` on CPU or CUDA; any strides.
    weights : Tensor
        `(layers.parameters,)`: matrices row by row, each followed by its biases if there are any.
    layers : MlpLayers
        Sizes.

    Returns
    -------
    Tensor
        `(n, layers.widths[-1])`; on CUDA on the current stream.

    Raises
    ------
    ConfigError
        When types or shapes do not fit the layers.
    """
    found: torch.Tensor = torch.ops.tilestream.mlp(
        inputs, weights, list(layers.widths), layers.biases, layers.activation
    )
    return found


def _array(tensor: torch.Tensor) -> Any:
    return tensor.detach() if tensor.is_cuda else tensor.detach().numpy()


def _stream(tensor: torch.Tensor) -> int:
    return int(torch.cuda.current_stream(tensor.device).cuda_stream) if tensor.is_cuda else 0


def _threads() -> int:
    return torch.get_num_threads()
