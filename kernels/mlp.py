"""A small multilayer perceptron in one pass: the network behind a hash grid, with nothing between its layers stored.

Formula and order of weights: `tilestream.kernels.mlp_layers`; gradients: `tilestream.kernels.mlp_gradient`. Sums are
those of a dot product in the type of the inputs, one multiply-add after the other in the order of the inputs; biases
come first. Sines: `tilestream.kernels.sine`. Weights of float16 are widened and computed with in float32. Tolerance of
the tests: 1e-5 of the sum of absolute terms in float32, 1e-13 in float64; rows of a result do not depend on which other
rows there are.

Source: the network of Müller et al., "Real-time neural radiance caching", ACM TOG 40(4), 2021,
doi:10.1145/3450626.3459812, as in NVlabs/tiny-cuda-nn; the CUDA side: `tilestream.kernels.mlp_cuda`.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np

from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need, need_kind
from tilestream.kernels.language import CudaKernel, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.mlp_cuda import (
    ALIGNED,
    LAYOUT,
    STRIP,
    fused_width,
    layout_on_device,
    threads_of,
    through_layers,
)
from tilestream.kernels.mlp_layers import MlpLayers, forward_block, pad
from tilestream.kernels.mlp_layerwise import forward_layerwise
from tilestream.kernels.place import Array, Place, dtype_of, empty_like, place
from tilestream.kernels.product_tile import COLUMNS
from tilestream.kernels.rows import flat_samples, flat_view

BLOCK_POSITIONS = 128
"""That the CPU takes through all layers at once: 64 features of them are 32 kB, about a first cache."""


@cpu_kernel
def _mlp_cpu(inputs: Any, weights: Any, layout: Any, widths: Any, band: Any, out: Any) -> None:
    flat, start, steps = inputs
    target, target_start, target_steps = out
    taken, given, widest = widths
    blocks = np.zeros((2, widest, BLOCK_POSITIONS), flat.dtype)
    for first in range(band[0], band[1], BLOCK_POSITIONS):
        n = min(BLOCK_POSITIONS, band[1] - first)
        for j in range(taken):
            for p in range(n):
                blocks[0, j, p] = flat[start + (first + p) * steps[0] + j * steps[1]]
        blocks[0, taken : layout[0, 0]] = 0  # what the block before left there may not be finite
        found = blocks[forward_block(weights, layout, blocks, n + -n % COLUMNS)]
        for p in range(n):
            for i in range(given):
                target[target_start + (first + p) * target_steps[0] + i * target_steps[1]] = found[i, p]


FUSED_SIGNATURE = (
    "void(float32[::1], int64, UniTuple(int64, 2), float32[::1], int64[::1], UniTuple(int64, 2), float32[::1], "
    "int64, UniTuple(int64, 2))"
)


@functools.cache
def mlp_kernel(width: int) -> CudaKernel:
    """Return the fused CUDA kernel for layers of up to `width`."""
    threads = threads_of(width)
    held_size, strip_size = width * threads, STRIP * width

    def fused(
        inputs: Any, start: Any, steps: Any, weights: Any, layout: Any, shape: Any, out: Any, to: Any, to_steps: Any
    ) -> None:
        """Take one position a thread through all layers."""
        held = cuda.shared.array(held_size, np.float32)
        strip = cuda.shared.array(strip_size, np.float32, alignment=ALIGNED)
        sums = cuda.local.array(width, np.float32)
        positions, layers = shape
        me = cuda.threadIdx.x
        p = cuda.blockIdx.x * threads + me
        if p < positions:
            for j in range(layout[0]):
                held[j * threads + me] = inputs[start + p * steps[0] + j * steps[1]]
        through_layers(weights, layout, layers, p < positions, width, threads, held, strip, sums)
        if p < positions:
            given = layout[(layers - 1) * LAYOUT + 1]
            for i in range(width):
                if i < given:
                    out[to + p * to_steps[0] + i * to_steps[1]] = sums[i]

    fused.__qualname__ = f"mlp_{width}"  # by which compiled kernels are told apart
    return cuda_kernel(FUSED_SIGNATURE)(fused)


mlp_kernel(16)  # known to the tests from now on; all are compiled when they are launched


def mlp(
    inputs: Array,
    weights: Array,
    *,
    layers: MlpLayers,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return what a perceptron gives for each row of inputs.

    Parameters
    ----------
    inputs : array of float32 or float64
        `(n, layers.widths[0])`, any strides.
    weights : array of the type of the inputs, or of float16 with inputs of float32
        `(layers.parameters,)`, contiguous; in the order of `tilestream.kernels.mlp_layers`.
    layers : MlpLayers
        Sizes.
    out : array of the type of the inputs, optional
        `(n, layers.widths[-1])`, any strides; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array
        `(n, layers.widths[-1])`: `out`, or a new array of the kind of the inputs.

    Raises
    ------
    ConfigError
        When types or shapes do not fit the layers, or the arrays are not in one place.
    """
    here = place("mlp", backend=backend, stream=stream, threads=threads, inputs=inputs, weights=weights, out=out)
    check_network("mlp", layers, inputs, weights)
    n, dtype = int(inputs.shape[0]), dtype_of(inputs)
    need("mlp", "out", out, dtypes=(dtype.name,), shape=(n, layers.widths[-1]), empty=True)
    found = empty_like(inputs, (n, layers.widths[-1]), dtype) if out is None else out
    if n and here.backend == "cuda":
        _on_device(here, inputs, weights, layers, found)
    elif n:
        _on_host(here, inputs, weights, layers, found)
    return found


def check_network(operation: str, layers: MlpLayers, inputs: Array, weights: Array) -> None:
    """Raise unless inputs and weights fit the layers."""
    need_kind(operation, "layers", layers, MlpLayers, do="Make them of their widths.")
    need(operation, "inputs", inputs, dtypes=("float32", "float64"), ndim=2, empty=True)
    n, dtype = int(inputs.shape[0]), dtype_of(inputs).name
    need(operation, "inputs", inputs, dtypes=(dtype,), shape=(n, layers.widths[0]), empty=True)
    allowed = (dtype, "float16") if dtype == "float32" else (dtype,)
    need(operation, "weights", weights, dtypes=allowed, shape=(layers.parameters,), contiguous=True)


def _on_host(here: Place, inputs: Array, weights: Array, layers: MlpLayers, out: Array) -> None:
    padded = pad(weights, layers, inputs.dtype.newbyteorder("="))
    source, run = flat_view(inputs), flat_view(out, writable=True)
    widths = (layers.widths[0], layers.widths[-1], layers.widest)
    over_bands(
        lambda start, stop: _mlp_cpu(source, padded, layers.padded, widths, (start, stop), run),
        inputs.shape[0], threads=here.threads, least=1024, align=BLOCK_POSITIONS,
    )  # fmt: skip


def _on_device(here: Place, inputs: Array, weights: Array, layers: MlpLayers, out: Array) -> None:
    width = fused_width(layers)
    if width is None or dtype_of(inputs) != np.float32:  # float64 would need twice the shared memory
        forward_layerwise(here, inputs, weights, layers, out)
        return
    n, threads = int(inputs.shape[0]), threads_of(width)
    flat = flat_samples(weights)
    here.launch(
        mlp_kernel(width), -(-n // threads), threads, *flat_view(inputs), flat,
        layout_on_device(layers, here.device, os.getpid()), (n, len(layers.widths) - 1), *flat_view(out, writable=True),
    )  # fmt: skip
