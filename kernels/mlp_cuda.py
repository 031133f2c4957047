"""The fused perceptron on CUDA: a thread takes one position through all layers, nothing goes through global memory.

What a layer takes stands in shared memory, features × threads; what it gives in registers. The weights come through
shared memory in strips of `STRIP` inputs, read by all threads of a block at once, which costs one wavefront. Plain
float32 multiply-adds: the floor of 32-64-64-3 on an H200 is 199 µs for 2^20 positions, 15 µs on its tensor cores. These
need inline PTX, which neither the simulator nor numba-cuda's successor has in this form; they are left for a
follow-up that can measure them. Wider nets than `WIDTHS` go layer by layer (`tilestream.kernels.mlp_layerwise`).
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

from tilestream.kernels.language import SIMULATED, cuda, device
from tilestream.kernels.mlp_layers import SINE, ZERO, MlpLayers, add_core, relu_core
from tilestream.kernels.sine import sine_core

WIDTHS = (16, 32, 64, 128)
"""Registers that kernels set aside for the outputs of a layer; a net takes the smallest that fits."""
LAYOUT = 5
"""Numbers of a layer in `MlpLayers.layout`, which is a run here."""
STRIP = 16
ALIGNED = None if SIMULATED else 16
"""Bytes: four neighbouring weights are one load then; the simulator knows no alignment."""
NARROW = 8
"""Outputs of a layer, usually the last, that is not worth all registers."""


def threads_of(width: int) -> int:
    """Return the threads of a block, whose activations fill 32 kB of shared memory at most."""
    return 128 if width <= 64 else 64


def fused_width(layers: MlpLayers) -> int | None:
    """Return which of `WIDTHS` a net takes, None when it is wider than all."""
    return next((width for width in WIDTHS if width >= max(layers.widths)), None)


@functools.lru_cache(maxsize=64)
def layout_on_device(layers: MlpLayers, device: int, process: int) -> Any:
    """Return `MlpLayers.layout` as a run on a device, kept for the next call of the process."""
    with contextlib.nullcontext() if SIMULATED else cuda.gpus[device]:
        run = cuda.to_device(layers.layout.ravel())
        # to_device may return before the copy has arrived, and other streams do not wait for the default one
        cuda.default_stream().synchronize()
    return run


@device
def load_strip(
    weights: Any, start: Any, inputs: Any, outputs: Any, first: Any, width: Any, threads: Any, strip: Any
) -> None:
    """Copy the weights of `STRIP` inputs from number `first` on to shared memory, inputs × width, zeros around."""
    for k in range(cuda.threadIdx.x, STRIP * width, threads):
        j, i = first + k // width, k % width
        strip[k] = weights[start + i * inputs + j] if i < outputs and j < inputs else ZERO


@device
def hold_activated(sums: Any, ending: Any, width: Any, threads: Any, held: Any) -> None:
    """Write sums to a column of `held`, through `RELU` or `SINE`."""
    me = cuda.threadIdx.x
    if ending == SINE:
        for i in range(width):
            held[i * threads + me] = sine_core(sums[i])
    else:
        for i in range(width):
            held[i * threads + me] = relu_core(sums[i])


@device
def through_layers(
    weights: Any, layout: Any, layers: Any, inside: Any, width: Any, threads: Any, held: Any, strip: Any, sums: Any
) -> None:
    """Take the inputs in column `threadIdx.x` of `held` through all layers; the outputs come to `sums`.

    `held` is `width × threads` and `strip` `STRIP × width` in shared memory, `sums` `width` in registers. All threads
    of a block must come here.
    """
    me = cuda.threadIdx.x
    for layer in range(layers):
        inputs, outputs = layout[layer * LAYOUT], layout[layer * LAYOUT + 1]
        start, bias = layout[layer * LAYOUT + 2], layout[layer * LAYOUT + 3]
        for i in range(width):
            sums[i] = weights[bias + i] if bias >= 0 and i < outputs else ZERO
        for first in range(0, inputs, STRIP):
            cuda.syncthreads()  # the strip before this one is used up
            load_strip(weights, start, inputs, outputs, first, width, threads, strip)
            cuda.syncthreads()
            for j in range(min(STRIP, inputs - first) if inside else 0):
                value = held[(first + j) * threads + me]
                if outputs <= NARROW:
                    for i in range(NARROW):
                        sums[i] = add_core(strip[j * width + i], value, sums[i])
                else:
                    for i in range(width):
                        sums[i] = add_core(strip[j * width + i], value, sums[i])
        if layer < layers - 1:
            hold_activated(sums, layout[layer * LAYOUT + 4], width, threads, held)
