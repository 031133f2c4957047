"""Directional tokens, an experiment: two siblings read as one token of 2:1, coarse along the direction of least change.

A token of p × p samples that covers two squares of edge s reads one axis at the level of the squares and the other one
level coarser. So a pair costs one token in place of two, and what is saved is spent on finer squares elsewhere.

    rule     the structure tensor, summed over the pair: the pair is joined along x where the gradient points along y
             (within 22.5°) and coherence ((λ1 - λ2) / (λ1 + λ2))² is at least a threshold
    oracle   pairs whose joining costs least error are joined, which no rule can know before it has read them

Error is that of the mean of each sample's area, spread over it again: exact, and additive over tokens. Trees are cut by
the true errors of their nodes for both, so that only the tokens' shape differs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.kernels.structure_tensor import structure_tensor
from tilestream.plan.tree import TokenTree, cut, nodes_of, pooled

PATCH_PX = 16
COHERENCE = 0.2
"""From which the rule joins a pair; of 0.1 to 0.9 the best on the images of `bench_directional`."""
WITHIN = np.pi / 8
"""How far the gradient may be from an axis."""

Field = npt.NDArray[np.float64]


def blocks_error(image: Field, high: int, wide: int) -> Field:
    """Return the squared error of means over blocks of `high` × `wide` px, by block."""
    height, width = image.shape[0] // high, image.shape[1] // wide
    parts = image.reshape(height, high, width, wide)
    return np.asarray(((parts - parts.mean(axis=(1, 3), keepdims=True)) ** 2).sum(axis=(1, 3)))


def node_errors(image: Field, level: int, *, along: str = "") -> Field:
    """Return the squared error of each square of a level, or of each pair of squares that lie along an axis."""
    edge = 2**level
    high, wide = edge * (2 if along == "y" else 1), edge * (2 if along == "x" else 1)
    by_block = blocks_error(image, high, wide)
    rows, columns = by_block.shape[0] // PATCH_PX, by_block.shape[1] // PATCH_PX
    return np.asarray(by_block.reshape(rows, PATCH_PX, columns, PATCH_PX).sum(axis=(1, 3)))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is known of one square image whose edge is a power of two."""

    image: Field
    """`(y, x)`."""
    tree: TokenTree
    """All squares."""
    errors: tuple[Field, ...]
    """Of the squares of each level."""
    joined: tuple[dict[str, Field], ...]
    """Of pairs of each level, by axis."""
    agreed: tuple[dict[str, Field], ...]
    """Coherence of each pair whose gradient points across its axis, -1 of the others."""


def measure(image: Field) -> Measured:
    """Return everything that cuts of an image depend on."""
    grid = image.shape[0] // PATCH_PX
    levels = tuple(range(grid.bit_length()))
    tree = TokenTree.over(np.ones((grid, grid), np.bool_), levels=levels, side=2)
    agreed, joined = [], []
    for level in levels[:-1]:
        small = image.reshape(image.shape[0] >> level, 2**level, image.shape[1] >> level, 2**level).mean(axis=(1, 3))
        tensor = structure_tensor(small.astype(np.float32), 1.0).astype(np.float64)
        here: dict[str, Field] = {}
        for axis, shape in (("x", (PATCH_PX, 2 * PATCH_PX)), ("y", (2 * PATCH_PX, PATCH_PX))):
            yy, xy, xx = (one.reshape(one.shape[0] // shape[0], shape[0], -1, shape[1]).sum((1, 3)) for one in tensor)
            coherence = ((xx - yy) ** 2 + 4 * xy**2) / np.maximum(xx + yy, 1e-9) ** 2
            angle = np.abs(np.arctan2(2 * xy, xx - yy) / 2)  # of the gradient: 0 along x, π/2 along y
            across = angle >= np.pi / 2 - WITHIN if axis == "x" else angle <= WITHIN
            here[axis] = np.where(across, coherence, -1.0)
        agreed.append(here)
        joined.append({axis: node_errors(image, level, along=axis) for axis in "xy"})
    return Measured(
        image=image, tree=tree, errors=tuple(node_errors(image, level) for level in levels),
        joined=tuple(joined), agreed=tuple(agreed),
    )  # fmt: skip


def leaves_of(known: Measured, budget: int) -> tuple[npt.NDArray[np.bool_], ...]:
    """Return the leaves of the tree with the least error, by level."""
    gains = [
        np.maximum(error - pooled(finer, 2), 1e-6) for finer, error in zip(known.errors, known.errors[1:], strict=False)
    ]
    _, leaves = nodes_of(known.tree, cut(known.tree, gains, budget))
    return leaves


def pairs_of(known: Measured, leaves: tuple[npt.NDArray[np.bool_], ...]) -> npt.NDArray[np.float64]:
    """Return error added and coherence of each pair of sibling leaves, `(n, 2)`; of a parent the better axis only."""
    found = []
    for level, (joined, agreed) in enumerate(zip(known.joined, known.agreed, strict=True)):
        single, leaf = known.errors[level], leaves[level]
        for parent_y, parent_x in np.argwhere(pooled(leaf, 2) > 1).tolist():
            best: list[tuple[float, float]] = []
            for axis in "xy":
                pairs = []
                for k in (0, 1):
                    y, x = (2 * parent_y + k, parent_x) if axis == "x" else (parent_y, 2 * parent_x + k)
                    one = (y, 2 * x) if axis == "x" else (2 * y, x)
                    other = (y, 2 * x + 1) if axis == "x" else (2 * y + 1, x)
                    if leaf[one] and leaf[other]:
                        pairs.append((joined[axis][y, x] - single[one] - single[other], agreed[axis][y, x]))
                if sum(pair[1] for pair in pairs) > sum(pair[1] for pair in best) or not best:
                    best = pairs
            found += best
    return np.array(found, np.float64).reshape(-1, 2)


def error_of(known: Measured, leaves: tuple[npt.NDArray[np.bool_], ...]) -> float:
    """Return the squared error of leaves."""
    return float(sum(error[leaf].sum() for error, leaf in zip(known.errors, leaves, strict=True)))


def compare(known: Measured, budget: int, threshold: float = COHERENCE) -> tuple[float, float, float]:
    """Return the mean squared errors of squares, of directional tokens by the rule, and by the oracle.

    Parameters
    ----------
    known : Measured
        The image.
    budget : int
        Most tokens, for each of them.
    threshold : float
        Coherence from which the rule joins a pair.

    Returns
    -------
    tuple of float
        Trees of more squares are cut until their pairs, joined, are as many tokens; the best of 30 is taken.
    """
    square = error_of(known, leaves_of(known, budget))
    by_rule = by_oracle = square
    for more in np.linspace(1.0, 1.6, 31)[1:]:
        leaves = leaves_of(known, int(budget * more))
        count, pairs = sum(int(leaf.sum()) for leaf in leaves), pairs_of(known, leaves)
        error, spare = error_of(known, leaves), max(0, count - budget)
        if spare <= len(pairs):
            by_oracle = min(by_oracle, error + float(np.sort(pairs[:, 0])[:spare].sum()))
        chosen = pairs[:, 1] >= threshold
        if spare <= int(chosen.sum()):
            by_rule = min(by_rule, error + float(pairs[chosen, 0].sum()))
    area = known.image.size
    return square / area, by_rule / area, by_oracle / area
