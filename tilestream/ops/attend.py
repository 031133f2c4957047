"""Attention over keys of mixed resolution: blocks that matter are opened, the rest stand in as one key each.

    out_i = softmax over { fine keys of opened blocks } ∪ { mean key of each closed block }
    score = scale · q_i·k + log n        n: fine tokens that the key stands for

The term log n is the proportional attention of ToMe (Bolya et al. 2023, arXiv 2210.09461, section 3): a mean key with
it weighs as much as the n equal keys it replaces. A closed block is thus exactly the softmax in which every one of its
keys has the score of their mean, and its value is their mean.

Error. Let δ be the largest |scale · q_i·(k_j - mean of its block)| over the keys j of closed blocks. Scores are off by
at most δ, so the log of the ratio of the two distributions spans at most 2δ, they differ by at most tanh(δ/2) in total
variation, and every component of the output by

    |out - full| ≤ tanh(δ/2) · (max_j v_j - min_j v_j).

It is 0 when the keys inside each closed block are equal, or when all blocks are open.

Opened blocks are the `top_k` with the most attention in the coarse pass, that is over mean keys alone, added up over
all heads and over the queries of a group: one selection for all heads, so that one gather serves one call of
`scaled_dot_product_attention`. The selection itself has no gradient; everything else has. Tolerance of the tests
against a float64 loop: 1e-12 in float64, 1e-5 in float32.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from tilestream.errors import ConfigError


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    top_k: int,
    block_counts: Sequence[int] | None = None,
    block_index: Tensor | None = None,
    n: Tensor | None = None,
    query_block: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """Return the attention of each query over fine keys of the opened blocks and mean keys of the closed ones.

    Parameters
    ----------
    q : Tensor
        `(b, h, queries, d)` floating point, on any device.
    k : Tensor
        `(b, h, keys, d)`.
    v : Tensor
        `(b, h, keys, e)`.
    top_k : int
        How many blocks are opened: 0 is the coarse pass alone, all of them or more is full attention.
    block_counts : sequence of int, optional
        Keys of each block, which lie one behind the other; adds up to `keys`.
    block_index : Tensor of int, optional
        `(keys,)` number of the block of each key, in place of `block_counts`; in any order. Reading it waits for its
        device.
    n : Tensor, optional
        `(keys,)` or `(b, keys)`: how many fine tokens each key stands for, by default 1. A share of valid area is
        allowed; 0 or False is a key that is never attended to, and so are those of blocks with no other.
    query_block : int, optional
        Queries one behind the other that choose blocks together; by default all queries of an item do.
    scale : float, optional
        Factor of q·k, by default 1/√d.

    Returns
    -------
    Tensor
        `(b, h, queries, e)`; 0 where an item has no key to attend to.

    Raises
    ------
    ConfigError
        When shapes, types or devices do not belong together or the blocks do not cover the keys.

    Notes
    -----
    Time and memory are those of attention over `blocks + top_k · largest block` keys, plus one pass over k and v, plus
    the coarse scores `(b, h, queries, blocks)`. With `query_block` opened keys are gathered once a group of queries.
    Keys that are never attended to must still be finite, as `scaled_dot_product_attention` asks.
    """
    _check(q, k, v, top_k, query_block)
    _check_n(n, k)
    members, real = _blocks(k, block_counts, block_index)
    if top_k >= members.shape[0] and n is None:
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    weight = _weights(n, k)
    some = weight.sum(1) > 0
    if top_k >= members.shape[0]:
        bias = _log(torch.where(some[:, None], weight, 1.0))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[:, None, None].to(q.dtype), scale=scale)
    else:
        # an item without keys attends to whatever is there, and is set to 0 below: no row of the softmax is empty
        block_weight = torch.where(some[:, None, None], _inside(weight, members, 1) * real, real.to(weight.dtype))
        out = _attend_blocks(q, _inside(k, members, 2), _inside(v, members, 2), block_weight, top_k, query_block, scale)
    return out if n is None else torch.where(some[:, None, None, None], out, 0.0)


def _attend_blocks(
    q: Tensor, k: Tensor, v: Tensor, weight: Tensor, top_k: int, query_block: int | None, scale: float
) -> Tensor:
    """Return the attention over keys and values `(b, h, blocks, m, …)` with weights `(b, blocks, m)`."""
    batch, heads, queries, _ = q.shape
    total = weight.sum(2)
    mean_k, mean_v = _means(k, weight, total), _means(v, weight, total)
    group = queries if query_block is None else min(query_block, queries)
    groups = -(-queries // group)
    # groups of queries beside the batch: (b, g, h, queries of a group, d), the last one filled up
    padded = F.pad(q, (0, 0, 0, groups * group - queries)) if queries % group else q
    grouped = padded.reshape(batch, heads, groups, group, -1).transpose(1, 2)
    chosen = _choose(q, mean_k, total, top_k, group, scale)  # (b, g, top_k)
    opened = torch.zeros(batch, groups, total.shape[1], dtype=torch.bool, device=q.device).scatter_(2, chosen, True)
    closed_bias = _log(total)[:, None].masked_fill(opened, -torch.inf)
    fine_bias = torch.take_along_dim(_log(weight)[:, None], chosen[..., None], 2).flatten(2)
    bias = torch.cat([fine_bias, closed_bias], 2)[:, :, None, None].to(q.dtype)

    def keys(fine: Tensor, mean: Tensor) -> Tensor:
        taken = torch.take_along_dim(fine[:, None], chosen[:, :, None, :, None, None], 3).flatten(3, 4)
        return torch.cat([taken, mean[:, None].expand(-1, groups, -1, -1, -1)], 3).flatten(0, 1)

    out = F.scaled_dot_product_attention(
        grouped.flatten(0, 1), keys(k, mean_k), keys(v, mean_v), attn_mask=bias.flatten(0, 1), scale=scale
    )
    apart = out.view(batch, groups, heads, group, -1)
    joined = apart.transpose(1, 2).reshape(batch, heads, groups * group, -1)
    return joined[:, :, :queries]


@torch.no_grad()
def _choose(q: Tensor, mean_k: Tensor, total: Tensor, top_k: int, group: int, scale: float) -> Tensor:
    """Return the numbers `(b, g, top_k)` of the blocks with the most attention of each group of queries, ascending."""
    scores = (q @ (scale * mean_k).transpose(-1, -2)).to(total.dtype).add_(_log(total)[:, None, None])
    mass = torch.softmax(scores, -1).sum(1)  # over heads: (b, queries, blocks)
    padded = F.pad(mass, (0, 0, 0, -mass.shape[1] % group))
    mass = padded.view(mass.shape[0], -1, group, mass.shape[2]).sum(2)
    return torch.sort(torch.topk(mass, top_k, -1).indices).values


def _means(fine: Tensor, weight: Tensor, total: Tensor) -> Tensor:
    """Return the weighted mean `(b, h, blocks, d)` of each block, 0 where nothing weighs."""
    share = weight / torch.where(total > 0, total, 1.0)[..., None]
    return (share[:, None, :, None] @ fine.to(share.dtype)).squeeze(3).to(fine.dtype)


def _inside(a: Tensor, members: Tensor, axis: int) -> Tensor:
    """Return `a` with the axis of keys as two, blocks and keys of a block; a view where they lie that way."""
    shape = (*a.shape[:axis], *members.shape, *a.shape[axis + 1 :])
    if members.numel() == a.shape[axis] and bool((members.flatten().diff() == 1).all()):
        return a.reshape(shape)
    return a.index_select(axis, members.flatten().to(a.device)).view(shape)


def _blocks(k: Tensor, counts: Sequence[int] | None, index: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the numbers of the keys of each block `(blocks, largest)` on the host, and which of them are real."""
    keys = k.shape[2]
    if index is not None and counts is None:
        counts, order = _sorted(index, keys)
    elif counts is not None and index is None:
        counts, order = [operator.index(count) for count in counts], torch.arange(keys)
    else:
        _refuse("`block_counts` and `block_index`", "both or neither", "one of the two", "Say how keys form blocks.")
    if sum(counts) != keys or min(counts, default=0) < 0:
        _refuse("`block_counts`", f"{len(counts)} counts that add up to {sum(counts)}, least {min(counts, default=0)}",
                f"counts of at least 0 that add up to the {keys} keys", "Count the keys of each block.")  # fmt: skip
    size = torch.tensor(counts)
    within = torch.arange(int(size.max()))[None]
    real = within < size[:, None]
    members = torch.where(real, (size.cumsum(0) - size)[:, None] + within, 0)
    return order[members], real.to(k.device)


