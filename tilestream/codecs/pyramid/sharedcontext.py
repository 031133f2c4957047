"""What stands around each number of a grid, by passes, as tensors; and what a number costs by its model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

LEAST_SHARE = 1e-9
"""Probability below which a number costs no more: its gradient would have no end."""


def grid_passes(
    coded: Sequence[torch.Tensor], known: Sequence[torch.Tensor], number: int
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Yield what is coded in each pass of a grid, and its neighbours.

    Parameters
    ----------
    coded : sequence of Tensor
        Grids `(n, y, x)`, finest first: what is coded.
    known : sequence of Tensor
        The same for what stands around.
    number : int
        Which grid.

    Yields
    ------
    which : int
        The pass; the third comes in two parts, of even and of odd rows.
    coded : Tensor
        `(m,)`.
    inputs : Tensor
        `(9, m)`.
    """
    own, coarse = known[number], _Coarse(known, number)
    even, odd = own[:, ::2, ::2], own[:, 1::2, 1::2]
    none = torch.zeros_like(even)
    yield 0, _flat(coded[number][:, ::2, ::2]), _stacked([none] * 4 + coarse.at(even, 0, 0))
    if odd.numel():
        corners = [_moved(even, odd, dy, dx) for dy in (0, 1) for dx in (0, 1)]
        yield 1, _flat(coded[number][:, 1::2, 1::2]), _stacked(corners + coarse.at(odd, 1, 1))
    right, below = own[:, ::2, 1::2], own[:, 1::2, ::2]
    if right.numel():
        around = [_moved(odd, right, -1, 0), _moved(odd, right, 0, 0)]
        around += [_moved(even, right, 0, 0), _moved(even, right, 0, 1)]
        yield 2, _flat(coded[number][:, ::2, 1::2]), _stacked(around + coarse.at(right, 0, 1))
    if below.numel():
        around = [_moved(even, below, 0, 0), _moved(even, below, 1, 0)]
        around += [_moved(odd, below, 0, -1), _moved(odd, below, 0, 0)]
        yield 2, _flat(coded[number][:, 1::2, ::2]), _stacked(around + coarse.at(below, 1, 0))


def laplace_bits(gaps: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the bits of numbers by the Laplace distribution, integrated over a unit around each.

    Parameters
    ----------
    gaps : Tensor
        Number less the middle of its distribution.
    scale : Tensor
        Of the distribution, positive.

    Returns
    -------
    Tensor
        Of the same shape.
    """
    away = gaps.abs()
    near = 1 - 0.5 * (torch.exp(-(0.5 - away).clamp_min(0) / scale) + torch.exp(-(0.5 + away) / scale))
    far = 0.5 * torch.exp(-(away - 0.5).clamp_min(0) / scale) * -torch.expm1(-1 / scale)
    return -torch.where(away < 0.5, near, far).clamp_min(LEAST_SHARE).log2()


class _Coarse:
    """The five inputs of a place that stand on coarser grids; zeros where there is no such grid."""

    def __init__(self, known: Sequence[torch.Tensor], number: int) -> None:
        self._parent = known[number + 1] if number + 1 < len(known) else None
        self._above: torch.Tensor | None = None
        if self._parent is not None and number + 2 < len(known):
            _, height, width = self._parent.shape
            above = known[number + 2].repeat_interleave(2, 1).repeat_interleave(2, 2)
            self._above = above[:, :height, :width]

    def at(self, like: torch.Tensor, odd_y: int, odd_x: int) -> list[torch.Tensor]:
        """Return parent, its near neighbours and the number above it, for places of one parity."""
        none = torch.zeros_like(like)
        if self._parent is None:
            return [none] * 5
        dy, dx = 2 * odd_y - 1, 2 * odd_x - 1
        found = [_moved(self._parent, like, *by) for by in ((0, 0), (dy, 0), (0, dx), (dy, dx))]
        return [*found, none if self._above is None else _moved(self._above, like, 0, 0)]


def _moved(grid: torch.Tensor, like: torch.Tensor, dy: int, dx: int) -> torch.Tensor:
    """Return what stands (dy, dx) from each place of `like`, clamped to the grid; zeros where it is empty."""
    _, height, width = like.shape
    if not grid.numel():
        return torch.zeros_like(like)
    for axis, (step, size) in enumerate(((dy, height), (dx, width)), 1):
        last = grid.shape[axis] - 1
        if step < 0:
            grid = torch.cat([grid.narrow(axis, 0, 1), grid.narrow(axis, 0, last + 1)], dim=axis)
        elif step > 0 or size > last + 1:
            grid = torch.cat(
                [grid.narrow(axis, min(step, last), last + 1 - min(step, last)), grid.narrow(axis, last, 1)], dim=axis
            )
        grid = grid.narrow(axis, 0, size)
    return grid


def _flat(grid: torch.Tensor) -> torch.Tensor:
    return grid.reshape(-1)


def _stacked(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(parts).reshape(len(parts), -1)
