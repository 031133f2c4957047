"""Trains a downsampler on tiles of images: what `tilestream train downsample` does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tilestream import __version__
from tilestream.codecs.downsample.record import DownsamplerFile, read_downsampler, write_downsampler
from tilestream.codecs.downsample.restore import LevelScore, scores
from tilestream.codecs.downsample.training import DownsampleSettings, DownsampleStep, train_downsampler
from tilestream.codecs.durable import read_if_there, write_durable
from tilestream.errors import ConfigError
from tilestream.pipelines.train_folder import claimed
from tilestream.pipelines.train_results import as_json
from tilestream.plan.tiles import plan_tiles
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.sources.discovery import find_inputs
from tilestream.types import Box

MODEL, METRICS = "downsampler.safetensors", "metrics.json"
Tiles: TypeAlias = tuple[npt.NDArray[np.uint8], ...]


@dataclass(frozen=True, kw_only=True)
class DownsampleConfig:
    """What is trained, on what, and where it goes."""

    sources: tuple[str, ...]
    """Images, and folders of them."""
    out: Path
    """Folder of the results."""
    tile_px: int = 256
    """Edge of the tiles of level 0 that are read; a multiple of 2^levels."""
    where: str = "tissue"
    """Which tiles, as in `plan_tiles`."""
    tiles: int = 64
    """Most tiles that are learned from in an image."""
    held_out: float = 0.5
    """Share of the tiles of an image, those furthest to the right, that are never learned from."""
    settings: DownsampleSettings = field(default_factory=DownsampleSettings)
    """How it is trained."""
    resume: bool = True
    """Whether what an earlier run has finished is taken as it is."""

    def __post_init__(self) -> None:
        least = max(self.settings.patch_px, 1 << self.settings.levels)
        if self.tile_px < least or self.tile_px % (1 << self.settings.levels):
            raise ConfigError.of(
                "`tile_px` (`--tile`)",
                got=self.tile_px,
                expected=f"a multiple of {1 << self.settings.levels}, at least the {least} px of a patch",
                do="Take a larger one.",
            )
        if not 0 < self.held_out < 1 or self.tiles < 1:
            raise ConfigError.of(
                "`held_out` (`--held-out`), `tiles` (`--tiles`)",
                got=f"{self.held_out}, {self.tiles}",
                expected="a share between 0 and 1, and at least one tile",
                do="Change them.",
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class DownsampleData:
    """The tiles of one image."""

    name: str
    """Of the image."""
    fingerprint: str
    """Of its content."""
    learned: Tiles
    """`(c, y, x)` each, to learn from."""
    held_out: Tiles
    """To tell how good it is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DownsampleOutcome:
    """What a run has trained."""

    file: DownsamplerFile
    """The downsampler."""
    document: dict[str, Any]
    """What `metrics.json` holds."""
    out: Path
    """Folder of the results."""


Hear: TypeAlias = Callable[[Sequence[DownsampleData] | DownsampleStep], None]


def run_downsample(config: DownsampleConfig, *, on_event: Hear = lambda _: None) -> DownsampleOutcome:
    """Train a downsampler and return how good it is on what it has not learned from.

    Parameters
    ----------
    config : DownsampleConfig
        What, on what and where.
    on_event : callable
        Told of the tiles, and of the loss now and then; may raise to stop.

    Returns
    -------
    DownsampleOutcome
        After the file and its metrics are written.

    Raises
    ------
    ConfigError
        When there are no images that it can be trained on, or the folder holds another training.
    StageError
        When the training diverges.
    """
    images = _images(config)
    on_event(images)
    counts = [[one.name, one.fingerprint, len(one.learned), len(one.held_out)] for one in images]
    choices = {"tile_px": config.tile_px, "where": config.where, "tiles": config.tiles, "held_out": config.held_out}
    settings = {**asdict(config.settings), **choices}
    recipe = {"version": __version__, "kind": "downsampler", "settings": settings, "examples": counts}
    with claimed(config.out, recipe, resume=config.resume) as digest:
        done = _finished(config.out, digest)
        if done is not None:
            return done
        network = train_downsampler([one.learned for one in images], config.settings, hear=on_event)
        parameters = {name: values.detach().numpy() for name, values in network.state_dict().items()}
        file = DownsamplerFile(record=network.record, parameters=parameters, digest="")
        document = _document(recipe, images, file, digest)
        training = {"settings": document["settings"], "images": len(images), "held_out": document["mean"]}
        file = write_downsampler(config.out / MODEL, replace(file.record, training=training), parameters)
        write_durable(config.out / METRICS, as_json(document))
    return DownsampleOutcome(file=file, document=document, out=config.out)


