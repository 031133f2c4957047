"""The cohort table: one row for each input of a run, failed and ignored ones too, as CSV and Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tilestream.codecs.durable import durable_path, explained, write_durable
from tilestream.errors import OutputError
from tilestream.pipelines.cohort import Entry
from tilestream.pipelines.cohort_index import given_by, save_index
from tilestream.pipelines.report_rows import InputRow

CSV, PARQUET = "cohort.csv", "cohort.parquet"
COLUMNS: Mapping[str, tuple[str, Callable[[InputRow], Any]]] = {
    "slide": ("string", lambda row: row.path),
    "status": ("string", lambda row: row.status),
    "reason": ("string", lambda row: row.reason.partition("\n")[0]),
    "format": ("string", lambda row: row.format),
    "height": ("int64", lambda row: None if row.shape_yx is None else row.shape_yx[0]),
    "width": ("int64", lambda row: None if row.shape_yx is None else row.shape_yx[1]),
    "mpp": ("float64", lambda row: row.mpp),
    "crs": ("string", lambda row: row.crs),
    "datetime": ("string", lambda row: row.datetime),
    "tile_px": ("int64", lambda row: row.tile_px),
    "plan_mpp": ("float64", lambda row: row.plan_mpp),
    "tiles": ("int64", lambda row: row.tiles),
    "tiles_damaged": ("int64", lambda row: row.tiles_damaged),
    "tiles_failed": ("int64", lambda row: row.tiles_failed),
    "tiles_empty": ("int64", lambda row: row.tiles_empty),
    "features": ("string", lambda row: next((one for one in row.outputs if one.endswith(".features.zarr")), None)),
}
"""Type and value of each column that every table has; what manifests say of inputs comes behind them."""


def record_cohort(out: Path, entries: Sequence[Entry], rows: Sequence[InputRow]) -> tuple[str, ...]:
    """Write the cohort table of a run and bring the index of its features up to date.

    Parameters
    ----------
    out : Path
        Folder of all outputs.
    entries : sequence of Entry
        Inputs of the run, with what a manifest says of them.
    rows : sequence of InputRow
        What became of them, ignored files included.

    Returns
    -------
    tuple of str
        What a user should know, for the report.

    Raises
    ------
    OutputError
        When the table cannot be written.
    """
    notes = _write_table(out, entries, rows)
    try:
        notes += save_index(out, given_by(entries)).notes
    except OutputError as error:  # it saves time, and is made again from the stores where it is missing
        notes += (f"the index of the cohort was not written: {error}",)
    return notes


def _write_table(out: Path, entries: Sequence[Entry], rows: Sequence[InputRow]) -> tuple[str, ...]:
    foreign = tuple(name for name in (CSV, PARQUET) if not _is_ours(out / name))
    if foreign:
        return (f"`{foreign[0]}` in `{out}` is not by tilestream and was left as it is: no cohort table was written",)
    types, table = _table(entries, rows)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(types)
    writer.writerows(table)
    write_durable(out / CSV, text.getvalue().encode("utf-8", "backslashreplace"))
    if find_spec("pyarrow") is None:
        with explained(out / PARQUET):
            (out / PARQUET).unlink(missing_ok=True)  # that of an earlier run says something else
        return ()  # the CSV holds the same
    _write_parquet(out / PARQUET, types, table)
    return ()


def _table(entries: Sequence[Entry], rows: Sequence[InputRow]) -> tuple[dict[str, str], list[list[Any]]]:
    """Return the type of each column by name, and the rows."""
    known = {entry.key: entry for entry in entries}
    types = {name: kind for name, (kind, _) in COLUMNS.items()}
    own: dict[str, Callable[[Entry], Any]] = {
        "id": lambda entry: None if entry.id == entry.key else entry.id,
        "label": lambda entry: entry.label,
    }
    extra = sorted({name for entry in entries for name, _ in entry.extra})
    given = {name: value for name, value in own.items() if any(value(entry) is not None for entry in entries)}
    for name in extra:
        given[f"manifest_{name}" if name in types or name in own else name] = _column(name)
    types |= dict.fromkeys(given, "string")
    table = []
    for row in rows:
        entry = known.get(row.path)
        values = [value(row) for _, value in COLUMNS.values()]
        table.append(values + [None if entry is None else value(entry) for value in given.values()])
    return types, table


def _column(name: str) -> Callable[[Entry], str | None]:
    return lambda entry: dict(entry.extra).get(name)


def _write_parquet(path: Path, types: Mapping[str, str], table: Sequence[Sequence[Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = {
        name: pyarrow.array([_storable(row[place]) for row in table], pyarrow.type_for_alias(kind))
        for place, (name, kind) in enumerate(types.items())
    }
    with durable_path(path) as temporary, explained(path):
        parquet.write_table(pyarrow.table(columns), temporary, compression="zstd")


def _storable(value: Any) -> Any:
    """Return text that is UTF-8; of a file name that is none the odd bytes as escapes, as in the report."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _is_ours(path: Path) -> bool:
    """Return whether a table may be written over: a manifest, or a user's own table, can bear its name."""
    if path.suffix != ".csv":
        return not path.is_file() or _names(path)[: len(COLUMNS)] == list(COLUMNS)
    try:
        with path.open("rb") as file:
            return file.readline().decode("utf-8", "replace").startswith(",".join(COLUMNS))
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _names(path: Path) -> list[str]:
    """Return the columns of a Parquet file, none where it cannot be read."""
    if find_spec("pyarrow") is None:
        return list(COLUMNS) if (path.parent / CSV).exists() else []  # both are written together
    from pyarrow import ArrowException, parquet

    try:
        return [str(name) for name in parquet.read_schema(path).names]
    except (OSError, ArrowException):
        return []
