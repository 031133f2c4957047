"""Layers of whole numbers as runs for kernels, and what follows their sums.

    a ← clamp((W·a + b + 2^(s−1)) >> s)

W is int16, sums are int32, which the maker of the networks keeps from overflowing. Integer sums have no order: every
form gives the same bits, and the tests ask for equality.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need
from tilestream.kernels.language import core, cpu_kernel, device
from tilestream.kernels.place import Array
from tilestream.kernels.product_tile import ROWS
from tilestream.kernels.pyramid_numbers import FEATURE_MOST, WholeLayer

BLOCK = 128
"""Places that the CPU takes through all layers at once: 64 features of them are 32 kB, about a first cache."""
LAYOUT = 5
"""Numbers of a layer in a layout, which is a run in CUDA kernels."""
MOST_SHIFT = 30
"""Largest shift a layer may have: what is more than its sums have bits would be undefined."""


@core
def round_shift_core(value: Any, shift: Any) -> Any:
    """Return value / 2^shift, rounded, halves up."""
    return (value + (1 << (shift - 1))) >> shift


@core
def clamp_core(value: Any, low: Any, high: Any) -> Any:
    """Return a value, or the nearer bound."""
    return min(max(value, low), high)


@core
def feature_core(value: Any) -> Any:
    """Return a value within what a feature holds."""
    return min(max(value, -FEATURE_MOST), FEATURE_MOST)


@cpu_kernel
def finish_rows(block: Any, rows: Any, n: Any, shift: Any, low: Any) -> None:
    """Round n sums of each row and clamp them from `low` to the largest feature."""
    half = 1 << (shift - 1)
    for i in range(rows):
        row = block[i]
        for p in range(n):
            row[p] = clamp_core(np.int32(row[p] + half) >> shift, low, FEATURE_MOST)


@device
def start_sums(run: Any, bias: Any, outputs: Any, most: Any, sums: Any) -> None:
    """Set up to `most` sums, which a CUDA kernel keeps in registers, to the biases of a layer."""
    for i in range(most):
        sums[i] = run[bias + i] if i < outputs else np.int32(0)


@device
def add_input(run: Any, start: Any, step: Any, value: Any, outputs: Any, most: Any, sums: Any) -> None:
    """Add what one input gives to each sum; its weights are `step` apart."""
    for i in range(most):
        if i < outputs:
            sums[i] += run[start + i * step] * np.int32(value)


def padded_to(n: int) -> int:
    """Return the next multiple of the rows that a product takes at once."""
    return n + -n % ROWS


def pack_layers(
    operation: str, layers: Sequence[WholeLayer], columns: Sequence[npt.NDArray[np.int64]]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return layers as a run and its layout, with sides that are multiples of four and zeros around.

    Parameters
    ----------
    operation : str
        Whose they are, for errors.
    layers : sequence of WholeLayer
        In order.
    columns : sequence of ndarray
        For each layer the padded input that each of its inputs is.

    Returns
    -------
    run : ndarray of int32
        A few thousand numbers.
    layout : ndarray of int64
        `(layers, 5)`: padded inputs and outputs, start of the matrix, row by row, and of the bias, shift.

    Raises
    ------
    ConfigError
        When a layer does not fit.
    """
    parts: list[npt.NDArray[np.int32]] = []
    rows, start = [], 0
    for number, (layer, places) in enumerate(zip(layers, columns, strict=True)):
        outputs = len(layer.bias)
        if layer.weights.shape != (outputs, len(places)) or not 1 <= layer.shift <= MOST_SHIFT:
            raise ConfigError.of(
                f"layer {number} of `{operation}`",
                got=f"weights {layer.weights.shape}, {outputs} biases, a shift of {layer.shift}",
                expected=f"{len(places)} inputs, and a shift of 1 to {MOST_SHIFT}",
                do="Hand in networks that fit together.",
            )
        i, o = padded_to(int(places[-1]) + 1), padded_to(outputs)
        matrix, bias = np.zeros((o, i), np.int32), np.zeros(o, np.int32)
        matrix[:outputs, places], bias[:outputs] = layer.weights, layer.bias
        parts += [matrix.reshape(-1), bias]
        rows.append((i, o, start, start + i * o, layer.shift))
        start += o * (i + 1)
    run, layout = np.concatenate(parts), np.array(rows, np.int64)
    run.flags.writeable = layout.flags.writeable = False
    return run, layout


def need_halving(operation: str, grids: Sequence[Array], first: int) -> None:
    """Raise unless grids, from a number on, are int16 and each half of the one before, rounded up."""
    shape: tuple[int, ...] | None = None
    for number, grid in enumerate(grids, first):
        if grid is None:
            raise ConfigError.of(
                f"`grids[{number}]` of `{operation}`", got=None, expected="int16", do="Decode it first."
            )
        need(operation, f"grids[{number}]", grid, dtypes=("int16",), ndim=2, shape=shape)
        shape = tuple((int(n) + 1) // 2 for n in grid.shape)
