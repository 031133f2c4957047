"""Learned probing as an operation of torch: the wide table of stored entries and of scores of choices, with gradients.

Each vertex reads the entry of the highest score. The gradient goes to that entry, and to scores as though the vertex
had read the mean of its candidates by the softmax of their scores (straight through), so that scores learn from entries
that were not taken. With the mean's gradient for entries too, as one may read the paper, they did not part in our
trials: all of a bucket were pulled to one mean before scores had anything to choose between.

Source: Takikawa et al., arXiv:2312.17241.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tilestream.codecs.fields.probing import ProbedGrid

_AHEAD = 1.0
"""Score of what was chosen before."""


class _Expand(torch.autograd.Function):
    """One level."""

    @staticmethod
    def forward(
        ctx: Any, entries: torch.Tensor, scores: torch.Tensor, buckets: torch.Tensor, places: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(entries, scores, buckets, places)
        probes = scores.shape[1]
        return entries[buckets * probes + scores.argmax(1)[places]]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        entries, scores, buckets, places = ctx.saved_tensors
        gradient, probes = gradients[0], scores.shape[1]
        blocks = entries.view(-1, probes, entries.shape[1])
        at = buckets * probes + scores.argmax(1)[places]
        of_entries = torch.zeros_like(entries).index_add_(0, at, gradient)
        weights = torch.softmax(scores, 1)[places]
        blocks = entries.view(-1, probes, entries.shape[1])
        pulls = torch.bmm(blocks[buckets], gradient[:, :, None])[:, :, 0]
        slopes = weights * (pulls - (weights * pulls).sum(1, keepdim=True))
        of_scores = torch.zeros_like(scores).index_add_(0, places, slopes)
        return of_entries, of_scores, None, None


class ProbedTable:
    """Stored entries and scores as one wide table.

    Parameters
    ----------
    grid : ProbedGrid
        What is stored, and how it is chosen from.
    device : torch.device
        Where entries and scores are.
    """

    def __init__(self, grid: ProbedGrid, device: torch.device | str = "cpu") -> None:
        self.grid = grid
        self._levels = [
            (level.level, torch.from_numpy(level.buckets).to(device), torch.from_numpy(level.places).to(device))
            for level in grid.levels
        ]

    def new_scores(
        self, choices: npt.NDArray[np.int16] | None = None, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Return `(choices, N_p)` of small random scores, so that no two are tied.

        Parameters
        ----------
        choices : ndarray of int16, optional
            What is ahead, where something else than the first everywhere was chosen before.
        generator : torch.Generator, optional
            Of the chance.

        Returns
        -------
        Tensor
            On the CPU.
        """
        shape = self.grid.choice_starts[-1], 1 << self.grid.probing.log2_probes
        scores = torch.rand(shape, generator=generator) * 2e-2 - 1e-2
        if choices is not None and choices.any():
            scores[torch.arange(len(scores)), torch.from_numpy(choices.astype(np.int64))] = _AHEAD
        return scores

    def expand(self, entries: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the wide table, differentiable in both arguments.

        Parameters
        ----------
        entries : Tensor of float32
            `(narrow.entries, features)`.
        scores : Tensor of float32
            `(choices, N_p)`.

        Returns
        -------
        Tensor of float32
            `(wide.entries, features)`: that of `ProbedGrid.bake` with the choices of highest score.
        """
        parts, probed = [], {level: (buckets, places) for level, buckets, places in self._levels}
        starts = iter(zip(self.grid.choice_starts, self.grid.choice_starts[1:], strict=False))
        for level in range(self.grid.narrow.levels):
            part = entries[self.grid.narrow.offsets[level] : self.grid.narrow.offsets[level + 1]]
            if level in probed:
                first, last = next(starts)
                part = _Expand.apply(part, scores[first:last], *probed[level])  # type: ignore[no-untyped-call]
            parts.append(part)
        return torch.cat(parts)
