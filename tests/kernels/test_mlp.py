import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.kernels import hash_oracle
from tests.kernels.answers import SIMULATED, Answer
from tilestream.errors import ConfigError
from tilestream.kernels.mlp import mlp
from tilestream.kernels.mlp_layers import MlpLayers

WIDTHS = st.integers(1, 9 if SIMULATED else 150)


def flat_weights(layers: MlpLayers, seed: int, dtype=np.float32):
    """Return the run of weights, and what it consists of: matrices, and biases or None."""
    noise = np.random.default_rng(seed)
    shapes = list(zip(layers.widths[1:], layers.widths, strict=False))
    matrices = [noise.standard_normal(shape).astype(dtype) for shape in shapes]
    biases = [noise.standard_normal(rows).astype(dtype) for rows, _ in shapes]
    parts = [part for pair in zip(matrices, biases, strict=True) for part in pair[: 1 + layers.biases]]
    return np.concatenate([part.ravel() for part in parts]), matrices, biases if layers.biases else None


def bound(inputs, matrices, biases):
    """Return the sums of the absolute terms, which rounding is measured by."""
    biases = None if biases is None else [np.abs(bias) for bias in biases]
    return hash_oracle.network(np.abs(inputs), [np.abs(matrix) for matrix in matrices], biases)


@given(data=st.data())
def test_outputs_are_those_of_matrix_products(data: st.DataObject, on: Answer) -> None:
    widths = data.draw(st.lists(WIDTHS, min_size=2, max_size=3 if SIMULATED else 5))
    layers = MlpLayers(widths=tuple(widths), biases=data.draw(st.booleans()))
    n, dtype = data.draw(st.integers(1, 5 if SIMULATED else 300)), data.draw(st.sampled_from([np.float32, np.float64]))
    stored = data.draw(st.sampled_from([dtype, np.float16])) if dtype == np.float32 else dtype
    weights, matrices, biases = flat_weights(layers, n, stored)
    inputs = np.random.default_rng(n).standard_normal((n + 2, widths[0] * 2)).astype(dtype)[1:-1, ::2]
    if data.draw(st.booleans()):
        inputs = np.asfortranarray(inputs)[::-1]
    tolerance = (1e-5 if dtype == np.float32 else 1e-13) * bound(inputs, matrices, biases)
    found = on(mlp, inputs, weights, layers=layers)
    assert (np.abs(found - hash_oracle.network(inputs, matrices, biases)) <= tolerance).all()
    out = np.full((widths[-1], n), 7, dtype).T
    assert_array_equal(on(mlp, inputs, weights, layers=layers, out=out), found)


@given(data=st.data())
def test_sines_are_those_of_their_sums(data: st.DataObject, on: Answer) -> None:
    widths = data.draw(st.lists(WIDTHS, min_size=2, max_size=3 if SIMULATED else 5))
    layers = MlpLayers(widths=tuple(widths), biases=data.draw(st.booleans()), activation="sine")
    n, dtype = data.draw(st.integers(1, 5 if SIMULATED else 300)), data.draw(st.sampled_from([np.float32, np.float64]))
    weights, matrices, biases = flat_weights(layers, n, dtype)
    inputs = np.random.default_rng(n).standard_normal((n, widths[0])).astype(dtype)
    found = on(mlp, inputs, weights, layers=layers)
    # |sin z| <= |z|, and no slope is above 1
    tolerance = (1e-5 if dtype == np.float32 else 1e-13) * (1 + bound(inputs, matrices, biases))
    assert (np.abs(found - hash_oracle.network(inputs, matrices, biases, np.sin)) <= tolerance).all()


@pytest.mark.parametrize("widths", [(32, 64, 64, 3), (2, 16, 1), (64, 128, 128, 130), (5, 32, 32, 32, 4)])
def test_rows_do_not_depend_on_their_neighbours(widths: tuple[int, ...], on: Answer) -> None:
    layers = MlpLayers(widths=widths if not SIMULATED else (3, 5, 2))
    weights, _, _ = flat_weights(layers, 3)
    inputs = np.random.default_rng(4).standard_normal((7 if SIMULATED else 1500, layers.widths[0])).astype(np.float32)
    found = on(mlp, inputs, weights, layers=layers)
    assert_array_equal(on(mlp, inputs[3:], weights, layers=layers), found[3:])
    assert_array_equal(on(mlp, inputs[-1:], weights, layers=layers), found[-1:])


def test_what_is_not_a_number_stays_in_its_row(on: Answer) -> None:
    layers = MlpLayers(widths=(3, 4, 2))
    weights, _, _ = flat_weights(layers, 1)
    inputs = np.ones((9, 3), np.float32)
    inputs[4, 1] = np.nan
    found = on(mlp, inputs, weights, layers=layers)
    assert np.isnan(found[4]).all()
    assert np.isfinite(np.delete(found, 4, axis=0)).all()


def test_no_rows_have_no_outputs(on: Answer) -> None:
    layers = MlpLayers(widths=(3, 2))
    assert on(mlp, np.zeros((0, 3), np.float32), np.zeros(6, np.float32), layers=layers).shape == (0, 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"inputs": np.zeros((2, 4), np.float32)}, r"`inputs` of `mlp`.*shape \(2, 3\)"),
        ({"inputs": np.zeros((2, 3), np.float16)}, "float32 or float64"),
        ({"weights": np.zeros(7, np.float32)}, r"`weights`.*shape \(6,\)"),
        ({"weights": np.zeros(6, np.float64)}, "float32 or float16"),
        ({"out": np.zeros((2, 3), np.float32)}, "`out`"),
    ],
)
def test_what_does_not_fit_is_refused(changed, message) -> None:
    given = {"inputs": np.zeros((2, 3), np.float32), "weights": np.zeros(6, np.float32), **changed}
    with pytest.raises(ConfigError, match=message):
        mlp(given.pop("inputs"), given.pop("weights"), layers=MlpLayers(widths=(3, 2)), **given)


@pytest.mark.parametrize("widths", [(), (3,), (3, 0, 2)])
def test_layers_that_cannot_be_are_refused(widths) -> None:
    with pytest.raises(ConfigError, match="`widths`"):
        MlpLayers(widths=widths)


def test_activations_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"`activation`.*'gelu'.*'relu' or 'sine'"):
        MlpLayers(widths=(2, 2), activation="gelu")


def test_biases_follow_their_matrix() -> None:
    layers = MlpLayers(widths=(2, 3, 1), biases=True)
    assert layers.weight_starts == (0, 9, 13)
    found = mlp(np.array([[1.0, 2]]), np.array([1, 0, 0, 1, -1, 0, 10, 20, 0, 1, 1, 1, 0.5]), layers=layers)
    assert_allclose(found, [[11 + 22 + 0 + 0.5]])
