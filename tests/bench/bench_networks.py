"""Networks beside plain ones of their size, in one run: images or regions a second, without the engine."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from tests.bench.table import at_least, make_row, rates
from tests.torchvisions import stand_in
from tilestream.models.fpnvit import FPNTransformer
from tilestream.models.hipt import vit256
from tilestream.models.mvit import mvitv2_tiny
from tilestream.models.regionstages import vit, windowed
from tilestream.models.weights import random_weights

TIMM_BAR = 0.9
"""MViTv2-T beside timm's."""
WINDOW_BAR = 2.0
"""Windows of 4 x 4 beside attention over all of a grid."""


def ready(network: Any) -> Any:
    """Return a network with weights, as it is used frozen."""
    random_weights(network, seed=0)
    return network.eval().requires_grad_(False)


def pace(networks: list[Any], x: torch.Tensor, rounds: int) -> list[float]:
    """Return how many images or grids a second each network describes."""

    def working(network: Any) -> Any:
        def contestant() -> float:
            with torch.inference_mode():
                network(x)
            return float(len(x))

        return contestant

    return rates([working(network) for network in networks], rounds=rounds)


def noise(*shape: int) -> torch.Tensor:
    """Return the same noise each time."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def timm_mvit() -> Any:
    """Return timm's network of the same definition; None where timm is not installed."""
    if find_spec("timm") is None:
        return None
    stand_in()  # timm imports torchvision, which it does not need here
    import timm

    return timm.create_model("mvitv2_tiny", pretrained=False, num_classes=0)


def mvit_row(images: int = 4, *, rounds: int = 5, bar: float = TIMM_BAR) -> dict[str, Any]:
    """Return MViTv2-T beside timm's with the same weights."""
    x, ours, theirs = noise(images, 3, 224, 224), ready(mvitv2_tiny()), timm_mvit()
    note = f"{images} images of 224 px, float32, {torch.get_num_threads()} threads"
    if theirs is None:
        (mine,) = pace([ours], x, rounds)
        return make_row("MViTv2-T", mine, "images/s", note=f"{note}; timm is not installed")
    theirs.load_state_dict(ours.state_dict())
    theirs.eval().requires_grad_(False)
    mine, other = pace([ours, theirs], x, rounds)
    with torch.inference_mode():
        error = float((ours(x) - theirs(x)).abs().max())
    note += f"; same weights, largest difference {error:.1g}"
    return make_row("MViTv2-T", mine, "images/s", rival=("timm", other), bar=at_least(bar), note=note)


def fpn_row(images: int = 4, *, rounds: int = 5) -> dict[str, Any]:
    """Return the transformer over three pyramid levels beside ViT-S/16, which has the same blocks."""
    mine, plain = pace([ready(FPNTransformer()), ready(vit256())], noise(images, 3, 256, 256), rounds)
    note = f"{images} tiles of 256 px, float32; 4/3 of the tokens, in windows"
    return make_row("FPN transformer, 3 levels", mine, "tiles/s", rival=("ViT-S/16", plain), note=note)


def windowed_row(cells: int = 64, *, rounds: int = 5, bar: float = WINDOW_BAR) -> dict[str, Any]:
    """Return windows beside attention over the whole grid."""
    mine, plain = pace([ready(windowed(384)), ready(vit(384, random_weights=0))], noise(1, 384, cells, cells), rounds)
    rival, note = ("attention over all", plain), "6 blocks of 192 values, float32"
    name = f"windowed attention, region of {cells} x {cells} tiles"
    return make_row(name, mine, "regions/s", rival=rival, bar=at_least(bar), note=note)


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    return [mvit_row(), fpn_row(), windowed_row()]
