import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.kernels import hash_oracle
from tests.kernels.answers import MAX_PX, SIMULATED, Answer
from tilestream.errors import ConfigError
from tilestream.kernels.hash_encode import hash_encode
from tilestream.kernels.hashgrid import HashGrid


@st.composite
def grids(draw: st.DrawFn) -> HashGrid:
    return HashGrid(
        levels=draw(st.integers(1, 3 if SIMULATED else 9)),
        features=draw(st.sampled_from([1, 2, 3] if SIMULATED else [1, 2, 3, 4, 8])),
        log2_table=draw(st.integers(3, 5 if SIMULATED else 12)),
        n_min=draw(st.integers(2, 17)),
        growth=draw(st.sampled_from([1.0, 1.26, 1.5, 2.0, 2.7])),
        dims=draw(st.sampled_from([2, 3])),
    )


def positions(grid: HashGrid, n: int, seed: int, dtype=np.float32) -> np.ndarray:
    """Return coordinates over the grid, its borders and vertices among them."""
    noise = np.random.default_rng(seed)
    coords = noise.random((n, grid.dims))
    coords[noise.random((n, grid.dims)) < 0.1] = 1
    coords[noise.random((n, grid.dims)) < 0.1] = 0
    return coords.astype(dtype)


@given(data=st.data())
def test_features_are_those_of_the_table_of_rules(data: st.DataObject, on: Answer) -> None:
    grid = data.draw(grids())
    n, seed = data.draw(st.integers(1, MAX_PX * 3)), data.draw(st.integers(0, 999))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    stored = data.draw(st.sampled_from([dtype, np.float16])) if dtype == np.float32 else dtype
    noise = np.random.default_rng(seed)
    coords = positions(grid, n, seed, dtype)
    if data.draw(st.booleans()):
        coords = np.ascontiguousarray(coords.T).T[::-1]
    table = noise.standard_normal((grid.entries, grid.features)).astype(stored)
    max_level = data.draw(st.sampled_from([None, 0, 1.5, "each"]))
    if max_level == "each":
        max_level = noise.integers(-1, grid.levels + 1, n).astype(np.float32)
    expected = hash_oracle.encode(grid, coords, table, max_level)
    tolerance = (1e-6 if dtype == np.float32 else 1e-13) * np.abs(table).max()
    found = on(hash_encode, coords, table, grid=grid, max_level=max_level)
    assert found.dtype == dtype
    assert_allclose(found, expected, rtol=0, atol=tolerance)
    out = np.full((grid.width, n), 7, dtype).T  # one run for each feature
    assert_array_equal(on(hash_encode, coords, table, grid=grid, max_level=max_level, out=out), found)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("n_min", "growth", "log2_table"), [(16, 1.5, 15), (16, 2.0, 10), (5, 1.31, 8)])
def test_entries_are_equal_bit_by_bit(dims: int, n_min: int, growth: float, log2_table: int, on: Answer) -> None:
    """A table that holds its own numbers, read where the weights of all corners but one vanish or not."""
    grid = HashGrid(
        levels=2 if SIMULATED else 8, features=1, n_min=n_min, growth=growth, log2_table=log2_table, dims=dims
    )
    coords = positions(grid, 5 if SIMULATED else 400, seed=dims)
    numbers = np.arange(grid.entries, dtype=np.float64)[:, None]
    # each entry in turn alone would take as many calls; three moments of the numbers name the corners well enough
    for table in (numbers, np.cos(numbers), np.sin(1e3 * numbers)):
        expected = hash_oracle.encode(grid, coords.astype(np.float64), table)
        found = on(hash_encode, coords.astype(np.float64), table, grid=grid)
        assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(table).max())


def test_coordinates_outside_wrap_as_they_do_in_32_bits(on: Answer) -> None:
    grid = HashGrid(levels=3, n_min=5, growth=1.9, log2_table=6)
    coords = np.array([[-0.3, 0.2], [1.7, 2.5], [0.5, -4.0]], np.float32)
    table = np.random.default_rng(1).random((grid.entries, 2), np.float32)
    assert_allclose(on(hash_encode, coords, table, grid=grid), hash_oracle.encode(grid, coords, table), atol=1e-6)


def test_no_positions_have_no_features(on: Answer) -> None:
    grid = HashGrid(levels=2, log2_table=8)
    table = np.zeros((grid.entries, 2), np.float32)
    assert on(hash_encode, np.zeros((0, 2), np.float32), table, grid=grid).shape == (0, 4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"coords_xyz": np.zeros((3, 3), np.float32)}, r"`coords_xyz` of `hash_encode`.*shape \(3, 2\)"),
        ({"coords_xyz": np.zeros((3, 2), np.int32)}, "float32 or float64"),
        ({"coords_xyz": np.full((3, 2), np.nan, np.float32)}, "not finite"),
        ({"coords_xyz": [[0.5, 0.5]]}, "list"),
        ({"table": np.zeros((5, 2), np.float32)}, r"`table`.*shape \(512, 2\)"),
        ({"table": np.zeros((512, 2), np.float64)}, "float32 or float16"),
        ({"table": np.zeros((2, 512), np.float32).T}, "not contiguous"),
        ({"max_level": np.zeros(4, np.float32)}, r"`max_level`.*shape \(3,\)"),
        ({"out": np.zeros((3, 4), np.float64)}, "`out`.*float32"),
        ({"backend": "cuda"}, "`backend`"),
    ],
)
def test_what_does_not_fit_is_refused(changed, message) -> None:
    grid = HashGrid(levels=2, log2_table=8)
    given = {"coords_xyz": np.zeros((3, 2), np.float32), "table": np.zeros((512, 2), np.float32), **changed}
    with pytest.raises(ConfigError, match=message):
        hash_encode(given.pop("coords_xyz"), given.pop("table"), grid=grid, **given)
