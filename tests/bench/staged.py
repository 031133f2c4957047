"""Staged dropping: a transformer that keeps fewer tokens after each stage, by what its class token looks at.

    tokens  --stage 1-->  keep 50 %  --stage 2-->  keep 25 %  --stage 3-->  keep 12.5 %  --stage 4-->  vector

The principle of PyramidDrop (Xing et al., arXiv 2410.17247), which drops image tokens inside a language model by the
attention of the instruction; a vision transformer has no instruction, so the class token stands in. Shares are of the
tokens that came in. It saves work in the blocks, never a pixel: every token must be read and decoded before the first
block can look at it, so what is read is 100 % of the image whatever is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tilestream.models.vit import Block

KEEP = (0.5, 0.25, 0.125)
"""Shares of the tokens that are kept after each stage but the last, those of the paper."""
PIXELS_READ = 1.0
"""Share of the pixels under the tokens that must be decoded before any is dropped."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Staged:
    """What a pass with dropping gives."""

    first: Tensor
    """`(n, dim)` class token after the last block, before any norm."""
    order: Tensor
    """`(n, t)` int64: all tokens that came in, best first; those kept longest, and among them those looked at most."""
    counts: tuple[int, ...]
    """Tokens that each stage works on, the class token not counted."""
    token_blocks: float
    """Tokens times blocks that were done, as a share of what a pass without dropping does."""


def stages_of(depth: int, stages: int) -> list[int]:
    """Return how many blocks each stage has: as equal as can be, the first ones longer."""
    if not 0 < stages <= depth:
        raise ValueError(f"{stages} stages of {depth} blocks: each needs one at least")
    return [depth // stages + (stage < depth % stages) for stage in range(stages)]


def staged(blocks: Sequence[nn.Module], tokens: Tensor, keep: Sequence[float] = KEEP) -> Staged:
    """Return the class token and the order of the tokens after all blocks, dropping on the way.

    Parameters
    ----------
    blocks : sequence of Block
        Of a `VisionTransformer`, in order: `network.blocks`.
    tokens : Tensor
        `(n, 1 + t, dim)`: class token first, positions added.
    keep : sequence of float
        Falling shares of `t` that are kept after each stage but the last; at least one token is.

    Returns
    -------
    Staged
        Gradients flow through the tokens that are kept; the choice itself has none.
    """
    n, t = len(tokens), tokens.shape[1] - 1
    if list(keep) != sorted(keep, reverse=True) or not all(0 < share <= 1 for share in keep):
        raise ValueError(f"`keep` is {tuple(keep)}, expected falling shares in (0, 1]")
    rest = iter(blocks)
    left = torch.arange(t, device=tokens.device).expand(n, t)
    dropped: list[Tensor] = []
    counts, work = [], 0
    for stage, depth in enumerate(stages_of(len(blocks), len(keep) + 1)):
        counts.append(left.shape[1])
        work += depth * left.shape[1]
        for done in range(depth):
            block = next(rest)
            assert isinstance(block, Block)
            if done == depth - 1:  # what the last block of a stage looks at decides
                looked = attention_of_first(block, tokens)
            tokens = block(tokens)
        wanted = max(1, round(t * keep[stage])) if stage < len(keep) else left.shape[1]
        ranked = looked.argsort(dim=1, descending=True, stable=True)
        dropped.append(left.gather(1, ranked[:, wanted:]))
        left, tokens = _kept(left, tokens, ranked[:, :wanted])
    return Staged(
        first=tokens[:, 0],
        order=torch.cat([left, *reversed(dropped)], dim=1),
        counts=tuple(counts),
        token_blocks=work / (t * len(blocks)),
    )


def attention_of_first(block: Block, tokens: Tensor) -> Tensor:
    """Return `(n, t)`: what the class token looks at in a block, the mean of its heads, itself left out."""
    with torch.no_grad():
        return block.attn.weights_first(block.norm1(tokens)).mean(dim=1)[:, 1:]


def _kept(left: Tensor, tokens: Tensor, ranked: Tensor) -> tuple[Tensor, Tensor]:
    index = ranked[:, :, None].expand(-1, -1, tokens.shape[2])
    return left.gather(1, ranked), torch.cat([tokens[:, :1], tokens[:, 1:].gather(1, index)], dim=1)
