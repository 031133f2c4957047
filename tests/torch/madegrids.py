"""Feature grids made by code: regions of kinds that differ in the mixture of what their cells show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, kw_only=True)
class MadeGrids:
    """All in memory; a fifth of them lack some of their cells."""

    grids: torch.Tensor
    mask: torch.Tensor
    kinds: np.ndarray

    @property
    def dim(self) -> int:
        return self.grids.shape[1]

    @property
    def count(self) -> int:
        return len(self.grids)

    def read(self, numbers):
        at = torch.from_numpy(numbers)
        return self.grids[at].numpy(), self.mask[at].numpy()


def make_grids(count: int, *, dim: int = 12, cells: int = 8, kinds: int = 4, seed: int = 0) -> MadeGrids:
    """Cells are of types whose shares follow from the region's kind; a vector is its type, small beside noise."""
    rng = np.random.default_rng(seed)
    types = np.random.default_rng(7).normal(size=(kinds, dim))
    kind = np.arange(count) % kinds
    own = rng.random((count, cells, cells)) < 0.7
    type_of = np.where(own, kind[:, None, None], rng.integers(0, kinds, (count, cells, cells)))
    grids = 0.5 * types[type_of] + rng.normal(size=(count, cells, cells, dim)) * 1.5
    mask = np.ones((count, cells, cells), bool)
    for number in range(0, count, 5):
        mask[number, : 1 + number % (cells // 2)] = False
    grids[~mask] = 0
    shaped = torch.from_numpy(grids.astype(np.float32)).permute(0, 3, 1, 2).contiguous()
    return MadeGrids(grids=shaped, mask=torch.from_numpy(mask), kinds=kind)


def neighbours(backbone, known: MadeGrids, asked: MadeGrids, *, k: int = 5) -> float:
    """Share of regions whose kind is that of most of their neighbours by cosine."""
    with torch.inference_mode():
        one, other = (torch.nn.functional.normalize(backbone(m.grids, m.mask), dim=1) for m in (known, asked))
    near = (other @ one.T).topk(k, 1).indices.numpy()
    votes = np.stack([(known.kinds[near] == kind).sum(1) for kind in range(known.kinds.max() + 1)], 1)
    return float((votes.argmax(1) == asked.kinds).mean())
