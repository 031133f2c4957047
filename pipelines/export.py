"""Pyramids of a cohort as COG or OME-TIFF, one file an input."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from tilestream.codecs.place import Place
from tilestream.errors import ConfigError, OutputError, TilestreamError
from tilestream.pipelines.cohort import Cohort, Entry, no_inputs
from tilestream.pipelines.export_form import COPY, TARGETS, ExportOptions, Target, recipe_digest
from tilestream.pipelines.export_image import export_pyramid
from tilestream.pipelines.export_place import OutputFile, written_by_us
from tilestream.pipelines.keys import is_remote
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.sinks.tiffcodec import CODECS
from tilestream.stream.leases import claim

SUFFIXES: dict[Target, str] = {"cog": ".cog.tif", "ome-tiff": ".ome.tif"}
"""Endings behind the whole name of an input."""
Status: TypeAlias = Literal["done", "kept", "failed"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to make of every image of a cohort."""

    out: Place
    """Folder of all outputs, also on object storage; made when it is not there."""
    options: ExportOptions
    """Format and codec."""
    resume: bool = True
    """Keep files of the same image and options that are there; False writes anew what this program has written."""


@dataclass(frozen=True, kw_only=True)
class ExportRow:
    """What became of one input."""

    path: str
    """Key of the input."""
    url: str
    """What was opened."""
    status: Status
    """`kept` when the file was there from an earlier run."""
    output: str | None = None
    """Path or URL of the file."""
    size_bytes: int = 0
    """Its size."""
    levels: int | None = None
    """Levels that were written."""
    damage: tuple[str, ...] = ()
    """Reason of each damaged block of the source."""
    notes: tuple[str, ...] = ()
    """What the file cannot say."""
    reason: str = ""
    """Why it failed."""
    seconds: float = 0.0
    """Wall time."""


@dataclass(frozen=True, kw_only=True)
class ExportOutcome:
    """What a run has made."""

    rows: tuple[ExportRow, ...]
    """One an input, in order."""
    ignored: tuple[tuple[str, str], ...]
    """Path and reason of files that are no input."""
    unmatched: tuple[str, ...]
    """Manifest rows that match nothing."""
    notes: tuple[str, ...] = ()
    """What a user should know of the manifest."""

    def exit_code(self, *, strict: bool = False) -> int:
        """Return 0 when all was done, 3 when inputs failed (with `strict` also when blocks were damaged)."""
        failed = bool(self.unmatched) or any(row.status == "failed" for row in self.rows)
        return 3 if failed or (strict and any(row.damage for row in self.rows)) else 0


Listener: TypeAlias = Callable[[str, float], None]
"""Hears the key of an input and which share of it is done."""


def run_export(
    cohort: Cohort,
    config: ExportConfig,
    *,
    on_progress: Listener = lambda key, share: None,
    on_row: Callable[[ExportRow], None] = lambda row: None,
    opened: Callable[[Entry], Pyramid] | None = None,
) -> ExportOutcome:
    """Write every image of a cohort as one file.

    Parameters
    ----------
    cohort : Cohort
        The inputs.
    config : ExportConfig
        What to make of them.
    on_progress : callable
        Hears of the share of an input that is done.
    on_row : callable
        Hears what became of each input.
    opened : callable, optional
        Opens an input; by default as any image, as the entry wants it.

    Returns
    -------
    ExportOutcome
        A row an input; one that fails never stops the others.

    Raises
    ------
    ConfigError
        When there is nothing to do.
    OutputError
        When `config.out` cannot be written.
    """
    inputs, ours = _without_ours(cohort.entries)
    cohort = replace(cohort, entries=inputs, ignored=(*cohort.ignored, *ours))
    if not cohort.entries and not cohort.unmatched:
        raise no_inputs(cohort)
    config.out.prepare()
    rows = []
    for entry in cohort.entries:
        row = _row(entry, config, on_progress, opened or _opened)
        rows.append(row)
        on_row(row)
    return ExportOutcome(rows=tuple(rows), ignored=cohort.ignored, unmatched=cohort.unmatched, notes=cohort.notes)


