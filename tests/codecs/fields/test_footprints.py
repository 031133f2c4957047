import numpy as np
import pytest

from tilestream.codecs.fields.footprints import seen, taps_of


def mean_of(grid, low_px, high_px, stride_px):
    """The mean of the interpolated grid over an interval, by many samples."""
    at = (low_px + (np.arange(4000) + 0.5) / 4000 * (high_px - low_px)) / stride_px - 0.5
    return np.interp(at, np.arange(len(grid)), grid).mean()


@pytest.mark.parametrize("level", [0.0, 0.7, 1.0, 2.0, 3.3, 6.0])
@pytest.mark.parametrize(("size_px", "stride_px"), [(45, 4), (3, 8), (1, 2), (64, 2)])
def test_weights_are_means_of_the_interpolated_grid_over_footprints(level, size_px, stride_px):
    cells = -(-size_px // stride_px)
    count = int(np.ceil(size_px / 2**level))
    grid = np.random.default_rng(1).normal(size=cells)
    matrix = taps_of(0, count, level=level, size_px=size_px, stride_px=stride_px, cells=cells).matrix(cells)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    for pixel in range(count):
        low, high = pixel * 2**level, min((pixel + 1) * 2**level, size_px)
        assert matrix[pixel] @ grid == pytest.approx(mean_of(grid, low, high, stride_px), abs=2e-3)


def test_a_part_has_the_bits_of_the_whole():
    grid = np.random.default_rng(2).normal(size=(12, 9, 5)).astype(np.float32)
    y = taps_of(0, 30, level=0.6, size_px=45, stride_px=4, cells=12)
    x = taps_of(0, 20, level=0.6, size_px=30, stride_px=4, cells=9)
    part = seen(
        grid,
        taps_of(7, 5, level=0.6, size_px=45, stride_px=4, cells=12),
        taps_of(11, 9, level=0.6, size_px=30, stride_px=4, cells=9),
    )
    np.testing.assert_array_equal(part, seen(grid, y, x)[7:12, 11:20])
