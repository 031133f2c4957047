"""The training of one head: epochs, early stopping, and a state from which it goes on to the same bits."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from tilestream.codecs.durable import read_if_there, write_durable
from tilestream.errors import ConfigError, StageError
from tilestream.models.head import Head, new_head
from tilestream.models.runners import one_torch_thread, torch_device
from tilestream.torch.bags import BagBatch, BagFeed, Bags, Sample, batches_of
from tilestream.torch.chance import mixed_seed, own_chance

Ints: TypeAlias = npt.NDArray[np.int64]

DEFAULTS: Mapping[str, Mapping[str, Any]] = {"abmil": {"embed": 256}}
"""Parameters of aggregators where nobody says otherwise: attention over vectors as they are, with nothing learned
before it, hardly ever finds the few that decide."""
TESTED_TOGETHER = 32
"""Most slides of which the vectors go through a head at once where nothing is learned."""
SMALL_BYTES = 1 << 20
"""Bags of a step up to this size are computed by one thread."""
LONGEST_GAP_S = 15.0
"""How often a state is written at most: an epoch of a small cohort takes less than a sync of the disk."""


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """How a head is trained."""

    aggregator: str = "abmil"
    """Name of the aggregator."""
    params: Mapping[str, Any] | None = None
    """Its keyword parameters; None = those of `DEFAULTS`."""
    epochs: int = 100
    """Most epochs."""
    patience: int = 15
    """Epochs without a smaller loss in validation after which it stops."""
    lr: float = 1e-3
    """Step of AdamW."""
    weight_decay: float = 1e-2
    """Decay of AdamW."""
    slides_per_step: int = 8
    """Slides whose gradients are summed for a step; large bags go through one after the other."""
    tiles_per_bag: int | None = None
    """Vectors of a slide that an epoch of training shows, chosen anew each time; None = all. Validation sees all."""
    seed: int = 0
    """What all chance follows from."""
    autocast: bool = False
    """Whether a CUDA device computes in bfloat16 where that is safe."""

    def __post_init__(self) -> None:
        if not 0 < self.lr < np.inf:
            raise ConfigError.of("`--lr`", got=self.lr, expected="a step above 0", do="Correct it.")

    @property
    def chosen_params(self) -> dict[str, Any]:
        """Return the parameters of the aggregator."""
        return dict(DEFAULTS.get(self.aggregator, {}) if self.params is None else self.params)


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Slides with their classes."""

    numbers: Ints
    """`(n,)` numbers of the slides in their bags."""
    labels: Ints
    """`(n,)` class, from 0."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What an epoch has come to."""

    epoch: int
    """From 1."""
    train_loss: float
    """Mean cross-entropy over the epoch, while it learned."""
    val_loss: float
    """The same over the slides that it does not learn from, at its end."""
    is_best: bool
    """Whether that is the smallest so far."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedHead:
    """A head as it was after its best epoch."""

    head: Head
    """In evaluation mode, on the device."""
    epochs: tuple[Epoch, ...]
    """All epochs."""

    @property
    def best(self) -> Epoch:
        """Return the epoch whose parameters it has."""
        return [one for one in self.epochs if one.is_best][-1]


class HeadTraining:
    """Trains one head; asked again after it was killed it goes on.

    Parameters
    ----------
    bags : Bags
        The slides.
    feed : BagFeed
        Shows them.
    settings : HeadSettings
        How.
    classes : int
        Number of classes.
    state : Path
        File of its state.
    recipe : str
        What tells this training from all others; a state of another one is not gone on with.
    fold : int
        Number of the training; chance follows from it.
    """

    def __init__(  # noqa: PLR0913 - what a training is made of, each by name
        self,
        bags: Bags,
        *,
        feed: BagFeed,
        settings: HeadSettings,
        classes: int,
        state: Path,
        recipe: str,
        fold: int,
    ) -> None:
        self._bags = bags
        self._feed = feed
        self._settings = settings
        self._classes = classes
        self._state = state
        self._recipe = recipe
        self._fold = fold

    def fit(
        self, train: Examples, val: Examples, *, hear: Callable[[Epoch], None], gap_s: float = LONGEST_GAP_S
    ) -> FittedHead:
        """Return the head of the epoch with the smallest loss in validation.

        Parameters
        ----------
        train : Examples
            What it learns from.
        val : Examples
            What says when to stop.
        hear : callable
            Told of each epoch, also of those that an earlier process has made.
        gap_s : float
            How often its state is written at most.

        Returns
        -------
        FittedHead
            The head and its epochs.

        Raises
        ------
        StageError
            When the loss becomes NaN, or a vector is not finite.
        """
        with own_chance(), self._threads():
            course = self._begun(train)
            for epoch in course.epochs:
                hear(epoch)
            weights = _class_weights(train.labels, self._classes).to(torch_device())
            written = time.monotonic()
            while not course.is_over(self._settings):
                epoch = self._epoch(course, train, val, weights)
                if (is_over := course.is_over(self._settings)) or time.monotonic() - written >= gap_s:
                    self._save(course, is_over)
                    written = time.monotonic()
                hear(epoch)
        course.head.load_state_dict(course.best)
        return FittedHead(head=course.head.eval(), epochs=tuple(course.epochs))

    def predict(self, fitted: FittedHead, numbers: Sequence[int]) -> npt.NDArray[np.float64]:
        """Return the probability of each class, `(n, classes)`, of slides by all of their vectors."""
        found = np.zeros((len(numbers), self._classes))
        with torch.inference_mode():
            batches, done = batches_of(numbers, self._bags, most=TESTED_TOGETHER), 0
            for bag in self._feed.show(batches):
                shares = torch.softmax(fitted.head(*bag).double(), 1)  # b, classes
                found[done : done + len(shares)] = shares.cpu().numpy()
                done += len(shares)
        return found

    def _epoch(self, course: _Course, train: Examples, val: Examples, weights: torch.Tensor) -> Epoch:
        number, settings = len(course.epochs) + 1, self._settings
        seed = (settings.seed, self._fold, number)
        torch.manual_seed(mixed_seed(seed))  # dropout; all chance of an epoch follows from its number
        order = np.random.default_rng(seed).permutation(len(train.numbers))
        sample = None if settings.tiles_per_bag is None else Sample(most=settings.tiles_per_bag, seed=seed)
        course.head.train()
        numbers, per_step = [int(n) for n in train.numbers[order]], settings.slides_per_step
        steps = [
            batches_of(numbers[start : start + per_step], self._bags, most=per_step, sample=sample)
            for start in range(0, len(numbers), per_step)
        ]
        shown = self._feed.show([batch for step in steps for batch in step], sample)
        labels = iter(_split(train.labels[order], [batch for step in steps for batch in step]))
        total, weight_sum = 0.0, 0.0
        for step in steps:
            course.optimiser.zero_grad()
            slides = sum(map(len, step))
            for _ in step:
                loss, weight = self._loss(course.head, next(shown), next(labels), weights)
                (loss / slides).backward()  # type: ignore[no-untyped-call]  # torch's own
                total += float(loss.detach())
                weight_sum += weight
            course.optimiser.step()
        shown.close()
        val_loss = self._validate(course.head, val, weights)
        if not np.isfinite(total + val_loss):
            raise _diverged(number, settings.lr)
        best = min((one.val_loss for one in course.epochs), default=np.inf)
        epoch = Epoch(epoch=number, train_loss=total / weight_sum, val_loss=val_loss, is_best=val_loss < best)
        course.epochs.append(epoch)
        if epoch.is_best:
            course.best = {name: values.clone() for name, values in course.head.state_dict().items()}
        return epoch

    def _loss(
        self, head: Head, bags: BagBatch, labels: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        """Return the sum of the weighted losses of some bags, and of the weights."""
        device = bags.x.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._settings.autocast and device.type == "cuda"):
            scores = head(*bags)  # b, classes
        labels = labels.to(device)
        loss = F.cross_entropy(scores.float(), labels, weights, reduction="sum")
        return loss, float(weights[labels].sum())

    def _validate(self, head: Head, val: Examples, weights: torch.Tensor) -> float:
        head.eval()
        batches = batches_of([int(n) for n in val.numbers], self._bags, most=TESTED_TOGETHER)
        labels = _split(val.labels, batches)
        total, weight_sum = 0.0, 0.0
        with torch.inference_mode():
            for own, bags in zip(labels, self._feed.show(batches), strict=True):
                loss, weight = self._loss(head, bags, own, weights)
                total += float(loss)
                weight_sum += weight
        return total / weight_sum

    def _threads(self) -> AbstractContextManager[None]:
        """Keep small bags on one thread: others would wait for each other longer than they compute."""
        largest = max(self._bags.size(int(number)) for number in range(self._bags.count))
        is_small = largest * self._bags.dim * 4 * self._settings.slides_per_step <= SMALL_BYTES
        return one_torch_thread() if is_small else nullcontext()

    def _begun(self, train: Examples) -> _Course:
        settings = self._settings
        torch.manual_seed(mixed_seed((settings.seed, self._fold, 0)))
        head = new_head(settings.aggregator, settings.chosen_params, dim=self._bags.dim, classes=self._classes)
        _start_even(head)
        head.standardise(*_moments(self._bags, train.numbers))
        head.to(torch_device())
        optimiser = torch.optim.AdamW(head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        course = _Course(head=head, optimiser=optimiser)
        data = read_if_there(self._state)
        if data is None:
            return course
        known = torch.load(io.BytesIO(data), map_location=torch_device(), weights_only=True)
        if known["recipe"] != self._recipe:
            return course
        head.load_state_dict(known["head"])
        if known["optimiser"]:  # none is kept of a training that is over
            optimiser.load_state_dict(known["optimiser"])
        course.best = known["best"]
        course.epochs = [Epoch(**one) for one in known["epochs"]]
        return course

    def _save(self, course: _Course, is_over: bool) -> None:
        document = {
            "recipe": self._recipe,
            "head": course.head.state_dict(),
            "optimiser": {} if is_over else course.optimiser.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save({**document, "best": course.best, "epochs": [vars(epoch) for epoch in course.epochs]}, buffer)
        write_durable(self._state, buffer.getvalue())


@dataclass
class _Course:
    """A training as far as it has come."""

    head: Head
    optimiser: torch.optim.Optimizer
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)

    def is_over(self, settings: HeadSettings) -> bool:
        """Return whether enough epochs were made, or enough that brought nothing."""
        done = len(self.epochs)
        if done >= settings.epochs:
            return True
        best = max((one.epoch for one in self.epochs if one.is_best), default=0)
        return done - best >= settings.patience > 0


def _start_even(head: Head) -> None:
    """Let attention begin as a mean: one that looks away by chance from what decides never hears of it."""
    score = getattr(head.aggregator, "score", None)
    if isinstance(score, torch.nn.Linear):
        with torch.no_grad():
            score.weight.mul_(0.01)


def _split(labels: Ints, batches: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Return the labels of each batch."""
    edges = np.cumsum([len(batch) for batch in batches])[:-1]
    return [torch.from_numpy(own) for own in np.split(labels, edges)]


def _class_weights(labels: Ints, classes: int) -> torch.Tensor:
    """Return weights by which all classes count alike, however many slides they have."""
    counts = np.bincount(labels, minlength=classes)
    return torch.from_numpy(len(labels) / (classes * counts)).float()


def _moments(bags: Bags, numbers: Ints) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and standard deviation of vectors over slides, of which each counts alike."""
    known = [bags.moments(int(number)) for number in numbers]
    means, stds = (np.stack(values) for values in zip(*known, strict=True))
    mean = means.mean(0)
    return mean, np.sqrt((stds**2 + (means - mean) ** 2).mean(0))


def _diverged(epoch: int, lr: float) -> StageError:
    return StageError.of(
        f"the loss in epoch {epoch}",
        got="NaN or infinity",
        expected="a number",
        do=f"Take smaller steps than {lr:g}: `--lr`.",
    )
