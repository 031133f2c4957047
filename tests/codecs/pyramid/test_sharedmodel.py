"""The float model computes what the decoder computes in whole numbers, but for its roundings."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.codecs.pyramid.made import made_grids, made_nets
from tilestream.codecs.pyramid.nets import PASSES, grid_shapes
from tilestream.codecs.pyramid.sharedcontext import grid_passes, laplace_bits
from tilestream.codecs.pyramid.sharedmodel import PyramidShape, SharedModel
from tilestream.codecs.pyramid.tables import table_bits
from tilestream.errors import ConfigError, DamagedError
from tilestream.kernels.pyramid_context import pyramid_context
from tilestream.kernels.pyramid_synthesis import pyramid_synthesis
from tilestream.types import Shape

SIZES = [(64, 64), (37, 50), (2, 3), (1, 9), (9, 1), (1, 1)]


def model_of(seed: int = 0, **sizes: int) -> SharedModel:
    """Return a model by chance whose contexts tell something."""
    torch.manual_seed(seed)
    model = SharedModel(PyramidShape(**({"scales": 4, "levels": 2, "hidden": 8, "width": 8} | sizes)))
    with torch.no_grad():
        for context in model.contexts:
            context[4].weight.normal_(0, 0.2)
        model.taps.add_(torch.randn(model.taps.shape) * 0.03)
    return model


def tensors(grids) -> list:
    return [torch.from_numpy(grid.astype(np.float32))[None, None] for grid in grids]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("level", [0, 1])
def test_pixels_are_those_of_the_decoder(size: tuple[int, int], level: int) -> None:
    nets = model_of().to_nets()
    grids = made_grids(Shape(y=size[0], x=size[1]), 4, seed=1, spread=1.0)
    with torch.no_grad():
        [found] = SharedModel.of(nets).pixels(tensors(grids), first=level, last=level)
    exact = pyramid_synthesis(grids, nets, level)
    np.testing.assert_allclose(found[0].numpy() * 255 * 64, exact, atol=64)  # a step of 8 bits


@pytest.mark.parametrize("size", SIZES)
def test_numbers_are_foretold_as_by_the_decoder(size: tuple[int, int]) -> None:
    nets = model_of().to_nets()
    model, grids = SharedModel.of(nets), made_grids(Shape(y=size[0], x=size[1]), 4, seed=2)
    known = [grid[:, 0] for grid in tensors(grids)]
    for number, grid in enumerate(grids):
        parts = list(grid_passes(known, known, number))
        for which in range(PASSES):
            context = model.contexts[nets.table[number, which]]
            own = [(coded, inputs) for turn, coded, inputs in parts if turn == which]
            middle, _ = pyramid_context(grids, number, which, nets.context[nets.table[number, which]])
            odd_y, odd_x = np.indices(grid.shape) % 2
            turns = np.where(odd_y != odd_x, 2, odd_y)
            rows, columns = np.nonzero(turns == which)
            if which == 2:  # the model has even rows before odd ones
                order = np.argsort(rows % 2, kind="stable")
                middle, rows, columns = middle[order], rows[order], columns[order]
            with torch.no_grad():
                told = torch.cat([context(inputs.T)[:, 0] for _, inputs in own]) if own else torch.zeros(0)
            coded = torch.cat([coded for coded, _ in own]) if own else torch.zeros(0)
            np.testing.assert_array_equal(coded.numpy(), grid[rows, columns])
            np.testing.assert_allclose(told.numpy() * 16, middle, atol=1.5)


def test_bits_are_those_of_the_tables() -> None:
    bits, index, gaps = table_bits(), np.arange(12, 50), np.arange(-6, 7)
    scale = torch.exp2((torch.from_numpy(index) - 30.0) / 6)
    found = laplace_bits(torch.from_numpy(gaps)[None].float(), scale[:, None].float())
    exact = bits[index[:, None] * 16, gaps[None] + 128]
    near = exact < 12
    np.testing.assert_allclose(found.numpy()[near], exact[near], rtol=0.02, atol=0.02)


def test_a_batch_is_its_parts() -> None:
    model, size = model_of(), Shape(y=24, x=40)
    one, other = (tensors(made_grids(size, 4, seed=seed)) for seed in (3, 4))
    both = [torch.cat(pair) for pair in zip(one, other, strict=True)]
    with torch.no_grad():
        np.testing.assert_allclose(model.bits(both), model.bits(one) + model.bits(other), rtol=1e-5)
        torch.testing.assert_close(model.pixels(both)[0][1:], model.pixels(other)[0])


@pytest.mark.parametrize("sizes", [{}, {"scales": 7, "levels": 4}, {"scales": 2, "levels": 1, "convs": 0}])
def test_whole_numbers_come_back(sizes: dict[str, int]) -> None:
    nets = model_of(**sizes).to_nets()
    assert SharedModel.of(nets).to_nets().digest == nets.digest
    assert nets.context[0][0].shift >= 8


def test_networks_that_were_made_elsewhere_are_taken() -> None:
    nets = made_nets(scales=4, levels=2)
    size = Shape(y=16, x=16)
    assert len(SharedModel.of(nets).pixels(tensors(made_grids(size, 4)), last=1)) == 2
    assert grid_shapes(size, 4)[1].yx == (8, 8)


def test_weights_beyond_32_bits_are_refused() -> None:
    model = model_of()
    with torch.no_grad():
        model.synth[0].first.weight.fill_(1e9)
    with pytest.raises(DamagedError):
        model.to_nets()


@pytest.mark.parametrize("sizes", [{"scales": 1}, {"scales": 9}, {"hidden": 0}, {"levels": 8}, {"convs": 4}])
def test_sizes_that_no_decoder_takes_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="shared networks"):
        PyramidShape(**sizes)
