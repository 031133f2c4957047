"""Mixed-resolution attention against attention over every token, in one run: how long, and how far off.

The tokens are those of an image that is smooth but for a few places: keys inside a block are alike (a shared part and
a tenth of it their own), and the queries look for four of the blocks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from tests.bench.table import make_row, rates
from tilestream.ops.attend import attend

TOKENS = 4096
BLOCKS = 64
HEADS, WIDTH = 6, 64
SOUGHT = 4
"""Blocks that the queries look for."""
OWN = 0.1
"""Part of a key that differs from the rest of its block."""


def tokens() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return queries, keys and values `(1, heads, tokens, width)`."""
    dice = torch.Generator().manual_seed(1)
    shared = torch.randn(1, HEADS, BLOCKS, 1, WIDTH, generator=dice)
    own = torch.randn(1, HEADS, BLOCKS, TOKENS // BLOCKS, WIDTH, generator=dice)
    target = shared[:, :, torch.randint(SOUGHT, (TOKENS,), generator=dice), 0]
    q = 0.5 * target + torch.randn(1, HEADS, TOKENS, WIDTH, generator=dice)
    v = torch.randn(1, HEADS, TOKENS, WIDTH, generator=dice)
    return q, (shared + OWN * own).flatten(2, 3), v


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    q, k, v = tokens()
    counts = [TOKENS // BLOCKS] * BLOCKS
    found = []
    with torch.inference_mode():
        exact = scaled_dot_product_attention(q, k, v)
        for top_k in (0, SOUGHT, 4 * SOUGHT):

            def ours(top_k: int = top_k) -> float:
                attend(q, k, v, top_k=top_k, block_counts=counts)
                return 1.0

            def full() -> float:
                scaled_dot_product_attention(q, k, v)
                return 1.0

            mine, theirs = rates([ours, full], rounds=5)
            off = attend(q, k, v, top_k=top_k, block_counts=counts) - exact
            error = float(off.norm() / exact.norm())
            found.append(
                make_row(
                    f"attend, {TOKENS} tokens, {top_k} of {BLOCKS} blocks open",
                    mine,
                    "calls/s",
                    rival=("scaled_dot_product_attention over all", theirs),
                    note=f"{HEADS} heads of {WIDTH}, float32; error {error:.2g} of the norm of the full answer, "
                    f"largest {float(off.abs().max()):.2g}",
                )
            )
    return found
