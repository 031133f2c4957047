"""The preflight: what a run would do with every input, from headers only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from tilestream.errors import ConfigError, TilestreamError
from tilestream.pipelines.calibrate import Rates, calibrate
from tilestream.pipelines.cohort import Cohort, Entry, is_remote
from tilestream.pipelines.encoder import choose_encoder
from tilestream.plan.levels import target_mpp
from tilestream.plan.tiles import TilePlan, plan_tiles
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.sources.address import parse_address
from tilestream.sources.files import File
from tilestream.stream.budget import memory_limit, project

if TYPE_CHECKING:
    from tilestream.pipelines.embed import EmbedConfig

Verdict: TypeAlias = Literal["ok", "ok with notes", "fails"]

TILE_BYTES = 64
"""Position, status and scalars of a tile in a feature store, before compression."""
ENTROPY_BYTES = 1.4
"""A float32 a tile in the entropy raster with its coarse levels (a third more)."""
THREADS = 8
"""Headers read at once: most of the time is waiting for disk or network."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a run would read, hold and write for one input; upper bounds, since tissue is not known beforehand."""

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
    """Time with all cores of this machine, reading from a fast disk."""


@dataclass(frozen=True, kw_only=True)
class CheckRow:
    """The verdict on one input."""

    path: str
    """Key of the input."""
    url: str
    """What was opened."""
    verdict: Verdict
    """Whether a run would finish it."""
    reason: str = ""
    """Why it fails."""
    notes: tuple[str, ...] = ()
    """What a user should know."""
    format: str | None = None
    """Short name of the format."""
    shape_yx: tuple[int, int] | None = None
    """Size of level 0, px."""
    levels: int | None = None
    """Stored levels."""
    channels: tuple[str, ...] = ()
    """Names of the channels."""
    dtype: str | None = None
    """Type of the samples."""
    mpp: float | None = None
    """Micrometres per pixel of level 0."""
    crs: str | None = None
    """Coordinate reference system."""
    forecast: Forecast | None = None
    """What a run would cost."""


@dataclass(frozen=True, kw_only=True)
class CheckOutcome:
    """The verdicts on a cohort."""

    rows: tuple[CheckRow, ...]
    """One an input, in order."""
    ignored: tuple[tuple[str, str], ...]
    """Path and reason of files that are no input."""
    unmatched: tuple[str, ...]
    """Manifest rows that match nothing."""
    notes: tuple[str, ...]
    """What a user should know of the manifest."""
    rates: Rates
    """What the forecast of time rests on."""
    free_bytes: int
    """Free space where the outputs would go."""
    memory_limit_bytes: int
    """Most bytes that one process may hold."""
    problems: tuple[str, ...] = ()
    """What stands against the run as a whole."""

    @property
    def exit_code(self) -> int:
        """Return 0 when all would be done, 3 when something would fail."""
        return 3 if self.problems or self.unmatched or any(row.verdict == "fails" for row in self.rows) else 0

    @property
    def total(self) -> Forecast:
        """Return the sums over all inputs; memory is that of the largest."""
        known = [row.forecast for row in self.rows if row.forecast is not None]
        return Forecast(
            tiles=sum(one.tiles for one in known),
            units=sum(one.units for one in known),
            read_bytes=sum(one.read_bytes or 0 for one in known),
            output_bytes=sum(one.output_bytes for one in known),
            memory_bytes=max((one.memory_bytes for one in known), default=0),
            seconds=sum(one.seconds for one in known),
        )


def run_check(
    cohort: Cohort, config: EmbedConfig, *, on_row: Callable[[CheckRow], None] = lambda row: None
) -> CheckOutcome:
    """Return what a run with this configuration would do with every input of a cohort.

    Parameters
    ----------
    cohort : Cohort
        The inputs.
    config : EmbedConfig
        What the run would be asked to do.
    on_row : callable, optional
        Hears of every verdict; for progress.

    Returns
    -------
    CheckOutcome
        Verdicts, sums and problems.

    Raises
    ------
    ConfigError
        When there is nothing to check.
    """
    if not cohort.entries and not cohort.unmatched:
        raise no_inputs(cohort)
    rates = calibrate()
    limit = memory_limit(config.memory_bytes)
    check = _Check(config=config, rates=rates, limit_bytes=limit, cores=available_cores())
    rows = []
    with ThreadPoolExecutor(THREADS) as pool:
        for row in pool.map(check.row, cohort.entries):
            rows.append(row)
            on_row(row)
    outcome = CheckOutcome(
        rows=tuple(rows),
        ignored=cohort.ignored,
        unmatched=cohort.unmatched,
        notes=cohort.notes,
        rates=rates,
        free_bytes=shutil.disk_usage(_nearest(config.out)).free,
        memory_limit_bytes=limit,
    )
    return replace(outcome, problems=_problems(outcome, config.out))


def no_inputs(cohort: Cohort) -> ConfigError:
    """Return the error for a cohort without any input."""
    count = len(cohort.ignored)
    return ConfigError.of(
        "inputs",
        got=f"no image among {count:,} file{'' if count == 1 else 's'}" if count else "an empty folder",
        expected="at least one slide, scene, Zarr or picture",
        do="Check the path.",
    )


