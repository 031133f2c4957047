import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.answers import Answer
from tests.kernels.trilinear import pyramids, trilinear
from tilestream.errors import ConfigError
from tilestream.kernels.sample_gradient import sample_scatter, sample_slopes

LEVELS = [np.ones((1, 4, 4), np.float32)]
AT = np.ones((2, 2), np.float32)


def slopes_by_difference(levels, at, level, grad, step):
    """Central differences of the definition in float64."""
    found = np.empty((len(at), 3))
    for k, move in enumerate(np.eye(3) * step):
        plus = trilinear(levels, at + move[:2], level + move[2])
        minus = trilinear(levels, at - move[:2], level - move[2])
        found[:, k] = ((plus - minus) * grad).sum(0) / (2 * step)
    return found


def drawn(data, levels, step):
    """Positions and levels that no kink is near."""
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    size = np.array(levels[0].shape[1:])
    n = data.draw(st.integers(1, 8))
    at, level = (noise.random((n, 2)) * 1.4 - 0.2) * size, (noise.random(n) * 1.4 - 0.2) * len(levels)
    for each in levels:
        u = at * np.array(each.shape[1:]) / size - 0.5
        near = np.abs(u - np.round(u)) < 4 * step
        at += near * 9 * step
    level += (np.abs(level - np.round(level)) < 4 * step) * 9 * step
    edges = np.concatenate([np.abs(at), np.abs(at - size)], 1).min(1) < 4 * step
    return at[~edges], level[~edges], noise.standard_normal((len(levels[0]), int((~edges).sum())))


@given(data=st.data(), levels=pyramids(dtypes=("uint8", "float16", "float32", "float64")))
def test_slopes_are_those_of_differences(data: st.DataObject, levels, on: Answer) -> None:
    at, level, grad = drawn(data, levels, 2.0**-18)
    real = np.float64 if levels[0].dtype == np.float64 else np.float32
    at, level = at.astype(np.float32).astype(real), level.astype(np.float32).astype(real)
    expected = slopes_by_difference(levels, at.astype(np.float64), level.astype(np.float64), grad, 2.0**-20)
    got = on(sample_slopes, grad.astype(real), levels, at, level)
    scale = max(np.abs(expected).max(initial=0), np.abs(levels[0].astype(float)).max())
    np.testing.assert_allclose(got, expected, rtol=0, atol=scale * (1e-8 if real is np.float64 else 2e-5))


@given(data=st.data(), levels=pyramids(dtypes=("float32", "float64")))
def test_scattering_is_the_transpose_of_sampling(data: st.DataObject, levels, on: Answer) -> None:
    at, level, grad = drawn(data, levels, 2.0**-18)
    real = levels[0].dtype.type
    at, level, grad = at.astype(real), level.astype(real), grad.astype(real)
    if on.is_cuda:
        moved = [on.put(np.zeros(each.shape, real)) for each in levels]
        sample_scatter(on.put(grad), moved, on.put(at), on.put(level))
        found = on.get(moved)
    else:
        found = [np.moveaxis(np.zeros((*each.shape[1:], len(each)), real), 2, 0) for each in levels]
        on(sample_scatter, grad, found, at, level)
    # <grad, sample(levels)> = <scatter(grad), levels>, and the gradients of a channel add up to those of its samples
    left = (grad * trilinear(levels, at.astype(np.float64), level)).sum()
    right = sum((f.astype(np.float64) * each).sum() for f, each in zip(found, levels, strict=True))
    scale = np.abs(grad).sum() * max(np.abs(each).max() for each in levels) + 1
    assert abs(left - right) <= scale * (1e-12 if real is np.float64 else 2e-6)
    sums = sum(f.sum((1, 2), dtype=np.float64) for f in found)
    np.testing.assert_allclose(sums, grad.sum(1, dtype=np.float64), rtol=0, atol=1e-5 * (np.abs(grad).sum() + 1))


@pytest.mark.parametrize(
    ("grad", "keywords", "message"),
    [
        (np.ones((1, 3), np.float32), {}, r"`grad`.*shape \(1, 2\)"),
        (np.ones((1, 2), np.int32), {}, "`grad`.*int32"),
        (np.ones((1, 2), np.float32), {"level": np.zeros(3, np.float32)}, "`level`"),
    ],
)
def test_what_does_not_fit_is_refused(grad, keywords, message) -> None:
    level = keywords.get("level", np.zeros(2, np.float32))
    with pytest.raises(ConfigError, match=message):
        sample_slopes(grad, LEVELS, AT, level)
    with pytest.raises(ConfigError, match=message):
        sample_scatter(grad, LEVELS, AT, level)
    with pytest.raises(ConfigError, match=r"`out_levels\[0\]`.*uint8"):
        sample_scatter(np.ones((1, 2), np.float32), [LEVELS[0].astype(np.uint8)], AT, np.zeros(2, np.float32))
