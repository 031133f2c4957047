"""Cosines of many vectors with a few, each by itself."""

from __future__ import annotations

import numpy as np
import pytest

from tilestream.errors import ConfigError
from tilestream.relevance.likeness import cosines, likeness


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_score_of_a_tile_does_not_depend_on_the_others(dtype):
    rng = np.random.default_rng(0)
    vectors, units = rng.normal(size=(700, 33)).astype(dtype), rng.normal(size=(2, 33)).astype(np.float32)
    together = cosines(vectors, units)
    for first, last in ((0, 1), (255, 258), (3, 699)):
        assert cosines(vectors[first:last], units).tobytes() == together[first:last].tobytes()
    assert likeness(np.zeros((1, 33)), units)[0] == 0  # no direction, no likeness


def test_vectors_that_are_no_numbers_are_counted():
    with pytest.raises(ConfigError, match="1 of 2"):
        cosines(np.array([[1.0, 0], [np.nan, 1]]), np.eye(2, dtype=np.float32))
