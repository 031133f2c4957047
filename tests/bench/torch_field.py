"""The hash grid and its network as a good user of torch writes them: the rival of the benchmarks."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.mlp_layers import MlpLayers

PRIME_Y = 2654435761


class TorchField:
    """Eager torch, 2-D: all levels at once or one after the other, corners as vectorised gathers, `F.linear`."""

    def __init__(
        self, grid: HashGrid, layers: MlpLayers, table: torch.Tensor, weights: torch.Tensor, *, at_once: bool
    ) -> None:
        self.features, self.levels, self.at_once = grid.features, grid.levels, at_once
        device = table.device
        self.table = table
        self.matrices = [
            weights[start : start + i * o].reshape(o, i) for i, o, start, *_ in layers.layout.tolist()
        ]  # fmt: skip
        self.scales = torch.tensor(grid.scales, device=device)
        self.layout = grid.layout.tolist()
        # int32 where it is enough: half the traffic of int64; primes as the same bits, signed
        columns = torch.tensor(grid.layout, device=device)
        self.first, self.size, self.edge = (columns[:, k].to(torch.int32) for k in range(3))
        self.hashed = columns[:, 3].bool()
        self.prime = PRIME_Y - 2**32

    def level(self, coords: torch.Tensor, level: int) -> torch.Tensor:
        """Return the features of one level."""
        first, size, edge, hashed = self.layout[level]
        at = torch.addcmul(torch.full_like(coords, 0.5), coords, self.scales[level])
        cell = at.floor()
        x_frac, y_frac = (at - cell).unbind(1)
        x, y = cell.to(torch.int32).unbind(1)
        low, high = (y * self.prime, (y + 1) * self.prime) if hashed else (y * edge, (y + 1) * edge)
        table = self.table[first : first + size]

        def corner(x: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
            entry = (x ^ row) & (size - 1) if hashed else (x + row) % size
            return F.embedding(entry, table)

        right = x + 1
        upper = torch.lerp(corner(x, low), corner(right, low), x_frac[:, None])
        lower = torch.lerp(corner(x, high), corner(right, high), x_frac[:, None])
        return torch.lerp(upper, lower, y_frac[:, None])

    def all_levels(self, coords: torch.Tensor) -> torch.Tensor:
        """Return the features of all levels, from tensors of positions × levels."""
        at = coords[:, None, :] * self.scales[:, None] + 0.5
        cell = at.floor()
        x_frac, y_frac = (at - cell).unbind(2)
        x, y = cell.to(torch.int32).unbind(2)

        def corner(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            hashed = (x ^ (y * self.prime)) & (self.size - 1)
            entry = torch.where(self.hashed, hashed, (x + y * self.edge) % self.size)
            return F.embedding(entry + self.first, self.table)

        upper = torch.lerp(corner(x, y), corner(x + 1, y), x_frac[..., None])
        lower = torch.lerp(corner(x, y + 1), corner(x + 1, y + 1), x_frac[..., None])
        return torch.lerp(upper, lower, y_frac[..., None]).flatten(1)

    @torch.inference_mode()
    def __call__(self, coords: torch.Tensor) -> torch.Tensor:
        """Return codes `(n, c)`."""
        if self.at_once:
            value = self.all_levels(coords)
        else:
            value = torch.cat([self.level(coords, level) for level in range(self.levels)], dim=1)
        for matrix in self.matrices[:-1]:
            value = F.linear(value, matrix).relu_()
        return F.linear(value, self.matrices[-1]).mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def pixel_centres(height: int, width: int, device: str = "cpu") -> torch.Tensor:
    """Return x, y of 0 to 1 of all pixels."""
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=2).reshape(-1, 2)
