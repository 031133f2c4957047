"""Errors of directional tokens are what they are said to be."""

import numpy as np
import pytest

from tests.bench.directional import PATCH_PX, compare, error_of, leaves_of, measure, node_errors, pairs_of

EDGE = 8 * PATCH_PX


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((EDGE, EDGE))


@pytest.mark.parametrize(("level", "along", "block"), [(1, "", (2, 2)), (1, "x", (2, 4)), (0, "y", (2, 1))])
def test_errors_of_nodes(level: int, along: str, block: tuple[int, int]) -> None:
    image = noise()
    found = node_errors(image, level, along=along)
    high, wide = PATCH_PX * block[0], PATCH_PX * block[1]
    part = image[:high, -wide:]
    means = part.reshape(PATCH_PX, block[0], PATCH_PX, block[1]).mean(axis=(1, 3))
    spread = np.kron(means, np.ones(block))
    assert found.shape == (EDGE // high, EDGE // wide)
    assert found[0, -1] == pytest.approx(((part - spread) ** 2).sum())


def test_stripes_are_joined_along_them_without_error() -> None:
    stripes = np.repeat(np.random.default_rng(1).random((EDGE, 1)), EDGE, axis=1)
    known = measure(stripes)
    leaves = leaves_of(known, 64)
    pairs = pairs_of(known, leaves)
    assert error_of(known, leaves) == 0
    assert len(pairs) == 32
    np.testing.assert_allclose(pairs, [[0, 1]] * 32, atol=1e-6)
    square, by_rule, by_oracle = compare(known, 40)
    assert 0 <= by_oracle <= by_rule < 1e-12 < square


def test_noise_has_no_direction() -> None:
    square, by_rule, by_oracle = compare(measure(noise()), 20)
    assert by_rule == pytest.approx(square, rel=0.02)
    assert by_oracle <= square
