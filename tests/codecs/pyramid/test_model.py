"""The float model of a tile: its sizes, and grids that are raised alone and in batches, and tiles of other sizes."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tilestream.codecs.pyramid.model import PyramidModel, PyramidShape
from tilestream.errors import ConfigError
from tilestream.types import Shape


def test_contexts_are_shared_by_coarse_grids_alone() -> None:
    found = PyramidShape(scales=4, own_contexts=2).table.tolist()
    assert found == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [6, 7, 8]]
    assert PyramidShape(scales=2).table.tolist() == [[0, 1, 2]] * 2


def test_batches_are_raised_as_one_tile_is() -> None:
    torch.manual_seed(0)
    model = PyramidModel(PyramidShape(scales=3, hidden=4), Shape(y=11, x=14))
    with torch.no_grad():
        model.filters.add_(0.1 * torch.randn(model.filters.shape))
        model.numbers.normal_(0, 3)
    parts = model.numbers.split(model.counts)
    grids = [part.view(1, 1, *one.yx) for part, one in zip(parts, model.grid_shapes, strict=True)]
    known = torch.cat([grids[1], model.raised(grids[2], 1, model.grid_shapes[1].yx)], dim=1)
    both = model.raised(torch.cat([known, 2 * known]), 0, (11, 14)).detach()
    [exact] = model.raised_grids(model.numbers)
    torch.testing.assert_close(both[0], exact[1:].detach())
    torch.testing.assert_close(both[1], 2 * exact[1:].detach())


def test_a_model_of_another_size_has_the_same_networks() -> None:
    torch.manual_seed(0)
    shape = PyramidShape(scales=3, hidden=5, context=6, levels=2, own_contexts=1)
    model = PyramidModel(shape, Shape(y=8, x=8))
    found = model.of_size(Shape(y=20, x=12))
    assert found.numbers.shape == (20 * 12 + 10 * 6 + 5 * 3,)
    assert np.array_equal(found.table, model.table)
    for one, other in zip(found.networks(), model.networks(), strict=True):
        assert torch.equal(one, other)
        assert one.data_ptr() != other.data_ptr()


@pytest.mark.parametrize(
    "sizes",
    [{"scales": 0}, {"scales": 9}, {"hidden": 0}, {"levels": 8}, {"convs": 4}, {"own_contexts": 8}, {"context": 1.5}],
)
def test_sizes_that_no_decoder_takes_are_refused(sizes: dict) -> None:
    [name] = sizes
    with pytest.raises(ConfigError, match=f"`{name}` of networks of a pyramid"):
        PyramidShape(**sizes)
