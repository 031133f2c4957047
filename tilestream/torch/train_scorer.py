"""The training of a scorer, from labels of tiles or of whole bags; the same bits for the same seed, after any stop."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from tilestream.codecs.durable import read_if_there, write_durable
from tilestream.errors import ConfigError, StageError
from tilestream.models.runners import one_torch_thread
from tilestream.models.scorer import Scorer, ScorerNetwork, ScorerRecord
from tilestream.torch.chance import mixed_seed, own_chance
from tilestream.torch.scorer_examples import (
    SEEN,
    Bag,
    held_out_of,
    moments,
    require_bags,
    require_tiles,
    some_of,
    spread_over,
)
from tilestream.torch.scorer_objectives import BagChoice, BagObjective, Method, Objective, TileObjective
from tilestream.torch.train_head import Epoch

Tiles: TypeAlias = npt.NDArray[Any]
EVEN = 0.01
"""Factor on the first scores where bags are learned from: a scorer that looks away by chance from what decides would
never hear of it."""
_EXPECTED = {"held_out": "a share below 1", "method": "`attention` or `topk`"}


@dataclass(frozen=True, kw_only=True)
class ScorerSettings:
    """How a scorer is trained."""

    method: Method = "attention"
    """With labels of bags: how the tiles that a classifier sees are chosen."""
    width: int = 32
    """Values between the layers of the scorer."""
    epochs: int = 30
    """Epochs; of them the one with the smallest loss on what is held out is kept."""
    lr: float = 3e-3
    """Step of AdamW."""
    weight_decay: float = 1e-2
    """Decay of AdamW."""
    batch: int = 64
    """Tiles a step, half of each class; of bags an eighth of that."""
    held_out: float = 0.2
    """Share that is not learned from."""
    k: int = 8
    """Bags: tiles that are looked at closely."""
    entropy: float = 0.01
    """Attention: weight of its entropy."""
    sigma: float = 0.5
    """Top-k: noise on scores."""
    draws: int = 100
    """Top-k: draws of noise."""
    seed: int = 0
    """What all chance follows from."""

    def __post_init__(self) -> None:
        wrong = [name for name in ("width", "epochs", "batch", "k", "draws") if getattr(self, name) < 1]
        wrong += [name for name in ("lr", "sigma") if not 0 < getattr(self, name) < np.inf]
        wrong += [name for name in ("weight_decay", "entropy") if not 0 <= getattr(self, name) < np.inf]
        wrong += [] if 0 <= self.held_out < 1 else ["held_out"]
        wrong += [] if self.method in ("attention", "topk") else ["method"]
        if wrong:
            raise ConfigError.of(
                f"`{wrong[0]}` of a scorer's training",
                got=getattr(self, wrong[0]),
                expected={"held_out": "a share below 1", "method": "`attention` or `topk`"}.get(
                    wrong[0], "more than 0"
                ),
                do="Correct it.",
            )


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Where a training keeps its state, so that it goes on after it was killed."""

    state: Path
    """The file."""
    recipe: str
    """What tells this training from all others; a state of another one is not gone on with."""


