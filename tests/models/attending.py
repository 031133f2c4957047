"""Tiny hierarchical encoders for tests of attention, where workers can import them."""

from __future__ import annotations

import torch

from tilestream.models.vit import GridEmbed, PatchEmbed, VisionTransformer
from tilestream.models.weights import random_weights

TILE_PX = 16
TOKENS = 4
"""Along a tile."""
TILE_HEADS, REGION_HEADS = 2, 3
CONTRACT = {"px": TILE_PX, "channels": 3, "scale": 1 / 255, "mean": [0.5], "std": [0.5]}


def tile_network():
    embed = PatchEmbed(patch_px=TILE_PX // TOKENS, channels=3, dim=24)
    network = VisionTransformer(embed, dim=24, depth=2, heads=TILE_HEADS, grid_yx=(4, 4))
    random_weights(network, seed=1)
    return network.eval()


def pair():
    """Networks of tiles of 16 px and of regions."""
    region = VisionTransformer(GridEmbed(channels=24, dim=12), dim=12, depth=2, heads=REGION_HEADS, grid_yx=(4, 4))
    random_weights(region, seed=2)
    return tile_network(), region.eval()


pair.contract = CONTRACT


def measured():
    """`pair`, for images of known resolution."""
    return pair()


measured.contract = {**CONTRACT, "mpp": 0.5}


def tiles_only():
    network = tile_network()
    network.contract = CONTRACT
    return network


def without_attention():
    return torch.nn.Flatten()


without_attention.contract = CONTRACT
