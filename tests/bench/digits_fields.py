"""What can be learned from answers of fields alone: where to look, and staged dropping by attention.

Fields are composed of tiles of the train canvas, at most three of 256 with digits that matter; who learns from them is
told the answer of each, never which tile it comes from. The classifier of fine tiles is the one that all methods share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.bench.canvas import MOST_TARGETS
from tests.bench.digits_answers import FIELD_TILES
from tests.bench.digits_reader import FEATURES, CellLabels
from tests.bench.staged import staged
from tilestream.models.vit import Block
from tilestream.torch import ScorerBag, ScorerSettings, train_scorer_on_bags

TOKENS = FIELD_TILES**2
DIM, DEPTH, HEADS = 32, 4, 4
BAGS_A_STEP = 8

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fields:
    """Fields made of tiles of a canvas."""

    rows: Ints
    """`(n, 256)` tiles of each."""
    answers: Ints
    """`(n,)`."""


def compose(labels: CellLabels, *, count: int, seed: int) -> Fields:
    """Return fields of random tiles, as many with each answer as can be."""
    rng = np.random.default_rng((seed, 7))
    matters, states = labels.by_tile(labels.matters), labels.by_tile(labels.states)
    held = [(matters & (states == state)).any((1, 2)) for state in (0, 1)]
    others = np.flatnonzero(~held[0] & ~held[1])
    wanted = [np.flatnonzero(held[state] & ~held[1 - state]) for state in (0, 1)]
    answers, rows = np.arange(count) % 3, []
    for answer in answers:
        chosen = rng.choice(others, TOKENS)
        if answer:
            few = rng.integers(1, MOST_TARGETS + 1)
            chosen[rng.choice(TOKENS, few, replace=False)] = rng.choice(wanted[answer - 1], few)
        rows.append(chosen)
    return Fields(rows=np.stack(rows), answers=answers)


def train_on_fields(fields: Fields, coarse: npt.NDArray[np.uint8], evidence: Floats, *, settings: Any) -> Any:
    """Return a scorer of coarse tiles that learned from answers, by the evidence of a few fine tiles it has chosen.

    Parameters
    ----------
    fields : Fields
        To learn from.
    coarse : ndarray of uint8
        `(tiles, 1, edge, edge)`.
    evidence : ndarray of float32
        `(tiles, 2)` what the classifier says of the fine tiles.
    settings : Mapping
        Of `ScorerSettings`.

    Returns
    -------
    Scorer
        By attention sampling.
    """
    bags = [
        ScorerBag(tiles=coarse[rows], look=lambda chosen, rows=rows: evidence[rows[chosen]]) for rows in fields.rows
    ]
    about = {"downsample": 256.0 / coarse.shape[-1]}
    return train_scorer_on_bags(bags, fields.answers, settings=ScorerSettings(**settings), about=about)


class FieldTransformer(nn.Module):
    """Features `(n, 256, 128)` of the tiles of fields to logits `(n, 3)` of their answers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.LayerNorm(FEATURES), nn.Linear(FEATURES, DIM))
        self.first = nn.Parameter(torch.zeros(1, 1, DIM))
        self.blocks = nn.ModuleList(Block(DIM, HEADS, mlp_ratio=2.0, eps=1e-6) for _ in range(DEPTH))
        self.output = nn.Sequential(nn.LayerNorm(DIM), nn.Linear(DIM, 3))

    def tokens(self, x: Tensor) -> Tensor:
        """Return `(n, 257, dim)`."""
        return torch.cat([self.first.expand(len(x), 1, DIM), self.embed(x)], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.tokens(x)
        for block in self.blocks:
            x = block(x)
        return self.output(x[:, 0])


def train_transformer(fields: Fields, features: Floats, *, seed: int, epochs: int) -> FieldTransformer:
    """Return a transformer that learned the answers of fields without dropping anything."""
    torch.manual_seed(seed)
    network = FieldTransformer()
    steps = epochs * (len(fields.rows) // BAGS_A_STEP)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
    course = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    order = torch.cat([torch.randperm(len(fields.rows)) for _ in range(epochs)])
    for step in range(steps):
        at = order[step * BAGS_A_STEP : (step + 1) * BAGS_A_STEP].numpy()
        loss = F.cross_entropy(
            network(torch.from_numpy(features[fields.rows[at]])), torch.from_numpy(fields.answers[at])
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        course.step()
    return network.eval()


def dropping_order(network: FieldTransformer, features: Floats) -> Floats:
    """Return scores `(y, x)` of tiles by how long staged dropping keeps them, from features `(y, x, d)`.

    All fine tiles must have been decoded for this, which is what it is compared for.
    """
    height, width, d = features.shape
    rows, columns = height // FIELD_TILES, width // FIELD_TILES
    fields = features.reshape(rows, FIELD_TILES, columns, FIELD_TILES, d).transpose(0, 2, 1, 3, 4)
    scores = np.empty((rows * columns, TOKENS), np.float32)
    with torch.inference_mode():
        for number, field in enumerate(fields.reshape(rows * columns, 1, TOKENS, d)):
            order = staged(list(network.blocks), network.tokens(torch.from_numpy(np.ascontiguousarray(field)))).order
            scores[number, order[0].numpy()] = np.arange(TOKENS, 0, -1)
    grid = scores.reshape(rows, columns, FIELD_TILES, FIELD_TILES).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(grid.reshape(height, width))


def longest_kept(scores: Floats, share: float) -> npt.NDArray[np.bool_]:
    """Return which tiles are the share of each field that is kept longest."""
    return scores > TOKENS - round(share * TOKENS)
