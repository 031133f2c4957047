"""The models that are a part of the format."""

import hashlib
import math

import numpy as np
import pytest

from tilestream.codecs.pyramid.tables import (
    LOW,
    OFFSETS,
    SCALE_OF_ONE,
    SCALES,
    SYMBOLS,
    TABLES,
    table_bits,
    table_model,
    table_weights,
)


def laplace_shares(scale: int, offset: int) -> np.ndarray:
    """The same in floats, by the formula."""
    around = np.arange(LOW + 1, LOW + SYMBOLS) - 0.5 - offset / OFFSETS
    tails = np.exp(-np.abs(around) / 2 ** ((scale - SCALE_OF_ONE) / 6)) / 2
    return np.diff(np.where(around < 0, tails, 1 - tails), prepend=0.0, append=1.0)


@pytest.mark.parametrize("scale", [0, 1, 17, SCALE_OF_ONE, 45, SCALES - 1])
def test_weights_are_integrals_of_a_laplace(scale: int) -> None:
    weights = table_weights(scale)
    assert (weights.sum(axis=1) == 2**24 - SYMBOLS).all()
    assert (weights >= 0).all()
    for offset in range(OFFSETS):
        np.testing.assert_allclose((weights[offset] + 1) / 2**24, laplace_shares(scale, offset), atol=2e-5)


def test_weights_are_those_that_files_were_written_with() -> None:
    everything = np.stack([table_weights(scale) for scale in range(SCALES)]).astype("<i8")
    assert hashlib.blake2b(everything.tobytes(), digest_size=8).hexdigest() == "912bd4680e95ddd1"


@pytest.mark.parametrize("number", [0, 8, 16 * SCALE_OF_ONE + 3, TABLES - 1])
def test_the_coder_takes_weights_as_they_are(number: int) -> None:
    """What the coder spends on values says what it makes of the weights."""
    import constriction

    weights = table_weights(number // OFFSETS)[number % OFFSETS]
    for symbol in (0, int(weights.argmax()), SYMBOLS - 1):
        coder = constriction.stream.queue.RangeEncoder()
        coder.encode(np.array([symbol], np.int32), table_model(number))
        _, (low, span) = coder.pos()
        one_part = (2**64 - 1) >> 24
        assert span == one_part * (int(weights[symbol]) + 1)
        assert low == one_part * int((weights[:symbol] + 1).sum())


def test_bits_are_of_the_shares() -> None:
    bits = table_bits()
    assert bits.shape == (TABLES, SYMBOLS)
    np.testing.assert_allclose((2**-bits).sum(axis=1), 1)
    of_one = bits[16 * SCALE_OF_ONE]
    assert math.isclose(of_one[-LOW], -math.log2(1 - math.exp(-0.5)), rel_tol=1e-3)
    assert of_one.max() == 24
