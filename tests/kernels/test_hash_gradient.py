import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.kernels import hash_oracle
from tests.kernels.answers import MAX_PX, Answer
from tests.kernels.test_hash_encode import grids, positions
from tilestream.errors import ConfigError
from tilestream.kernels.hash_gradient import hash_encode_backward
from tilestream.kernels.hashgrid import HashGrid


@given(data=st.data())
def test_gradients_are_those_of_the_table_of_rules(data: st.DataObject, on: Answer) -> None:
    grid = data.draw(grids())
    n, seed = data.draw(st.integers(1, MAX_PX * 3)), data.draw(st.integers(0, 999))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    noise = np.random.default_rng(seed)
    coords = positions(grid, n, seed, dtype)
    table = noise.standard_normal((grid.entries, grid.features)).astype(dtype)
    if dtype == np.float32 and data.draw(st.booleans()):
        table = table.astype(np.float16)
    upstream = (noise.standard_normal((grid.width, n)) * data.draw(st.sampled_from([1, 1e-30, 1e25]))).astype(dtype).T
    max_level = data.draw(st.sampled_from([None, 0, "each"]))
    if max_level == "each":
        max_level = noise.integers(-1, grid.levels + 1, n).astype(np.float32)
    exact = hash_oracle.gradients(grid, coords, table, upstream, max_level)
    # the same with absolute terms, which rounding is measured by
    scale = np.abs(upstream).max()
    steepest = max(float(s) for s, *_ in hash_oracle.levels(grid)) + 1
    unit = 1e-6 if dtype == np.float32 else 1e-11
    for deterministic in (True, False):
        found = on(
            hash_encode_backward, upstream, coords, table, grid=grid, max_level=max_level, deterministic=deterministic
        )
        assert found[0].dtype == found[1].dtype == dtype
        assert np.abs(found[0] - exact[0]).max() <= unit * scale * n
        bound = unit * scale * steepest * grid.width * 2**grid.dims * np.abs(table.astype(np.float64)).max()
        assert np.abs(found[1] - exact[1]).max() <= bound


def test_the_gradient_of_a_table_does_not_depend_on_the_order_of_positions(on: Answer) -> None:
    grid = HashGrid(levels=3, log2_table=5, growth=1.7)
    noise = np.random.default_rng(3)
    n = 3 * MAX_PX
    coords, upstream = noise.random((n, 2), np.float32), noise.standard_normal((n, grid.width)).astype(np.float32)
    table = np.zeros((grid.entries, 2), np.float32)
    found, none = on(hash_encode_backward, upstream, coords, table, grid=grid, to_coords=False)
    assert none is None
    turned, _ = on(hash_encode_backward, upstream[::-1], coords[::-1], table, grid=grid, to_coords=False)
    assert_array_equal(found, turned)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_not_hidden(bad: float, on: Answer) -> None:
    grid = HashGrid(levels=1, log2_table=5)
    upstream = np.ones((3, 2), np.float32)
    upstream[1, 1] = bad
    table = np.zeros((grid.entries, 2), np.float32)
    found, _ = on(hash_encode_backward, upstream, np.full((3, 2), 0.5, np.float32), table, grid=grid)
    assert np.isnan(found).all()


def test_no_positions_have_no_gradient(on: Answer) -> None:
    grid = HashGrid(levels=1, log2_table=5)
    nothing = np.zeros((0, 2), np.float32)
    of_table, of_coords = on(
        hash_encode_backward, nothing, nothing, np.ones((grid.entries, 2), np.float32), grid=grid
    )  # fmt: skip
    assert not of_table.any()
    assert of_coords.shape == (0, 2)


def test_what_does_not_fit_is_refused() -> None:
    grid = HashGrid(levels=1, log2_table=5)
    table = np.zeros((grid.entries, 2), np.float32)
    with pytest.raises(ConfigError, match="`upstream` of `hash_encode_backward`"):
        hash_encode_backward(np.zeros((3, 3), np.float32), np.zeros((3, 2), np.float32), table, grid=grid)
