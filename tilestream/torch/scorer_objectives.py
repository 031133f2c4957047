"""What a scorer learns from: labels of tiles, or labels of whole bags by a few tiles that it chooses itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tilestream.models.scorer import ScorerNetwork, Standardised
from tilestream.torch.chance import mixed_seed
from tilestream.torch.perturbed import perturbed_top_k
from tilestream.torch.sampling import sampled_sum
from tilestream.torch.scorer_examples import Bag, Tiles, moments

Method: TypeAlias = Literal["attention", "topk"]
"""How tiles are chosen while bags are learned from: drawn by attention, or the best k under a little noise."""
KEPT = 1024
"""Most tiles of a bag for which the backward pass finds kept what the forward pass has made."""


class Objective(Protocol):
    """What is minimised."""

    @property
    def networks(self) -> nn.ModuleDict:
        """Return all that learns; the scorer under `scorer`."""

    def losses(self, seed: tuple[int, ...]) -> Iterator[Tensor]:
        """Yield the loss of each step of an epoch, whose chance follows from the seed."""

    def validate(self) -> float:
        """Return the loss on what is not learned from; of what is learned from where nothing is held out."""


class TileObjective:
    """Cross-entropy of tiles with labels of their own; both classes count alike however rare one is.

    Parameters
    ----------
    scorer : ScorerNetwork
        Learns.
    tiles : ndarray
        `(n, …)`.
    labels : ndarray of float32
        `(n,)` in 0 to 1; above a half is a tile that matters.
    held_out : ndarray of bool
        `(n,)` tiles that are not learned from.
    batch : int
        Tiles a step, half of them of each class.
    """

    def __init__(
        self,
        scorer: ScorerNetwork,
        *,
        tiles: npt.NDArray[Any],
        labels: npt.NDArray[np.float32],
        held_out: npt.NDArray[np.bool_],
        batch: int,
    ) -> None:
        self._networks = nn.ModuleDict({"scorer": scorer})
        self._tiles = tiles
        self._labels = labels
        self._half = max(1, batch // 2)
        is_wanted = labels > 0.5
        self._train = [np.flatnonzero(~held_out & (is_wanted == wanted)) for wanted in (False, True)]
        self._val = [np.flatnonzero(held_out & (is_wanted == wanted)) for wanted in (False, True)]
        if not all(map(len, self._val)):
            self._val = self._train

    @property
    def networks(self) -> nn.ModuleDict:
        """Return the scorer."""
        return self._networks

    def losses(self, seed: tuple[int, ...]) -> Iterator[Tensor]:
        """Yield the loss of each step: an epoch shows each tile of the larger class once."""
        rng = np.random.default_rng(seed)
        steps = -(-max(map(len, self._train)) // self._half)
        columns = [_repeated(rng, rows, steps * self._half) for rows in self._train]
        for step in range(steps):
            part = slice(step * self._half, (step + 1) * self._half)
            yield self._loss(np.concatenate([rows[part] for rows in columns]))

    def validate(self) -> float:
        """Return the mean of both classes' losses."""
        return float(np.mean([self._mean_loss(rows) for rows in self._val]))

    def _mean_loss(self, rows: npt.NDArray[np.int64]) -> float:
        most = 1024
        parts = [rows[first : first + most] for first in range(0, len(rows), most)]
        return sum(float(self._loss(part)) * len(part) for part in parts) / len(rows)

    def _loss(self, rows: npt.NDArray[np.int64]) -> Tensor:
        found = self._networks["scorer"](_tensor(self._tiles[rows]))
        return F.binary_cross_entropy_with_logits(found, torch.from_numpy(self._labels[rows]))


