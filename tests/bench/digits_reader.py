"""The classifier of fine tiles that all methods share: which digit each cell shows, and which way it is hatched.

A tile of 256 px becomes three planes of 64²: its mean, and how much neighbours differ along y and along x (the details
of a Haar transform, without sign). Three convolutions read them. Tiles of coarser levels are enlarged to 64².
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.bench.canvas import ALONG_X, ALONG_Y, CELL_PX, Canvas
from tests.bench.canvas_file import BLOCK_PX

PLANE_PX = 64
CELLS = BLOCK_PX // CELL_PX
"""Cells along the edge of a tile."""
EMPTY = 10
"""Class of a cell without a digit."""
FEATURES = 128
"""Values that the last layer gives for a cell."""
MEAN, SPREAD = 110.0, 25.0
BATCH = 64

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


class Reader(nn.Module):
    """Tiles `(n, 1, edge, edge)` to logits `(n, 12, cells, cells)`: ten classes, none of them, hatched along x."""

    details: Tensor

    def __init__(self) -> None:
        super().__init__()
        haar = torch.tensor([[[1, 1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]]], dtype=torch.float32)
        self.register_buffer("details", haar[:, None] / 4)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
        )
        self.output = nn.Conv2d(FEATURES, EMPTY + 2, 1)

    def planes(self, tiles: Tensor) -> Tensor:
        """Return `(n, 3, 64, 64)`."""
        found = F.conv2d(tiles.to(torch.float32) - MEAN, self.details, stride=2)
        found = torch.cat([found[:, :1], found[:, 1:].abs() * 3], 1) / SPREAD
        edge = found.shape[-1]
        if edge >= PLANE_PX:
            return F.avg_pool2d(found, edge // PLANE_PX)
        return F.interpolate(found, size=(PLANE_PX, PLANE_PX), mode="bilinear")

    def pooled(self, planes: Tensor) -> Tensor:
        """Return what there is in each cell of planes, at most and on average, `(n, 128, cells, cells)`."""
        maps = self.layers(planes)
        return torch.cat([F.adaptive_max_pool2d(maps, CELLS), F.adaptive_avg_pool2d(maps, CELLS)], 1)

    def forward(self, tiles: Tensor) -> Tensor:
        """Return logits of tiles."""
        return self.output(self.pooled(self.planes(tiles)))


@dataclass(frozen=True, kw_only=True)
class CellLabels:
    """What is true of the cells of a canvas."""

    classes: Ints
    """`(rows, columns)` digit, or `EMPTY`."""
    states: Ints
    """`(rows, columns)` 0 hatched along y, 1 along x, -1 without a digit."""
    matters: npt.NDArray[np.bool_]
    """`(rows, columns)`."""

    def by_tile(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return values of cells as `(tiles, cells, cells)`, tiles row by row."""
        rows, columns = (edge // CELLS for edge in values.shape)
        return values.reshape(rows, CELLS, columns, CELLS).transpose(0, 2, 1, 3).reshape(-1, CELLS, CELLS)


def cell_labels(canvas: Canvas) -> CellLabels:
    """Return what is true of each cell."""
    grid = tuple(edge // CELL_PX for edge in canvas.shape)
    classes, states, matters = np.full(grid, EMPTY), np.full(grid, -1), np.zeros(grid, np.bool_)
    for placed in canvas.placed:
        classes[placed.cell_yx] = placed.glyph.digit
        states[placed.cell_yx] = {ALONG_Y: 0, ALONG_X: 1}[placed.state]
        matters[placed.cell_yx] = placed.matters
    return CellLabels(classes=classes, states=states, matters=matters)


def train_reader(tiles: Bytes, labels: CellLabels, *, seed: int, epochs: int) -> Reader:
    """Return a classifier trained on labels of cells.

    Parameters
    ----------
    tiles : ndarray of uint8
        `(n, 1, edge, edge)`, row by row.
    labels : CellLabels
        Of their canvas.
    seed : int
        Of all chance.
    epochs : int
        How often each tile is seen.

    Returns
    -------
    Reader
        In evaluation mode.
    """
    torch.manual_seed(seed)
    reader = Reader()
    classes = torch.from_numpy(labels.by_tile(labels.classes))
    states = torch.from_numpy(labels.by_tile(labels.states))
    with torch.inference_mode():
        planes = torch.cat([reader.planes(torch.from_numpy(tiles[i : i + 256])) for i in range(0, len(tiles), 256)])
    planes = planes.clone()
    steps = max(1, epochs * (len(tiles) // BATCH))
    optimiser = torch.optim.AdamW(reader.parameters(), lr=3e-3, weight_decay=1e-2)
    course = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, total_steps=steps)
    weight = torch.ones(EMPTY + 1)
    weight[EMPTY] = 0.5
    order = torch.cat([torch.randperm(len(tiles)) for _ in range(epochs)])
    for step in range(steps):
        rows = order[step * BATCH : (step + 1) * BATCH]
        logits = reader.output(reader.pooled(planes[rows] * (0.9 + 0.2 * torch.rand(len(rows), 1, 1, 1))))
        here = states[rows] >= 0
        loss = F.cross_entropy(logits[:, : EMPTY + 1], classes[rows], weight=weight)
        loss = loss + F.binary_cross_entropy_with_logits(logits[:, EMPTY + 1][here], states[rows][here].float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        course.step()
    return reader.eval()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the classifier says of tiles."""

    evidence: Floats
    """`(…, 2)` how much each speaks for digits that matter, hatched along y and along x: -Σ log(1 - p) over its cells,
    p the probability of such a digit. So evidence of tiles adds up to that of a field."""
    features: Floats
    """`(…, 128)` what the last layer saw, the largest of its cells."""


def look_at(reader: Reader, tiles: Bytes, targets: tuple[int, int]) -> Seen:
    """Return what the classifier says of tiles `(n, 1, edge, edge)`."""
    with torch.inference_mode():
        pooled = reader.pooled(reader.planes(torch.from_numpy(np.ascontiguousarray(tiles))))
        logits = reader.output(pooled)
        matters = logits[:, : EMPTY + 1].softmax(1)[:, list(targets)].sum(1)
        along_x = logits[:, EMPTY + 1].sigmoid()
        both = torch.stack([matters * (1 - along_x), matters * along_x], 1).clamp(max=1 - 1e-4)
        return Seen(evidence=(-torch.log1p(-both)).sum((2, 3)).numpy(), features=pooled.amax((2, 3)).numpy())
