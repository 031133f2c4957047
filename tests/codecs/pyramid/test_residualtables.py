import hashlib
import math

import numpy as np
import pytest

from tilestream.codecs.codemodels import PROBABILITY_BITS
from tilestream.codecs.pyramid.residualsymbols import StepReader, StepWriter
from tilestream.codecs.pyramid.residualtables import (
    GAUSSIAN,
    INDEX_OF_ONE,
    INDICES,
    LAPLACE,
    LOGISTIC,
    OFFSETS,
    SHAPES,
    STEP_MOST,
    SYMBOLS,
    TABLES,
    coarsened,
    index_bounds,
    step_bits,
    step_weights,
)


def distribution(shape, mean):
    """The cumulated density of a bell with mean magnitude `mean`, in floats."""
    if shape == LOGISTIC:
        return lambda x: 1 / (1 + math.exp(-max(-700, min(700, x * 2 * math.log(2) / mean))))
    if shape == GAUSSIAN:
        return lambda x: 0.5 * (1 + math.erf(x / mean / math.sqrt(math.pi)))
    return lambda x: 0.5 * math.exp(x / mean) if x < 0 else 1 - 0.5 * math.exp(-x / mean)


@pytest.mark.parametrize("shape", range(SHAPES))
@pytest.mark.parametrize("index", [10, 16, 24, TABLES - 1])
def test_models_are_bells_summed_over_cells(shape, index):
    weights = step_weights(shape, index)
    assert (weights >= 0).all()
    assert (weights.sum(axis=1) == (1 << PROBABILITY_BITS) - SYMBOLS).all()
    below = distribution(shape, 2 ** ((index - INDEX_OF_ONE) / 4))
    for offset in range(OFFSETS):
        for step in (-20, -3, -1, 0, 1, 2, 7):
            middle = offset / 8
            share = below(step + 0.5 - middle) - below(step - 0.5 - middle)
            assert weights[offset, step + STEP_MOST] / 2**PROBABILITY_BITS == pytest.approx(share, rel=0.02, abs=1e-4)


def test_models_are_a_part_of_the_format():
    """Whoever changes them makes every file before unreadable: another version of the container, then."""
    found = hashlib.sha256()
    for shape in range(SHAPES):
        for index in range(TABLES):
            found.update(step_weights(shape, index).astype("<i8").tobytes())
    for cell in (1, 3, 5, 9, 65535):
        found.update(index_bounds(cell).astype("<i8").tobytes())
    assert found.hexdigest()[:16] == "22f06f3de42678a0"


def test_what_steps_cost_is_finite():
    for shape in (LOGISTIC, LAPLACE):
        assert np.isfinite(step_bits(shape)).all()
        assert step_bits(shape)[0, 0, STEP_MOST] < 0.1


@pytest.mark.parametrize("cell", [1, 3, 9, 511, 65535])
def test_bounds_lie_between_indices(cell):
    bounds = index_bounds(cell)
    assert len(bounds) == INDICES - 1
    expected = cell * 2.0 ** ((np.arange(1, INDICES) - 0.5 - INDEX_OF_ONE) / 4) * 2**12
    np.testing.assert_allclose(bounds, expected, rtol=1e-9, atol=1)


def test_wide_models_leave_lower_bits_out():
    table, bits = coarsened(np.arange(INDICES, dtype=np.uint8))
    assert table.max() == TABLES - 1
    np.testing.assert_array_equal(table + 4 * bits, np.arange(INDICES))
    assert (bits[:TABLES] == 0).all()


@pytest.mark.parametrize("shape", range(SHAPES))
def test_steps_come_back(shape):
    rng = np.random.default_rng(shape)
    writer, parts = StepWriter(), []
    for count in (0, 1, 700):
        index = rng.integers(0, INDICES, count).astype(np.uint8)
        lean = rng.integers(-4, 5, count).astype(np.int8)
        steps = np.rint(rng.laplace(0, 2.0 ** (index / 4 - 4))).astype(np.int64)
        steps[: count // 20] = rng.integers(-65535, 65536, count // 20)
        steps = np.clip(steps, -65535, 65535).astype(np.int32)
        writer.add(steps, index, lean, shape=shape)
        parts.append((steps, index, lean))
    reader = StepReader(writer.to_bytes())
    for steps, index, lean in parts:
        np.testing.assert_array_equal(reader.take(index, lean, shape=shape), steps)
