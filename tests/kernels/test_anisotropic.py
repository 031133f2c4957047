import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from tests.kernels.answers import SIMULATED, Answer
from tests.kernels.trilinear import largest, pyramids, trilinear
from tilestream.errors import ConfigError
from tilestream.kernels.anisotropic import anisotropic
from tilestream.kernels.ewa import ewa
from tilestream.kernels.sample import sample

LEVELS = [np.ones((1, 8, 8), np.float32), np.ones((1, 4, 4), np.float32)]
AT = np.ones((2, 2), np.float32)
FAR = np.array([0, 999_900])


def anisotropic_oracle(levels, at, du, dv, most):
    size = levels[0].shape[1:]
    logs = [math.log2(max(size[0] / each.shape[1], size[1] / each.shape[2])) for each in levels]
    found = []
    for p, u, v in zip(at, du, dv, strict=True):
        lengths = np.hypot(*u), np.hypot(*v)
        axis = u if lengths[0] >= lengths[1] else v
        longer, shorter = max(lengths), min(lengths)
        n = most if shorter * most <= longer else max(1, math.ceil(longer / shorter * (1 - 1e-5)))
        log2 = math.log2(longer / n) if longer else -99
        finer = max((k for k in range(len(logs)) if logs[k] <= log2), default=0)
        level = float(finer)
        if finer + 1 < len(logs) and log2 > logs[finer]:
            level += (log2 - logs[finer]) / (logs[finer + 1] - logs[finer])
        probes = np.array([p + (i / (n + 1) - 0.5) * axis for i in range(1, n + 1)])
        found.append(trilinear(levels, probes, np.full(n, level)).mean(1))
    return np.array(found).reshape(len(at), len(levels[0])).T


def ewa_oracle(levels, at, du, dv, level):
    texels = levels[level].astype(np.float64)
    size, full = np.array(texels.shape[1:]), np.array(levels[0].shape[1:])
    found = []
    for p, u, v in zip(np.clip(at, 0, full), du * size / full, dv * size / full, strict=True):
        m = np.outer(u, u) + np.outer(v, v) + np.eye(2)
        reach = np.ceil(np.sqrt(np.diag(m))).astype(int) + 1
        middle = p * size / full - 0.5
        spans = [np.arange(int(c) - n, int(c) + n + 1) for c, n in zip(middle, reach, strict=True)]
        j, i = np.meshgrid(*spans, indexing="ij")
        d = np.stack([j, i], -1) - middle
        squared = np.einsum("...a,ab,...b", d, np.linalg.inv(m), d)
        weight = np.where(squared < 1, np.exp(-2 * squared) - math.exp(-2), 0)
        values = texels[:, np.clip(j, 0, size[0] - 1), np.clip(i, 0, size[1] - 1)]
        found.append((weight * values).sum((1, 2)) / weight.sum())
    return np.array(found).reshape(len(at), len(levels[0])).T


def drawn(data, levels):
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    n = data.draw(st.integers(0, 3 if SIMULATED else 7))
    at = (noise.random((n, 2)) * 1.4 - 0.2) * levels[0].shape[1:]
    u, v = noise.standard_normal((2, n, 2)) * np.exp(noise.uniform(-1, 1.2, (2, n, 1)))
    return [each.astype(np.float32).astype(np.float64) for each in (at, u, v)]


@given(data=st.data(), levels=pyramids(dtypes=("uint8", "float16", "float64")))
def test_probes_are_those_of_the_rule(data: st.DataObject, levels, on: Answer) -> None:
    at, u, v = drawn(data, levels)
    most = data.draw(st.sampled_from([1, 2, 16]))
    real = np.float64 if levels[0].dtype == np.float64 else np.float32
    got = on(anisotropic, levels, at.astype(real), u.astype(real), v.astype(real), max_anisotropy=most)
    tolerance = (1e-11 if real is np.float64 else 1e-5) * largest(levels)
    assert_allclose(got, anisotropic_oracle(levels, at, u, v, most), rtol=0, atol=tolerance)


