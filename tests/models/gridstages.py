"""Region stages and aggregators as users would name them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.errors import StageError

WEIGHTS = np.random.default_rng(5).standard_normal((16, 3)).astype(np.float32)


def corner_weighted(grid: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Three sums over the tiles that count, weighted by where they are, and how many there are."""
    weights = np.add.outer(np.arange(1, grid.shape[2] + 1), 10 * np.arange(grid.shape[3])).astype(np.float32) * mask
    sums = np.einsum("ndyx,nyx->nd", grid, weights, dtype=np.float32)
    return np.concatenate([sums[:, :2], mask.sum(axis=(1, 2))[:, None]], axis=1)


class Only:
    """A stage for vectors of one length, as its parameters say."""

    contract = {"tiles": 4}  # noqa: RUF012 - as a user writes it

    def __init__(self, length: int = 3, factor: float = 1.0) -> None:
        self.length = length
        self.factor = factor

    def __call__(self, grid: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if grid.shape[1] != self.length:
            raise ValueError(f"vectors of {grid.shape[1]} values")
        return grid.sum(axis=(2, 3)) * self.factor


def made_for(dim: int, out: int = 2) -> Any:
    """Make a stage for vectors of a length."""
    weights = np.random.default_rng(dim).standard_normal((dim, out)).astype(np.float32)
    return lambda grid, mask: grid.sum(axis=(2, 3)) @ weights


def nan_where_damaged(grid: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Divide by what is 0 where one tile of a region does not count."""
    vectors = grid.sum(axis=(2, 3))
    vectors[~mask.all(axis=(1, 2))] = np.nan
    return vectors


def raises_where_damaged(grid: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Refuse regions that are not whole."""
    if not mask.all():
        raise ValueError("a region with a hole")
    return grid.mean(axis=(2, 3))


def always_nan(grid: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Give nothing that counts."""
    return np.full((len(grid), 2), np.nan, np.float32)


def exhausted(grid: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Have no memory."""
    raise MemoryError


def greatest(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Give the greatest value of each column."""
    return np.where(mask[..., None], x, -np.inf).max(axis=1)


def flat(grid: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Give something that is no vector."""
    return grid[:, 0, 0, 0]


def refuses_slides_of_one(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fail on bags of one row."""
    if x.shape[1] == 1:
        raise StageError.of("bag", got="1 row", expected="2", do="Add one.")
    return x.mean(axis=1)


class Scaled:
    """A stage that reads its own weights."""

    def __init__(self, weights: str) -> None:
        self.factor = float(np.load(weights)[0])

    def __call__(self, grid: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return grid.mean(axis=(2, 3)) * self.factor


class Only4(Only):
    """A stage for vectors of four values."""

    def __init__(self) -> None:
        super().__init__(length=4)


def nan_where_few(grid: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Give nothing that counts for regions of fewer than 12 tiles."""
    vectors = grid.sum(axis=(2, 3))
    vectors[mask.sum(axis=(1, 2)) < 12] = np.nan
    return vectors