def train_scorer(  # noqa: PLR0913 - the public call: each is given by name
    tiles: Tiles,
    labels: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    settings: ScorerSettings | None = None,
    about: Mapping[str, Any] | None = None,
    hear: Callable[[Epoch], None] | None = None,
    kept: Kept | None = None,
) -> Scorer:
    """Return a scorer trained on tiles that have labels of their own.

    Parameters
    ----------
    tiles : ndarray
        `(n, d)` vectors, or `(n, c, h, w)` pixels as they are stored, of the coarse level that it will be asked about.
    labels : array_like
        `(n,)` True or 1 for tiles that matter; shares in 0 to 1 will do too.
    groups : array_like, optional
        `(n,)` number of the image of each tile; of five images or more whole ones are held out.
    settings : ScorerSettings, optional
        How.
    about : Mapping, optional
        What else its record says of the tiles: `mpp`, `downsample`, or `encoder` and `features` of vectors.
    hear : callable, optional
        Told of each epoch, also of those that an earlier process has made.
    kept : Kept, optional
        Where its state is kept.

    Returns
    -------
    Scorer
        `scorer(tiles)` gives `(n,)` in 0 to 1.

    Raises
    ------
    ConfigError
        When tiles and labels do not belong together, or all labels are alike.
    StageError
        When the loss becomes NaN.

    Notes
    -----
    Memory is that of the tiles and a few batches.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(200) % 2
    >>> tiles = rng.normal(size=(200, 4)).astype(np.float32) + 4 * labels[:, None]
    >>> scorer = train_scorer(tiles, labels, settings=ScorerSettings(epochs=5))
    >>> bool(scorer(tiles)[labels == 1].min() > scorer(tiles)[labels == 0].max())
    True
    """
    settings = settings or ScorerSettings()
    known = np.asarray(labels, np.float32)
    require_tiles(tiles, known)
    with own_chance(), one_torch_thread():
        network = _new(tiles, settings, about)
        images = None if groups is None else np.asarray(groups, np.int64)
        held_out = held_out_of(known > 0.5, settings.held_out, seed=settings.seed, groups=images)
        objective = TileObjective(network, tiles=tiles, labels=known, held_out=held_out, batch=settings.batch)
        course = _fitted(objective, settings, hear, kept)
        return _finished(network, tiles, course, settings, about, "tiles")


def train_scorer_on_bags(
    bags: Sequence[Bag],
    labels: npt.ArrayLike,
    *,
    settings: ScorerSettings | None = None,
    about: Mapping[str, Any] | None = None,
    hear: Callable[[Epoch], None] | None = None,
    kept: Kept | None = None,
) -> Scorer:
    """Return a scorer trained on images of which only the class is known, by what a few tiles show that it chooses.

    Parameters
    ----------
    bags : sequence of ScorerBag
        Images, or anything with the same attributes: all tiles of a coarse level, and how to look closely at a few.
    labels : array_like
        `(n,)` class of each, numbers from 0.
    settings : ScorerSettings, optional
        How; `method` says how tiles are chosen.
    about : Mapping, optional
        What else its record says of the tiles: `mpp`, `downsample`, or `encoder` and `features` of vectors.
    hear : callable, optional
        Told of each epoch, also of those that an earlier process has made.
    kept : Kept, optional
        Where its state is kept.

    Returns
    -------
    Scorer
        `scorer(tiles)` gives `(n,)` in 0 to 1: the mean tile of the training has 0.5, whatever its class.

    Raises
    ------
    ConfigError
        When bags and labels do not belong together, or all labels are alike.
    StageError
        When the loss becomes NaN.

    Notes
    -----
    A step decodes at most `k` tiles of each of its bags by attention, and those that noise has chosen by top-k.
    """
    settings = settings or ScorerSettings()
    known = np.asarray(labels, np.int64)
    require_bags(bags, known)
    with own_chance(), one_torch_thread():
        seen = some_of(bags)
        network = _new(seen, settings, about)
        with torch.no_grad():
            network.output.weight.mul_(EVEN)
        choice = BagChoice(
            method=settings.method,
            k=settings.k,
            width=settings.width,
            bags_per_step=max(1, settings.batch // 8),
            entropy=settings.entropy,
            sigma=settings.sigma,
            draws=settings.draws,
        )
        held_out = held_out_of(known, settings.held_out, seed=settings.seed)
        objective = BagObjective(network, bags=bags, labels=known, held_out=held_out, choice=choice)
        course = _fitted(objective, settings, hear, kept)
        with torch.inference_mode():
            scores = network(torch.from_numpy(seen))
        network.shift.copy_(scores.mean())
        network.spread.copy_(scores.std(correction=0) + 1e-6)
        return _finished(network, seen, course, settings, about, "bags")


@dataclass
class _Course:
    """A training as far as it has come."""

    optimiser: torch.optim.Optimizer
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)


