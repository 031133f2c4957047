"""A small network that reads a canvas from its tokens: an encoder of one token, frozen, then weights over tokens.

    token (3, 16, 16) -> 2 convolutions -> 48 values          trained once on single tokens: which digit, or none
    48 values, mean colour, level -> gated attention -> class  trained for each way of choosing tokens, the same way

The second is the pooling of Ilse, Tomczak & Welling (ICML 2018), with the logarithm of a token's area added to its
score (proportional attention, Bolya et al. 2023), as in `tilestream.ops.attend`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

NONE = 10
"""Class of a token that shows no whole digit."""
LEVELS = 6
_MEAN, _STD = 110.0, 60.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """Tokens of many canvases."""

    pixels: npt.NDArray[np.uint8]
    """`(n, t, 3, p, p)`."""
    squares: npt.NDArray[np.int64]
    """`(n, t, 4)`: level, y, x, size."""
    shows: npt.NDArray[np.int64]
    """`(n, t)` class of the digit that a token shows whole and large enough to be read; `NONE` without one."""


class Encoder(nn.Module):
    """Tokens `(n, 3, 16, 16)` as they are stored to 48 values."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.GELU(),
            nn.Flatten(), nn.Linear(512, 48), nn.GELU(),
        )  # fmt: skip
        self.output = nn.Linear(48, NONE + 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers((x.float() - _MEAN) / _STD)
        return found


class Reader(nn.Module):
    """Vectors `(n, t, d)` and logarithms of areas `(n, t)` to scores of ten classes."""

    def __init__(self, dim: int, width: int = 48) -> None:
        super().__init__()
        self.value, self.gate, self.weight = nn.Linear(dim, width), nn.Linear(dim, width), nn.Linear(width, 1)
        self.output = nn.Linear(dim, NONE)

    def forward(self, x: Tensor, log_area: Tensor) -> Tensor:
        score = self.weight(torch.tanh(self.value(x)) * torch.sigmoid(self.gate(x)))[..., 0] + log_area
        found: Tensor = self.output((score.softmax(dim=1)[..., None] * x).sum(dim=1))
        return found


def train_encoder(tokens: list[Tokens], *, seed: int, steps: int = 2000, batch: int = 192) -> Encoder:
    """Return an encoder of single tokens, trained on those of all ways of choosing together."""
    torch.manual_seed(seed)
    pixels = torch.from_numpy(np.concatenate([one.pixels.reshape(-1, *one.pixels.shape[2:]) for one in tokens]))
    shows = torch.from_numpy(np.concatenate([one.shows.ravel() for one in tokens]))
    some, none = (shows != NONE).nonzero()[:, 0], (shows == NONE).nonzero()[:, 0]
    encoder, draw = Encoder(), torch.Generator().manual_seed(seed)
    optimiser, schedule = _optimiser(encoder, 3e-3, steps)
    for _ in range(steps):  # three of four show a digit
        index = torch.cat([
            part[torch.randint(len(part), (count,), generator=draw)]
            for part, count in ((some, batch - batch // 4), (none, batch // 4))
        ])  # fmt: skip
        loss = F.cross_entropy(encoder.output(encoder(pixels[index])), shows[index])
        _step(optimiser, schedule, loss)
    return encoder.eval().requires_grad_(False)


def describe(encoder: Encoder, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Return vectors `(n, t, d)` and logarithms of areas `(n, t)` of tokens."""
    n, t = tokens.shows.shape
    with torch.inference_mode():
        pixels = torch.from_numpy(tokens.pixels)
        seen = torch.cat([encoder(part.flatten(0, 1)).view(len(part), t, -1) for part in pixels.split(16)])
        colour = torch.cat([part.float().mean(dim=(3, 4)) for part in pixels.split(64)])
    level = torch.from_numpy(tokens.squares[..., 0])
    vectors = torch.cat([seen, (colour - _MEAN) / _STD, F.one_hot(level, LEVELS).float()], dim=2)
    assert vectors.shape[:2] == (n, t)
    return vectors, level.float() * math.log(4)


def accuracy(
    train: tuple[Tensor, Tensor, Tensor], test: tuple[Tensor, Tensor, Tensor], *, seed: int, epochs: int = 40
) -> npt.NDArray[np.bool_]:
    """Return which canvases of the test are read right, `(n,)`, after training a reader.

    Parameters
    ----------
    train, test : tuple of Tensor
        Vectors, logarithms of areas and classes.
    seed : int
        Of weights and of the order.
    epochs : int
        Passes over the canvases; nothing is chosen on the test.

    Returns
    -------
    ndarray of bool
        One a canvas.
    """
    torch.manual_seed(seed)
    x, log_area, labels = train
    mean, std = x.mean(dim=(0, 1)), x.std(dim=(0, 1)) + 1e-3
    x, batch, draw = (x - mean) / std, min(64, len(x)), torch.Generator().manual_seed(seed)
    reader = Reader(x.shape[2])
    optimiser, schedule = _optimiser(reader, 5e-3, epochs * (len(x) // batch))
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=draw)
        for index in order[: len(x) // batch * batch].view(-1, batch):
            _step(optimiser, schedule, F.cross_entropy(reader(x[index], log_area[index]), labels[index]))
    with torch.inference_mode():
        found = reader.eval()((test[0] - mean) / std, test[1]).argmax(dim=1)
    return np.asarray((found == test[2]).numpy())


def _optimiser(network: nn.Module, rate: float, steps: int) -> tuple[torch.optim.Optimizer, OneCycleLR]:
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.02)
    return optimiser, OneCycleLR(optimiser, rate, total_steps=steps)


def _step(optimiser: torch.optim.Optimizer, schedule: OneCycleLR, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()