def export_config(*, out: Place | Path | str, to: str, codec: str, quality: int, resume: bool) -> ExportConfig:
    """Return the configuration of a run, its options checked as far as one can without an image.

    Parameters
    ----------
    out, to, codec, quality, resume
        As in `ExportConfig` and `ExportOptions`.

    Returns
    -------
    ExportConfig
        The configuration.

    Raises
    ------
    ConfigError
        When there is no such format or codec, or the quality is out of range.
    """
    targets: dict[str, Target] = {name: name for name in TARGETS}
    for name, got, known in (("--to", to, tuple(targets)), ("--codec", codec, (*CODECS, COPY))):
        if got not in known:
            raise ConfigError.of(f"`{name}`", got=repr(got), expected=f"one of {', '.join(known)}", do="Choose one.")
    if not 1 <= quality <= 100:
        raise ConfigError.of("`--quality`", got=quality, expected="1 to 100", do="Correct it.")
    options = ExportOptions(to=targets[to], codec=codec, quality=quality)
    return ExportConfig(out=Place.of(out), options=options, resume=resume)


def _without_ours(entries: tuple[Entry, ...]) -> tuple[tuple[Entry, ...], tuple[tuple[str, str], ...]]:
    """Return the entries without files of earlier runs that were come across in a folder, and these."""
    ours = [
        entry
        for entry in entries
        if not entry.is_explicit
        and not is_remote(entry.url)
        and entry.url.endswith(tuple(SUFFIXES.values()))
        and written_by_us(Path(entry.url))
    ]
    left = tuple(entry for entry in entries if entry not in ours)
    return left, tuple((entry.url, "an output of this program") for entry in ours)


def _opened(entry: Entry) -> Pyramid:
    return open_pyramid(entry.url).choose(bands=entry.bands, mpp=entry.mpp, light=entry.light)


def _row(entry: Entry, config: ExportConfig, on_progress: Listener, opened: Callable[[Entry], Pyramid]) -> ExportRow:
    started = time.monotonic()
    row = ExportRow(path=entry.key, url=entry.url, status="failed")
    try:
        row = _written(row, opened(entry), config, on_progress)
    except TilestreamError as error:
        row = replace(row, reason=str(error))
    except Exception as error:  # noqa: BLE001 - whatever one image does to a parser or codec, the others go on
        row = replace(row, reason=f"{type(error).__name__}: {error}")
    return replace(row, seconds=time.monotonic() - started)


def _written(row: ExportRow, pyramid: Pyramid, config: ExportConfig, on_progress: Listener) -> ExportRow:
    file = OutputFile(place=config.out, name=f"{row.path}{SUFFIXES[config.options.to]}")
    row = replace(row, output=file.url)
    lease = claim(file.lease)
    if lease is None:
        raise OutputError.of(
            f"`{file.url}`",
            got="another process that is writing it",
            expected="one at a time",
            do="Wait for it to end.",
        )
    with lease:
        if _is_kept(file, recipe_digest(pyramid.info, config.options), resume=config.resume):
            return replace(row, status="kept", size_bytes=file.size_bytes())
        with file.writing() as path:
            made = export_pyramid(
                pyramid,
                path,
                config.options,
                name=Path(row.path).name,
                on_progress=lambda share: on_progress(row.path, share),
            )
    return replace(
        row,
        status="done",
        size_bytes=made.size_bytes,
        levels=made.levels,
        damage=made.damage,
        notes=(*pyramid.info.notes, *made.notes),
    )


def _is_kept(file: OutputFile, recipe: str, *, resume: bool) -> bool:
    """Return whether a file that is there is the one wanted; raise `OutputError` when it must not be replaced."""
    if not file.exists:
        return False
    found = file.recipe()
    if found is None:
        raise OutputError.of(
            f"`{file.url}`",
            got="a file that `tilestream export` has not written",
            expected="nothing there, or a file of ours",
            do="Move it away, or choose another `--out`.",
        )
    if found != recipe and resume:
        raise OutputError.of(
            f"`{file.url}`",
            got="the file of other options, another version of the image or of this program",
            expected="nothing there, or a file of the same",
            do="Choose another `--out`, or give `--no-resume` to replace it.",
        )
    return resume
