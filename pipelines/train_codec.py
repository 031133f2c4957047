"""Trains the decoder that tiles of a cohort share, measured on what it has not seen: `tilestream train codec`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tilestream import __version__
from tilestream.codecs.conventional import CONVENTIONAL
from tilestream.codecs.durable import write_durable
from tilestream.codecs.fields.decoders import save_decoder
from tilestream.codecs.fields.shareddecoder import SharedDecoder
from tilestream.codecs.fields.sharedfield import SharedField
from tilestream.codecs.fields.sharedtraining import SharedTraining, TrainingStep, train_shared
from tilestream.codecs.quality import psnr
from tilestream.errors import ConfigError, DamagedError
from tilestream.models.runners import one_torch_thread
from tilestream.pipelines.train_folder import held
from tilestream.pipelines.train_results import as_json
from tilestream.plan.selection import tile_shares
from tilestream.plan.tiles import plan_tiles
from tilestream.plan.where import select
from tilestream.pyramid import open_pyramid
from tilestream.sources.discovery import find_inputs
from tilestream.types import Array, Box

METRICS = "metrics.json"
HELD_OUT = 5
"""One image in this many is not learned from; where there are fewer than three, one square of each in this many."""
MEASURED = 8
"""Pictures that are measured."""
FIT_STEPS = 120
"""Of each."""
LEAST_SHARE = 0.5
"""Of a square that must be wanted."""
RIVAL = "jpeg420"


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """What is trained, on what, and where it goes."""

    source: Path
    """An image, or a folder of them."""
    out: Path
    """Folder of the results."""
    where: str = "tissue"
    """Which squares: `tissue`, `all`, or the path of a mask or GeoJSON file."""
    squares: int = 64
    """Most squares of an image."""
    settings: SharedTraining = field(default_factory=SharedTraining)
    """How it is trained; the decoder's channels follow from the images."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CodecSquares:
    """What is learned from, and what is not."""

    images: int
    """How many there are."""
    learned: tuple[Array, ...]
    """`(c, y, x)` each."""
    held_out: tuple[Array, ...]
    """Of other images, or of other places where there are too few images."""
    is_by_image: bool
    """Whether whole images are held out."""
    notes: tuple[str, ...] = ()
    """What a user should know."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CodecOutcome:
    """What a run has trained."""

    decoder: SharedDecoder
    """The decoder."""
    path: Path
    """Its file."""
    document: dict[str, Any]
    """What `metrics.json` holds."""


Hear: TypeAlias = Callable[[CodecSquares | TrainingStep], None]


def run_codec(config: CodecConfig, *, on_event: Hear = lambda _: None) -> CodecOutcome:
    """Train a decoder and return how good it is on what it has not learned from.

    Parameters
    ----------
    config : CodecConfig
        What, on what and where.
    on_event : callable
        Told of the squares, and of the training now and then; may raise to stop.

    Returns
    -------
    CodecOutcome
        After its files are written: decoder and metrics.

    Raises
    ------
    ConfigError
        When there are no images, or they do not fit each other or the settings.
    """
    settings = config.settings
    data = codec_squares(
        config.source, where=config.where, squares=config.squares, px=settings.picture_px, seed=settings.seed
    )
    on_event(data)
    told: list[TrainingStep] = []

    def hear(step: TrainingStep) -> None:
        told.append(step)
        on_event(step)

    with held(config.out), one_torch_thread():
        decoder = train_shared(data.learned, config.settings, hear=hear)
        document = {
            "version": __version__,
            "decoder": decoder.name,
            "decoder_bytes": len(decoder.to_bytes()),
            "images": data.images,
            "squares": len(data.learned),
            "held_out_by": "image" if data.is_by_image else "place",
            "held_out": [_measured(decoder, square) for square in data.held_out[:MEASURED]],
            "settings": asdict(config.settings),
            "steps": [asdict(step) for step in told],
            "notes": list(data.notes),
        }
        path = save_decoder(decoder, config.out)
        write_durable(config.out / METRICS, as_json(document))
    return CodecOutcome(decoder=decoder, path=path, document=document)


def codec_squares(source: Path, *, where: str, squares: int, px: int, seed: int) -> CodecSquares:
    """Return squares of images, and those of them that are kept for measuring.

    Parameters
    ----------
    source : Path
        An image, or a folder of them.
    where : str
        Which squares, see `CodecConfig.where`.
    squares : int
        Most of an image.
    px : int
        Edge of a square.
    seed : int
        What chance follows from.

    Returns
    -------
    CodecSquares
        One image in `HELD_OUT` is kept, or one square in as many where there are too few images.

    Raises
    ------
    ConfigError
        When there are no images.
    """
    found = [one for one in find_inputs([source]) if one.state == "input"] if source.exists() else []
    if not found:
        raise ConfigError.of(
            f"`{source}`", got="no image", expected="an image or a folder of them", do="Check the path."
        )
    chance, learned, held_out, lost = np.random.default_rng(seed), [], [], 0
    is_by_image = len(found) > 2
    kept = set(chance.permutation(len(found))[: max(1, len(found) // HELD_OUT)].tolist()) if is_by_image else set()
    for number, one in enumerate(found):
        own, damaged = _of_image(one.path, chance, where=where, squares=squares, px=px)
        lost += damaged
        if number in kept:
            held_out += own
        elif is_by_image:
            learned += own
        else:
            count = max(1, len(own) // HELD_OUT) if len(own) > 1 else 0
            held_out, learned = held_out + own[:count], learned + own[count:]
    notes = (f"{lost:,} squares cannot be read and were left out",) if lost else ()
    return CodecSquares(
        images=len(found), learned=tuple(learned), held_out=tuple(held_out), is_by_image=is_by_image, notes=notes
    )


def _of_image(path: str, chance: np.random.Generator, *, where: str, squares: int, px: int) -> tuple[list[Array], int]:
    """Return squares of an image in an order of chance, and how many could not be read."""
    pyr = open_pyramid(path)
    plan = plan_tiles(pyr, tile_px=px, where="all", edge="drop")
    if where == "all":
        wanted = np.argwhere(np.ones(plan.grid.shape.yx, bool))
    else:
        shares = tile_shares(select(pyr, where, tile_level0_px=px), plan.level, plan.grid)
        wanted = np.argwhere(shares >= LEAST_SHARE)
    found, damaged = [], 0
    for iy, ix in chance.permutation(wanted)[:squares].tolist():
        try:
            found.append(np.ascontiguousarray(pyr.read(Box(level=0, y=iy * px, x=ix * px, height=px, width=px))))
        except DamagedError:
            damaged += 1
    return found, damaged


def _measured(decoder: SharedDecoder, picture: Array) -> dict[str, float | None]:
    """Return bytes and dB of a picture, and dB of the best JPEG of as many bytes, None where there is none."""
    shared = SharedField(decoder)
    shared.fit(picture, steps=FIT_STEPS)
    data, rival = shared.to_bytes(), CONVENTIONAL[RIVAL]
    high = None if picture.dtype.itemsize == 1 else float(np.ptp(picture)) or 1.0
    best = rival.within(picture, len(data)) if rival.holds(picture) else None
    return {
        "bytes": len(data),
        "psnr": psnr(picture, shared.decode(), high=high),
        "jpeg_psnr": None if best is None else psnr(picture, rival.decode(best)),
    }
