"""From evidence of tiles to answers of fields, the same for every method."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tests.bench.canvas import FIELD_PX
from tests.bench.canvas_file import BLOCK_PX

FIELD_TILES = FIELD_PX // BLOCK_PX

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def field_evidence(evidence: Floats) -> Floats:
    """Return the sum over each field, `(rows, columns, 2)`, of evidence of tiles `(y, x, 2)`; 0 where none was read."""
    rows, columns = (edge // FIELD_TILES for edge in evidence.shape[:2])
    return np.asarray(evidence.reshape(rows, FIELD_TILES, columns, FIELD_TILES, 2).sum((1, 3)), np.float32)


def answers_of(evidence: Floats, threshold: float) -> Ints:
    """Return the answer of each field: the state that more speaks for, or none below the threshold."""
    found = field_evidence(evidence)
    return np.where(found.max(axis=-1) < threshold, 0, found.argmax(axis=-1) + 1)


def accuracy(evidence: Floats, threshold: float, truth: Ints) -> float:
    """Return the share of fields that are answered rightly."""
    return float((answers_of(evidence, threshold) == truth).mean())


def best_threshold(evidence: Floats, truth: Ints) -> float:
    """Return the threshold of the highest accuracy; of many that are equal the one in their middle."""
    edges = np.unique(field_evidence(evidence).max(axis=-1))
    tried = np.concatenate([edges[:1] / 2, (edges[:-1] + edges[1:]) / 2, edges[-1:] + 1])
    found = np.array([accuracy(evidence, float(one), truth) for one in tried])
    best = np.flatnonzero(found == found.max())
    return float(tried[best[len(best) // 2]])
