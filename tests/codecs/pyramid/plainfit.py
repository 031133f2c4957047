"""Rounding to steps as a fit of the pyramid codec: one grid, no network to speak of, better and larger by a lower λ."""

from __future__ import annotations

import numpy as np

from tilestream.codecs.pyramid.encoding import TileEncoding
from tilestream.codecs.pyramid.file import PyramidFile
from tilestream.codecs.pyramid.nets import PIXEL_MOST, Layer, PyramidNets, SynthNet

SHIFT = 4


def layer(weights: list[list[int]], bias: list[int], shift: int = SHIFT) -> Layer:
    return Layer(weights=np.array(weights, np.int16), bias=np.array(bias, np.int32), shift=shift)


def plain_nets(step_16ths: int) -> PyramidNets:
    """Return networks of one grid and channel, whose pixels are so many 16ths of a grey level apart."""
    index = int(np.clip(30 + 6 * np.log2(560 / step_16ths), 0, 63))
    context = (layer([[0] * 9], [0]), layer([[0]], [0]), layer([[0], [0]], [0, index << 4 + SHIFT]))
    middle = PIXEL_MOST // 2 << SHIFT
    synth = SynthNet(first=layer([[0]], [0]), second=layer([[0, step_16ths]], [middle]))
    filters = np.zeros((0, 4), np.int16)
    return PyramidNets(filters=filters, synth=(synth,), context=(context,), table=np.zeros((1, 3), np.int8)).check()


def plain_file(task: TileEncoding, lmbda: float, start: PyramidNets | None = None) -> PyramidFile:
    """Stands in for `TileEncoding.file`: the best step of a rate by the rule of fine quantising, D = step² / 12."""
    del start
    step = max(1, round(16 * 255 * np.sqrt(12 * lmbda)))
    unit = task.levels.picture.to_unit(np.nan_to_num(task.levels.pixels[0]))[0]
    grid = np.clip(np.round((unit - 0.5) * 255 * 16 / step), -255, 255).astype(np.int16)
    return PyramidFile.of(task.levels.picture, plain_nets(step), [grid])
