"""The 1,024 models of the numbers of a pyramid: Laplace of 64 scales × 16 centres, the same everywhere.

Model `16·s + o` is of a whole number k of −128 to 127 with a Laplace of scale b = 2^((s−30)/6) around o/16, integrated
from k − ½ to k + ½; the ends of the range take what is beyond them. As bounds of the integrals are whole 16ths away
from the centre, all of a scale comes of one number, g = e^(−1/(16·b)): beyond n 16ths lies g^n / 2.

g is made by roots of whole numbers and by `Decimal.exp`, which rounds exactly; its powers and all after are whole
numbers of 60 binary places. Weights sum to what the 24-bit probabilities of `constriction` leave: each value has one
part in 2^24 beside its weight, so that nothing is impossible, and nothing is rounded by the coder. So these models are
a part of the format: other ones need another version of the container.
"""

from __future__ import annotations

import decimal
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.codemodels import PROBABILITY_BITS

SCALES = 64
OFFSETS = 16
TABLES = SCALES * OFFSETS
LOW, HIGH = -128, 127
"""The numbers that a model knows, both included."""
SYMBOLS = HIGH - LOW + 1
SCALE_OF_ONE = 30
"""Index of the scale b = 1."""
SCALES_AN_OCTAVE = 6
_PLACES = 60
_DIGITS = 40
_HALF_BIN = OFFSETS // 2


@lru_cache(maxsize=SCALES)
def table_weights(scale: int) -> npt.NDArray[np.int64]:
    """Return the weights of the models of a scale.

    Parameters
    ----------
    scale : int
        0 to 63.

    Returns
    -------
    ndarray of int64
        `(16, 256)`: a row for each centre, its values from −128 on; each row sums to 2^24 − 256.
    """
    beyond = _beyond(scale)
    bounds = OFFSETS * np.arange(LOW + 1, HIGH + 1) - _HALF_BIN - np.arange(OFFSETS)[:, None]
    tails = beyond[np.abs(bounds)]
    below = np.where(bounds <= 0, tails, (1 << _PLACES) - tails)
    ends = np.full((OFFSETS, 1), 1 << _PLACES, np.int64)
    raw = np.diff(below, axis=1, prepend=np.zeros_like(ends), append=ends)
    whole = (1 << PROBABILITY_BITS) - SYMBOLS
    weights: npt.NDArray[np.int64] = (raw >> _PLACES - 38) * whole >> 38
    rows = np.arange(OFFSETS)
    weights[rows, raw.argmax(axis=1)] += whole - weights.sum(axis=1)
    weights.setflags(write=False)
    return weights


@lru_cache(maxsize=TABLES)
def table_model(number: int) -> Any:
    """Return a model for the coder, of values from 0 on that stand for −128 on.

    Parameters
    ----------
    number : int
        16·scale + centre in 16ths.

    Returns
    -------
    constriction.stream.model.Categorical
        Made once.
    """
    import constriction

    scale, offset = divmod(number, OFFSETS)
    weights = table_weights(scale)[offset].astype(np.float64)
    return constriction.stream.model.Categorical(weights, perfect=False)


def table_bits() -> npt.NDArray[np.float64]:
    """Return what each value costs by each model, for those who estimate a rate.

    Returns
    -------
    ndarray
        `(1024, 256)`, bits.
    """
    weights = np.concatenate([table_weights(scale) for scale in range(SCALES)])
    bits: npt.NDArray[np.float64] = PROBABILITY_BITS - np.log2(weights + 1.0)
    return bits


def _beyond(scale: int) -> npt.NDArray[np.int64]:
    """Return `(n,)` of the share beyond n 16ths on one side of the centre, in 2^-60."""
    with decimal.localcontext(decimal.Context(prec=_DIGITS, rounding=decimal.ROUND_HALF_EVEN)):
        octaves, sixths = divmod(SCALE_OF_ONE - scale, SCALES_AN_OCTAVE)
        # 1 / b = 2^octaves · 2^(sixths / 6), of which the root is made of whole numbers
        root = _root(1 << sixths + SCALES_AN_OCTAVE * 2 * _PLACES, SCALES_AN_OCTAVE)
        inverse = decimal.Decimal(root << octaves + SCALES_AN_OCTAVE) / (1 << 2 * _PLACES + SCALES_AN_OCTAVE)
        one = int((-inverse / OFFSETS).exp() * (1 << 2 * _PLACES))
    most = OFFSETS * -LOW + _HALF_BIN
    found = np.empty(most + 1, np.int64)
    share = 1 << 2 * _PLACES - 1
    for steps in range(most + 1):
        found[steps] = share >> _PLACES
        share = share * one >> 2 * _PLACES
    return found


def _root(value: int, degree: int) -> int:
    """Return the largest whole number whose power is at most `value`."""
    found = 1 << -(-value.bit_length() // degree)
    while True:
        better = ((degree - 1) * found + value // found ** (degree - 1)) // degree
        if better >= found:
            return found
        found = better
