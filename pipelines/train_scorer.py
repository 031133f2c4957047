"""Trains a scorer of coarse tiles: what `tilestream train scorer` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tilestream import __version__
from tilestream.codecs.durable import write_durable
from tilestream.errors import ConfigError
from tilestream.models.scorer import Scorer
from tilestream.pipelines.scorer_examples import MARKED, ScorerData, TileChoice, bags_of, tiles_of
from tilestream.pipelines.train_folder import claimed
from tilestream.pipelines.train_results import as_json, scorer_csv
from tilestream.pipelines.train_scores import auc
from tilestream.torch.scorer_examples import held_out_of
from tilestream.torch.train_head import Epoch
from tilestream.torch.train_scorer import Kept, ScorerSettings, train_scorer, train_scorer_on_bags

MODEL, METRICS, EPOCHS = "scorer.safetensors", "metrics.json", "metrics.csv"
BUDGETS = (0.01, 0.05, 0.1, 0.2)
"""Shares of the tiles at which it is told how many of those that are marked are among the best."""


@dataclass(frozen=True, kw_only=True)
class ScorerConfig:
    """What is trained, on what, and where it goes."""

    source: Path
    """Folder that `tilestream embed` was given as `--out`, or an image or a folder of images."""
    labels: Path
    """Table of classes of slides (`.csv`), or a mask or GeoJSON file, or a folder of these."""
    out: Path
    """Folder of the results."""
    encoder: str | None = None
    """With a table: which features, where there are several sets."""
    tiles: TileChoice = field(default_factory=TileChoice)
    """With marks: which tiles."""
    settings: ScorerSettings = field(default_factory=ScorerSettings)
    """How it is trained."""
    keep_bytes: int = 1 << 30
    """Memory for examples."""
    resume: bool = True
    """Whether an earlier run is gone on with."""

    @property
    def has_table(self) -> bool:
        """Return whether slides have classes, instead of parts of images being marked."""
        return self.labels.suffix.lower() in (".csv", ".tsv", ".txt")


@dataclass(frozen=True, kw_only=True, eq=False)
class ScorerOutcome:
    """What a run has trained."""

    scorer: Scorer
    """The scorer."""
    document: dict[str, Any]
    """What `metrics.json` holds."""
    out: Path
    """Folder of the results."""


Hear: TypeAlias = Callable[[ScorerData | Epoch], None]


def run_scorer(config: ScorerConfig, *, on_event: Hear = lambda _: None) -> ScorerOutcome:
    """Train a scorer and return how good it is on what it has not learned from.

    Parameters
    ----------
    config : ScorerConfig
        What, on what and where.
    on_event : callable
        Told of the examples and of each epoch; may raise to stop.

    Returns
    -------
    ScorerOutcome
        After all files are written: scorer, metrics, epochs.

    Raises
    ------
    ConfigError
        When examples, labels and options do not fit each other, or the folder holds another training.
    StageError
        When the training diverges.
    """
    data = _examples(config)
    on_event(data)
    recipe = {
        "version": __version__,
        "kind": data.kind,
        "settings": asdict(config.settings),
        "about": dict(data.about),
        **data.recipe,
    }
    epochs: list[Epoch] = []

    def hear(epoch: Epoch) -> None:
        epochs.append(epoch)
        on_event(epoch)

    with claimed(config.out, recipe, resume=config.resume) as digest:
        kept = Kept(state=config.out / "state" / "scorer.pt", recipe=digest)
        if data.tiles is None:
            scorer = train_scorer_on_bags(
                data.bags, data.labels, settings=config.settings, about=data.about, hear=hear, kept=kept
            )
        else:
            scorer = train_scorer(
                data.tiles,
                data.labels,
                groups=data.groups,
                settings=config.settings,
                about=data.about,
                hear=hear,
                kept=kept,
            )
        document = _document(config, data, scorer, epochs)
        scorer.save(config.out / MODEL)
        write_durable(config.out / EPOCHS, scorer_csv(epochs))
        write_durable(config.out / METRICS, as_json(document))
    return ScorerOutcome(scorer=scorer, document=document, out=config.out)


def _examples(config: ScorerConfig) -> ScorerData:
    if not config.source.exists() or not config.labels.exists():
        missing = config.source if not config.source.exists() else config.labels
        raise ConfigError.of(
            f"`{missing}`",
            got="nothing there",
            expected="features or images" if missing == config.source else "a table of labels, a mask, or GeoJSON",
            do="Check the path.",
        )
    if config.has_table:
        if config.tiles.encoder is not None or config.tiles != TileChoice():
            raise ConfigError.of(
                "options of tiles",
                got=f"a table of labels, `{config.labels.name}`, for features that are there",
                expected="marks on images, whose tiles are still to be cut",
                do="Leave --tile, --reduce, --mpp, --where and --weights out.",
            )
        return bags_of(config.source, config.labels, encoder=config.encoder, keep_bytes=config.keep_bytes)
    return tiles_of(config.source, config.labels, config.tiles, memory_bytes=config.keep_bytes)


def _document(config: ScorerConfig, data: ScorerData, scorer: Scorer, epochs: list[Epoch]) -> dict[str, Any]:
    best = [epoch for epoch in epochs if epoch.is_best][-1]
    document = {
        "kind": data.kind,
        "examples": data.counts,
        "images": len(data.names),
        "about": dict(data.about),
        "settings": asdict(config.settings),
        "best": vars(best),
        "epochs": len(epochs),
        "notes": list(data.notes),
    }
    if data.tiles is None:
        return document
    return {**document, "held_out": _held_out(config.settings, data, scorer)}


def _held_out(settings: ScorerSettings, data: ScorerData, scorer: Scorer) -> dict[str, Any]:
    """Return how well marked tiles are found among those that were not learned from."""
    assert data.tiles is not None
    wanted = data.labels > MARKED
    held = held_out_of(wanted, settings.held_out, seed=settings.seed, groups=data.groups)
    if not wanted[held].any() or wanted[held].all():
        return {"tiles": int(held.sum()), "auc": None, "recall": {}}
    scores, positive = scorer(data.tiles[held]).astype(np.float64), wanted[held]
    order = np.argsort(-scores, kind="stable")
    found = {}
    for budget in BUDGETS:
        best = order[: max(1, round(budget * len(order)))]
        found[f"{budget:g}"] = float(positive[best].sum() / positive.sum())
    return {
        "tiles": int(held.sum()),
        "images": len(np.unique(data.groups[held])) if data.groups is not None else 1,
        "auc": auc(scores, positive),
        "recall": found,
    }
