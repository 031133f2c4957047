"""Aggregators of a few lines."""

from __future__ import annotations

import numpy as np


def summed(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The sum of all vectors of a bag that count."""
    return (np.asarray(x) * np.asarray(mask)[..., None]).sum(1)


def mean_score(pixels: np.ndarray) -> np.ndarray:
    """A scorer: the mean of each tile."""
    return np.asarray(pixels.mean(axis=(1, 2, 3), dtype=np.float64)[:, None], np.float32)


class Rounding:
    """What machines differ in."""

    sign = 1.0


def rounded_score(pixels: np.ndarray) -> np.ndarray:
    """A scorer that orders tiles otherwise on another machine, as rounding may order equal ones."""
    return Rounding.sign * mean_score(pixels)


def nan_score(pixels: np.ndarray) -> np.ndarray:
    """A scorer that knows nothing of any tile but black ones."""
    found = mean_score(pixels)
    return np.where(found > 0, np.float32("nan"), found)


def two_scores(pixels: np.ndarray) -> np.ndarray:
    """No scorer: two numbers a tile."""
    return np.repeat(mean_score(pixels), 2, axis=1)


def some_nan(pixels: np.ndarray) -> np.ndarray:
    """A scorer that knows nothing of bright tiles."""
    found = mean_score(pixels)
    return np.where(found > 200, np.float32("nan"), found)


def nan_map(pyramid: object) -> np.ndarray:
    """A relevance of no numbers."""
    return np.full((8, 8), np.nan)


def flat_map(pyramid: object) -> np.ndarray:
    """A relevance of another shape."""
    return np.ones(9)
