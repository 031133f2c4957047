"""The bits of a pyramid's numbers under the models that a context chooses, with all gradients: one pass of a fit.

Positions are taken in blocks whose features stay in a first cache; the gradients are made on the way, since bits are
only ever summed. Serial and deterministic. All arrays are contiguous and of one floating type; a network is a run of
its layers, each the weights `(out, in)` and then the bias.

    L = −ln P(y),  P(y) = F(y + ½) − F(y − ½),  F of Laplace(m, b),  (m, z) = net(neighbours),  ln b = (4z − 30)·ln 2/6

Tolerance of the tests: 1e-5 of the sum of absolute terms in float32, 1e-12 in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilestream.kernels.language import cpu_sum_kernel

BLOCK = 256
"""Positions at a time."""
LOG_SCALE_STEP = math.log(2) / 6
"""Of two models that follow each other; an output of 1 is four steps."""
UNIT_MODEL = 30
"""Which model has a scale of 1."""
STEPS_A_UNIT = 4
LEAST_LOG_SCALE, MOST_LOG_SCALE = -30 * LOG_SCALE_STEP, 33 * LOG_SCALE_STEP
"""Natural logarithms of the scales of the first and last model."""
_LEAST_PROBABILITY = 1e-7
_TO_BITS = 1 / math.log(2)


@cpu_sum_kernel
def price_numbers(
    numbers: Any, around: Any, places: Any, net: Any, width: Any, to_numbers: Any, to_net: Any
) -> float:  # fmt: skip
    """Return the bits of the numbers at `places`, and add gradients to those of `to_numbers` and `to_net`.

    `numbers` end with a zero, which `around`, `(inputs, n)` of int32, points to where there is no neighbour; so does
    `to_numbers`.
    """
    inputs, count = around.shape
    total = 0.0
    widths = (inputs, width, width, 2)
    blocks = np.zeros((4, max(inputs, width), BLOCK), numbers.dtype)
    deltas = np.zeros((4, max(inputs, width), BLOCK), numbers.dtype)
    for first in range(0, count, BLOCK):
        n = min(BLOCK, count - first)
        for i in range(inputs):
            for k in range(n):
                blocks[0, i, k] = numbers[around[i, first + k]]
        start = 0
        for layer in range(3):
            forward(net, start, (widths[layer], widths[layer + 1]), n, layer < 2, blocks[layer], blocks[layer + 1])
            start += (widths[layer] + 1) * widths[layer + 1]
        for k in range(n):
            place = places[first + k]
            bits, to_value, to_scale = _laplace(numbers[place], blocks[3, 0, k], blocks[3, 1, k])
            total += bits
            to_numbers[place] += to_value
            deltas[3, 0, k] = -to_value
            deltas[3, 1, k] = to_scale
        for layer in range(2, -1, -1):
            start -= (widths[layer] + 1) * widths[layer + 1]
            backward(
                net, start, (widths[layer], widths[layer + 1]), n, layer > 0, blocks[layer], deltas[layer + 1],
                deltas[layer], to_net,
            )  # fmt: skip
        for i in range(inputs):
            for k in range(n):
                to_numbers[around[i, first + k]] += deltas[0, i, k]
    return total


@cpu_sum_kernel
def forward(net: Any, start: Any, sizes: Any, n: Any, is_hidden: Any, given: Any, out: Any) -> None:
    """Write a layer of the first `n` positions of a block, rectified where it is hidden."""
    taken, outputs = sizes
    for o in range(outputs):
        row = out[o]
        row[:n] = net[start + outputs * taken + o]
        for i in range(taken):
            weight, from_row = net[start + o * taken + i], given[i]
            for k in range(n):
                row[k] += weight * from_row[k]
        if is_hidden:
            for k in range(n):
                row[k] = row[k] if row[k] > 0 else row[k] * 0


@cpu_sum_kernel
def backward(
    net: Any, start: Any, sizes: Any, n: Any, is_hidden: Any, given: Any, delta: Any, out: Any, to_net: Any
) -> None:  # fmt: skip
    """Write the gradient to what a layer was given, 0 where that is a hidden 0, and add that to its weights."""
    taken, outputs = sizes
    out[:taken, :n] = 0
    for o in range(outputs):
        total = net[0] * 0
        for k in range(n):
            total += delta[o, k]
        to_net[start + outputs * taken + o] += total
        for i in range(taken):
            to_net[start + o * taken + i] += spread(delta[o], given[i], net[start + o * taken + i], out[i], n)
    if is_hidden:
        for i in range(taken):
            for k in range(n):
                out[i, k] = out[i, k] if given[i, k] > 0 else out[i, k] * 0


@cpu_sum_kernel
def spread(delta: Any, values: Any, weight: Any, out: Any, n: Any) -> Any:
    """Return Σ delta·values, and add `weight` times delta to `out`."""
    total = weight * 0
    for k in range(n):
        total += delta[k] * values[k]
        out[k] += weight * delta[k]
    return total


@cpu_sum_kernel
def _laplace(value: Any, middle: Any, told: Any) -> Any:
    """Return the bits of a number, and their derivatives to the number and to what tells the scale."""
    log_scale = (told * STEPS_A_UNIT - UNIT_MODEL) * LOG_SCALE_STEP
    within = min(max(log_scale, LEAST_LOG_SCALE), MOST_LOG_SCALE)
    inverse = math.exp(-within)
    distance = abs(value - middle)
    if distance > 0.5:
        rest = math.exp(-inverse)
        bits = (distance - 0.5) * inverse - math.log((1 - rest) / 2)
        to_distance = inverse
        to_inverse = distance - 0.5 - rest / (1 - rest)
    else:
        near, far = math.exp((distance - 0.5) * inverse) / 2, math.exp((-distance - 0.5) * inverse) / 2
        chance = 1 - near - far + _LEAST_PROBABILITY
        bits = -math.log(chance)
        to_distance = (near - far) * inverse / chance
        to_inverse = ((near - far) * distance - (near + far) * 0.5) / chance
    to_value = to_distance if value > middle else -to_distance
    to_told = -to_inverse * inverse * STEPS_A_UNIT * LOG_SCALE_STEP if within == log_scale else 0.0
    return bits * _TO_BITS, to_value * _TO_BITS, to_told * _TO_BITS
