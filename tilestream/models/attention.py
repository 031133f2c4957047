"""Hierarchical attention maps: what the networks of a hierarchy look at, for each token of a region.

    a        attention of the class token to each token in the last block, by head
    P(a)     its percentile rank, 0 to 100, among the tokens of one tile, or of one region
    S_k, w_k sum of P and number of copies over a token; a copy is the region moved down and right by one shift
    map      (S_region + S_tile) / (w_region + w_tile)     for each pair of heads

Chen et al., CVPR 2022, https://arxiv.org/abs/2206.02647: tiles of 256 px are moved by 0 and 128 px, regions of 4,096 px
by 0, 128, 256 and 384 px. A moved copy sees the true pixels beyond the region, and what reaches beyond the image is
masked. (HIPT's own class takes the unmoved region four times.) All copies of a region's tiles lie on two lattices, half
a tile apart, so that each tile is run once. Where a copy does not reach, along the upper and left edge of a region, it
has no weight. Values are those of tokens, never between them: a token of 16 px is one pixel of the map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tilestream.models.vit import VisionTransformer

LATTICES = 2
"""Lattices of tiles, half a tile apart."""
REGION_SHIFTS = 4
"""Copies of a region, half a tile apart."""
REACH = (REGION_SHIFTS - 1) / LATTICES
"""How far the copies reach beyond a region, in tiles."""
RUN_TILES = 64
"""Tiles that enter a network together; fixed, since rounding may depend on it."""

Scale: TypeAlias = Callable[[Tensor], Tensor]
"""Makes of samples as they are stored what a network takes."""


@dataclass(frozen=True, kw_only=True)
class TileSums:
    """What the first network of a hierarchy says of one region and of what its copies reach beyond it."""

    total: Tensor
    """`(heads, y, x)` sum of percentiles over the copies, by token of the region."""
    weight: Tensor
    """`(y, x)` copies over a token."""
    vectors: tuple[Tensor, ...]
    """`(gh + 1, gw + 1, dim)` of each lattice, zeros where no tile counts; empty where no vectors are wanted."""


def percentiles(attention: Tensor, mask: Tensor | None = None, *, pixels: int = 1) -> Tensor:
    """Return the percentile rank of each value among those of its row.

    Parameters
    ----------
    attention : Tensor
        `(..., n)`.
    mask : Tensor, optional
        bool, of the same shape or one that broadcasts to it: values that count.
    pixels : int
        Pixels under a token: ranks are those of pixels, as all pixels of a token have its value.

    Returns
    -------
    Tensor
        float32, in 0 to 100; equal values share their mean rank. 0 where the mask is False; NaN in a row that holds a
        value that is not finite and counts.
    """
    counted = torch.ones_like(attention, dtype=torch.bool) if mask is None else mask.expand(attention.shape)
    values = attention.float().masked_fill(~counted, float("inf")).contiguous()  # ..., n
    ordered = values.sort(dim=-1).values  # ..., n
    below = torch.searchsorted(ordered, values, side="left")  # ..., n
    upto = torch.searchsorted(ordered, values, side="right")  # ..., n
    count = counted.sum(dim=-1, keepdim=True).clamp(min=1)  # ..., 1
    found = ((below + upto).float() / 2 + 1 / (2 * pixels)) * (100 / count)  # ..., n
    is_finite = (values.isfinite() | ~counted).all(dim=-1, keepdim=True)  # ..., 1
    return found.masked_fill(~counted, 0.0).masked_fill(~is_finite, float("nan"))


def tile_sums(
    network: nn.Module, window: Tensor, valid: Tensor, *, tile_px: int, scale: Scale, embeds: bool
) -> TileSums:
    """Return what the network of tiles says of a region.

    Parameters
    ----------
    network : Module
        `(n, c, px, px)` to vectors; its `forward_attention` to `(n, heads, t, t)`.
    window : Tensor
        `(c, y, x)` samples as they are stored, from the upper left corner of the region on.
    valid : Tensor
        bool `(LATTICES, gh + 1, gw + 1)`, on the host: tiles that count.
    tile_px : int
        Pixels along a tile.
    scale : callable
        Makes of samples `(n, c, px, px)` what the network takes.
    embeds : bool
        Whether vectors are wanted.

    Returns
    -------
    TileSums
        On the device of the window.
    """
    chosen = valid.nonzero()  # m, 3
    corners = (chosen[:, 1:] * tile_px + chosen[:, :1] * (tile_px // LATTICES)).tolist()  # m, 2
    found = []
    for first in range(0, len(corners), RUN_TILES):
        cut = [window[:, y : y + tile_px, x : x + tile_px] for y, x in corners[first : first + RUN_TILES]]
        found.append(_look(network, scale(torch.stack(cut)), embeds=embeds))
    vectors, attention = (torch.cat(parts) for parts in zip(*found, strict=True))  # m, dim; m, heads, t, t
    heads, t = attention.shape[1:3]
    ranks = percentiles(attention.flatten(2), pixels=(tile_px // t) ** 2).view_as(attention)  # m, heads, t, t
    place = valid.flatten().nonzero()[:, 0].to(window.device)  # m
    every = ranks.new_zeros((valid.numel(), heads, t, t)).index_copy(0, place, ranks)
    every = every.view(*valid.shape, heads, t, t)  # LATTICES, gh + 1, gw + 1, heads, t, t
    gh, gw = (edge - 1 for edge in valid.shape[1:])
    total, weight = ranks.new_zeros((heads, gh * t, gw * t)), ranks.new_zeros((gh * t, gw * t))
    for lattice in range(LATTICES):
        copy = every[lattice, :gh, :gw].permute(2, 0, 3, 1, 4).reshape(heads, gh * t, gw * t)
        counted = _by_token(valid[lattice, :gh, :gw], t).to(ranks)  # gh t, gw t
        _add(total, copy, lattice * t // LATTICES)
        _add(weight, counted, lattice * t // LATTICES)
    if not embeds:
        return TileSums(total=total, weight=weight, vectors=())
    known = vectors.new_zeros((valid.numel(), vectors.shape[1])).index_copy(0, place, vectors)
    return TileSums(total=total, weight=weight, vectors=tuple(known.view(*valid.shape, -1)))


def region_sums(
    network: nn.Module, vectors: tuple[Tensor, ...], valid: Tensor, *, tile_px: int, tokens: int
) -> tuple[Tensor, Tensor]:
    """Return what the network of regions says of one: the sum of percentiles over its copies, and how many there are.

    Parameters
    ----------
    network : Module
        Grids `(n, d, gh, gw)` and a mask to vectors; its `forward_attention` to `(n, heads, gh, gw)`.
    vectors : tuple of Tensor
        `(gh + 1, gw + 1, d)` of each lattice of tiles.
    valid : Tensor
        bool `(LATTICES, gh + 1, gw + 1)`, on the host: tiles that count.
    tile_px : int
        Pixels along a tile.
    tokens : int
        Tokens of the network of tiles along a tile: pixels of the map.

    Returns
    -------
    total : Tensor
        `(heads, gh * tokens, gw * tokens)`.
    weight : Tensor
        `(gh * tokens, gw * tokens)`.
    """
    gh, gw = (edge - 1 for edge in valid.shape[1:])
    total, weight = None, vectors[0].new_zeros((gh * tokens, gw * tokens))
    for shift in range(REGION_SHIFTS):
        start, lattice = divmod(shift, LATTICES)
        mask = valid[lattice, start : start + gh, start : start + gw]  # gh, gw
        if not mask.any():  # a copy that lies beyond the image
            continue
        grid = vectors[lattice][start : start + gh, start : start + gw].permute(2, 0, 1)[None]  # 1, d, gh, gw
        there = mask.to(grid.device)[None]  # 1, gh, gw
        attention = attention_of(network, grid.contiguous(), None if mask.all() else there)  # 1, heads, gh, gw
        ranks = percentiles(attention[0].flatten(1), there.flatten(1), pixels=tile_px**2)  # heads, gh gw
        copy = _by_token(ranks.view(-1, gh, gw), tokens)  # heads, gh tokens, gw tokens
        total = copy.new_zeros(copy.shape) if total is None else total
        _add(total, copy, shift * tokens // LATTICES)
        _add(weight, _by_token(mask, tokens).to(weight), shift * tokens // LATTICES)
    assert total is not None  # the unmoved copy of a region that is wanted is there
    return total, weight


def attention_of(network: nn.Module, *given: Tensor | None) -> Tensor:
    """Return what the class token of a network looks at, `(n, heads, y, x)`."""
    found: Tensor = network.forward_attention(*given)  # type: ignore[operator]  # torch says it may be a tensor
    return found


def factorised(tile: TileSums, region: tuple[Tensor, Tensor] | None) -> dict[str, Tensor]:
    """Return the maps of a region.

    Parameters
    ----------
    tile : TileSums
        Of the network of tiles.
    region : tuple of Tensor, optional
        Sum and number of copies of the network of regions, where there is one.

    Returns
    -------
    dict
        `mean` `(1, y, x)`, over all pairs of heads; `tile` `(heads, y, x)`; with a network of regions `region`
        `(heads, y, x)` and `pairs` `(region heads * tile heads, y, x)`, tile heads innermost. NaN where nothing counts.
    """
    found = {"tile": tile.total / tile.weight}
    if region is None:
        return {"mean": found["tile"].mean(dim=0, keepdim=True), **found}
    total, weight = region
    both = tile.weight + weight  # y, x
    found["region"] = total / weight
    found["pairs"] = ((total[:, None] + tile.total[None]) / both).flatten(0, 1)
    return {"mean": ((total.mean(dim=0) + tile.total.mean(dim=0)) / both)[None], **found}


def _look(network: nn.Module, x: Tensor, *, embeds: bool) -> tuple[Tensor, Tensor]:
    """Return vectors `(n, dim)` and attention `(n, heads, t, t)` of tiles; no vectors where none are wanted."""
    if embeds and isinstance(network, VisionTransformer):
        return network.forward_both(x)
    attention = attention_of(network, x)
    return network(x) if embeds else attention.new_zeros((len(x), 0)), attention


def _by_token(grid: Tensor, tokens: int) -> Tensor:
    """Return `(..., gh * tokens, gw * tokens)` of a grid `(..., gh, gw)`: each value on a square."""
    return grid.repeat_interleave(tokens, dim=-2).repeat_interleave(tokens, dim=-1)


def _add(total: Tensor, copy: Tensor, shift: int) -> None:
    """Add a copy that was moved by so many tokens; what it has beyond the region is its neighbours' own."""
    height, width = total.shape[-2:]
    total[..., shift:, shift:] += copy[..., : height - shift, : width - shift]
