"""Gradients of the perceptron: to its weights and biases, and to its inputs; hidden layers are computed again.

    δ_K = ∂loss/∂y;  δ_{k−1} = φ'(z_{k−1}) · W_kᵀ δ_k;  ∂/∂W_k = Σ over positions of δ_k h_{k−1}ᵀ;  ∂/∂b_k = Σ δ_k

with φ' = 1 where h > 0, else 0, or cos z.

Sums over positions are made in pieces of fixed size, and the pieces are added in their order, so that they are the same
in every run and on every number of threads. Tolerance of the tests: 1e-5 of the sum of absolute terms in float32,
1e-12 in float64. Where an input of ReLU is 0 its slope is taken as 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need
from tilestream.kernels.language import cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.mlp import BLOCK_POSITIONS, check_network
from tilestream.kernels.mlp_layers import LINEAR, SINE, ZERO, MlpLayers, add_core, add_product, forward_kept, pad
from tilestream.kernels.mlp_layerwise import (
    MASKED,
    SLOPED,
    Strided,
    chunks,
    forward_chunk,
    hidden_scratch,
    launch_layer,
    rows_of,
)
from tilestream.kernels.place import Array, Place, dtype_of, empty_like, place
from tilestream.kernels.product_tile import COLUMNS
from tilestream.kernels.rows import flat_samples, flat_view

PIECES = 64
"""Most pieces that sums over positions are cut into on the CPU."""
TILE = 16
SPLIT_POSITIONS = 2048
"""Of a piece on CUDA."""


@cpu_kernel
def _backward_cpu(
    inputs: Any, upstream: Any, weights: Any, layout: Any, widths: Any, piece: Any, band: Any, sums: Any, out: Any
) -> None:
    """Write the sums of the pieces of a band, laid out as padded weights, and the gradients to their inputs."""
    flat = inputs[0]
    wanted = out[3]
    positions, taken, given, widest = widths
    layers = layout.shape[0]
    blocks = np.zeros((layers + 1, widest, BLOCK_POSITIONS), flat.dtype)
    slopes = np.zeros((layers if layout[0, 4] == SINE else 0, widest, BLOCK_POSITIONS), flat.dtype)
    deltas = np.zeros((2, widest, BLOCK_POSITIONS), flat.dtype)
    turned = np.zeros((BLOCK_POSITIONS, widest + -widest % COLUMNS), flat.dtype)
    grads = np.zeros((widest, widest + -widest % COLUMNS), flat.dtype)
    run = np.empty(widest * BLOCK_POSITIONS, flat.dtype)
    for number in range(band[0], band[1]):
        sums[number] = 0
        stop = min((number + 1) * piece, positions)
        for first in range(number * piece, stop, BLOCK_POSITIONS):
            n = min(BLOCK_POSITIONS, stop - first)
            _read_block(inputs, first, n, taken, blocks[0])
            _read_block(upstream, first, n, given, deltas[layers % 2])  # columns past the end add nothing
            forward_kept(weights, layout, blocks, slopes, BLOCK_POSITIONS)
            for layer in range(layers - 1, -1, -1):
                delta, before = deltas[(layer + 1) % 2], deltas[layer % 2]
                _add_weight_sums(delta, blocks[layer], layout[layer], turned, grads, run, sums[number])
                if layer > 0 or wanted:
                    width, outputs = layout[layer, 0], layout[layer, 1]
                    before[:width] = 0
                    add_product(weights, layout[layer, 2], (1, width), delta, outputs, before, width, BLOCK_POSITIONS)
                    if layer > 0 and layout[layer - 1, 4] == SINE:
                        _slope(before, slopes[layer - 1], width)
                    elif layer > 0:
                        _mask(before, blocks[layer], width)
            _write_block(deltas[0], first, n, taken, out)


@cpu_kernel
def _read_block(source: Any, first: Any, n: Any, features: Any, block: Any) -> None:
    """Copy n positions × features to a block, zeros around."""
    flat, start, steps = source
    block[:] = 0
    for p in range(n):
        for j in range(features):
            block[j, p] = flat[start + (first + p) * steps[0] + j * steps[1]]


@cpu_kernel
def _write_block(block: Any, first: Any, n: Any, features: Any, target: Any) -> None:
    flat, start, steps, wanted = target
    for p in range(n if wanted else 0):
        for j in range(features):
            flat[start + (first + p) * steps[0] + j * steps[1]] = block[j, p]


@cpu_kernel
def _mask(delta: Any, values: Any, rows: Any) -> None:
    for j in range(rows):
        for p in range(delta.shape[1]):
            delta[j, p] = delta[j, p] if values[j, p] > ZERO else ZERO


@cpu_kernel
def _slope(delta: Any, slopes: Any, rows: Any) -> None:
    for j in range(rows):
        for p in range(delta.shape[1]):
            delta[j, p] *= slopes[j, p]


@cpu_kernel
def _add_weight_sums(delta: Any, values: Any, row: Any, turned: Any, grads: Any, run: Any, sums: Any) -> None:
    """Add the sums over a block's positions of one layer: a product with positions in the middle."""
    inputs, outputs, start, bias = row[0], row[1], row[2], row[3]
    positions, columns = delta.shape[1], inputs + -inputs % COLUMNS
    for j in range(inputs):
        for p in range(positions):
            turned[p, j] = values[j, p]
    grads[:outputs, :columns] = 0
    for i in range(outputs):
        for p in range(positions):
            run[i * positions + p] = delta[i, p]
    add_product(run, 0, (positions, 1), turned, positions, grads, outputs, columns)
    for i in range(outputs):
        for j in range(inputs):
            sums[start + i * inputs + j] += grads[i, j]
        for p in range(positions):
            sums[bias + i] += delta[i, p]


