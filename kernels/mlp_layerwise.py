"""Layers of a perceptron one by one on CUDA: for gradients, float64, and nets too wide for the fused kernel.

    y[p, o] = Σ_j W[o, j] · x[p, j] [+ b[o]], then ReLU, sine or nothing; or times the slope of what the layer took

With the matrix transposed and a slope this is also the way back: of ReLU from what it gave, of the sine from the
cosines that were written beside it. What is between layers stands in scratch of `CHUNK_POSITIONS` positions, features ×
positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from tilestream.kernels.language import cuda, cuda_kernel, device
from tilestream.kernels.mlp_layers import LINEAR, RELU, SINE, ZERO, MlpLayers, add_core, relu_core
from tilestream.kernels.place import Array, Place, dtype_of, empty_like
from tilestream.kernels.rows import flat_samples, flat_view
from tilestream.kernels.sine import cosine_core, sine_core

THREADS = 128
OUTPUTS = 16
"""Of one thread, in registers."""
CHUNK_POSITIONS = 2**16
SINE_KEPT, MASKED, SLOPED = 3, 4, 5
"""Sine with its slopes written beside; times 1 or 0 by the sign of what ReLU gave; times slopes."""


@device
def ended(value: Any, ending: Any, beside: Any, at: Any) -> Any:
    """Return a sum with what follows it; `SINE_KEPT` writes its slope to `beside[at]`."""
    if ending == RELU:
        return relu_core(value)
    if ending == SLOPED:
        return value * beside[at]
    if ending == MASKED:
        return value if beside[at] > ZERO else ZERO
    if ending == SINE_KEPT:
        beside[at] = cosine_core(value)
    return value if ending == LINEAR else sine_core(value)


@cuda_kernel(
    "void(float32[::1], UniTuple(int64, 3), float32[::1], UniTuple(int64, 4), float32[::1], UniTuple(int64, 3), "
    "UniTuple(int64, 4), float32[::1], UniTuple(int64, 3))"
)
def _layer_cuda(
    inputs: Any, taken: Any, weights: Any, matrix: Any, beside: Any, placed: Any, shape: Any, out: Any, given: Any
) -> None:
    """Give `OUTPUTS` outputs of one position a thread; `taken`, `placed`, `given` are a start and two steps."""
    positions, width, outputs, ending = shape
    p, first = cuda.blockIdx.x * THREADS + cuda.threadIdx.x, cuda.blockIdx.y * OUTPUTS
    if p >= positions:
        return
    sums = cuda.local.array(OUTPUTS, out.dtype)
    for i in range(OUTPUTS):
        sums[i] = weights[matrix[3] + first + i] if matrix[3] >= 0 and first + i < outputs else ZERO
    for j in range(width):
        value = inputs[taken[0] + p * taken[1] + j * taken[2]]
        for i in range(OUTPUTS):
            if first + i < outputs:
                sums[i] = add_core(weights[matrix[0] + (first + i) * matrix[1] + j * matrix[2]], value, sums[i])
    for i in range(OUTPUTS):
        if first + i < outputs:
            value = ended(sums[i], ending, beside, placed[0] + p * placed[1] + (first + i) * placed[2])
            out[given[0] + p * given[1] + (first + i) * given[2]] = value


Strided = tuple[Any, int, Sequence[int]]
"""A run, the start and the two steps of a view of positions × features."""


def launch_layer(
    here: Place,
    inputs: Strided,
    weights: Any,
    matrix: tuple[int, int, int, int],
    sizes: tuple[int, int, int],
    out: Strided,
    *,
    ending: int = LINEAR,
    beside: Strided | None = None,
) -> None:
    """Put one layer on the stream.

    Parameters
    ----------
    here : Place
        A device.
    inputs : tuple
        Positions × features.
    weights : array
        The run of all weights.
    matrix : tuple of int
        Start, step from output to output and from input to input, start of the bias or -1.
    sizes : tuple of int
        Positions, inputs, outputs.
    out : tuple
        Positions × features.
    ending : int
        `LINEAR`, `RELU`, `SINE`, `SINE_KEPT`, `MASKED` or `SLOPED`.
    beside : tuple, optional
        Positions × outputs: slopes that `SINE_KEPT` writes, what `MASKED` and `SLOPED` read.
    """
    seen = out if beside is None else beside
    grid = (-(-sizes[0] // THREADS), -(-sizes[2] // OUTPUTS))
    here.launch(
        _layer_cuda, grid, THREADS, inputs[0], (inputs[1], *inputs[2]), weights, matrix, seen[0], (seen[1], *seen[2]),
        (*sizes, ending), out[0], (out[1], *out[2]),
    )  # fmt: skip


def hidden_scratch(inputs: Array, layers: MlpLayers, positions: int) -> list[Strided]:
    """Return memory for what each hidden layer gives for some positions, as views of positions × features."""
    found: list[Strided] = []
    for width in layers.widths[1:-1]:
        memory, start, steps = flat_view(empty_like(inputs, (width, positions), dtype_of(inputs)), writable=True)
        found.append((memory, start, (steps[1], steps[0])))
    return found


def chunks(positions: int) -> list[tuple[int, int]]:
    """Return starts and stops of the pieces that are worked on one after the other."""
    return [(first, min(first + CHUNK_POSITIONS, positions)) for first in range(0, positions, CHUNK_POSITIONS)]


def rows_of(view: Strided, first: int) -> Strided:
    """Return a view from one of its positions on."""
    flat, start, steps = view
    return flat, start + first * steps[0], steps


def forward_layerwise(here: Place, inputs: Array, weights: Array, layers: MlpLayers, out: Array) -> None:
    """Write the outputs of a perceptron, one launch a layer.

    Parameters
    ----------
    here : Place
        A device.
    inputs, weights : array
        As in `tilestream.kernels.mlp.mlp`.
    layers : MlpLayers
        Sizes.
    out : array
        As in `tilestream.kernels.mlp.mlp`.
    """
    n = int(inputs.shape[0])
    source, target, run = flat_view(inputs), flat_view(out, writable=True), flat_samples(weights)
    hidden = hidden_scratch(inputs, layers, min(n, CHUNK_POSITIONS))
    for first, stop in chunks(n):
        forward_chunk(here, [rows_of(source, first), *hidden, rows_of(target, first)], run, layers, stop - first)


def forward_chunk(
    here: Place, values: Sequence[Strided], weights: Any, layers: MlpLayers, positions: int,
    slopes: Sequence[Strided] = (),
) -> None:  # fmt: skip
    """Write all values but the first, each from the one before; without the outputs when these are left out.

    `slopes` are those of the hidden layers' sines, where wanted.
    """
    for layer, (given, to) in enumerate(itertools.pairwise(values)):
        inputs, outputs, start, bias, ending = (int(number) for number in layers.layout[layer])
        kept = ending == SINE and bool(slopes)
        launch_layer(
            here, given, weights, (start, inputs, 1, bias), (positions, inputs, outputs), to,
            ending=SINE_KEPT if kept else ending, beside=slopes[layer] if kept else None,
        )  # fmt: skip