class BagObjective:
    """Cross-entropy of bags with one label each; a classifier sees only the tiles that the scorer chooses.

    The scorer learns since the choice has a gradient: see `tilestream.torch.sampling` and `tilestream.torch.perturbed`.

    Parameters
    ----------
    scorer : ScorerNetwork
        Learns where to look.
    bags : sequence of Bag
        Images.
    labels : ndarray of int64
        `(n,)` class of each, from 0.
    held_out : ndarray of bool
        `(n,)` bags that are not learned from.
    choice : BagChoice
        How tiles are chosen.
    """

    def __init__(
        self,
        scorer: ScorerNetwork,
        *,
        bags: Sequence[Bag],
        labels: npt.NDArray[np.int64],
        held_out: npt.NDArray[np.bool_],
        choice: BagChoice,
    ) -> None:
        self._bags = bags
        self._labels = torch.from_numpy(labels)
        self._train, self._val = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        self._choice = choice
        features = self._eyes(choice.width)
        classifier = nn.Linear(features.dim, int(labels.max()) + 1)
        self._networks = nn.ModuleDict({"scorer": scorer, "features": features, "classifier": classifier})
        counts = torch.bincount(self._labels[self._train]).clamp(min=1)
        self._weights = len(self._train) / (len(counts) * counts).float()

    def _eyes(self, width: int) -> Standardised:
        """Return what looks closely, standardised by a few tiles of each bag."""
        rng, seen = np.random.default_rng(0), []
        for number in self._train.tolist():
            tiles = self._bags[number].tiles
            rows = np.sort(rng.choice(len(tiles), min(len(tiles), self._choice.k), replace=False))
            seen.append(self._closely(self._bags[number], tiles, rows))
        samples = np.concatenate(seen)
        eyes = Standardised("pixels" if samples.ndim == 4 else "vectors", samples.shape[1], width)
        eyes.standardise(*moments(samples))
        return eyes

    @property
    def networks(self) -> nn.ModuleDict:
        """Return the scorer, what looks closely, and the classifier of what it saw."""
        return self._networks

    def losses(self, seed: tuple[int, ...]) -> Iterator[Tensor]:
        """Yield the loss of each step, of a few bags together."""
        order = np.random.default_rng(seed).permutation(self._train)
        chance = torch.Generator().manual_seed(mixed_seed(seed))
        for first in range(0, len(order), self._choice.bags_per_step):
            part = order[first : first + self._choice.bags_per_step]
            yield torch.stack([self._loss(int(number), chance) for number in part]).mean()

    def validate(self) -> float:
        """Return the mean loss of the bags that are held out, by the same draws each time."""
        chance = torch.Generator().manual_seed(0)
        numbers = self._val if len(self._val) else self._train
        return float(np.mean([float(self._loss(int(number), chance)) for number in numbers]))

    def _loss(self, number: int, chance: torch.Generator) -> Tensor:
        bag, choice = self._bags[number], self._choice
        tiles = bag.tiles
        scores = self._scores(tiles)  # n
        k = min(choice.k, len(scores))
        if choice.method == "attention":
            log_p = F.log_softmax(scores, 0)
            seen = sampled_sum(log_p, k, lambda rows: self._look(bag, tiles, rows), chance)
            spread = choice.entropy * (log_p.exp() * log_p).sum()  # minus the entropy: attention stays open at first
        else:
            shares = perturbed_top_k(scores, k, sigma=choice.sigma, draws=choice.draws, generator=chance)
            rows = torch.nonzero(shares.detach())[:, 0]
            seen, spread = (shares[rows] / k) @ self._look(bag, tiles, rows), torch.zeros(())
        found = self._networks["classifier"](seen)[None]
        return F.cross_entropy(found, self._labels[number][None]) * self._weights[self._labels[number]] + spread

    def _scores(self, tiles: Tiles) -> Tensor:
        """Return the scores `[n]` of all tiles of a bag; of many at once the backward pass computes what it needs anew.

        What is kept for it would else be some thousand values a pixel, of every tile of an image.
        """
        scorer, parts = self._networks["scorer"], range(0, len(tiles), KEPT)
        if len(parts) == 1 or not torch.is_grad_enabled():
            return torch.cat([scorer(_tensor(tiles[first : first + KEPT])) for first in parts])
        return torch.cat([checkpoint(scorer, _tensor(tiles[k : k + KEPT]), use_reentrant=False) for k in parts])

    def _look(self, bag: Bag, tiles: Tiles, rows: Tensor) -> Tensor:
        """Return the features of tiles in the order of their numbers here, decoded in ascending order."""
        ascending, place = torch.sort(rows)
        seen = self._networks["features"](_tensor(self._closely(bag, tiles, ascending.numpy())))
        return torch.empty_like(seen).index_copy(0, place, seen)

    @staticmethod
    def _closely(bag: Bag, tiles: Tiles, rows: npt.NDArray[np.int64]) -> Tiles:
        return np.asarray(tiles[rows] if bag.look is None else bag.look(rows))


@dataclass(frozen=True, kw_only=True)
class BagChoice:
    """How tiles of a bag are chosen in training."""

    method: Method
    """Drawn by attention, or the best k under noise."""
    k: int
    """Tiles that are looked at closely."""
    width: int
    """Values between the layers of what looks at them."""
    bags_per_step: int = 8
    """Bags whose gradients make a step."""
    entropy: float = 0.01
    """Weight of the entropy of attention, which keeps it from closing before anything is known."""
    sigma: float = 0.5
    """Noise on scores as the network gives them. They are not brought to one spread by bag: the scores of tiles that
    are never looked at would then tell the classes apart."""
    draws: int = 100
    """Draws of noise."""


def _repeated(rng: np.random.Generator, rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Return so many rows: all of them in a new order, again and again."""
    rounds = [rng.permutation(rows) for _ in range(-(-count // len(rows)))]
    return np.concatenate(rounds)[:count]


def _tensor(samples: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(samples))
