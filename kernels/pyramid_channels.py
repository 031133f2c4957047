"""Raised grids of the pyramid codec to channels, on the CPU: a network of two layers, then residual convolutions.

    h = relu(L1(u));  v = clamp(L2([h, u]));  v ← clamp(v + R(conv3×3(v))), of all but the last convolution max(v, 0)

Channels stand in memory with a frame of one place, which repeats their edge, so that a convolution has no borders.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.language import cpu_kernel
from tilestream.kernels.mlp_layers import add_layer
from tilestream.kernels.product_tile import COLUMNS
from tilestream.kernels.pyramid_layers import BLOCK, clamp_core, finish_rows
from tilestream.kernels.pyramid_numbers import FEATURE_MOST, PIXEL_MOST

WINDOW = 9
"""Places of a convolution."""


@cpu_kernel
def mix_cpu(raised: Any, run: Any, layout: Any, framed: Any) -> None:
    """Write channels of raised grids `(n, y, x)` to `(c, y + 2, x + 2)`, by the first two layers."""
    grids, height, width = raised.shape
    channels = framed.shape[0]
    hidden = layout[0, 1]
    block = np.zeros((layout[1, 0], BLOCK), np.int32)
    sums = np.zeros((layout[1, 1], BLOCK), np.int32)
    taken = block[hidden:]
    for y in range(height):
        for first in range(0, width, BLOCK):
            n = min(BLOCK, width - first)
            lanes = n + -n % COLUMNS
            for j in range(grids):
                row, line = raised[j, y, first : first + n], taken[j]
                for p in range(n):
                    line[p] = row[p]
            add_layer(run, layout[0], taken, block, lanes)
            finish_rows(block, hidden, lanes, layout[0, 4], 0)
            add_layer(run, layout[1], block, sums, lanes)
            finish_rows(sums, channels, lanes, layout[1, 4], -FEATURE_MOST)
            for c in range(channels):
                framed[c, 1 + y, 1 + first : 1 + first + n] = sums[c, :n]
    _frame(framed)


@cpu_kernel
def convolve_cpu(framed: Any, run: Any, row: Any, low: Any, out: Any) -> None:
    """Write channels with a convolution of them added, clamped from `low` on, to an array like `framed`."""
    channels, height, width = framed.shape[0], framed.shape[1] - 2, framed.shape[2] - 2
    block = np.zeros((row[0], BLOCK), np.int32)
    sums = np.zeros((row[1], BLOCK), np.int32)
    half, shift = 1 << (row[4] - 1), row[4]
    for y in range(height):
        for first in range(0, width, BLOCK):
            n = min(BLOCK, width - first)
            for j in range(channels * WINDOW):
                at = first + j % 3
                source, line = framed[j // WINDOW, y + j % WINDOW // 3, at : at + n], block[j]
                for p in range(n):
                    line[p] = source[p]
            add_layer(run, row, block, sums, n + -n % COLUMNS)
            for c in range(channels):
                here = framed[c, 1 + y, 1 + first : 1 + first + n]
                line, to = sums[c], out[c, 1 + y, 1 + first : 1 + first + n]
                for p in range(n):
                    to[p] = clamp_core(here[p] + (np.int32(line[p] + half) >> shift), low, FEATURE_MOST)
    _frame(out)


@cpu_kernel
def _frame(framed: Any) -> None:
    """Repeat the edge of channels around them."""
    for c in range(framed.shape[0]):
        plane = framed[c]
        plane[1:-1, 0], plane[1:-1, -1] = plane[1:-1, 1], plane[1:-1, -2]
        plane[0], plane[-1] = plane[1], plane[-2]


@cpu_kernel
def write_features(framed: Any, skipped: Any, size: Any, out: Any, start: Any, steps: Any) -> None:
    """Write a part of framed channels as they are."""
    for c in range(framed.shape[0]):
        for y in range(size[0]):
            row = framed[c, skipped[0] + y, skipped[1] : skipped[1] + size[1]]
            to = start + c * steps[0] + y * steps[1]
            for x in range(size[1]):
                out[to + x * steps[2]] = row[x]


@cpu_kernel
def write_samples(framed: Any, skipped: Any, size: Any, samples: Any, out: Any, start: Any, steps: Any) -> None:
    """Write a part of framed channels as what a table of each channel says of 0 … `PIXEL_MOST`."""
    for c in range(framed.shape[0]):
        table = samples[c]
        for y in range(size[0]):
            row = framed[c, skipped[0] + y, skipped[1] : skipped[1] + size[1]]
            to = start + c * steps[0] + y * steps[1]
            for x in range(size[1]):
                out[to + x * steps[2]] = table[clamp_core(row[x], 0, PIXEL_MOST)]
