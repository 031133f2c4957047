"""Looks at a cohort: what is drawn and written of each image from a coarse look at it, an image at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from tilestream.codecs.place import Place
from tilestream.errors import TilestreamError
from tilestream.metrics import collect
from tilestream.pipelines.cohort import Cohort, Entry, no_inputs
from tilestream.pyramid.pyramid import Pyramid, open_pyramid

Status: TypeAlias = Literal["done", "failed"]


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What a look at one image has made."""

    outputs: tuple[Path, ...]
    """Files and stores that were written."""
    facts: Mapping[str, Any]
    """JSON values."""
    words: str
    """The same in a line."""
    damage: tuple[str, ...] = ()
    """Reason of each damaged block that was come across."""
    notes: tuple[str, ...] = ()
    """What a user should know."""


@dataclass(frozen=True, kw_only=True)
class LookRow:
    """What became of one input."""

    path: str
    """Key of the input."""
    url: str
    """What was opened."""
    status: Status
    """`failed` with a reason."""
    outputs: tuple[str, ...] = ()
    """Paths of what was written."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What was found."""
    words: str = ""
    """The same in a line."""
    damage: tuple[str, ...] = ()
    """Reason of each damaged block that was come across."""
    notes: tuple[str, ...] = ()
    """What a user should know."""
    reason: str = ""
    """Why it failed."""
    bytes_read: int = 0
    """Compressed bytes that the look has asked of the source."""
    seconds: float = 0.0
    """Wall time."""


@dataclass(frozen=True, kw_only=True)
class LookOutcome:
    """What looking at a cohort has made."""

    rows: tuple[LookRow, ...]
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


class LookConfig(Protocol):
    """What the configuration of any look has."""

    @property
    def out(self) -> Path:
        """Return the folder of all outputs."""

    @property
    def invalid(self) -> Mapping[str, tuple[str, ...]]:
        """Return the classes whose pixels are not valid, by layer."""

    @property
    def decibels(self) -> str | None:
        """Return what the values of radar images are."""


def run_looks(
    cohort: Cohort,
    config: LookConfig,
    look: Callable[[Entry, Pyramid], Looked],
    *,
    on_row: Callable[[LookRow], None] = lambda row: None,
) -> LookOutcome:
    """Look at every image of a cohort.

    Parameters
    ----------
    cohort : Cohort
        The inputs.
    config : LookConfig
        Where outputs go, and what of the images counts.
    look : callable
        Writes what there is to be written of one image.
    on_row : callable
        Hears what became of each input.

    Returns
    -------
    LookOutcome
        A row an input; one that fails never stops the others.

    Raises
    ------
    ConfigError
        When there is nothing to look at.
    OutputError
        When `config.out` cannot be written.
    """
    if not cohort.entries and not cohort.unmatched:
        raise no_inputs(cohort)
    Place.of(config.out).prepare()
    rows = []
    for entry in cohort.entries:
        row = _row(entry, config, look)
        rows.append(row)
        on_row(row)
    return LookOutcome(rows=tuple(rows), ignored=cohort.ignored, unmatched=cohort.unmatched, notes=cohort.notes)


def _row(entry: Entry, config: LookConfig, look: Callable[[Entry, Pyramid], Looked]) -> LookRow:
    started = time.monotonic()
    row = LookRow(path=entry.key, url=entry.url, status="failed")
    with collect() as meter:
        try:
            pyramid = open_pyramid(entry.url).choose(
                bands=entry.bands,
                mpp=entry.mpp,
                light=entry.light,
                invalid=config.invalid,
                decibels=config.decibels,
            )
            found = look(entry, pyramid)
            row = replace(
                row,
                status="done",
                outputs=tuple(os.fspath(path) for path in found.outputs),
                facts=found.facts,
                words=found.words,
                damage=found.damage,
                notes=tuple(dict.fromkeys((*pyramid.info.notes, *found.notes))),
            )
        except TilestreamError as error:
            row = replace(row, reason=str(error))
        except Exception as error:  # noqa: BLE001 - whatever one image does to a parser or codec, the others go on
            row = replace(row, reason=f"{type(error).__name__}: {error}")
    return replace(row, bytes_read=meter.counts.get("bytes_read", 0), seconds=time.monotonic() - started)
