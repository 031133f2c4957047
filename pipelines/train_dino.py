"""Trains a second stage without labels on the features of a cohort: what `tilestream train dino` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tilestream import __version__
from tilestream.codecs.checksums import checksum
from tilestream.codecs.durable import explained, write_durable
from tilestream.codecs.metadata import encode_json
from tilestream.errors import ConfigError
from tilestream.pipelines.train_cohort import feature_facts, opened_cohort, random_notes
from tilestream.pipelines.train_folder import held
from tilestream.pipelines.train_grids import StoredGrids, find_regions
from tilestream.pipelines.train_plot import dino_picture
from tilestream.pipelines.train_results import as_json, dino_csv
from tilestream.torch.train_dino import DinoEpoch, DinoSettings, DinoTraining

CHECKPOINT, METRICS, EPOCHS, PICTURE = "checkpoint.pth", "metrics.json", "metrics.csv", "metrics.png"


@dataclass(frozen=True, kw_only=True)
class DinoConfig:
    """What is trained, on what, and where it goes."""

    features: Path
    """Folder that `tilestream embed` was given as `--out`."""
    out: Path
    """Folder of the results."""
    encoder: str | None = None
    """Which features, where there are several sets."""
    region_tiles: int = 16
    """Edge of a region in tiles."""
    least_share: float = 0.25
    """Share of a region's cells that must have a vector."""
    settings: DinoSettings = field(default_factory=DinoSettings)
    """How it is trained."""
    keep_bytes: int = 1 << 30
    """Memory for vectors that are not read again each epoch."""
    resume: bool = True
    """Whether an earlier run is gone on with."""

    def __post_init__(self) -> None:
        settings = self.settings
        if not 1 <= settings.small_cells <= settings.large_cells <= self.region_tiles <= 256:
            raise ConfigError.of(
                "squares of a region",
                got=f"{settings.large_cells} and {settings.small_cells} tiles of {self.region_tiles}",
                expected="small ones within large ones, these within a region, and that of at most 256",
                do="Correct --region-tiles, --large or --small.",
            )
        if settings.dim % settings.heads:
            raise ConfigError.of(
                "`--dim`", got=settings.dim, expected=f"a multiple of {settings.heads} heads", do="Correct it."
            )


@dataclass(frozen=True, kw_only=True)
class DinoStart:
    """Event: what is trained on."""

    encoder: str
    """Name of the encoder."""
    dim: int
    """Length of its vectors."""
    slides: int
    """Slides that have a region."""
    slides_without: int
    """Slides that have none."""
    regions: int
    """Regions."""
    left_out: int
    """Regions with too few tiles."""
    cells: int
    """Edge of a region in tiles."""
    parameters: int
    """Parameters of the second stage."""
    notes: tuple[str, ...]
    """What a user should know."""


@dataclass(frozen=True, kw_only=True)
class DinoOutcome:
    """What a run has trained."""

    document: dict[str, Any]
    """What `metrics.json` holds."""
    out: Path
    """Folder of the results."""


def run_dino(config: DinoConfig, *, on_event: Callable[[DinoStart | DinoEpoch], None] = lambda _: None) -> DinoOutcome:
    """Train a second stage and return what its training has come to.

    Parameters
    ----------
    config : DinoConfig
        What, on what and where.
    on_event : callable
        Told of the regions and each epoch; may raise to stop.

    Returns
    -------
    DinoOutcome
        After all files are written: checkpoint, metrics, picture.

    Raises
    ------
    ConfigError
        When there are no features or regions, or the folder holds another training.
    StageError
        When features are not finite, or the training diverges.
    """
    dataset, notes = opened_cohort(config.features, config.encoder)
    encoder = str(dataset.attrs["encoder"])
    features, contents = feature_facts(config.features, dataset)
    notes = (*notes, *random_notes(features))
    cells, settings = config.region_tiles, config.settings
    regions = find_regions(config.features, dataset, encoder, cells=cells, least_share=config.least_share)
    grids = StoredGrids(dataset, encoder=encoder, regions=regions, cells=cells, keep_bytes=config.keep_bytes)
    recipe = {
        "version": __version__,
        "settings": asdict(settings),
        "region_tiles": cells,
        "least_share": config.least_share,
        "features": features["digest"],
        "contents": [[str(key), contents[str(key)]] for key in dataset["slide"].values],
    }
    with held(config.out):
        if not config.resume:
            with explained(config.out / CHECKPOINT):
                (config.out / CHECKPOINT).unlink(missing_ok=True)
        training = DinoTraining(
            grids, settings=settings, checkpoint=config.out / CHECKPOINT, recipe=checksum(encode_json(recipe))
        )
        used = len(np.unique(regions.slide))
        start = DinoStart(
            encoder=encoder,
            dim=grids.dim,
            slides=used,
            slides_without=int(dataset.sizes["slide"]) - used,
            regions=regions.count,
            left_out=regions.left_out,
            cells=cells,
            parameters=training.parameters,
            notes=notes,
        )
        on_event(start)
        _, epochs = training.fit(hear=on_event)
        document = {
            **{name: value for name, value in asdict(start).items() if name != "notes"},
            "features": features,
            "settings": asdict(settings),
            "steps": training.steps,
            "last": asdict(epochs[-1]),
            "notes": list(notes),
        }
        write_durable(config.out / EPOCHS, dino_csv(epochs))
        write_durable(config.out / PICTURE, dino_picture(epochs, prototypes=settings.prototypes))
        write_durable(config.out / METRICS, as_json(document))
    return DinoOutcome(document=document, out=config.out)
