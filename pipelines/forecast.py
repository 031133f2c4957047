"""What a run will read, hold, write and take, known before the first pixel is read."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from tilestream.pipelines.calibrate import Rates
from tilestream.pipelines.encoders import Encoders
from tilestream.pipelines.reading import stored_bytes
from tilestream.plan.tiles import TilePlan
from tilestream.pyramid.pyramid import Pyramid
from tilestream.stream.budget import Projection, project

if TYPE_CHECKING:
    from tilestream.pipelines.embed import EmbedConfig

TILE_BYTES = 64
"""Position, status and scalars of a tile in a feature store, before compression."""
ENTROPY_BYTES = 5.6
"""A float32 a tile in the entropy raster with its coarse levels (a third more) and rounding to whole chunks."""

IMAGE_S = 0.2
"""Opening, planning, finding tissue and finishing an image of any size, on one core; as measured on small images."""
UNIT_S = 0.02
"""Writing the part and the receipt of a super-tile, each with its fsync."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run has at its disposal."""

    rates: Rates
    """Speed of one core."""
    cores: int
    """Tasks that run at once."""
    memory_bytes: int
    """Most bytes that one process may hold."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a run will cost for one input, or for all; upper bounds, since tissue is not known beforehand."""

    tiles: int
    """Tiles when all of the image is wanted."""
    units: int
    """Super-tiles when all of the image is wanted."""
    read_bytes: int | None
    """Compressed bytes, from the size of the file and the share of the level that is read; None when unknown."""
    output_bytes: int
    """Features before compression."""
    memory_bytes: int
    """Most bytes that one process holds."""
    seconds: float
    """Time with all cores of this machine, reading from a fast disk; without an encoder other than `handcrafted`."""


def project_run(
    pyramid: Pyramid, plan: TilePlan, encoders: Encoders, config: EmbedConfig, machine: Machine
) -> Projection:
    """Return the memory that one process of the run will hold, by purpose."""
    return project(pyramid, plan, batch=config.batch, dims=encoders.dims + 1, tasks=machine.cores)


def forecast_run(
    url: str, plan: TilePlan, encoders: Encoders, config: EmbedConfig, *, pyramid: Pyramid, machine: Machine
) -> Forecast:
    """Return what running a plan on an image will cost.

    Parameters
    ----------
    url : str
        Where the image is.
    plan : TilePlan
        All of its tiles.
    encoders : Encoders
        What turns them into vectors.
    config : EmbedConfig
        Options of the run.
    pyramid : Pyramid
        The image.
    machine : Machine
        Where it will run.

    Returns
    -------
    Forecast
        Upper bounds.
    """
    # rates are those of three 8-bit channels; structure costs a stage the same whatever the number of channels
    sample_weight = len(pyramid.channels) * pyramid.dtype.itemsize / 3
    is_timed = any(one.spec.target == "handcrafted" for one in encoders.each)
    stage_weight = max(1.0, len(pyramid.channels) / 3) if is_timed else 0.0
    stored_px = plan.level.shape.area * float(plan.level.ratio_yx[0] * plan.level.ratio_yx[1])
    rates = machine.rates
    busy_s = stored_px * sample_weight / rates.decode_px_s
    busy_s += len(plan) * plan.grid.tile_px**2 * stage_weight / rates.stage_px_s
    return Forecast(
        tiles=len(plan),
        units=plan.units,
        read_bytes=_read_bytes(url, pyramid, plan),
        output_bytes=int(len(plan) * (4 * encoders.dims + TILE_BYTES + ENTROPY_BYTES)),
        memory_bytes=project_run(pyramid, plan, encoders, config, machine).total_bytes,
        seconds=(busy_s + IMAGE_S + plan.units * UNIT_S) / machine.cores,
    )


def _read_bytes(url: str, pyramid: Pyramid, plan: TilePlan) -> int | None:
    """Return the compressed bytes of the level that is read: its share of the pixels, of the size of the file."""
    total = stored_bytes(url, pyramid)
    if total is None:
        return None
    everything = sum(level.shape.area for level in pyramid.levels)
    slices = prod(size for axis, size in pyramid.axes.items() if axis not in ("c", "y", "x"))
    return int(total * pyramid.levels[plan.level.stored].shape.area / everything / max(1, slices))