def _fitted(
    objective: Objective, settings: ScorerSettings, hear: Callable[[Epoch], None] | None, kept: Kept | None
) -> tuple[Epoch, ...]:
    """Train, leave the networks as they were after their best epoch, and return all epochs."""
    networks = objective.networks
    optimiser = torch.optim.AdamW(networks.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    course = _Course(optimiser=optimiser)
    if kept is not None:
        _restore(course, networks, kept)
    for epoch in course.epochs:
        (hear or _nobody)(epoch)
    while len(course.epochs) < settings.epochs:
        epoch = _epoch(objective, course, settings)
        if kept is not None:
            _save(course, networks, kept)
        (hear or _nobody)(epoch)
    networks.load_state_dict(course.best)
    return tuple(course.epochs)


def _epoch(objective: Objective, course: _Course, settings: ScorerSettings) -> Epoch:
    number, losses = len(course.epochs) + 1, []
    objective.networks.train()
    for loss in objective.losses((settings.seed, number)):
        course.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        course.optimiser.step()
        losses.append(float(loss.detach()))
    objective.networks.eval()
    with torch.inference_mode():
        val_loss = objective.validate()
    if not np.isfinite(sum(losses) + val_loss):
        raise StageError.of(
            f"the loss in epoch {number}",
            got="NaN or infinity",
            expected="a number",
            do=f"Take smaller steps than {settings.lr:g}: `--lr`.",
        )
    best = min((one.val_loss for one in course.epochs), default=np.inf)
    epoch = Epoch(epoch=number, train_loss=float(np.mean(losses)), val_loss=val_loss, is_best=val_loss < best)
    course.epochs.append(epoch)
    if epoch.is_best:
        course.best = {name: values.clone() for name, values in objective.networks.state_dict().items()}
    return epoch


def _restore(course: _Course, networks: torch.nn.ModuleDict, kept: Kept) -> None:
    data = read_if_there(kept.state)
    known = None if data is None else torch.load(io.BytesIO(data), weights_only=True)
    if known is None or known["recipe"] != kept.recipe:
        return
    networks.load_state_dict(known["networks"])
    course.optimiser.load_state_dict(known["optimiser"])
    course.best = known["best"]
    course.epochs = [Epoch(**one) for one in known["epochs"]]


def _save(course: _Course, networks: torch.nn.ModuleDict, kept: Kept) -> None:
    document = {
        "recipe": kept.recipe,
        "networks": networks.state_dict(),
        "optimiser": course.optimiser.state_dict(),
        "best": course.best,
        "epochs": [vars(epoch) for epoch in course.epochs],
    }
    buffer = io.BytesIO()
    torch.save(document, buffer)
    write_durable(kept.state, buffer.getvalue())


def _nobody(epoch: Epoch) -> None:
    del epoch


def _new(tiles: Tiles, settings: ScorerSettings, about: Mapping[str, Any] | None) -> ScorerNetwork:
    """Return a network whose parameters follow from the seed, standardised by some of the tiles."""
    torch.manual_seed(mixed_seed((settings.seed, 0)))
    network = ScorerNetwork(_record(tiles, settings, about, {}))
    network.input.standardise(*moments(spread_over(tiles, SEEN)))
    return network


def _record(
    tiles: Tiles, settings: ScorerSettings, about: Mapping[str, Any] | None, training: Mapping[str, Any]
) -> ScorerRecord:
    known: dict[str, Any] = {"takes": "vectors", "inputs": tiles.shape[1], "width": settings.width}
    if tiles.ndim == 4:
        known |= {"takes": "pixels", "px": tiles.shape[2], "dtype": str(tiles.dtype)}
    return ScorerRecord(**known, **(about or {}), training=training)


def _finished(
    network: ScorerNetwork,
    tiles: Tiles,
    epochs: tuple[Epoch, ...],
    settings: ScorerSettings,
    about: Mapping[str, Any] | None,
    labels: Literal["tiles", "bags"],
) -> Scorer:
    best = [epoch for epoch in epochs if epoch.is_best][-1]
    training = {"labels": labels, "settings": asdict(settings), "best": vars(best), "epochs": len(epochs)}
    return Scorer(network=network.eval(), record=_record(tiles, settings, about, training))
