"""The profile `neural` of an ingest: tiles that are fitted, as `compress` makes them, under the names of an ingest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from distributed import Client

from tilestream.errors import ConfigError
from tilestream.pipelines.cohort import Cohort
from tilestream.pipelines.compress import HOURS, CompressConfig, run_fits
from tilestream.sinks.tiling import TILE_PX
from tilestream.stream.engine import Event

if TYPE_CHECKING:
    from tilestream.pipelines.ingest import IngestConfig

NEURAL: Final = "neural"
"""Name of the profile."""
CODEC = "pyramid"
"""What holds its tiles when nothing is said."""


@dataclass(frozen=True, kw_only=True)
class NeuralOptions:
    """How the tiles of an ingest are fitted; fields as of `CompressConfig`."""

    codec: str = CODEC
    """What holds each tile."""
    quality: float | None = None
    """1 to 100, as the codec understands it."""
    max_error: int | None = None
    """Largest error of any valid sample of each stored level."""
    steps: int | None = None
    """Steps of the fit of a tile; None = as many as the codec needs."""
    weights: Path | None = None
    """File of networks that tiles share."""
    tile_px: int = TILE_PX
    """Edge of a tile."""
    single_level: bool = False
    """Whether only level 0 is stored."""
    hours: float = HOURS
    """Most hours that an image may take by its forecast."""


def neural_options(*, weights: str | Path | None = None, **given: Any) -> NeuralOptions | None:
    """Return how tiles are fitted, None where nothing is said of it.

    Parameters
    ----------
    weights : str or path, optional
        File of networks that tiles share.
    **given : object
        Fields of `NeuralOptions`; those that are None or False were not given.

    Returns
    -------
    NeuralOptions or None
        For `IngestConfig.neural`.
    """
    said = {name: value for name, value in given.items() if value is not None and value is not False}
    if weights is not None:
        said["weights"] = Path(weights)
    return NeuralOptions(**said) if said else None


def require_neural(config: IngestConfig) -> None:
    """Raise `ConfigError` for options that do not go with the profile of an ingest.

    Parameters
    ----------
    config : IngestConfig
        How images are to be stored.
    """
    if config.profile != NEURAL:
        if config.neural is not None:
            raise ConfigError.of(
                "options of fitted tiles (`--quality`, `--max-error`, `--steps`, `--weights`, `--single-level`)",
                got=f"them with the profile {config.profile or 'that fits the image'}",
                expected=f"the profile {NEURAL}, which alone fits anything",
                do=f"Give --profile {NEURAL}, or leave them out.",
            )
        return
    others = {
        "`fill_levels` (`--fill-levels`)": config.fill_levels,
        "`jpegxl` (`--jpegxl`)": config.jpegxl,
        "`keep_identifying` (`--keep-identifying`)": config.keep_identifying,
        "`filter` (`--filter`, `--light`)": not config.reducer.is_mean,
    }
    for what, is_given in others.items():
        if is_given:
            raise ConfigError.of(
                what,
                got=f"it with the profile {NEURAL}",
                expected="it left out",
                do="Leave it out, or choose portable.",
            )
    if not config.out.is_local:
        raise ConfigError.of(
            f"`{config.out.url}`",
            got=f"a place elsewhere for stores of the profile {NEURAL}",
            expected="a folder of this machine",
            do="Store them here, then copy the finished stores.",
        )


def compress_config(config: IngestConfig) -> CompressConfig:
    """Return the configuration of the fits of an ingest.

    Parameters
    ----------
    config : IngestConfig
        Of the profile `neural`.

    Returns
    -------
    CompressConfig
        Its stores are called as those of any ingest.
    """
    fit = config.neural or NeuralOptions()
    return CompressConfig(
        out=config.out.path,
        suffix=".zarr",
        codec=fit.codec,
        quality=fit.quality,
        max_error=fit.max_error,
        steps=fit.steps,
        weights=fit.weights,
        tile_px=fit.tile_px,
        single_level=fit.single_level,
        hours=fit.hours,
        invalid=config.invalid,
        decibels=config.decibels,
        cluster=config.cluster,
        memory_bytes=config.memory_bytes,
        resume=config.resume,
    )


def run_neural(
    cohort: Cohort,
    config: IngestConfig,
    *,
    hear: Callable[[Event], None],
    on_event: Callable[[Event], None] | None,
    client: Client | None,
    has_metrics: bool,
) -> None:
    """Store every image of a cohort as fitted tiles; parameters as of `run_ingest`, and what hears of each image."""
    run_fits(cohort, compress_config(config), hear=hear, on_event=on_event, client=client, has_metrics=has_metrics)
