"""Staged dropping by attention beside a plan of as many tokens: what each saves, and what each must decode."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import tilestream as ts
from tests.bench.staged import Staged, staged
from tests.bench.table import make_row, rates
from tilestream.metrics import collect
from tilestream.models.vit import Block
from tilestream.models.weights import random_weights
from tilestream.plan.tokens import plan_tokens
from tilestream.pyramid import Pyramid
from tilestream.pyramid.keeping import DECODED
from tilestream.relevance import Relevance
from tilestream.stream.tokenbatch import read_tokens
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

EDGE_PX, PATCH_PX = 1024, 32
"""Of the slide, and of its tokens at level 0: 1,024 of them."""
DIM, DEPTH, HEADS = 192, 8, 3
LEVELS = (0, 2, 4)
"""Those that the slide stores, and one more."""


def network() -> torch.nn.ModuleList:
    """Return eight blocks of a transformer, with weights of a seed."""
    blocks = torch.nn.ModuleList([Block(DIM, HEADS, mlp_ratio=4.0, eps=1e-6) for _ in range(DEPTH)])
    random_weights(blocks, seed=3)
    return blocks.eval().requires_grad_(False)


def tokens_of(
    pyr: Pyramid, budget: int, levels: tuple[int, ...], relevance: Relevance | None
) -> tuple[torch.Tensor, int]:
    """Return the tokens of a plan `(1, 1 + n, dim)`, a class token first, and how many pixels were decoded for them."""
    plan = plan_tokens(pyr, budget=budget, patch_px=PATCH_PX, levels=levels, relevance=relevance)
    with collect() as meter:
        batch = read_tokens(pyr, plan)
    pixels = torch.from_numpy(batch.pixels).flatten(1)  # n, c p p
    embed = torch.nn.Linear(pixels.shape[1], DIM).requires_grad_(False)
    torch.nn.init.trunc_normal_(embed.weight, std=0.02, generator=torch.Generator().manual_seed(4))
    tokens = torch.cat([torch.zeros(1, 1, DIM), embed(pixels)[None]], dim=1)
    return tokens, sum(amount for name, amount in meter.counts.items() if name.startswith(DECODED))


@dataclass(frozen=True, kw_only=True, eq=False)
class Both:
    """Tokens of the whole slide, and of a plan of as many as staged dropping has on average."""

    every: torch.Tensor
    """`(1, 1 + n, dim)`."""
    fewer: torch.Tensor
    """`(1, 1 + m, dim)`."""
    dropped: Staged
    """What dropping makes of all of them."""
    decoded: tuple[int, int]
    """Pixels decoded for each."""


def read_both(folder: Path) -> Both:
    """Return the tokens of a slide made by code, read in both ways with nothing cached."""
    path = write_slide(folder / "slide.svs", Shape(y=EDGE_PX, x=EDGE_PX), tile_px=64)
    pyr = replace(ts.open_pyramid(path), cache_bytes=0)
    full = (EDGE_PX // PATCH_PX) ** 2
    every, decoded = tokens_of(pyr, full, (0,), None)
    with torch.inference_mode():
        dropped = staged(network(), every)
    budget = round(dropped.token_blocks * full)
    fewer, decoded_fewer = tokens_of(pyr, budget, LEVELS, Relevance.of("entropy"))
    return Both(every=every, fewer=fewer, dropped=dropped, decoded=(decoded, decoded_fewer))


def decoded_row(both: Both) -> dict[str, Any]:
    """Return what is decoded of the slide."""
    ours, planned = (100 * pixels / EDGE_PX**2 for pixels in both.decoded)
    return make_row(
        "pixels decoded for staged dropping by attention", ours, "% of level 0",
        rival=("a plan of as many tokens as it has on average", planned),
        note=f"{both.every.shape[1] - 1} tokens of {PATCH_PX} px, {DEPTH} blocks of {DIM} values; tokens by stage "
        f"{both.dropped.counts}, {100 * both.dropped.token_blocks:.0f} % of the tokens times blocks; the plan has "
        f"{both.fewer.shape[1] - 1} tokens of levels {LEVELS}, by entropy",
    )  # fmt: skip


def pace_row(both: Both, *, rounds: int = 3) -> dict[str, Any]:
    """Return the rate of the blocks alone."""
    blocks = network()

    def plain(tokens: torch.Tensor) -> float:
        for block in blocks:
            tokens = block(tokens)
        return 1.0

    with torch.inference_mode():
        dropping, planned, whole = rates(
            [
                lambda: float(len(staged(blocks, both.every).first)),
                lambda: plain(both.fewer),
                lambda: plain(both.every),
            ],
            rounds=rounds,
        )
    return make_row(
        "blocks with staged dropping by attention", dropping, "images/s", rival=("without dropping", whole),
        note=f"the plan of as many tokens: {planned:.3g} images/s",
    )  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with TemporaryDirectory() as folder:
        both = read_both(Path(folder))
    return [decoded_row(both), pace_row(both)]
