"""The synthesis of a pyramid in floating point, with gradients, on one CPU thread: what a fit repeats.

Grids are raised by the filter of `tilestream.kernels.pyramid_raise` and mixed by a layer of hidden features; channels
are convolved with 3×3 weights, edges replicated. A fit makes thousands of such steps on arrays that fit into a second
cache, where general operations spend their time otherwise: torch's gradient of a convolution of three channels takes
ten times as long. On a device a fit uses those (`tilestream.codecs.pyramid.fitops`). All arrays are contiguous and of
one floating type.

Tolerance of the tests: 1e-5 of the sum of absolute terms in float32, 1e-12 in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.language import cpu_sum_kernel
from tilestream.kernels.pyramid_price import BLOCK, spread

MARGIN = 2
"""Places that a filter of four taps reaches beyond each end."""
EDGE = 3
"""Of a window of weights."""


@cpu_sum_kernel
def raise_lines(lines: Any, taps: Any, out: Any) -> None:
    """Write `(n, fine, k)` from `(n, coarse, k)`: each plane raised along its middle axis, ends replicated.

    Row 2i is Σ_k taps[3 − k]·row[i − 2 + k], row 2i + 1 is Σ_k taps[k]·row[i − 1 + k].
    """
    planes, fine, width = out.shape
    coarse = lines.shape[1]
    for plane in range(planes):
        for row in range(fine):
            first = (row >> 1) - 1 if row & 1 else (row >> 1) - 2
            given = out[plane, row]
            given[:] = 0
            for k in range(4):
                tap = taps[k] if row & 1 else taps[3 - k]
                taken = lines[plane, min(max(first + k, 0), coarse - 1)]
                for x in range(width):
                    given[x] += tap * taken[x]


@cpu_sum_kernel
def raise_lines_backward(gradient: Any, lines: Any, taps: Any, to_lines: Any, to_taps: Any) -> None:
    """Write the gradient to `lines`, and add that to `taps`."""
    planes, fine, width = gradient.shape
    coarse = lines.shape[1]
    to_lines[:] = 0
    for plane in range(planes):
        for row in range(fine):
            first = (row >> 1) - 1 if row & 1 else (row >> 1) - 2
            given = gradient[plane, row]
            for k in range(4):
                at = k if row & 1 else 3 - k
                number = min(max(first + k, 0), coarse - 1)
                taken, wanted, tap = lines[plane, number], to_lines[plane, number], taps[at]
                total = taps.dtype.type(0)
                for x in range(width):
                    total += given[x] * taken[x]
                    wanted[x] += given[x] * tap
                to_taps[at] += total


@cpu_sum_kernel
def raise_columns(lines: Any, taps: Any, out: Any) -> None:
    """Write `(n, fine)` from `(n, coarse)`: each line raised, ends replicated."""
    count, fine = out.shape
    coarse = lines.shape[1]
    padded = np.empty(coarse + 2 * MARGIN, lines.dtype)
    halves = np.empty((2, coarse), lines.dtype)
    for line in range(count):
        _pad(lines[line], padded)
        for i in range(coarse):
            halves[0, i] = (
                taps[3] * padded[i] + taps[2] * padded[i + 1] + taps[1] * padded[i + 2] + taps[0] * padded[i + 3]
            )
            halves[1, i] = (
                taps[0] * padded[i + 1] + taps[1] * padded[i + 2] + taps[2] * padded[i + 3] + taps[3] * padded[i + 4]
            )
        given = out[line]
        for i in range(fine >> 1):
            given[2 * i] = halves[0, i]
            given[2 * i + 1] = halves[1, i]
        if fine & 1:
            given[fine - 1] = halves[0, fine >> 1]


@cpu_sum_kernel
def raise_columns_backward(gradient: Any, lines: Any, taps: Any, to_lines: Any, to_taps: Any) -> None:
    """Write the gradient to `lines`, and add that to `taps`."""
    count, fine = gradient.shape
    coarse = lines.shape[1]
    padded, wanted = np.empty(coarse + 2 * MARGIN, lines.dtype), np.empty(coarse + 2 * MARGIN, lines.dtype)
    even, odd = np.zeros(coarse, lines.dtype), np.zeros(coarse, lines.dtype)
    for line in range(count):
        _pad(lines[line], padded)
        given = gradient[line]
        for i in range(fine >> 1):
            even[i] = given[2 * i]
            odd[i] = given[2 * i + 1]
        if fine & 1:
            even[fine >> 1] = given[fine - 1]
            odd[fine >> 1] = 0
        wanted[:] = 0
        for k in range(4):
            total, tap = taps.dtype.type(0), taps[3 - k]
            for i in range(coarse):
                total += even[i] * padded[i + k]
                wanted[i + k] += even[i] * tap
            to_taps[3 - k] += total
            total, tap = taps.dtype.type(0), taps[k]
            for i in range(coarse):
                total += odd[i] * padded[i + k + 1]
                wanted[i + k + 1] += odd[i] * tap
            to_taps[k] += total
        _fold(wanted, to_lines[line])


@cpu_sum_kernel
def _pad(line: Any, out: Any) -> None:
    """Write a line with its ends replicated."""
    size = len(line)
    for i in range(len(out)):
        out[i] = line[min(max(i - MARGIN, 0), size - 1)]


@cpu_sum_kernel
def _fold(padded: Any, out: Any) -> None:
    """Write what the places of a padded line come to at those that they are copies of."""
    size = len(out)
    for i in range(size):
        out[i] = padded[i + MARGIN]
    for i in range(MARGIN):
        out[0] += padded[i]
        out[size - 1] += padded[size + MARGIN + i]


@cpu_sum_kernel
def convolve(padded: Any, weights: Any, bias: Any, out: Any) -> None:
    """Write `(o, h, w)` from `(c, h + 2, w + 2)`: the middle, plus a bias, plus 3×3 weights `(o, c, 3, 3)`."""
    outputs, height, width = out.shape
    for y in range(height):
        for o in range(outputs):
            given = out[o, y]
            middle = padded[o, y + 1]
            for x in range(width):
                given[x] = middle[x + 1] + bias[o]
            for c in range(padded.shape[0]):
                for j in range(EDGE):
                    taken = padded[c, y + j]
                    left, here, right = weights[o, c, j, 0], weights[o, c, j, 1], weights[o, c, j, 2]
                    for x in range(width):
                        given[x] += left * taken[x] + here * taken[x + 1] + right * taken[x + 2]


@cpu_sum_kernel
def convolve_backward(
    gradient: Any, padded: Any, weights: Any, to_padded: Any, to_weights: Any, to_bias: Any
) -> None:  # fmt: skip
    """Write the gradients to the padded channels, to the weights and to the bias."""
    outputs, height, width = gradient.shape
    kind = weights.dtype.type
    run = np.zeros(width + 2 * (EDGE - 1), weights.dtype)
    to_padded[:] = 0
    to_weights[:] = 0
    to_bias[:] = 0
    for y in range(height):
        for o in range(outputs):
            given, middle, total = gradient[o, y], to_padded[o, y + 1], kind(0)
            for x in range(width):
                run[x + 2] = given[x]
                middle[x + 1] += given[x]
                total += given[x]
            to_bias[o] += total
            for c in range(padded.shape[0]):
                for j in range(EDGE):
                    taken, wanted = padded[c, y + j], to_padded[c, y + j]
                    left, here, right = kind(0), kind(0), kind(0)
                    for x in range(width):
                        left += given[x] * taken[x]
                        here += given[x] * taken[x + 1]
                        right += given[x] * taken[x + 2]
                    to_weights[o, c, j, 0] += left
                    to_weights[o, c, j, 1] += here
                    to_weights[o, c, j, 2] += right
                    left, here, right = weights[o, c, j, 0], weights[o, c, j, 1], weights[o, c, j, 2]
                    for x in range(width + 2):
                        wanted[x] += left * run[x + 2] + here * run[x + 1] + right * run[x]


@cpu_sum_kernel
def mix(grids: Any, first: Any, second: Any, out: Any) -> None:
    """Write `(c, n)` from `(g, n)`: hidden features of `first`, `(k, g + 1)`, and `second`, `(c, k + g + 1)`, of both.

    The last column of each is its bias.
    """
    taken, count = grids.shape
    width, channels = first.shape[0], out.shape[0]
    hidden = np.zeros((width, BLOCK), out.dtype)
    for start in range(0, count, BLOCK):
        n = min(BLOCK, count - start)
        _hidden(grids, first, start, n, hidden)
        for c in range(channels):
            row = out[c, start : start + n]
            row[:] = second[c, width + taken]
            for i in range(width):
                weight, given = second[c, i], hidden[i]
                for k in range(n):
                    row[k] += weight * given[k]
            for i in range(taken):
                weight, given = second[c, width + i], grids[i, start : start + n]
                for k in range(n):
                    row[k] += weight * given[k]


@cpu_sum_kernel
def _hidden(grids: Any, first: Any, start: Any, n: Any, out: Any) -> None:
    taken, kind = grids.shape[0], out.dtype.type
    for o in range(len(first)):
        row = out[o]
        row[:n] = first[o, taken]
        for i in range(taken):
            weight, given = first[o, i], grids[i, start : start + n]
            for k in range(n):
                row[k] += weight * given[k]
        for k in range(n):
            row[k] = row[k] if row[k] > 0 else kind(0)


@cpu_sum_kernel
def mix_backward(
    gradient: Any, grids: Any, first: Any, second: Any, to_grids: Any, to_first: Any, to_second: Any
) -> None:  # fmt: skip
    """Write the gradient to grids, and add those to both layers."""
    taken, count = grids.shape
    width, channels, kind = first.shape[0], len(gradient), first.dtype.type
    hidden, delta = np.zeros((width, BLOCK), first.dtype), np.zeros((width, BLOCK), first.dtype)
    to_grids[:] = 0
    for start in range(0, count, BLOCK):
        n = min(BLOCK, count - start)
        _hidden(grids, first, start, n, hidden)
        delta[:, :n] = 0
        for c in range(channels):
            given, total = gradient[c, start : start + n], kind(0)
            for k in range(n):
                total += given[k]
            to_second[c, width + taken] += total
            for i in range(width):
                to_second[c, i] += spread(given, hidden[i], second[c, i], delta[i], n)
            for i in range(taken):
                to_second[c, width + i] += spread(
                    given, grids[i, start : start + n], second[c, width + i], to_grids[i, start : start + n], n
                )
        for o in range(width):
            row, total = delta[o], kind(0)
            for k in range(n):
                row[k] = row[k] if hidden[o, k] > 0 else kind(0)
                total += row[k]
            to_first[o, taken] += total
            for i in range(taken):
                to_first[o, i] += spread(
                    row, grids[i, start : start + n], first[o, i], to_grids[i, start : start + n], n
                )
