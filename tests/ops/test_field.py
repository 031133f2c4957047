"""`tilestream::hash_encode` and `tilestream::mlp`: gradients against differences, and what torch asks of operations."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose

from tests.kernels import hash_oracle
from tilestream.errors import ConfigError
from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.mlp_layers import MlpLayers
from tilestream.ops.field import hash_encode, mlp

GRIDS = [
    HashGrid(levels=3, features=2, log2_table=5, n_min=3, growth=1.7),
    HashGrid(levels=2, features=3, log2_table=4, n_min=2, growth=2.0, dims=3),
]


def encoding(grid: HashGrid, n: int = 6, dtype=torch.float64):
    noise = torch.Generator().manual_seed(5)
    coords = torch.rand(n, grid.dims, dtype=dtype, generator=noise)
    table = torch.randn(grid.entries, grid.features, dtype=dtype, generator=noise)
    return coords.requires_grad_(), table.requires_grad_()


def network(layers: MlpLayers, n: int = 5, dtype=torch.float64):
    noise = torch.Generator().manual_seed(6)
    inputs = torch.randn(n, layers.widths[0], dtype=dtype, generator=noise)
    weights = torch.randn(layers.parameters, dtype=dtype, generator=noise)
    return inputs.requires_grad_(), weights.requires_grad_()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("max_level", [None, 1.0, torch.tensor([0, 1, 2, -1, 1, 0], dtype=torch.float32)])
def test_gradients_of_the_encoding_are_those_of_differences(grid, max_level) -> None:
    coords, table = encoding(grid)
    assert torch.autograd.gradcheck(lambda c, t: hash_encode(c, t, grid=grid, max_level=max_level), (coords, table))


@pytest.mark.parametrize("widths", [(3, 2), (4, 7, 3), (5, 6, 4, 2)])
@pytest.mark.parametrize(("biases", "activation"), [(False, "relu"), (True, "relu"), (True, "sine")])
def test_gradients_of_the_network_are_those_of_differences(widths, biases, activation) -> None:
    layers = MlpLayers(widths=widths, biases=biases, activation=activation)
    assert torch.autograd.gradcheck(lambda x, w: mlp(x, w, layers=layers), network(layers))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_finds_nothing_wrong(dtype) -> None:
    grid, layers = GRIDS[0], MlpLayers(widths=(4, 7, 3), biases=True)
    sizes = [grid.levels, grid.features, grid.log2_table, grid.n_min, grid.dims]
    coords, table = encoding(grid, dtype=dtype)
    each = torch.ones(len(coords))
    for limit in (None, each):
        torch.library.opcheck(
            torch.ops.tilestream.hash_encode, (coords, table, limit, 2.0, sizes, grid.growth, True)
        )  # fmt: skip
    gradient = torch.ones(len(coords), grid.width, dtype=dtype)
    for wanted in ((True, False), (False, True)):
        torch.library.opcheck(
            torch.ops.tilestream.hash_encode_backward,
            (gradient, coords.detach(), table.detach(), None, 2.0, sizes, grid.growth, True, *wanted),
        )
    inputs, weights = network(layers, dtype=dtype)
    torch.library.opcheck(torch.ops.tilestream.mlp, (inputs, weights, list(layers.widths), True, "relu"))
    upstream = torch.ones(len(inputs), 3, dtype=dtype)
    for to_inputs in (True, False):
        torch.library.opcheck(
            torch.ops.tilestream.mlp_backward,
            (upstream, inputs.detach(), weights.detach(), list(layers.widths), True, "relu", to_inputs),
        )


def test_values_are_those_of_the_table_of_rules_and_of_torch() -> None:
    grid, layers = GRIDS[0], MlpLayers(widths=(6, 8, 2), biases=True)
    coords, table = encoding(grid, 40)
    features = hash_encode(coords, table, grid=grid)
    assert_allclose(features.detach(), hash_oracle.encode(grid, coords.detach().numpy(), table.detach().numpy()))
    _, weights = network(layers)
    first, bias, second, last = weights.split([48, 8, 16, 2])
    expected = F.linear(F.relu(F.linear(features, first.reshape(8, 6), bias)), second.reshape(2, 8), last)
    assert_allclose(mlp(features, weights, layers=layers).detach(), expected.detach(), rtol=1e-12)


def test_only_the_gradients_that_are_wanted_are_made() -> None:
    grid, layers = GRIDS[0], MlpLayers(widths=(6, 4, 1))
    coords, table = encoding(grid)
    coords.requires_grad_(False)
    inputs, weights = hash_encode(coords, table, grid=grid), network(layers)[1]
    mlp(inputs, weights, layers=layers).sum().backward()
    assert coords.grad is None
    assert bool(table.grad.any())
    assert bool(weights.grad.any())


def test_half_a_table_learns_in_half() -> None:
    grid = GRIDS[0]
    coords, table = encoding(grid, dtype=torch.float32)
    half = table.detach().half().requires_grad_()
    hash_encode(coords, half, grid=grid).sum().backward()
    assert half.grad.dtype == torch.float16
    assert_allclose(float(half.grad.sum()), len(coords) * grid.width, rtol=1e-2)


def test_a_field_learns_an_image() -> None:
    """Adam on table and weights until a pattern is there: every part of forward and backward at work together."""
    grid, layers = HashGrid(levels=4, log2_table=8, n_min=4, growth=1.6), MlpLayers(widths=(8, 16, 1))
    noise = torch.Generator().manual_seed(1)
    table = ((torch.rand(grid.entries, 2, generator=noise) - 0.5) * 2e-2).requires_grad_()
    weights = (torch.randn(layers.parameters, generator=noise) * 0.4).requires_grad_()
    optimiser = torch.optim.Adam([table, weights], lr=2e-2)
    coords = torch.rand(512, 2, generator=noise)
    wanted = torch.sin(9 * coords[:, :1]) * torch.cos(7 * coords[:, 1:])
    losses = []
    for _ in range(150):
        optimiser.zero_grad()
        loss = F.mse_loss(mlp(hash_encode(coords, table, grid=grid), weights, layers=layers), wanted)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.02 * losses[0]
    assert np.isfinite(losses).all()


def test_what_does_not_fit_is_refused() -> None:
    coords, table = encoding(GRIDS[0])
    with pytest.raises(ConfigError, match="`table`"):
        hash_encode(coords, table[:-1].detach(), grid=GRIDS[0])
    inputs, weights = network(MlpLayers(widths=(3, 2)))
    with pytest.raises(ConfigError, match="`weights`"):
        mlp(inputs, weights, layers=MlpLayers(widths=(3, 3)))