@cuda_kernel(
    "void(float32[::1], UniTuple(int64, 3), float32[::1], UniTuple(int64, 3), UniTuple(int64, 5), float32[::1])"
)
def _weight_sums_cuda(delta: Any, deltas: Any, values: Any, taken: Any, shape: Any, sums: Any) -> None:
    """Sum one weight a thread over the positions of a piece, `blockIdx.z`; past the last input comes the bias."""
    left = cuda.shared.array((TILE, TILE), delta.dtype)
    right = cuda.shared.array((TILE, TILE), delta.dtype)
    positions, inputs, outputs, biased, parameters = shape
    me_j, me_i, piece = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.z
    i, j = cuda.blockIdx.y * TILE + me_i, cuda.blockIdx.x * TILE + me_j
    column = cuda.blockIdx.x * TILE + me_i  # of the values that this thread fetches, for position me_j
    stop = min((piece + 1) * SPLIT_POSITIONS, positions)
    total = delta[deltas[0]] * ZERO
    for first in range(piece * SPLIT_POSITIONS, stop, TILE):
        p = first + me_j
        left[me_i, me_j] = delta[deltas[0] + p * deltas[1] + i * deltas[2]] if p < stop and i < outputs else ZERO
        if p < stop and column < inputs:
            right[me_i, me_j] = values[taken[0] + p * taken[1] + column * taken[2]]
        else:
            right[me_i, me_j] = 1 if column == inputs else 0
        cuda.syncthreads()
        for k in range(TILE):
            total = add_core(left[me_i, k], right[me_j, k], total)
        cuda.syncthreads()
    if i < outputs and j < inputs + biased:
        at = i * inputs + j if j < inputs else outputs * inputs + i
        sums[piece * parameters + at] = total


@cuda_kernel("void(float32[::1], UniTuple(int64, 4), float32[::1])")
def _add_pieces_cuda(sums: Any, shape: Any, out: Any) -> None:
    """Add the pieces of one weight a thread, in their order, to what earlier chunks left."""
    pieces, parameters, start, fresh = shape
    k = cuda.blockIdx.x * 256 + cuda.threadIdx.x
    if k < parameters:
        total = sums[k] * ZERO if fresh else out[start + k]
        for piece in range(pieces):
            total += sums[piece * parameters + k]
        out[start + k] = total


