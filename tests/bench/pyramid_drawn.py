"""A tile of the pyramid codec drawn from its own model: as many models in use as in a fitted one, at a known rate."""

from __future__ import annotations

import numpy as np
import torch

from tests.codecs.pyramid.made import made_layer
from tilestream.codecs.pyramid.latents import Grid, encode_grids
from tilestream.codecs.pyramid.nets import NEIGHBOURS, PASSES, Layer, PyramidNets, SynthNet, grid_shapes
from tilestream.codecs.pyramid.sectioncoder import table_numbers
from tilestream.codecs.pyramid.tables import LOW, table_weights
from tilestream.codecs.pyramid.torchdecode import to_tensors, torch_context
from tilestream.types import Shape

SCALES, HIDDEN, CONVS, CHANNELS = 7, 16, 2, 3
"""As the codec's by default."""
_SCALE_INDEX = 14
"""Mean of the scales: with what surrounds it, about one bit a pixel."""
_WHOLE_BITS, _OFFSETS = 4, 16


def drawn_nets(seed: int = 0) -> PyramidNets:
    """Return networks by chance of the default sizes; their context foretells scales around a chosen one."""
    rng = np.random.default_rng(seed)
    synth = SynthNet(
        first=made_layer(rng, HIDDEN, SCALES, spread=2),
        second=made_layer(rng, CHANNELS, HIDDEN + SCALES, spread=2),
        convs=tuple(made_layer(rng, CHANNELS, CHANNELS * 9, spread=0.3) for _ in range(CONVS)),
    )
    context = []
    for _ in range(PASSES):
        last = made_layer(rng, 2, HIDDEN, spread=0.6)
        last = Layer(
            weights=last.weights, bias=np.array([0, _SCALE_INDEX << 4 + last.shift], np.int32), shift=last.shift
        )
        context.append((made_layer(rng, HIDDEN, NEIGHBOURS, spread=1), made_layer(rng, HIDDEN, HIDDEN, spread=1), last))
    return PyramidNets(
        filters=np.tile(np.array([-40, 790, 290, -16], np.int16), (SCALES - 1, 1)),
        synth=(synth,),
        context=tuple(context),
        table=np.tile(np.arange(PASSES, dtype=np.int8), (SCALES, 1)),
    ).check()


def drawn_grids(nets: PyramidNets, shape: Shape, seed: int = 1) -> tuple[Grid, ...]:
    """Return grids that follow the model of their networks."""
    rng = np.random.default_rng(seed)
    grids = [np.zeros(size.yx, np.int16) for size in grid_shapes(shape, nets.scales)]
    for number in reversed(range(nets.scales)):
        for turn in range(PASSES):
            net = nets.context[nets.table[number, turn]]
            middle, index = (part.numpy() for part in torch_context(to_tensors(grids), number, turn, net))
            symbols = _draw(rng, table_numbers(middle, index))
            y, x = (np.arange(size) % 2 for size in grids[number].shape)
            chosen = y[:, None] != x if turn == PASSES - 1 else (y[:, None] == turn) & (x == turn)
            grids[number][chosen] = np.clip((middle >> _WHOLE_BITS) + symbols, -255, 255)
    return tuple(grids)


def _draw(rng: np.random.Generator, tables: np.ndarray) -> np.ndarray:
    """Return a number of each model."""
    found = np.empty(len(tables), np.int16)
    for table in np.unique(tables):
        places = np.flatnonzero(tables == table)
        scale, offset = divmod(int(table), _OFFSETS)
        below = np.cumsum(table_weights(scale)[offset])
        found[places] = LOW + np.searchsorted(below, rng.integers(0, below[-1], len(places)), side="right")
    return found


def drawn_tile(edge_px: int) -> tuple[PyramidNets, list[bytes], tuple[Grid, ...]]:
    """Return networks, sections and grids of a tile."""
    nets = drawn_nets()
    with torch.inference_mode():
        grids = drawn_grids(nets, Shape(y=edge_px, x=edge_px))
    sections, grids = encode_grids(grids, nets)
    return nets, sections, grids
