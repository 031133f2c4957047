"""A small shared decoder of random weights: what tests read and write without training one."""

from __future__ import annotations

import numpy as np

from tilestream.codecs.fields.latentcoder import LatentPrior
from tilestream.codecs.fields.shareddecoder import SharedDecoder, SharedShape

SHAPE = SharedShape(latents=3, hidden=8, width=8, features=4, head=8)


def made_decoder(seed: int = 0, shape: SharedShape = SHAPE) -> SharedDecoder:
    """Return a decoder that follows from a seed; latents of a few units move its pixels a lot."""
    chance = np.random.default_rng(seed)
    runs = []
    for layers in shape.layers:
        run = [
            chance.normal(0, 1 / np.sqrt(inputs), (outputs, inputs + 1)).reshape(-1)
            for inputs, outputs in zip(layers.widths, layers.widths[1:], strict=False)
        ]
        runs.append(np.concatenate(run).astype(np.float32))
    sides = (shape.latents, 5 * shape.latents)
    prior = LatentPrior(
        means=chance.integers(-60, 60, sides).astype(np.int16),
        spreads=chance.integers(0, 40, sides).astype(np.int16),
        least=np.full(shape.latents, 60, np.int16),
        models=(),
    )
    codes = [made_codes(chance, shape.latents, 16, 16) for _ in range(8)]
    return SharedDecoder.of((runs[0], runs[1], runs[2]), shape, lmbda=1e-4, prior=prior.with_models(codes))


def made_codes(chance: np.random.Generator, channels: int, height: int, width: int, *, scale: float = 1.5):
    """Return whole numbers `(channels, height, width)`, mostly small."""
    return np.rint(chance.laplace(0, scale, (channels, height, width))).clip(-31, 31).astype(np.int64)
