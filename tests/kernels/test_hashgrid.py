import pytest

from tests.kernels import hash_oracle
from tilestream.errors import ConfigError
from tilestream.kernels.hashgrid import HashGrid


@pytest.mark.parametrize(
    ("log2_table", "parameters"), [(14, 285e3), (15, 469e3), (16, 749e3), (17, 1.09e6), (18, 1.42e6), (19, 1.42e6)]
)
def test_parameters_of_one_tile_are_those_of_the_survey(log2_table: int, parameters: float) -> None:
    grid = HashGrid.spanning(n_max=512, log2_table=log2_table)
    assert grid.entries * grid.features == pytest.approx(parameters, rel=2e-3)


def test_parameters_of_the_girl_with_a_pearl_earring() -> None:
    grid = HashGrid.spanning(n_max=23466 / 2, log2_table=22)
    assert grid.entries * grid.features == pytest.approx(47.5e6, rel=1e-3)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("growth", [1.0, 1.26, 1.5, 2.0])
def test_levels_follow_the_rules(dims: int, growth: float) -> None:
    grid = HashGrid(levels=12, growth=growth, dims=dims, log2_table=13)
    for level, (scale, vertices, size, first) in enumerate(hash_oracle.levels(grid)):
        assert (grid.scales[level], grid.resolutions[level]) == (scale, vertices)
        assert (grid.sizes[level], grid.offsets[level]) == (size, first)
        assert grid.dense[level] == (vertices**dims <= size)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"levels": 0}, "`levels`"), ({"features": 0}, "`features`"), ({"dims": 4}, "`dims`"),
        ({"n_min": 1}, "`n_min`"),
        ({"log2_table": 31}, "`log2_table`"), ({"growth": float("nan")}, "`growth`"), ({"growth": 0.5}, "`growth`"),
        ({"levels": 40}, "vertices along an axis"),
    ],
)  # fmt: skip
def test_grids_that_cannot_be_are_refused(changed: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HashGrid(**changed)
