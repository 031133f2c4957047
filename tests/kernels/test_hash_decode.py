from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.kernels import hash_oracle
from tests.kernels.answers import SIMULATED, Answer
from tests.kernels.test_hash_encode import grids
from tests.kernels.test_mlp import bound, flat_weights
from tilestream.errors import ConfigError
from tilestream.kernels.hash_decode import hash_decode
from tilestream.kernels.hash_raster import fraction_bits, raster_positions
from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.mlp_layers import MlpLayers
from tilestream.types import Box

LONGEST = 5 if SIMULATED else 300


def centres(grid, box, scale_yx, extent_yx, z):
    """Return the coordinates of all pixels of a box in float64, row by row."""
    y = (np.arange(box.y, box.y_stop) + 0.5) * scale_yx[0] / extent_yx[0]
    x = (np.arange(box.x, box.x_stop) + 0.5) * scale_yx[1] / extent_yx[1]
    pairs = np.stack([np.tile(x, len(y)), np.repeat(y, len(x))], axis=1)
    return pairs if grid.dims == 2 else np.concatenate([pairs, np.full((len(pairs), 1), z)], axis=1)


def expected(grid, coords, table, weights, max_level):
    """Return exact outputs and how far float32 may be from them."""
    matrices, biases = weights
    features = hash_oracle.encode(grid, coords, table, max_level)
    # rounding a position moves a feature by its slope; a fraction has 24 bits
    spread = np.abs(features) + 1e-1 * np.abs(table).max()
    return hash_oracle.network(features, matrices, biases), 1e-5 * bound(spread, matrices, biases)


def close_codes(found, exact, tolerance):
    """Check that codes are those of the exact values, or one beside where these are close to a tie."""
    scaled = np.clip(exact * 255, 0, 255)
    assert (np.abs(found - scaled) <= 0.5 + 255 * tolerance + 1e-9).all()


@given(data=st.data())
def test_pixels_of_a_box(data: st.DataObject, on: Answer) -> None:
    grid = data.draw(grids())
    layers = MlpLayers(widths=(grid.width, data.draw(st.integers(1, 7)), 3), biases=data.draw(st.booleans()))
    box = Box(
        y=data.draw(st.integers(0, 50)), x=data.draw(st.integers(0, 50)),
        height=data.draw(st.integers(1, 5)), width=data.draw(st.integers(1, LONGEST)),
    )  # fmt: skip
    scale_yx = data.draw(st.sampled_from([(1.0, 1.0), (4.0, 2.0), (3.97, 4.01)]))
    extent_yx = (box.y_stop * scale_yx[0] + data.draw(st.integers(0, 30)), box.x_stop * scale_yx[1] * 1.5)
    z, max_level = data.draw(st.sampled_from([0.0, 0.3, 1.0])), data.draw(st.sampled_from([None, -1, 0, 2]))
    noise = np.random.default_rng(box.width)
    table = noise.uniform(-1, 1, (grid.entries, grid.features)).astype(
        data.draw(st.sampled_from([np.float32, np.float16]))
    )
    weights, *parts = flat_weights(layers, box.y)
    where = {"grid": grid, "layers": layers, "box": box, "scale_yx": scale_yx, "extent_yx": extent_yx, "z": z}
    exact, tolerance = expected(grid, centres(grid, box, scale_yx, extent_yx, z), table, parts, max_level)
    shaped = exact.T.reshape(3, box.height, box.width)
    values = on(hash_decode, table, weights, **where, max_level=max_level, dtype=np.float32)
    assert (np.abs(values - shaped) <= tolerance.T.reshape(shaped.shape)).all()
    codes = on(hash_decode, table, weights, **where, max_level=max_level)
    assert codes.dtype == np.uint8
    assert codes.shape == shaped.shape
    close_codes(codes.astype(np.float64), shaped, tolerance.T.reshape(shaped.shape))
    out = np.full((3, box.height, box.width), 7, np.uint8)[:, ::-1]
    assert_array_equal(on(hash_decode, table, weights, **where, max_level=max_level, out=out), codes)


@given(data=st.data())
def test_pixels_at_coordinates(data: st.DataObject, on: Answer) -> None:
    grid = data.draw(grids())
    layers = MlpLayers(widths=(grid.width, data.draw(st.integers(1, 7)), 2))
    n = data.draw(st.integers(1, LONGEST))
    noise = np.random.default_rng(n)
    coords = noise.random((grid.dims, n), np.float32).T
    table = noise.uniform(-1, 1, (grid.entries, grid.features)).astype(np.float32)
    weights, *parts = flat_weights(layers, n)
    max_level = data.draw(st.sampled_from([None, 1, "each"]))
    if max_level == "each":
        max_level = noise.integers(-1, grid.levels + 1, n).astype(np.float32)
    exact, tolerance = expected(grid, coords, table, parts, max_level)
    values = on(
        hash_decode, table, weights, grid=grid, layers=layers, coords_xyz=coords, max_level=max_level, dtype=np.float32
    )
    assert (np.abs(values - exact) <= tolerance).all()
    codes = on(hash_decode, table, weights, grid=grid, layers=layers, coords_xyz=coords, max_level=max_level)
    close_codes(codes.astype(np.float64), exact, tolerance)


def small_field():
    grid = HashGrid(levels=3, log2_table=7, n_min=4, growth=1.8)
    layers = MlpLayers(widths=(6, 5, 3))
    table = np.random.default_rng(1).uniform(-1, 1, (grid.entries, 2)).astype(np.float32)
    return {"table": table, "weights": flat_weights(layers, 2)[0]}, {"grid": grid, "layers": layers}


