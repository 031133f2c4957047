"""Trains the networks that pyramid tiles of a cohort share: `tilestream train codec --codec pyramid`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from tilestream import __version__
from tilestream.codecs.conventional import CONVENTIONAL
from tilestream.codecs.durable import write_durable
from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.pyramid.file import PyramidFile
from tilestream.codecs.pyramid.pyramidtile import PyramidTile
from tilestream.codecs.pyramid.shared import SharedPyramid, load_shared, packed_nets, save_shared
from tilestream.codecs.pyramid.sharedencode import encode_shared
from tilestream.codecs.pyramid.sharedtraining import PyramidStep, PyramidTraining, train_shared
from tilestream.models.runners import one_torch_thread
from tilestream.pipelines.train_codec import METRICS, CodecSquares, codec_squares
from tilestream.pipelines.train_folder import held
from tilestream.pipelines.train_results import as_json
from tilestream.types import Array

MEASURED = 8
"""Squares that are measured."""
REFINED_STEPS = 100
"""Of each, where its grids are refined."""
RIVAL = "jpegxl"
SQUARE_PX = 256
"""Edge of a square."""


@dataclass(frozen=True, kw_only=True)
class PyramidConfig:
    """What is trained, on what, and where it goes."""

    source: Path
    """An image, or a folder of them."""
    out: Path
    """Folder of the results."""
    where: str = "tissue"
    """Which squares: `tissue`, `all`, or the path of a mask or GeoJSON file."""
    squares: int = 64
    """Most squares of an image."""
    square_px: int = SQUARE_PX
    """Edge of a square; crops that are trained on lie within."""
    start: Path | None = None
    """File of shared networks to go on from."""
    settings: PyramidTraining = field(default_factory=PyramidTraining)
    """How it is trained; channels follow from the images."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PyramidOutcome:
    """What a run has trained."""

    shared: SharedPyramid
    """The networks."""
    path: Path
    """Their file."""
    document: dict[str, Any]
    """What `metrics.json` holds."""


Hear: TypeAlias = Callable[[CodecSquares | PyramidStep], None]


def run_pyramid(config: PyramidConfig, *, on_event: Hear = lambda _: None) -> PyramidOutcome:
    """Train shared networks and return how good they are on what they have not learned from.

    Parameters
    ----------
    config : PyramidConfig
        What, on what and where.
    on_event : callable
        Told of the squares, and of the training now and then; may raise to stop.

    Returns
    -------
    PyramidOutcome
        After its files are written: networks and metrics. Bytes of tiles leave out the networks, which are told
        beside them: a store has them once.

    Raises
    ------
    ConfigError
        When there are no images, or they do not fit each other or the settings.
    DamagedError
        When the file to go on from is not whole.
    """
    start = None if config.start is None else load_shared(config.start)
    settings = config.settings
    data = codec_squares(
        config.source, where=config.where, squares=config.squares, px=config.square_px, seed=settings.seed
    )
    if data.learned:
        settings = replace(settings, shape=replace(settings.shape, channels=len(data.learned[0])))
    on_event(data)
    told: list[PyramidStep] = []

    def hear(step: PyramidStep) -> None:
        told.append(step)
        on_event(step)

    with held(config.out), one_torch_thread():
        shared = train_shared(data.learned, settings, start=start, hear=hear)
        document = {
            "version": __version__,
            "networks": shared.name,
            "networks_bytes": len(packed_nets(shared.nets)),
            "analysis_bytes": len(shared.analysis.to_bytes()),
            "images": data.images,
            "squares": len(data.learned),
            "held_out_by": "image" if data.is_by_image else "place",
            "held_out": [measured_of(shared, square) for square in data.held_out[:MEASURED]],
            "rival": RIVAL,
            "refined_steps": REFINED_STEPS,
            "settings": asdict(settings),
            "start": None if start is None else start.name,
            "steps": [asdict(step) for step in told],
            "notes": list(data.notes),
        }
        path = save_shared(shared, config.out)
        write_durable(config.out / METRICS, as_json(document))
    return PyramidOutcome(shared=shared, path=path, document=document)


def measured_of(shared: SharedPyramid, pixels: Array) -> dict[str, float | None]:
    """Return bytes and dB of a tile under shared networks, foretold and refined.

    Parameters
    ----------
    shared : SharedPyramid
        The networks.
    pixels : ndarray
        `(c, y, x)`.

    Returns
    -------
    dict
        `bytes` and `psnr`, the same refined, and beside each the dB of `RIVAL` in as many bytes, None where it cannot.
    """
    tile, rival = Levels.of(pixels, levels=1), CONVENTIONAL[RIVAL]
    found: dict[str, float | None] = {}
    for prefix, steps in (("", 0), ("refined_", REFINED_STEPS)):
        [grids] = encode_shared([tile], shared, steps=steps)
        data = PyramidFile.of(tile.picture, shared.nets, grids, shared=True).to_bytes()
        best = rival.within(pixels, len(data)) if rival.holds(pixels) else None
        found |= {
            f"{prefix}bytes": len(data),
            f"{prefix}psnr": tile.psnr(0, PyramidTile.from_bytes(data).decode()),
            f"{prefix}rival_psnr": None if best is None else tile.psnr(0, rival.decode(best)),
        }
    return found
