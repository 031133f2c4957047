"""A small file of the pyramid codec, made without torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.codecs.pyramid.coarser import coarser
from tests.codecs.pyramid.made import made_grids, made_nets
from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.pyramid.file import PyramidFile
from tilestream.codecs.pyramid.pyramidtile import PyramidTile
from tilestream.codecs.pyramid.residual import encode_residual
from tilestream.types import Shape


def encoded_pyramid(*, bounded: bool) -> bytes:
    """A tile of grids by chance, made without torch."""
    nets = coarser(made_nets(2, scales=3, levels=2, hidden=4, width=4), zeros=7)
    shape = Shape(y=12, x=9)
    picture = Picture(shape=shape, channels=3, dtype="uint8", low=(0,) * 3, high=(255,) * 3, levels=2)
    file = PyramidFile.of(picture, nets, made_grids(shape, 3))
    if bounded:
        base = PyramidTile(file).decode()
        pixels = np.clip(base + np.random.default_rng(1).normal(0, 4, base.shape), 0, 255).astype(np.uint8)
        file = replace(file, residual=encode_residual(pixels, base, 1))
    return file.to_bytes()