def test_pixels_do_not_depend_on_the_box_they_are_in(on: Answer) -> None:
    arrays, field = small_field()
    whole = Box(y=3, x=7, height=4 if SIMULATED else 30, width=6 if SIMULATED else 290)
    part = Box(y=5, x=9, height=2 if SIMULATED else 17, width=3 if SIMULATED else 201)
    decoded = [
        on(hash_decode, *arrays.values(), **field, box=box, extent_yx=(100.0, 300.0), dtype=np.float32)
        for box in (whole, part)
    ]
    inside = (slice(None), slice(2, 2 + part.height), slice(2, 2 + part.width))
    assert_array_equal(decoded[0][inside], decoded[1])


@pytest.mark.parametrize("first", [0, 200_000, 3_000_000])
def test_positions_are_exact_far_from_the_origin(first: int) -> None:
    """Where float32 coordinates are off by a hundredth of a pixel and more."""
    grid = HashGrid(levels=16, n_min=16, growth=1.8)
    extent, scale = 4_000_001.0, 1.0003
    unit = 2 ** fraction_bits(grid)
    positions = raster_positions(grid, scale_yx=(scale, scale), extent_yx=(extent, extent), z=0)
    for level, (start, step, *_) in enumerate(positions.tolist()):
        exact = Fraction(float(grid.scales[level])) * (first + Fraction(1, 2)) * Fraction(scale) / Fraction(extent)
        error_cells = Fraction(start + first * step, unit) - exact - Fraction(1, 2)
        assert abs(error_cells) < 1e-5
        error_px = error_cells / (Fraction(float(grid.scales[level])) / Fraction(extent))
        assert level < 8 or abs(error_px) < 1e-2


def test_a_new_image_is_interleaved() -> None:
    arrays, field = small_field()
    pixels = hash_decode(*arrays.values(), **field, box=Box(y=0, x=0, height=4, width=5), extent_yx=(9.0, 9.0))
    assert pixels.strides == (1, 15, 3)


def test_codes_are_clamped_and_ties_are_even(on: Answer) -> None:
    grid = HashGrid(levels=1, features=1, n_min=2, growth=1.0, log2_table=3)
    layers = MlpLayers(widths=(1, 6), biases=True)
    outputs = np.array([-0.1, 0.5 / 255, 1.5 / 255, 2.5 / 255, 1.1, np.nan], np.float32)
    weights = np.concatenate([np.zeros(6, np.float32), outputs])
    found = on(
        hash_decode, np.zeros((8, 1), np.float32), weights, grid=grid, layers=layers,
        coords_xyz=np.full((1, 2), 0.5, np.float32),
    )  # fmt: skip
    ties = np.rint(outputs[1:4] * np.float32(255))
    assert_array_equal(found, [[0, *ties, 255, 0]])


def test_boxes_outside_of_the_grid_wrap_as_coordinates_do(on: Answer) -> None:
    arrays, field = small_field()
    box = Box(y=-3, x=-4, height=3, width=5)
    found = on(hash_decode, *arrays.values(), **field, box=box, extent_yx=(8.0, 8.0), dtype=np.float32)
    coords = centres(field["grid"], box, (1, 1), (8, 8), 0)
    features = hash_oracle.encode(field["grid"], coords, arrays["table"])
    exact = hash_oracle.network(features, flat_weights(field["layers"], 2)[1])
    assert (np.abs(found - exact.T.reshape(found.shape)) < 1e-4).all()


def test_an_empty_box_has_no_pixels(on: Answer) -> None:
    arrays, field = small_field()
    box = Box(y=0, x=0, height=0, width=5)
    assert on(hash_decode, *arrays.values(), **field, box=box, extent_yx=(8.0, 8.0)).shape == (3, 0, 5)


SOMEWHERE = {"box": Box(y=0, x=0, height=2, width=2), "extent_yx": (8.0, 8.0)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, "neither a box nor coordinates"),
        ({**SOMEWHERE, "coords_xyz": np.zeros((1, 2), np.float32)}, "both"),
        ({"box": SOMEWHERE["box"]}, "`extent_yx`"),
        ({**SOMEWHERE, "scale_yx": (0.0, 1.0)}, "`scale_yx`"),
        ({**SOMEWHERE, "extent_yx": (np.inf, 1.0)}, "`extent_yx`"),
        ({**SOMEWHERE, "box": Box(y=0, x=2**60, height=1, width=1)}, "`box`"),
        ({**SOMEWHERE, "max_level": np.zeros(3, np.float32)}, "`max_level`"),
        ({**SOMEWHERE, "dtype": np.int16}, "`dtype`"),
        ({**SOMEWHERE, "layers": MlpLayers(widths=(5, 3))}, "`layers`.*5 inputs"),
        ({**SOMEWHERE, "weights": np.zeros(3, np.float32)}, "`weights`"),
        ({**SOMEWHERE, "table": np.zeros((3, 2), np.float32)}, "`table`"),
        ({**SOMEWHERE, "out": np.zeros((2, 2, 3), np.uint8)}, "`out`"),
        ({"coords_xyz": np.zeros((1, 2), np.float64)}, "`coords_xyz`.*float32"),
    ],
)
def test_what_does_not_fit_is_refused(changed, message) -> None:
    arrays, field = small_field()
    given = {**arrays, **field, **changed}
    with pytest.raises(ConfigError, match=message):
        hash_decode(given.pop("table"), given.pop("weights"), **given)