def _sorted(index: Tensor, keys: int) -> tuple[list[int], Tensor]:
    whole = not index.is_floating_point() and not index.is_complex() and index.dtype != torch.bool
    if tuple(index.shape) != (keys,) or not whole:
        got = f"{index.dtype} of shape {tuple(index.shape)}"
        _refuse("`block_index`", got, f"whole numbers of shape ({keys},)", "Give each key the number of its block.")
    host = index.detach().cpu().to(torch.int64)
    if int(host.min()) < 0:
        _refuse("`block_index`", f"block {int(host.min())}", "numbers from 0", "Leave invalid keys out through `n`.")
    if int(host.max()) >= keys:
        _refuse("`block_index`", f"block {int(host.max())} for {keys} keys", f"numbers below {keys}", "Renumber them.")
    return torch.bincount(host).tolist(), torch.argsort(host, stable=True)


def _weights(n: Tensor | None, k: Tensor) -> Tensor:
    """Return how much each key weighs `(b, keys)`, in float32 at least."""
    dtype = torch.promote_types(k.dtype, torch.float32)
    if n is None:
        return torch.ones(k.shape[0], k.shape[2], dtype=dtype, device=k.device)
    return n.to(dtype).expand(k.shape[0], k.shape[2])


def _log(weight: Tensor) -> Tensor:
    """Return log of weights, -inf for 0, with a gradient that is finite everywhere."""
    positive = weight > 0
    return torch.where(positive, torch.where(positive, weight, 1.0).log(), -torch.inf)


