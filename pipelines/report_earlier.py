"""What other runs have left in the same folder: a report lists all images whose results lie beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tilestream.pipelines.report_rows import InputRow
from tilestream.pipelines.tally import row_of
from tilestream.stream.journal import LEDGER, RECIPE, Journal

RECEIPTS = "receipts"


def with_earlier(out: Path, rows: Sequence[InputRow], document: Path, *, command: str) -> list[InputRow]:
    """Return the rows of a run, followed by those of images that other runs have left in its folder.

    Parameters
    ----------
    out : Path
        Folder of all outputs.
    rows : sequence of InputRow
        Inputs of this run.
    document : Path
        The report for programs as it lies there, if it does.
    command : str
        Command line of this run.

    Returns
    -------
    list of InputRow
        Images that another run has finished, by their receipts; then those that failed in a run of another command
        line, by its report. What the same command has failed on and does not meet any more is gone.
    """
    known = {row.receipts or row.path for row in rows}
    finished = {row.receipts: row for row in _finished(out, known)}
    failed = [row for row in _failed(document) if row.command != command]
    listed = [row for _, row in sorted(finished.items())]
    listed += [row for row in failed if (row.receipts or row.path) not in known | finished.keys()]
    return [*rows, *(replace(row, is_earlier=True) for row in listed)]


def _finished(out: Path, known: Set[str]) -> Iterator[InputRow]:
    receipts = out / RECEIPTS
    for folder, folders, files in os.walk(receipts):
        if LEDGER in files or RECIPE in files:
            folders.clear()  # parts; no image has its receipts among another's
        key = Path(folder).relative_to(receipts).as_posix()
        if LEDGER not in files or key in known:
            continue
        summary = _summary(Path(folder))
        # the receipts of stores lie there too; and of results that were removed nothing is left to list
        if summary is None or not {"tiles", "outputs"} <= summary.keys():
            continue
        if all((out / name).exists() for name in summary["outputs"]):
            with suppress(KeyError, TypeError, ValueError):  # written by a version that kept other things
                yield row_of(out, key, summary)


def _summary(folder: Path) -> Mapping[str, Any] | None:
    try:
        digest = json.loads((folder / RECIPE).read_bytes())["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Journal(root=folder, recipe=str(digest)).summary()


def _failed(document: Path) -> Iterator[InputRow]:
    try:
        report = json.loads(document.read_bytes())
        entries = [entry for entry in report["inputs"] if entry["status"] == "failed"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for entry in entries:
        with suppress(KeyError, TypeError):
            yield InputRow(
                path=entry["path"],
                status="failed",
                reason=entry["reason"],
                receipts=entry["receipts"] or "",
                command=entry["command"] or report["command"],
            )
