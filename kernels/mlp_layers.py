"""A small multilayer perceptron as a record, its weights as one run of numbers, and products of blocks for the CPU.

    h_0 = x;  h_k = φ(W_k h_{k−1} [+ b_k]);  y = W_K h_{K−1} [+ b_K];  φ(z) = max(0, z) or sin z

The run holds W_1 row by row, (outputs, inputs), then b_1 where there are biases, then W_2 and so on: the order of
tiny-cuda-nn, which has no biases.

On the CPU a block is features × positions, so that a row of a product is a sum of scaled rows
(`tilestream.kernels.product_tile`). Each position is summed in the order of its inputs, wherever in a block it stands.

A network of sines has its frequencies in its weights: sin(ω (W h + b)) of SIREN is that of ω W and ω b, and a step of
Adam grows along with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.language import core, cpu_kernel, fma
from tilestream.kernels.product_tile import COLUMNS, ROWS, add_tile
from tilestream.kernels.sine import cosine_core, sine_core

ZERO = np.float32(0)
LINEAR, RELU, SINE = 0, 1, 2
"""What follows the sums of a layer, in the layouts for kernels."""
ACTIVATIONS = {"relu": RELU, "sine": SINE}


@dataclass(frozen=True, kw_only=True)
class MlpLayers:
    """The sizes of a perceptron, whose last layer is linear."""

    widths: tuple[int, ...]
    """Inputs, outputs of each hidden layer, outputs."""
    biases: bool = False
    """Whether each layer adds a vector."""
    activation: Literal["relu", "sine"] = "relu"
    """What every layer but the last ends with."""

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ConfigError.of(
                "`widths` of `MlpLayers`",
                got=self.widths,
                expected="inputs, hidden widths and outputs, each at least 1",
                do="Give at least two numbers.",
            )
        if self.activation not in ACTIVATIONS:
            raise ConfigError.of(
                "`activation` of `MlpLayers`", got=repr(self.activation), expected="'relu' or 'sine'", do="Choose one."
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

    @property
    def endings(self) -> tuple[int, ...]:
        """Return `RELU` or `SINE` for each hidden layer, and `LINEAR`."""
        return (ACTIVATIONS[self.activation],) * (len(self.widths) - 2) + (LINEAR,)

    @cached_property
    def layout(self) -> npt.NDArray[np.int64]:
        """Return `(layers, 5)` for kernels: inputs, outputs, start of the matrix, of the bias or -1, activation."""
        pairs = zip(self.widths, self.widths[1:], self.weight_starts, self.endings, strict=False)
        return np.array([(i, o, at, at + i * o if self.biases else -1, ending) for i, o, at, ending in pairs], np.int64)

    @cached_property
    def padded(self) -> npt.NDArray[np.int64]:
        """Return `layout` of the run of `pad`, whose sides are multiples of four and which always has biases."""
        rows, start = [], 0
        for inputs, outputs, ending in zip(self.widths, self.widths[1:], self.endings, strict=False):
            i, o = inputs + -inputs % ROWS, outputs + -outputs % ROWS
            rows.append((i, o, start, start + i * o, ending))
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
    _, outputs, _, last, _ = layers.padded[-1]
    found = np.zeros(last + outputs, dtype)
    for (i, o, start, bias, _), (pi, po, to, to_bias, _) in zip(layers.layout, layers.padded, strict=True):
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
def activate(block: Any, rows: Any, n: Any, ending: Any) -> None:
    """Put n sums of each row through `RELU` or `SINE`."""
    if ending == SINE:
        for i in range(rows):
            row = block[i]
            for p in range(n):
                row[p] = sine_core(row[p])
    else:
        for i in range(rows):
            row = block[i]
            for p in range(n):
                row[p] = relu_core(row[p])


@cpu_kernel
def add_layer(weights: Any, row: Any, source: Any, target: Any, n: Any) -> None:
    """Write the sums of one layer, a row of its layout, over n columns."""
    inputs, outputs, start, bias = row[0], row[1], row[2], row[3]
    for i in range(outputs):
        line, value = target[i], weights[bias + i]
        for p in range(n):
            line[p] = value
    add_product(weights, start, (inputs, 1), source, inputs, target, outputs, n)


@cpu_kernel
def forward_block(weights: Any, layout: Any, blocks: Any, n: Any) -> Any:
    """Return which of the blocks holds the outputs, after all layers of the n columns whose inputs `blocks[0]` holds.

    `blocks` is `(2, widest, positions)`.
    """
    layers = layout.shape[0]
    for layer in range(layers):
        target = blocks[(layer + 1) % 2]
        add_layer(weights, layout[layer], blocks[layer % 2], target, n)
        if layer < layers - 1:
            activate(target, layout[layer, 1], n, layout[layer, 4])
    return layers % 2


@cpu_kernel
def forward_kept(weights: Any, layout: Any, blocks: Any, slopes: Any, n: Any) -> None:
    """Write what each layer gives to blocks `(layers + 1, widest, positions)`, and to `slopes` those of sines."""
    layers = layout.shape[0]
    for layer in range(layers):
        target = blocks[layer + 1]
        add_layer(weights, layout[layer], blocks[layer], target, n)
        if layout[layer, 4] == SINE:
            for i in range(layout[layer, 1]):
                row, slope = target[i], slopes[layer, i]
                for p in range(n):
                    slope[p] = cosine_core(row[p])
        if layer < layers - 1:
            activate(target, layout[layer, 1], n, layout[layer, 4])
