"""DINO: a student learns from small and large squares what a slowly following teacher says of the large ones.

    q_t = softmax((teacher(large) - centre) / tau_t),   p_s = softmax(student(square) / tau_s)
    loss = mean over pairs of different squares of  -sum q_t log p_s
    teacher <- m teacher + (1 - m) student,   centre <- 0.9 centre + 0.1 mean teacher(large)

Caron et al., ICCV 2021, https://arxiv.org/abs/2104.14294. Names of parameters are those of its checkpoints.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CENTRE_MOMENTUM = 0.9


class Prototypes(nn.Module):
    """Cosines with directions that are learned; a linear layer whose rows have length 1.

    Parameters
    ----------
    dim : int
        Length of a vector.
    count : int
        How many.
    """

    weight_g: Tensor

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.register_buffer("weight_g", torch.ones(count, 1))  # fixed; published checkpoints hold it
        self.weight_v = nn.Parameter(nn.init.trunc_normal_(torch.empty(count, dim), std=0.02))

    def forward(self, x: Tensor) -> Tensor:
        """Return `[n, count]` of `[n, dim]`."""
        return F.linear(x, self.weight_g * F.normalize(self.weight_v, dim=1))  # n, count


class ProjectionHead(nn.Module):
    """Three layers to a short vector of length 1, then its cosines with prototypes.

    Parameters
    ----------
    dim : int
        Length of the backbone's vectors.
    prototypes : int
        Length of the output.
    hidden : int
        Length of the hidden layers.
    bottleneck : int
        Length of the short vector.
    """

    def __init__(self, dim: int, *, prototypes: int, hidden: int = 2048, bottleneck: int = 256) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.last_layer = Prototypes(bottleneck, prototypes)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[n, prototypes]` of `[n, dim]`."""
        short = F.normalize(self.mlp(x), dim=1)  # n, bottleneck
        cosines: Tensor = self.last_layer(short)  # n, prototypes
        return cosines


class Dino(nn.Module):
    """A backbone and its projection head; the student, or the teacher.

    Parameters
    ----------
    backbone : Module
        Grids `[n, d, h, w]` and mask `[n, h, w]` to vectors.
    head : ProjectionHead
        Vectors to scores.
    """

    def __init__(self, backbone: nn.Module, head: ProjectionHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, grids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors `[n, dim]` and scores `[n, prototypes]`."""
        vectors: Tensor = self.backbone(grids, mask)
        return vectors, self.head(vectors)


def targets(scores: Tensor, centre: Tensor, *, temperature: float) -> Tensor:
    """Return what the teacher says, `[n, k]`: probabilities, centred against collapse to one and sharpened.

    Parameters
    ----------
    scores : Tensor
        `[n, k]` of the teacher.
    centre : Tensor
        `[k]`.
    temperature : float
        Below that of the student.

    Returns
    -------
    Tensor
        `[n, k]` float32, without gradient.
    """
    return torch.softmax((scores.detach().float() - centre) / temperature, 1)


def dino_loss(student: Tensor, said: Tensor, *, views: int, temperature: float) -> Tensor:
    """Return the mean cross-entropy between what the teacher says of one square and the student of another.

    Parameters
    ----------
    student : Tensor
        `[views * n, k]` scores: all grids by their first square, then by their second …, the large ones first.
    said : Tensor
        `[large * n, k]` of `targets`, in the same order.
    views : int
        Squares of a grid.
    temperature : float
        Of the student.

    Returns
    -------
    Tensor
        A number.
    """
    seen = F.log_softmax(student.float() / temperature, 1).chunk(views)  # each n, k
    large = said.chunk(said.shape[0] * views // student.shape[0])  # each n, k
    pairs = [
        -(one * other).sum(1).mean()
        for place, one in enumerate(large)
        for number, other in enumerate(seen)
        if number != place
    ]
    return torch.stack(pairs).mean()


def followed(centre: Tensor, scores: Tensor) -> Tensor:
    """Return the centre a step later, `[k]`."""
    return centre * CENTRE_MOMENTUM + scores.detach().float().mean(0) * (1 - CENTRE_MOMENTUM)


def spread(vectors: Tensor) -> float:
    """Return how far vectors `[n, dim]` point apart: near 1 for any directions, 0 when they have become one."""
    return float(F.normalize(vectors.float(), dim=1).std(0, unbiased=False).mean() * math.sqrt(vectors.shape[1]))


def evenness(shares: Tensor) -> float:
    """Return the entropy of `[..., k]` probabilities through that of even ones, its mean over all others."""
    entropy = -(shares * shares.clamp(min=1e-12).log()).sum(-1)
    return float(entropy.mean() / math.log(shares.shape[-1]))