def _finished(out: Path, digest: str) -> DownsampleOutcome | None:
    """Return what an earlier run of the same recipe has left; its metrics are written last."""
    text = read_if_there(out / METRICS)
    if text is None or not (out / MODEL).is_file():
        return None
    document: dict[str, Any] = json.loads(text)
    if document.get("recipe") != digest:
        return None
    return DownsampleOutcome(file=read_downsampler(out / MODEL), document=document, out=out)


def _document(
    recipe: dict[str, Any], images: Sequence[DownsampleData], file: DownsamplerFile, digest: str
) -> dict[str, Any]:
    found = {one.name: scores(file, one.held_out) for one in images}
    return {
        "recipe": digest,
        "settings": recipe["settings"],
        "tiles": {one.name: {"learned": len(one.learned), "held_out": len(one.held_out)} for one in images},
        "held_out": {name: [asdict(score) for score in levels] for name, levels in found.items()},
        "mean": [_mean_of(levels) for levels in zip(*found.values(), strict=True)],
    }


def _mean_of(levels: Sequence[LevelScore]) -> dict[str, float]:
    """Return the mean over images of each measure of a level, and the worst small image of all."""
    names = ("learned_db", "lanczos_db", "box_db", "small_db")
    mean = {name: float(np.mean([getattr(score, name) for score in levels])) for name in names}
    return {"level": levels[0].level, **mean, "worst_small_db": min(score.worst_small_db for score in levels)}


def _images(config: DownsampleConfig) -> list[DownsampleData]:
    found = [one for one in find_inputs(config.sources) if one.state == "input"]
    images = [_tiles_of(one.relative, open_pyramid(one.path), config) for one in found]
    if not images:
        raise ConfigError.of(
            f"`{', '.join(config.sources)}`", got="no image", expected="at least one", do="Check the paths."
        )
    return images


def _tiles_of(name: str, pyramid: Pyramid, config: DownsampleConfig) -> DownsampleData:
    if pyramid.dtype != np.uint8 or pyramid.kind != "intensity":
        raise ConfigError.of(
            f"`{name}`",
            got=f"{pyramid.kind} of {pyramid.dtype}",
            expected="intensities of 8 bits: 8-bit rounding is part of what is trained",
            do="Leave it out.",
        )
    plan = plan_tiles(pyramid, tile_px=config.tile_px, where=config.where, edge="drop")
    corners = np.concatenate([np.zeros((0, 2), np.int64), *(unit.tile_yx for unit in plan.in_row_order())])
    corners = corners[np.lexsort((corners[:, 0], corners[:, 1]))]
    # by place and not by chance: neighbours are alike
    split = round(len(corners) * (1 - config.held_out))
    border = corners[split, 1] if 0 < split < len(corners) else 0
    left, right = corners[corners[:, 1] < border], corners[corners[:, 1] >= border]
    learned, held_out = (_read(pyramid, _spread(part, config.tiles), config.tile_px) for part in (left, right))
    if not learned or not held_out:
        raise ConfigError.of(
            f"`{name}`",
            got=f"{len(learned)} tiles of {config.tile_px} px to learn from and {len(held_out)} held out",
            expected="at least one of each",
            do="Take smaller tiles, --tile, or --where all; or leave it out.",
        )
    return DownsampleData(name=name, fingerprint=pyramid.info.fingerprint, learned=learned, held_out=held_out)


def _spread(corners: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """Return up to so many places, evenly out of all."""
    chosen = np.unique(np.linspace(0, max(0, len(corners) - 1), min(most, len(corners))).round().astype(np.int64))
    return corners[chosen]


def _read(pyramid: Pyramid, corners: npt.NDArray[np.int64], edge: int) -> Tiles:
    """Return the tiles of which every pixel is valid."""
    regions = (pyramid.read_region(Box(y=int(y), x=int(x), height=edge, width=edge)) for y, x in corners)
    return tuple(np.ascontiguousarray(region.pixels) for region in regions if region.valid.all())