def _check(q: Tensor, k: Tensor, v: Tensor, top_k: int, query_block: int | None) -> None:
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if not isinstance(tensor, Tensor):
            _refuse(f"`{name}` of `attend`", type(tensor).__name__, "a tensor", "Use torch.as_tensor on it.")
        got = f"{tensor.dtype} of shape {tuple(tensor.shape)} on {tensor.device}"
        if tensor.dim() != 4 or not tensor.is_floating_point() or 0 in tensor.shape:
            expected = "floating point of shape (b, h, length, d), none of them 0"
            _refuse(f"`{name}` of `attend`", got, expected, "Split heads first, and leave empty calls out.")
        if tensor.dtype != q.dtype or tensor.device != q.device:
            _refuse(f"`{name}` of `attend`", got, f"{q.dtype} on {q.device}, as `q`", "Convert and move them together.")
    (b, h, _, d), keys = q.shape, k.shape[2]
    if tuple(k.shape) != (b, h, keys, d):
        _refuse("`k` of `attend`", f"shape {tuple(k.shape)}", f"({b}, {h}, {keys}, {d}), as `q`", "Make them fit.")
    if tuple(v.shape[:3]) != (b, h, keys):
        _refuse(
            "`v` of `attend`", f"shape {tuple(v.shape)}", f"({b}, {h}, {keys}, e), as `k`", "Give each key a value."
        )
    if top_k < 0:
        _refuse("`top_k` of `attend`", top_k, "at least 0", "0 opens nothing, the number of blocks everything.")
    if query_block is not None and query_block < 1:
        _refuse("`query_block` of `attend`", query_block, "at least 1", "Leave it out for one choice by all queries.")


def _check_n(n: Tensor | None, k: Tensor) -> None:
    if n is None:
        return
    batch, keys = k.shape[0], k.shape[2]
    if tuple(n.shape) not in ((keys,), (batch, keys)) or n.device != k.device:
        got = f"shape {tuple(n.shape)} on {n.device}"
        _refuse("`n` of `attend`", got, f"({keys},) or ({batch}, {keys}) on {k.device}", "Give each key one number.")
    # on a device the numbers are not looked at, since that would wait for them
    if n.is_cpu and not bool(((n >= 0) & torch.isfinite(n)).all()):
        _refuse("`n` of `attend`", "numbers below 0 or not finite", "finite ones from 0", "Use 0 for invalid keys.")


def _refuse(what: str, got: object, expected: str, do: str) -> NoReturn:
    raise ConfigError.of(what, got=got, expected=expected, do=do)
