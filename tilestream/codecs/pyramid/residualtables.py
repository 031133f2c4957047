"""The models of the steps of a residual: three shapes of a bell, by how wide it is and how far its middle lies off.

A step q says that a pixel lies q cells from the one that holds its prediction. Its model is a density with mean
magnitude M = 2^((i−16)/4) cells for index i, around o/8 cells, summed over each cell:

    shape 0, logistic   e^(−x/s) / (1 + e^(−x/s))², s = M / (2 ln 2)
    shape 1, Gaussian   e^(−x² / (π·M²))
    shape 2, Laplace    e^(−x/M)

Densities are sums of 16 points a cell, in whole numbers of 60 binary places; what they begin with are square roots and
exponentials of `decimal`, which rounds exactly. So models are the same on every machine, and a part of the format.
From index 37 on, above 32 cells, steps are told by their upper bits under model i − 4, i − 8 …, and the lower ones as
they are.
"""

from __future__ import annotations

import decimal
import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.codemodels import PROBABILITY_BITS

SHAPES = 3
LOGISTIC, GAUSSIAN, LAPLACE = range(SHAPES)
INDICES = 77
"""Up to a mean magnitude of 2^15 cells."""
TABLES = 37
"""Indices with a model of their own."""
INDEX_OF_ONE = 16
INDICES_AN_OCTAVE = 4
OFFSETS = 5
"""Middles of 0 to 4/8 of a cell; those below 0 are mirrored."""
STEP_MOST = 256
"""Steps of this magnitude stand for all beyond."""
SYMBOLS = 2 * STEP_MOST + 1
_POINTS = 16
_PLACES = 60
_ONE = 1 << _PLACES
_REACH = _POINTS * (STEP_MOST + 1) + _POINTS
_DIGITS = 40


def coarsened(index: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return the model of each index, and how many lower bits of steps it leaves out."""
    bits = (np.maximum(index, TABLES - 1) - np.uint8(TABLES - 1) + np.uint8(INDICES_AN_OCTAVE - 1)) >> np.uint8(2)
    return index - np.uint8(INDICES_AN_OCTAVE) * bits, bits


@lru_cache(maxsize=SHAPES * TABLES)
def step_weights(shape: int, index: int) -> npt.NDArray[np.int64]:
    """Return the weights of the models of a shape and width.

    Parameters
    ----------
    shape : int
        0 to 2.
    index : int
        0 to 36.

    Returns
    -------
    ndarray of int64
        `(5, 513)`: a row for each middle, its steps from −256 on; each row sums to 2^24 − 513.
    """
    half = _density(shape, index)
    cumulated = np.concatenate([[0], np.cumsum(np.concatenate([half[::-1], half]))])
    first = _REACH + _POINTS * (np.arange(-STEP_MOST, STEP_MOST + 1)) - _POINTS // 2
    starts = first - 2 * np.arange(OFFSETS)[:, None]
    raw = cumulated[starts + _POINTS] - cumulated[starts]
    whole = (1 << PROBABILITY_BITS) - SYMBOLS
    totals = raw.sum(axis=1, keepdims=True)
    weights: npt.NDArray[np.int64] = raw * whole // totals
    rows = np.arange(OFFSETS)
    weights[rows, raw.argmax(axis=1)] += whole - weights.sum(axis=1)
    weights.setflags(write=False)
    return weights


@lru_cache(maxsize=SHAPES * TABLES * OFFSETS)
def step_model(shape: int, index: int, offset: int) -> Any:
    """Return a model for the coder, of symbols from 0 on that stand for steps from −256 on; made once."""
    import constriction

    weights = step_weights(shape, index)[offset].astype(np.float64)  # whole: the coder has nothing to round
    return constriction.stream.model.Categorical(weights, perfect=False)


@lru_cache(maxsize=SHAPES)
def step_bits(shape: int) -> npt.NDArray[np.float32]:
    """Return what each step costs an encoder: bits, `(37, 5, 513)` by index, middle and step."""
    weights = np.stack([step_weights(shape, index) for index in range(TABLES)])
    found: npt.NDArray[np.float32] = (PROBABILITY_BITS - np.log2(weights + 1.0)).astype(np.float32)
    return found


@lru_cache(maxsize=16)
def index_bounds(cell: int) -> npt.NDArray[np.int64]:
    """Return the mean magnitudes, in 2^-12 of a pixel's unit, from which on each index but the first holds.

    Parameters
    ----------
    cell : int
        Width of a cell, 2·max_error + 1.

    Returns
    -------
    ndarray of int64
        `(76,)`, ascending: 2^((i − ½ − 16)/4) cells for i = 1 … 76, by whole roots.
    """
    bounds = []
    for index in range(1, INDICES):
        power = cell**8 << 12 * 8 + 2 * index - 1
        root = math.isqrt(math.isqrt(math.isqrt(power)))
        bounds.append(root >> 4)
    return np.array(bounds, np.int64)


def _density(shape: int, index: int) -> npt.NDArray[np.int64]:
    """Return the density at the points (n + ½)/16 cells from its middle, of 34 binary places."""
    with decimal.localcontext(prec=_DIGITS):
        octaves = decimal.Decimal(2) ** (index - INDEX_OF_ONE)
        mean = octaves.sqrt().sqrt() * _POINTS
        if shape == GAUSSIAN:
            rate = 1 / (_PI * mean * mean)
            value, ratio, bend = (_whole((-rate * factor).exp()) for factor in (_QUARTER, 2, 2))
        else:
            rate = (1 if shape == LAPLACE else 2 * decimal.Decimal(2).ln()) / mean
            value, ratio, bend = _whole((-rate / 2).exp()), _whole((-rate).exp()), _ONE
    found = np.zeros(_REACH, np.int64)
    for n in range(_REACH):
        found[n] = _bell(value) if shape == LOGISTIC else value >> 26
        value, ratio = value * ratio >> _PLACES, ratio * bend >> _PLACES
        if not value:
            break
    return found


_PI = decimal.Decimal("3.14159265358979323846264338327950288420")
_QUARTER = decimal.Decimal("0.25")


def _whole(share: decimal.Decimal) -> int:
    return int(share * _ONE)


def _bell(value: int) -> int:
    """Return e / (1 + e)² of 34 binary places, for e of 60."""
    return (value << _PLACES) // (_ONE + value) * _ONE // (_ONE + value) >> 26
