"""The preflight: what a run would do with every input, from headers only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from tilestream.errors import ConfigError, TilestreamError
from tilestream.pipelines.calibrate import calibrate
from tilestream.pipelines.cohort import Cohort, Entry, no_inputs
from tilestream.pipelines.cutting import TileCut
from tilestream.pipelines.forecast import Forecast, Machine, forecast_run, project_run
from tilestream.pipelines.image import chosen, encoders_for
from tilestream.pipelines.keys import is_remote
from tilestream.pipelines.where_folder import give_coordinates
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.sources.patchfiles import is_patch_file
from tilestream.stream.budget import memory_limit

if TYPE_CHECKING:
    from tilestream.pipelines.embed import EmbedConfig

Verdict: TypeAlias = Literal["ok", "ok with notes", "fails"]

THREADS = 8
"""Headers read at once: most of the time is waiting for disk or network."""


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
    machine: Machine
    """What the forecast rests on."""
    free_bytes: int
    """Free space where the outputs would go."""
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
    cohort = give_coordinates(cohort, config.where)
    machine = Machine(rates=calibrate(), cores=available_cores(), memory_bytes=memory_limit(config.memory_bytes))
    check = _Check(config=config, machine=machine)
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
        machine=machine,
        free_bytes=shutil.disk_usage(_nearest(config.out)).free,
    )
    return replace(outcome, problems=_problems(outcome, config.out))


def available_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class _Check:
    """Checks one input; used by several threads."""

    config: EmbedConfig
    machine: Machine

    def row(self, entry: Entry) -> CheckRow:
        """Return the verdict on an input."""
        row = CheckRow(path=entry.key, url=entry.url, verdict="fails")
        try:
            pyramid = chosen(open_pyramid(entry.url, cache_bytes=self.config.cache_bytes), entry, self.config)
            row = _described(row, pyramid)
            return self._planned(row, entry, pyramid)
        except TilestreamError as error:
            return replace(row, reason=str(error))
        except Exception as error:  # noqa: BLE001 - a header that breaks a parser is a verdict, not the end of the check
            return replace(row, reason=f"{type(error).__name__}: {error}")

    def _planned(self, row: CheckRow, entry: Entry, pyramid: Pyramid) -> CheckRow:
        config = self.config
        _require_file(entry.mask)
        encoders = encoders_for(config, pyramid.info)
        where = entry.mask or config.where
        # finding tissue would read pixels; patches that are listed are known
        cut = TileCut(encoders=encoders, config=config, where=where if is_patch_file(where) else "all")
        plan = cut.plan(pyramid)
        project_run(pyramid, plan, encoders, config, self.machine).require(self.machine.memory_bytes, entry.key)
        forecast = forecast_run(entry.url, plan, encoders, config, pyramid=pyramid, machine=self.machine)
        notes = (*row.notes, *plan.notes)
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
