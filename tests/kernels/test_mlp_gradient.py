import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.kernels.answers import SIMULATED, Answer
from tests.kernels.test_mlp import WIDTHS, flat_weights
from tilestream.errors import ConfigError
from tilestream.kernels.mlp_gradient import mlp_backward
from tilestream.kernels.mlp_layers import MlpLayers


def oracle(inputs, matrices, biases, upstream):
    """Return the gradients to weights in their order and to inputs, and both of absolute terms, in float64."""
    values = [inputs.astype(np.float64)]
    sizes = [np.abs(values[0])]
    for layer, matrix in enumerate(matrices):
        bias = 0 if biases is None else biases[layer].astype(np.float64)
        value = values[-1] @ matrix.astype(np.float64).T + bias
        last = layer == len(matrices) - 1
        values.append(value if last else np.maximum(value, 0))
        sizes.append(sizes[-1] @ np.abs(matrix.astype(np.float64)).T + np.abs(bias))
    delta, spread, found, bounds = upstream.astype(np.float64), np.abs(upstream.astype(np.float64)), [], []
    for layer in range(len(matrices) - 1, -1, -1):
        parts, limits = [delta.T @ values[layer]], [spread.T @ sizes[layer]]
        if biases is not None:
            parts.append(delta.sum(axis=0))
            limits.append(spread.sum(axis=0))
        found = [np.concatenate([part.ravel() for part in parts]), *found]
        bounds = [np.concatenate([limit.ravel() for limit in limits]), *bounds]
        delta, spread = delta @ matrices[layer].astype(np.float64), spread @ np.abs(matrices[layer].astype(np.float64))
        if layer:
            delta = delta * (values[layer] > 0)
    return (np.concatenate(found), delta), (np.concatenate(bounds), spread)


@given(data=st.data())
def test_gradients_are_those_of_the_chain_rule(data: st.DataObject, on: Answer) -> None:
    widths = data.draw(st.lists(WIDTHS, min_size=2, max_size=3 if SIMULATED else 5))
    layers = MlpLayers(widths=tuple(widths), biases=data.draw(st.booleans()))
    n, dtype = data.draw(st.integers(1, 4 if SIMULATED else 400)), data.draw(st.sampled_from([np.float32, np.float64]))
    weights, matrices, biases = flat_weights(layers, n, dtype)
    noise = np.random.default_rng(n)
    # whole numbers: no sum is so close to zero that float32 takes the other side of ReLU
    weights, inputs = np.rint(weights * 3), np.rint(noise.standard_normal((n, widths[0])) * 3).astype(dtype)
    matrices = [np.rint(matrix * 3) for matrix in matrices]
    biases = None if biases is None else [np.rint(bias * 3) for bias in biases]
    upstream = noise.standard_normal((widths[-1], n)).astype(dtype).T
    exact, bounds = oracle(inputs, matrices, biases, upstream)
    found = on(mlp_backward, upstream, inputs, weights, layers=layers)
    for mine, true, bound in zip(found, exact, bounds, strict=True):
        assert mine.dtype == dtype
        assert (np.abs(mine - true) <= (1e-5 if dtype == np.float32 else 1e-12) * bound).all()


@given(data=st.data())
def test_gradients_through_sines_are_those_of_the_chain_rule(data: st.DataObject, on: Answer) -> None:
    widths = data.draw(st.lists(WIDTHS, min_size=3, max_size=3 if SIMULATED else 5))
    layers = MlpLayers(widths=tuple(widths), biases=True, activation="sine")
    n, dtype = data.draw(st.integers(1, 4 if SIMULATED else 200)), data.draw(st.sampled_from([np.float32, np.float64]))
    weights, matrices, biases = flat_weights(layers, n, dtype)
    matrices = [matrix / dtype(matrix.shape[1] ** 0.5) for matrix in matrices]  # so that errors do not grow by layers
    weights = np.concatenate([part.ravel() for pair in zip(matrices, biases, strict=True) for part in pair])
    noise = np.random.default_rng(n)
    inputs = noise.standard_normal((n, widths[0])).astype(dtype)
    upstream = noise.standard_normal((n, widths[-1])).astype(dtype)
    values, slopes, delta, expected = [inputs.astype(np.float64)], [], upstream.astype(np.float64), []
    for matrix, bias in zip(matrices, biases, strict=True):
        z = values[-1] @ matrix.astype(np.float64).T + bias
        values.append(np.sin(z))
        slopes.append(np.cos(z))
    for layer in range(len(matrices) - 1, -1, -1):
        expected = [(delta.T @ values[layer]).ravel(), delta.sum(axis=0), *expected]
        delta = delta @ matrices[layer].astype(np.float64) * (slopes[layer - 1] if layer else 1)
    of_weights, of_inputs = on(mlp_backward, upstream, inputs, weights, layers=layers)
    tolerance = 1e-4 if dtype == np.float32 else 1e-12
    for mine, true in ((of_weights, np.concatenate(expected)), (of_inputs, delta)):
        assert mine.dtype == dtype
        assert_allclose(mine, true, rtol=0, atol=tolerance * np.abs(true).max())


def test_sums_are_equal_whatever_runs_them(on: Answer) -> None:
    layers = MlpLayers(widths=(3, 5, 2) if SIMULATED else (32, 64, 64, 3))
    weights, _, _ = flat_weights(layers, 1)
    noise = np.random.default_rng(2)
    n = 5 if SIMULATED else 20_000
    inputs = noise.standard_normal((n, layers.widths[0])).astype(np.float32)
    upstream = noise.standard_normal((n, layers.widths[-1])).astype(np.float32)
    first = on(mlp_backward, upstream, inputs, weights, layers=layers)
    again = on(mlp_backward, upstream, inputs, weights, layers=layers)
    for a, b in zip(first, again, strict=True):
        assert_array_equal(a, b)
    if not on.is_cuda:
        serial = mlp_backward(upstream, inputs, weights, layers=layers, threads=1)
        for a, b in zip(first, serial, strict=True):
            assert_array_equal(a, b)


def test_no_rows_have_no_gradient(on: Answer) -> None:
    layers = MlpLayers(widths=(3, 2))
    of_weights, of_inputs = on(
        mlp_backward, np.zeros((0, 2), np.float32), np.zeros((0, 3), np.float32), np.ones(6, np.float32), layers=layers
    )  # fmt: skip
    assert_array_equal(of_weights, np.zeros(6))
    assert of_inputs.shape == (0, 3)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="`upstream` of `mlp_backward`"):
        mlp_backward(
            np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32), np.zeros(6, np.float32),
            layers=MlpLayers(widths=(3, 2)),
        )  # fmt: skip
