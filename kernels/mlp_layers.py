"""A small multilayer perceptron as a record, its weights as one run of numbers, and products of blocks for the CPU.

    h_0 = x;  h_k = max(0, W_k h_{k−1} [+ b_k]);  y = W_K h_{K−1} [+ b_K]

The run holds W_1 row by row, (outputs, inputs), then b_1 where there are biases, then W_2 and so on: the order of
tiny-cuda-nn, which has no biases.

On the CPU a block is features × positions, so that a row of a product is a sum of scaled rows
(`tilestream.kernels.product_tile`). Each position is summed in the order of its inputs, wherever in a block it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.language import core, cpu_kernel, fma
from tilestream.kernels.product_tile import COLUMNS, ROWS, add_tile

ZERO = np.float32(0)


@dataclass(frozen=True, kw_only=True)
class MlpLayers:
    """The sizes of a perceptron: ReLU after every layer but the last, which is linear."""

    widths: tuple[int, ...]
    """Inputs, outputs of each hidden layer, outputs."""
    biases: bool = False
    """Whether each layer adds a vector."""

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ConfigError.of(
                "`widths` of `MlpLayers`",
                got=self.widths,
                expected="inputs, hidden widths and outputs, each at least 1",
                do="Give at least two numbers.",
            )

    @cached_property
    def weight_starts(self) -> tuple[int, ...]:
        """Return where the matrix of each layer starts in the run, and how long the run is."""
        starts = [0]
        for inputs, outputs in zip(self.widths, self.widths[1:], strict=False):
            starts.append(starts[-1] + outputs * (inputs + self.biases))
        return tuple(starts)

    @property
    def parameters(self) -> int:
        """Return how many weights and biases there are."""
        return self.weight_starts[-1]

    @cached_property
    def layout(self) -> npt.NDArray[np.int64]:
        """Return `(layers, 4)`: inputs, outputs, start of the matrix, start of the bias or -1; for kernels."""
        pairs = zip(self.widths, self.widths[1:], self.weight_starts, strict=False)
        return np.array([(i, o, start, start + i * o if self.biases else -1) for i, o, start in pairs], np.int64)

    @cached_property
    def padded(self) -> npt.NDArray[np.int64]:
        """Return `layout` of the run of `pad`, whose sides are multiples of four and which always has biases."""
        rows, start = [], 0
        for inputs, outputs in zip(self.widths, self.widths[1:], strict=False):
            i, o = inputs + -inputs % ROWS, outputs + -outputs % ROWS
            rows.append((i, o, start, start + i * o))
            start += o * (i + 1)
        return np.array(rows, np.int64)

    @property
    def widest(self) -> int:
        """Return the most features that a padded layer takes or gives."""
        return int(self.padded[:, :2].max())


def pad(weights: npt.NDArray[Any], layers: MlpLayers, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the weights with sides that are multiples of four, zeros around and missing biases zero.

    Parameters
    ----------
    weights : ndarray
        `(layers.parameters,)`.
    layers : MlpLayers
        Their sizes.
    dtype : dtype
        That kernels compute in.

    Returns
    -------
    ndarray
        A few thousand numbers, laid out as `layers.padded` says.
    """
    _, outputs, _, last = layers.padded[-1]
    found = np.zeros(last + outputs, dtype)
    for (i, o, start, bias), (pi, po, to, to_bias) in zip(layers.layout, layers.padded, strict=True):
        found[to : to + pi * po].reshape(po, pi)[:o, :i] = weights[start : start + i * o].reshape(o, i)
        if bias >= 0:
            found[to_bias : to_bias + o] = weights[bias : bias + o]
    return found


@core
def relu_core(value: Any) -> Any:
    """Return max(0, value); NaN stays."""
    return ZERO if value < ZERO else value


@core
def add_core(weight: Any, value: Any, total: Any) -> Any:
    """Return the sum with one more weighted value, rounded once."""
    return fma(weight, value, total)


@cpu_kernel
def add_product(a: Any, start: Any, steps: Any, b: Any, k: Any, out: Any, m: Any, n: Any) -> None:
    """Add the product of an m × k matrix and the k rows of b to the m rows of out, over n columns.

    Element i, j of the matrix is `a[start + i · steps[0] + j · steps[1]]`; m is a multiple of `ROWS`, n of `COLUMNS`.
    """
    for i in range(0, m, ROWS):
        for p in range(0, n, COLUMNS):
            add_tile(a, start + i * steps[0], steps[0], steps[1], k, b, out, i, p)


@cpu_kernel
def forward_block(weights: Any, layout: Any, blocks: Any, n: Any) -> Any:
    """Return which of the blocks holds the outputs, after all layers of the n columns whose inputs `blocks[0]` holds.

    `blocks` is `(layers + 1, widest, positions)`, to keep what each layer gives, or `(2, widest, positions)`.
    """
    layers = layout.shape[0]
    for layer in range(layers):
        inputs, outputs, start, bias = layout[layer, 0], layout[layer, 1], layout[layer, 2], layout[layer, 3]
        source, target = blocks[layer % blocks.shape[0]], blocks[(layer + 1) % blocks.shape[0]]
        for i in range(outputs):
            row, value = target[i], weights[bias + i]
            for p in range(n):
                row[p] = value
        add_product(weights, start, (inputs, 1), source, inputs, target, outputs, n)
        if layer < layers - 1:
            for i in range(outputs):
                row = target[i]
                for p in range(n):
                    row[p] = relu_core(row[p])
    return layers % blocks.shape[0]