def mlp_backward(
    upstream: Array,
    inputs: Array,
    weights: Array,
    *,
    layers: MlpLayers,
    to_inputs: bool = True,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> tuple[Array, Array | None]:
    """Return the gradients of a loss to weights and inputs, given that to the outputs.

    Parameters
    ----------
    upstream : array of the type of the inputs
        `(n, layers.widths[-1])`, any strides: the gradient to what `mlp` returned.
    inputs, weights, layers
        As they were handed to `tilestream.kernels.mlp.mlp`.
    to_inputs : bool
        Whether the second gradient is wanted.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    tuple of array
        `(layers.parameters,)` and `(n, layers.widths[0])` or None, in the type of the inputs.

    Raises
    ------
    ConfigError
        When types or shapes do not fit the layers, or the arrays are not in one place.
    """
    here = place(
        "mlp_backward", backend=backend, stream=stream, threads=threads,
        upstream=upstream, inputs=inputs, weights=weights,
    )  # fmt: skip
    check_network("mlp_backward", layers, inputs, weights)
    n, dtype = int(inputs.shape[0]), dtype_of(inputs)
    need("mlp_backward", "upstream", upstream, dtypes=(dtype.name,), shape=(n, layers.widths[-1]), empty=True)
    of_weights = empty_like(inputs, (layers.parameters,), dtype)
    of_inputs = empty_like(inputs, (n, layers.widths[0]), dtype) if to_inputs else None
    run = _on_host if here.backend == "cpu" else _on_device
    run(here, upstream, inputs, weights, layers, of_weights, of_inputs)
    return of_weights, of_inputs


def _on_host(
    here: Place, upstream: Array, inputs: Array, weights: Array, layers: MlpLayers, of_weights: Array,
    of_inputs: Array | None,
) -> None:  # fmt: skip
    n, padded = int(inputs.shape[0]), pad(weights, layers, inputs.dtype)
    piece = max(BLOCK_POSITIONS, -(-n // PIECES))
    piece += -piece % BLOCK_POSITIONS
    sums = np.zeros((-(-n // piece), padded.size), inputs.dtype)
    source, given = flat_view(inputs), flat_view(upstream)
    target = (*flat_view(np.empty((0, 0), inputs.dtype) if of_inputs is None else of_inputs, writable=True),)
    widths = (n, layers.widths[0], layers.widths[-1], layers.widest)
    over_bands(
        lambda start, stop: _backward_cpu(
            source, given, padded, layers.padded, widths, piece, (start, stop), sums, (*target, of_inputs is not None)
        ),
        len(sums), threads=here.threads,
    )  # fmt: skip
    total = sums.sum(axis=0, dtype=np.float64)
    for (i, o, start, bias, _), (pi, po, at, at_bias, _) in zip(layers.layout, layers.padded, strict=True):
        of_weights[start : start + i * o] = total[at : at + pi * po].reshape(po, pi)[:o, :i].ravel()
        if bias >= 0:
            of_weights[bias : bias + o] = total[at_bias : at_bias + o]


def _on_device(
    here: Place, upstream: Array, inputs: Array, weights: Array, layers: MlpLayers, of_weights: Array,
    of_inputs: Array | None,
) -> None:  # fmt: skip
    n, run = int(inputs.shape[0]), flat_samples(weights)
    found, _, _ = flat_view(of_weights, writable=True)
    pieces = chunks(n) or [(0, 0)]
    most = pieces[0][1]
    hidden, deltas = hidden_scratch(inputs, layers, most), hidden_scratch(inputs, layers, most)
    slopes = hidden_scratch(inputs, layers, most) if layers.activation == "sine" else []
    room = max(o * (i + 1) for i, o, *_ in layers.layout.tolist()) * max(1, -(-most // SPLIT_POSITIONS))
    sums, _, _ = flat_view(empty_like(inputs, (room,), dtype_of(inputs)), writable=True)
    source, given = flat_view(inputs), flat_view(upstream)
    for first, stop in pieces:
        size = stop - first
        values = [rows_of(source, first), *hidden]
        back: list[Strided | None] = [None, *deltas, rows_of(given, first)]
        if of_inputs is not None:
            back[0] = rows_of(flat_view(of_inputs, writable=True), first)
        if size:
            forward_chunk(here, values, run, layers, size, slopes)
        for layer in range(len(layers.widths) - 2, -1, -1):
            delta = back[layer + 1]
            assert delta is not None
            _weight_sums(here, delta, values[layer], layers, layer, size, sums, found, first == 0)
            to = back[layer]
            if to is not None and size:
                inputs_of, outputs_of, start, *_ = (int(number) for number in layers.layout[layer])
                ending, beside = (SLOPED, slopes[layer - 1]) if layer and slopes else (MASKED, values[layer])
                launch_layer(
                    here, delta, run, (start, 1, inputs_of, -1), (size, outputs_of, inputs_of), to,
                    ending=ending if layer else LINEAR, beside=beside if layer else None,
                )  # fmt: skip


def _weight_sums(
    here: Place, delta: Strided, values: Strided, layers: MlpLayers, layer: int, positions: int, sums: Any, out: Any,
    fresh: bool,
) -> None:  # fmt: skip
    inputs, outputs, start, bias, _ = (int(number) for number in layers.layout[layer])
    biased = int(bias >= 0)
    parameters, pieces = outputs * (inputs + biased), -(-positions // SPLIT_POSITIONS)
    if pieces:
        grid = (-(-(inputs + biased) // TILE), -(-outputs // TILE), pieces)
        here.launch(
            _weight_sums_cuda, grid, (TILE, TILE), delta[0], (delta[1], *delta[2]), values[0], (values[1], *values[2]),
            (positions, inputs, outputs, biased, parameters), sums,
        )  # fmt: skip
    here.launch(_add_pieces_cuda, -(-parameters // 256), 256, sums, (pieces, parameters, start, int(fresh)), out)
