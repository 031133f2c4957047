"""How long the tiles of an image will take to fit and how many bytes they may need, known before the first is written.

A few squares of the image are read to see for how many tiles the codec takes one colour, as for glass; of the others,
the one that varies most is fitted for a few steps, twice, and the difference of the two times is that of a step.
Nothing is guessed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tilestream.codecs.place import Place
from tilestream.codecs.tilecodec import TileCodec, unpack_tile, with_steps
from tilestream.errors import BudgetError, ConfigError
from tilestream.pipelines.compress_layout import FieldPlan
from tilestream.pipelines.compress_measure import Sums
from tilestream.pipelines.compress_work import FIT, TilePixels, one_thread, read_tile
from tilestream.pipelines.ingest_size import STEP_YX, Projected
from tilestream.pyramid.planned import FOOTPRINT_BYTES
from tilestream.pyramid.pyramid import Pyramid
from tilestream.relevance.emphasis import Emphasis
from tilestream.sinks.members import StoreUnit
from tilestream.stream.budget import memory_limit
from tilestream.types import Receipt

SAMPLES = 16
"""Tiles of the finest array that are read to see what there is to fit."""
PROBE_STEPS = 2, 8
"""Steps of the two fits that are timed; the first fit of a process, which compiles, is a third."""
WORK_BYTES = 256 << 20
"""What one fit holds besides its pixels: activations of a batch and their gradients. 44 MiB were measured for hash
fields of tiles of 512 px; networks without a table are wider."""
PIXEL_COPIES = 6
"""Times the samples of a tile are in memory during a fit: as they were read, as levels, as numbers of 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a store of fields will take."""

    tiles: int
    """Tiles that are not done yet."""
    fitted: float
    """How many of them are likely to need a fit."""
    tile_s: float
    """Seconds that one fit takes on one thread."""
    threads: int
    """Threads that will fit at once."""
    store_bytes: int
    """Bytes that its tiles will hardly reach: entropy coding takes less, and how many need a fit is a sample."""
    task_bytes: int
    """Most that one task holds."""

    @property
    def wall_s(self) -> float:
        """Return about how long the rest will take."""
        rounds = math.ceil(self.fitted / self.threads) if self.fitted < 8 * self.threads else self.fitted / self.threads
        return rounds * self.tile_s

    def require(self, root: Place, *, tasks: int, memory_bytes: int | None, hours: float, what: str) -> None:
        """Raise unless there is room and time for the store.

        Parameters
        ----------
        root : Place
            Where the store goes.
        tasks : int
            Tasks that run at once in one process.
        memory_bytes : int, optional
            Most bytes that one process may hold; half of what is free by default.
        hours : float
            Most hours that an image may take.
        what : str
            Name of the input.

        Raises
        ------
        OutputError
            When the disk is too full.
        BudgetError
            When the work holds too much, or takes too long.
        """
        Projected(store_bytes=self.store_bytes, task_bytes=0).require(
            root, tasks=tasks, memory_bytes=memory_bytes, what=what
        )
        limit = memory_limit(memory_bytes)
        if tasks * self.task_bytes > limit:
            raise BudgetError.of(
                f"memory for `{what}`",
                got=f"{tasks * self.task_bytes >> 20:,} MiB projected ({tasks} tasks)",
                expected=f"at most {limit >> 20:,} MiB",
                do="Raise --memory, give a smaller --tile, or use --cluster threads:1.",
            )
        if self.wall_s > hours * 3600:
            raise BudgetError.of(
                f"time for `{what}`",
                got=f"about {self.wall_s / 3600:,.1f} h: {self.fitted:,.0f} tiles of {self.tile_s:,.1f} s each on "
                f"{self.threads} thread{'' if self.threads == 1 else 's'}",
                expected=f"at most {hours:g} h",
                do="Lower --steps or --quality, use more workers (--cluster), or allow it with --hours.",
            )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A tile that is looked at."""

    tile: TilePixels
    """Its pixels."""
    weights: npt.NDArray[np.float32] | None
    """`(y, x)`, how much errors count; None = alike."""

    def is_plain(self, codec: TileCodec) -> bool:
        """Return whether a codec takes one colour for it."""
        return codec.is_plain(self.tile.pixels, self.tile.valid, roi=self.weights)

    def coded_bytes(self, codec: TileCodec) -> int:
        """Return the bytes that it becomes."""
        return len(codec.encode(self.tile.pixels, self.tile.valid, roi=self.weights))

    @property
    def effort(self) -> float:
        """Return what goes with its cost: how much it varies, over all its pixels; those at an edge have few."""
        pixels, valid = self.tile.pixels, self.tile.valid
        seen = pixels if valid is None else pixels[:, valid]
        return float(np.std(seen, dtype=np.float64)) * seen.size


