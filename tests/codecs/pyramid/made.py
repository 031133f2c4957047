"""Networks and grids by chance, for tests of what decodes them."""

from __future__ import annotations

import numpy as np

from tilestream.codecs.pyramid.nets import NEIGHBOURS, PASSES, Layer, PyramidNets, SynthNet, grid_shapes
from tilestream.types import Array, Shape


def made_layer(rng: np.random.Generator, outputs: int, inputs: int, *, shift: int = 10, spread: float = 0.5) -> Layer:
    """Return a layer whose weights are about `spread` / √inputs, less where its sums might not fit into 32 bits."""
    weights = np.clip(np.round(rng.normal(0, spread / np.sqrt(inputs), (outputs, inputs)) * 2**shift), -32768, 32767)
    most = np.maximum(np.abs(weights).sum(axis=1, keepdims=True) / 60_000, 1)
    return Layer(
        weights=np.trunc(weights / most).astype(np.int16),
        bias=np.round(rng.normal(0, 200, outputs) * 2**shift).astype(np.int32),
        shift=shift,
    )


def made_nets(
    seed: int = 0,
    *,
    scales: int = 4,
    channels: int = 3,
    hidden: int = 8,
    width: int = 8,
    levels: int = 2,
    convs: int = 2,
) -> PyramidNets:
    """Return networks by chance that fit together."""
    rng = np.random.default_rng(seed)
    synth = tuple(
        SynthNet(
            first=made_layer(rng, hidden, scales - level, spread=20),
            second=made_layer(rng, channels, hidden + scales - level, spread=2),
            convs=tuple(made_layer(rng, channels, channels * 9, spread=0.3) for _ in range(convs)),
        )
        for level in range(levels)
    )
    count = min(3, scales * PASSES)
    context = tuple(
        (made_layer(rng, width, NEIGHBOURS), made_layer(rng, width, width), made_layer(rng, 2, width, spread=2))
        for _ in range(count)
    )
    return PyramidNets(
        filters=(np.array([-40, 790, 290, -16]) + rng.integers(-30, 31, (scales - 1, 4))).astype(np.int16),
        synth=synth,
        context=context,
        table=rng.integers(0, count, (scales, PASSES)).astype(np.int8),
    ).check()


def made_grids(shape: Shape, scales: int, seed: int = 0, *, spread: float = 3.0) -> tuple[Array, ...]:
    """Return grids by chance, finest first."""
    rng = np.random.default_rng(seed)
    return tuple(
        np.clip(np.round(rng.laplace(0, spread, one.yx)), -255, 255).astype(np.int16)
        for one in grid_shapes(shape, scales)
    )
