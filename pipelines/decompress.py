"""Stores of fields back into pictures: PNG where they are small, pyramidal TIFF else, from any level on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

from tilestream import __version__
from tilestream.codecs.durable import ensure_directory, write_durable
from tilestream.codecs.place import Place
from tilestream.errors import ConfigError, OutputError, TilestreamError
from tilestream.pipelines.cohort import Cohort, Entry, no_inputs
from tilestream.pipelines.compress import is_field_store
from tilestream.pipelines.decompress_level import CoarserSource
from tilestream.pipelines.export import ExportConfig, ExportOutcome, ExportRow, Listener, run_export
from tilestream.pipelines.export_form import ExportOptions, recipe_digest
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.sinks.pngfile import can_be_png, encode_png, png_by_us
from tilestream.sources.field import FORMAT
from tilestream.types import Box

FileKind: TypeAlias = Literal["png", "tiff"]
FILE_KINDS: tuple[FileKind, ...] = get_args(FileKind)
PNG_PX = 4096**2
"""Most pixels of a PNG unless it is asked for: viewers open it whole."""
MOST_PNG_PX = 16384**2
"""Most pixels of a PNG at all: it is made in memory."""


@dataclass(frozen=True, kw_only=True)
class DecompressConfig:
    """What to make of stores of fields."""

    out: Path
    """Folder of all files; made when it is not there."""
    level: float = 0.0
    """Level that files begin with, also between two."""
    to: FileKind | None = None
    """None = PNG where it is small enough and holds such samples, TIFF else."""
    resume: bool = True
    """Keep files of the same store and options that are there; False writes anew what this program has written."""

    def __post_init__(self) -> None:
        if self.to is not None and self.to not in FILE_KINDS:
            known = f"one of {', '.join(FILE_KINDS)}"
            raise ConfigError.of("`--to`", got=repr(self.to), expected=known, do="Choose one.")
        if not 0 <= self.level < math.inf:  # the coarsest that a store has is told when it is open
            raise ConfigError.of("`--level`", got=self.level, expected="0 or more", do="Choose another.")


def decompress_config(*, out: Path, level: float, to: str | None, resume: bool) -> DecompressConfig:
    """Return the configuration of a run; raise `ConfigError` where an option is not understood."""
    return DecompressConfig(out=out, level=level, to=cast("FileKind | None", to), resume=resume)


def run_decompress(
    cohort: Cohort,
    config: DecompressConfig,
    *,
    on_progress: Listener = lambda key, share: None,
    on_row: Callable[[ExportRow], None] = lambda row: None,
) -> ExportOutcome:
    """Write every store of fields of a cohort as one picture.

    Parameters
    ----------
    cohort : Cohort
        The inputs; other images among those that were come across in a folder are passed over.
    config : DecompressConfig
        What to make of them.
    on_progress : callable
        Hears of the share of an input that is done.
    on_row : callable
        Hears what became of each input.

    Returns
    -------
    ExportOutcome
        A row an input; one that fails never stops the others.

    Raises
    ------
    ConfigError
        When there is nothing to do.
    OutputError
        When the folder cannot be written.
    """
    others = [one for one in cohort.entries if not one.is_explicit and not is_field_store(one.url)]
    ignored = (*cohort.ignored, *((entry.url, "no store of fields") for entry in others))
    cohort = replace(cohort, entries=tuple(entry for entry in cohort.entries if entry not in others), ignored=ignored)
    if not cohort.entries and not cohort.unmatched:
        raise no_inputs(cohort)
    ensure_directory(config.out)
    rows = []
    for entry in cohort.entries:
        row = _row(entry, config, on_progress)
        rows.append(row)
        on_row(row)
    return ExportOutcome(rows=tuple(rows), ignored=cohort.ignored, unmatched=cohort.unmatched, notes=cohort.notes)


def _row(entry: Entry, config: DecompressConfig, on_progress: Listener) -> ExportRow:
    started = time.monotonic()
    row = ExportRow(path=entry.key, url=entry.url, status="failed")
    try:
        pyramid = open_level(entry.url, config.level)
        if _kind(pyramid, config) == "png":
            row = _png_row(row, pyramid, config)
        else:
            row = replace(_tiff_row(entry, pyramid, config, on_progress), path=entry.key)
    except TilestreamError as error:
        row = replace(row, reason=str(error))
    except Exception as error:  # noqa: BLE001 - whatever one store does to a decoder, the others go on
        row = replace(row, reason=f"{type(error).__name__}: {error}")
    return replace(row, seconds=time.monotonic() - started)


def open_level(url: str, level: float) -> Pyramid:
    """Return the image of a store of fields from a level on.

    Parameters
    ----------
    url : str
        Path or URL of the store.
    level : float
        Level that is level 0 of what is returned.

    Returns
    -------
    Pyramid
        Only metadata were read.

    Raises
    ------
    ConfigError
        When it is no store of fields, or has no such level.
    SourceError
        When it cannot be opened.
    """
    pyramid = open_pyramid(url)
    if pyramid.info.format != FORMAT:
        raise ConfigError.of(
            f"`{url}`",
            got=f"an image in the format {pyramid.info.format}",
            expected="a store that `tilestream compress` wrote",
            do="Name such a store; `tilestream export` writes any other image.",
        )
    return pyramid if level == 0 else replace(pyramid, source=CoarserSource.of(pyramid, level))


def _kind(pyramid: Pyramid, config: DecompressConfig) -> FileKind:
    if config.to is not None:
        return config.to
    fits = can_be_png(pyramid.dtype, len(pyramid.channels), has_mask=pyramid.info.validity is not None)
    is_placed = pyramid.crs is not None or pyramid.affine is not None
    return "png" if fits and not is_placed and pyramid.levels[0].shape.area <= PNG_PX else "tiff"


def _stem(key: str, level: float) -> str:
    """Return the name of a file without its ending: that of the store, and the level where it is not the finest."""
    return key.removesuffix(".zarr") + (f".L{level:g}" if level else "")


def _png_row(row: ExportRow, pyramid: Pyramid, config: DecompressConfig) -> ExportRow:
    path, shape = config.out / f"{_stem(row.path, config.level)}.png", pyramid.levels[0].shape
    row = replace(row, output=str(path))
    if shape.area > MOST_PNG_PX:
        raise ConfigError.of(
            "`--to png`",
            got=f"{shape.y:,} x {shape.x:,} px, which would be held in memory",
            expected=f"at most {MOST_PNG_PX:,} px",
            do="Give --to tiff, or a coarser --level.",
        )
    recipe = recipe_digest(pyramid.info, ExportOptions(to="cog", codec="none"))
    if path.exists():
        found = png_by_us(path)
        if found is None or (found != recipe and config.resume):
            raise OutputError.of(
                f"`{path}`",
                got="a file that `tilestream decompress` has not written" if found is None else "that of another store",
                expected="nothing there, or a file of ours of the same store",
                do="Choose another `--out`" + ("." if found is None else ", or give `--no-resume` to replace it."),
            )
        if config.resume:
            return replace(row, status="kept", size_bytes=path.stat().st_size)
    region = pyramid.read_region(Box(y=0, x=0, height=shape.y, width=shape.x))
    valid = None if region.valid.all() else region.valid
    data = encode_png(region.pixels, valid, software=f"tilestream {__version__} decompress {recipe}")
    write_durable(path, data)
    return replace(
        row, status="done", size_bytes=len(data), levels=1, damage=region.damage, notes=tuple(pyramid.info.notes)
    )


def _tiff_row(entry: Entry, pyramid: Pyramid, config: DecompressConfig, on_progress: Listener) -> ExportRow:
    is_placed = pyramid.crs is not None or pyramid.affine is not None
    options = ExportConfig(
        out=Place.of(config.out), options=ExportOptions(to="cog" if is_placed else "ome-tiff"), resume=config.resume
    )
    named = replace(entry, key=_stem(entry.key, config.level), is_explicit=True)
    outcome = run_export(
        Cohort(entries=(named,)),
        options,
        on_progress=lambda _, share: on_progress(entry.key, share),
        opened=lambda _: pyramid,
    )
    return outcome.rows[0]
