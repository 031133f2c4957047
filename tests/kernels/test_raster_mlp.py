import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.kernels import hash_oracle
from tests.kernels.answers import MAX_PX, SIMULATED, Answer
from tests.kernels.test_mlp import WIDTHS, bound, flat_weights
from tilestream.errors import ConfigError
from tilestream.kernels.mlp_layers import MlpLayers
from tilestream.kernels.raster_mlp import raster_mlp

ACTIVATIONS = {"relu": lambda z: np.maximum(z, 0), "sine": np.sin}


def parts(layers: MlpLayers, height: int, width: int, seed: int = 0):
    noise = np.random.default_rng(seed)
    features = layers.widths[0]
    return (noise.standard_normal((features, n)).astype(np.float32) for n in (width, height))


def oracle(columns, rows, matrices, biases, activation):
    """Return `(c, y, x)` in float64, and what rounding is measured by."""
    sums = (columns[:, None, :].astype(np.float64) + rows[:, :, None]).reshape(len(columns), -1).T
    shape = (-1, rows.shape[1], columns.shape[1])
    found = hash_oracle.network(activation(sums), matrices, biases, activation)
    return found.T.reshape(shape), 1 + bound(sums, matrices, biases).T.reshape(shape)


@given(data=st.data())
def test_pixels_are_those_of_the_network(data: st.DataObject, on: Answer) -> None:
    widths = data.draw(st.lists(WIDTHS, min_size=2, max_size=3 if SIMULATED else 4))
    activation = data.draw(st.sampled_from(sorted(ACTIVATIONS)))
    layers = MlpLayers(widths=tuple(widths), biases=data.draw(st.booleans()), activation=activation)
    height, width = data.draw(st.integers(1, MAX_PX // 4)), data.draw(st.integers(1, MAX_PX * 3))
    weights, matrices, biases = flat_weights(layers, height)
    columns, rows = parts(layers, height, width)
    if on.is_cuda and max(widths) > 128:
        with pytest.raises(ConfigError, match="at most 128 on CUDA"):
            on(raster_mlp, columns, rows, weights, layers=layers)
        return
    exact, size = oracle(columns, rows, matrices, biases, ACTIVATIONS[activation])
    found = on(raster_mlp, columns, rows, weights, layers=layers, dtype=np.float32)
    assert (np.abs(found - exact) <= 1e-5 * size).all()
    codes = on(raster_mlp, columns, rows, weights, layers=layers)
    assert codes.dtype == np.uint8
    assert (np.abs(codes - np.clip(exact * 255, 0, 255)) <= 0.5 + 255e-5 * size).all()
    out = np.zeros((height, widths[-1], width), np.uint8).transpose(1, 0, 2)
    assert_array_equal(on(raster_mlp, columns, rows, weights, layers=layers, out=out), codes)


def test_a_pixel_does_not_depend_on_its_neighbours(on: Answer) -> None:
    layers = MlpLayers(widths=(3, 5, 2) if SIMULATED else (30, 64, 3), biases=True, activation="sine")
    weights, _, _ = flat_weights(layers, 1)
    columns, rows = parts(layers, 3, 7 if SIMULATED else 333)
    whole = on(raster_mlp, columns, rows, weights, layers=layers, dtype=np.float32)
    part = on(
        raster_mlp, columns[:, 4:].copy(), rows[:, 1:].copy(), weights, layers=layers, dtype=np.float32
    )  # fmt: skip
    assert_array_equal(part, whole[:, 1:, 4:])


def test_what_is_not_a_number_stays_in_its_pixels(on: Answer) -> None:
    layers = MlpLayers(widths=(3, 2))
    columns, rows = parts(layers, 4, 5)
    columns[1, 2] = np.nan
    found = on(raster_mlp, columns, rows, np.ones(6, np.float32), layers=layers, dtype=np.float32)
    assert np.isnan(found[:, :, 2]).all()
    assert np.isfinite(np.delete(found, 2, axis=2)).all()


def test_no_pixels_are_none(on: Answer) -> None:
    layers = MlpLayers(widths=(3, 2))
    empty = np.zeros((3, 0), np.float32)
    rows = np.zeros((3, 4), np.float32)
    assert on(raster_mlp, empty, rows, np.zeros(6, np.float32), layers=layers).shape == (2, 4, 0)