def available_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class _Check:
    """Checks one input; used by several threads."""

    config: EmbedConfig
    rates: Rates
    limit_bytes: int
    cores: int

    def row(self, entry: Entry) -> CheckRow:
        """Return the verdict on an input."""
        row = CheckRow(path=entry.key, url=entry.url, verdict="fails")
        try:
            pyramid = open_pyramid(entry.url, cache_bytes=self.config.cache_bytes)
            pyramid = pyramid.choose(bands=entry.bands, mpp=entry.mpp)
            row = _described(row, pyramid)
            return self._planned(row, entry, pyramid)
        except TilestreamError as error:
            return replace(row, reason=str(error))
        except Exception as error:  # noqa: BLE001 - a header that breaks a parser is a verdict, not the end of the check
            return replace(row, reason=f"{type(error).__name__}: {error}")

    def _planned(self, row: CheckRow, entry: Entry, pyramid: Pyramid) -> CheckRow:
        config = self.config
        _require_file(entry.mask)
        encoder = choose_encoder(config.encoder, config.encoder_params, pyramid.info)
        plan = plan_tiles(
            pyramid,
            tile_px=config.tile_px or encoder.contract.px,
            mpp=config.mpp or target_mpp(encoder.contract, pyramid.info),
            halo_px=config.halo_px,
            where="all",  # finding tissue would read pixels
            super_tile_px=config.super_tile_px,
            region_px=config.region_px,
            needs_mpp=encoder.contract.needs_mpp,
        )
        unit_tiles = min((plan.super_tile_px // plan.grid.step_px) ** 2, len(plan))
        memory = project(
            pyramid,
            plan.level,
            tile_px=plan.grid.tile_px,
            halo_px=plan.grid.halo_px,
            batch=config.batch,
            unit_tiles=unit_tiles,
            dims=len(encoder.outputs) + 1,
            tasks=self.cores,
        )
        memory.require(self.limit_bytes, entry.key)
        notes = (*row.notes, *plan.notes)
        weight = len(pyramid.channels) * pyramid.dtype.itemsize / 3
        ratio = float(plan.level.ratio_yx[0] * plan.level.ratio_yx[1])
        kernel_px = len(plan) * plan.grid.tile_px**2 * weight if config.encoder == "handcrafted" else 0.0
        forecast = Forecast(
            tiles=len(plan),
            units=plan.units,
            read_bytes=_read_bytes(entry.url, pyramid, plan),
            output_bytes=int(len(plan) * (4 * len(encoder.outputs) + TILE_BYTES + 4 * ENTROPY_BYTES)),
            memory_bytes=memory.total_bytes,
            seconds=self.rates.seconds(
                decode_px=plan.level.shape.area * ratio * weight, kernel_px=kernel_px, cores=self.cores
            ),
        )
        return replace(row, verdict="ok with notes" if notes else "ok", notes=notes, forecast=forecast)


def _described(row: CheckRow, pyramid: Pyramid) -> CheckRow:
    info = pyramid.info
    return replace(
        row,
        notes=info.notes,
        format=info.format,
        shape_yx=info.shape.yx,
        levels=len(info.levels),
        channels=tuple(channel.name for channel in info.channels),
        dtype=info.dtype.name,
        mpp=info.mpp,
        crs=info.crs,
    )


def _require_file(mask: str | None) -> None:
    if mask is not None and not is_remote(mask) and not Path(mask).is_file():
        raise ConfigError.of(
            f"mask `{mask}`", got="nothing there", expected="a mask image or GeoJSON file", do="Correct the manifest."
        )


def _read_bytes(url: str, pyramid: Pyramid, plan: TilePlan) -> int | None:
    """Return the compressed bytes of the level that is read: its share of the pixels, of the size of the file."""
    total = _stored_bytes(parse_address(url).url)
    if total is None:
        return None
    everything = sum(level.shape.area for level in pyramid.levels)
    slices = prod(size for axis, size in pyramid.axes.items() if axis not in ("c", "y", "x"))
    return int(total * pyramid.levels[plan.level.stored].shape.area / everything / max(1, slices))


def _stored_bytes(url: str) -> int | None:
    try:
        if is_remote(url):
            return File(url=url).size
        path = Path(url.removeprefix("file://"))
        if path.is_dir():
            return sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
        return path.stat().st_size
    except (OSError, NotImplementedError):
        return None  # a remote folder: its size would take a listing of every object


def _problems(outcome: CheckOutcome, out: Path) -> tuple[str, ...]:
    problems = []
    nearest = _nearest(out)
    if not nearest.is_dir():
        problems.append(f"--out {out}: {nearest} is a file, not a folder. Choose another.")
    elif not os.access(nearest, os.W_OK | os.X_OK):
        problems.append(f"--out {out}: no permission to write in {nearest}. Choose another.")
    needed = outcome.total.output_bytes
    if needed > outcome.free_bytes:
        problems.append(
            f"--out {out}: {outcome.free_bytes:,} bytes free, up to {needed:,} needed. "
            "Free some, or choose another disk."
        )
    return tuple(problems)


def _nearest(out: Path) -> Path:
    """Return the path, or the nearest place above it that exists."""
    path = out.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def failed_first(rows: Sequence[CheckRow]) -> list[CheckRow]:
    """Return the rows, those that fail before those with notes before the others, otherwise in order."""
    rank = {"fails": 0, "ok with notes": 1, "ok": 2}
    return sorted(rows, key=lambda row: rank[row.verdict])