def forecast_store(
    pyramid: Pyramid,
    plan: FieldPlan,
    codec: TileCodec,
    *,
    threads: int,
    done: Sequence[Receipt] = (),
    emphasis: Emphasis | None = None,
) -> Forecast:
    """Return what a store of fields will take.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    plan : FieldPlan
        Its tiles.
    codec : TileCodec
        What they are encoded by.
    threads : int
        Tasks that run at once, on the whole cluster.
    done : sequence of Receipt
        Tiles that an earlier run has finished, whose times are known.
    emphasis : Emphasis, optional
        How much errors count where; alike by default.

    Returns
    -------
    Forecast
        From `SAMPLES` tiles, or from those that are done.
    """
    plain: list[Sample] = []
    busy: list[Sample] = []
    for box in map(plan.box, _some_units(plan)):
        sample = Sample(tile=read_tile(pyramid, box), weights=None if emphasis is None else emphasis.weights(box))
        (plain if sample.is_plain(codec) else busy).append(sample)
    share = len(busy) / len([*plain, *busy])
    left = len(plan) - len(done)
    cost = Cost()
    if busy and left:
        cost = known_cost(done) or probed_cost(codec, max(busy, key=lambda sample: sample.effort).tile)
    background = plain[0].coded_bytes(codec) if plain else 0
    chunk = plan.layout.levels[0].chunk
    pixel_bytes = chunk.area * plan.layout.channels * np.dtype(np.float32).itemsize
    return Forecast(
        tiles=left,
        fitted=left * share,
        tile_s=cost.seconds,
        threads=threads,
        store_bytes=math.ceil(len(plan) * (share * cost.nbytes + (1 - share) * background)),
        task_bytes=PIXEL_COPIES * pixel_bytes + WORK_BYTES + FOOTPRINT_BYTES,
    )


def _some_units(plan: FieldPlan) -> list[StoreUnit]:
    """Return tiles of the finest array that fill it evenly, and of which no pattern of it fits."""
    shards = plan.layout.levels[0].shards
    places = {
        tuple(int((0.5 + number * step) % 1 * count) for step, count in zip(STEP_YX, shards.yx, strict=True))
        for number in range(SAMPLES)
    }
    return [StoreUnit(step="make", level=0, iy=iy, ix=ix) for iy, ix in sorted(places)]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a tile that is no background takes."""

    seconds: float = 0.0
    """Of the fit, on one thread."""
    nbytes: int = 0
    """Most bytes."""


def known_cost(done: Sequence[Receipt]) -> Cost | None:
    """Return the mean cost of tiles that an earlier run has fitted, None where there is none."""
    fitted = [receipt for receipt in done if receipt.counts.get("fitted")]
    if not fitted:
        return None
    sums = Sums.of(fitted)
    return Cost(seconds=sum(receipt.seconds[FIT] for receipt in fitted) / len(fitted), nbytes=sums.largest)


def probed_cost(codec: TileCodec, tile: TilePixels) -> Cost:
    """Return what a tile costs, by fits of few steps.

    Parameters
    ----------
    codec : TileCodec
        The codec; one without a setting `steps` is tried as it is.
    tile : TilePixels
        What to fit.

    Returns
    -------
    Cost
        Seconds of one thread that nothing else disturbs; a byte a parameter, which entropy coding always undercuts.
    """
    steps = codec.settings.get("steps")
    if steps is None:
        return _tried(codec, tile)
    few, more = (with_steps(codec, min(number, steps)) for number in PROBE_STEPS)
    _tried(few, tile)  # what is compiled and imported once a process
    base = _tried(few, tile)
    if steps <= PROBE_STEPS[0]:  # it was the fit itself
        return base
    longer = _tried(more, tile)
    step_s = max(0.0, longer.seconds - base.seconds) / (min(PROBE_STEPS[1], steps) - PROBE_STEPS[0])
    return replace(longer, seconds=base.seconds + (steps - PROBE_STEPS[0]) * step_s)


def _tried(codec: TileCodec, tile: TilePixels) -> Cost:
    started = time.perf_counter()
    with one_thread():
        data = codec.encode(tile.pixels, tile.valid)
    seconds = time.perf_counter() - started
    return Cost(seconds=seconds, nbytes=max(len(data), sum(unpack_tile(data).sizes.values())))


def require_hours(hours: float) -> None:
    """Raise `ConfigError` unless some hours are a time that a run can take."""
    if not hours > 0:
        raise ConfigError.of("`--hours`", got=hours, expected="hours above 0", do="Correct it.")