@given(data=st.data(), levels=pyramids(dtypes=("uint8", "float16", "float64")))
def test_ellipses_are_averaged_as_defined(data: st.DataObject, levels, on: Answer) -> None:
    at, u, v = drawn(data, levels)
    level = data.draw(st.integers(0, len(levels) - 1))
    real = np.float64 if levels[0].dtype == np.float64 else np.float32
    got = on(ewa, levels, at.astype(real), u.astype(real), v.astype(real), level=level)
    tolerance = (1e-11 if real is np.float64 else 1e-5) * largest(levels)
    assert_allclose(got, ewa_oracle(levels, at, u, v, level), rtol=0, atol=tolerance)


def test_a_round_footprint_is_one_trilinear_sample(on: Answer) -> None:
    noise = np.random.default_rng(0)
    levels = [noise.random((2, 16 >> k, 16 >> k)).astype(np.float32) for k in range(3)]
    at = noise.random((2, 3, 2)).astype(np.float32) * 16
    got = on(anisotropic, levels, at, (2.0, 0.0), (0.0, 2.0))
    assert_allclose(got, on(sample, levels, at, 1.0), atol=2e-6)
    # outside too: a probe is clamped, not the centre
    assert_allclose(on(anisotropic, levels, at, (0.0, 0.0), (0.0, 0.0)), on(sample, levels, at, 0), atol=2e-6)


def test_far_footprints_keep_their_fraction(on: Answer) -> None:
    noise = np.random.default_rng(0)
    levels = [np.broadcast_to(noise.integers(0, 256, 10**6, np.uint8), (1, 1, 10**6))]
    offset = noise.random((5, 2)) * 90
    at, u, v = offset + FAR, np.tile([0.0, 5.3], (5, 1)), np.tile([1.1, 0.0], (5, 1))
    near = on(anisotropic, levels, offset.astype(np.float32), (0.0, 5.3), (1.1, 0.0), origin_yx=(0, 999_900))
    at32 = offset.astype(np.float32).astype(np.float64) + FAR
    assert_allclose(near, anisotropic_oracle(levels, at32, u, v, 16), atol=1e-5 * 255)
    far = on(ewa, levels, at, (0.0, 5.3), (1.1, 0.0))
    assert_allclose(far, ewa_oracle(levels, at, u, v, 0), atol=1e-5 * 255)


def test_long_footprints_come_closer_to_the_reference_than_round_ones() -> None:
    y, x = np.mgrid[:256, :256]
    levels = [(np.sin((x + 0.4 * y) * 0.9) + np.sin(0.13 * y))[None]]
    while levels[-1].shape[1] > 1:
        top = levels[-1]
        levels.append((top[:, ::2, ::2] + top[:, 1::2, ::2] + top[:, ::2, 1::2] + top[:, 1::2, 1::2]) / 4)
    at = np.random.default_rng(0).random((500, 2)) * 160 + 48
    u, v = (-7.0, 2.8), (0.37, 0.93)  # long along the stripes, about a texel wide
    reference = ewa(levels, at, u, v)
    long = np.abs(anisotropic(levels, at, u, v) - reference).mean()
    round_ = np.abs(anisotropic(levels, at, u, v, max_anisotropy=1) - reference).mean()
    assert long < 0.5 * round_


@pytest.mark.parametrize("operation", [anisotropic, ewa])
@pytest.mark.parametrize(
    ("du", "message"),
    [((1.0,), "`du_yx`.*two finite"), ((1.0, np.inf), "two finite"), (np.ones((3, 2)), r"shape \(2, 2\)")],
)
def test_gradients_that_do_not_fit_are_refused(operation, du, message) -> None:
    with pytest.raises(ConfigError, match=message):
        operation(LEVELS, AT, du, (0.0, 1.0))


def test_numbers_out_of_range_are_refused() -> None:
    for most in (0, 65, 2.5):
        with pytest.raises(ConfigError, match="`max_anisotropy`"):
            anisotropic(LEVELS, AT, (1.0, 0.0), (0.0, 1.0), max_anisotropy=most)
    with pytest.raises(ConfigError, match="`level` of `ewa`: got 2, expected 0 to 1"):
        ewa(LEVELS, AT, (1.0, 0.0), (0.0, 1.0), level=2)
