"""Cohort manifests: tables and lists that select images, and tables say what their headers do not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tilestream.errors import ConfigError
from tilestream.pipelines.csvtable import iter_records, padded, read_text
from tilestream.pipelines.itemlists import Row, read_items
from tilestream.pyramid.chosen import LIGHTS

COLUMNS = ("path", "id", "mpp", "light", "mask", "label", "bands")
"""Columns that mean something; `url` is another word for `path`."""


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    """One line of a manifest."""

    line: int
    """Number of its first line in the file, or of its entry in JSON, from 1."""
    path: str
    """Path or URL as written."""
    id: str | None = None
    """Name of the image in tables."""
    mpp: float | None = None
    """Micrometres per pixel of level 0; goes before what the image says."""
    light: str | None = None
    """`brightfield` or `fluorescence`; goes before what the image says."""
    mask: str | None = None
    """Mask or GeoJSON of this image, as written."""
    label: str | None = None
    """What is known of the image, for training and tables."""
    bands: tuple[str, ...] = ()
    """Channels to use, in this order; empty = all."""
    extra: tuple[tuple[str, str], ...] = ()
    """Values of unknown columns, by column."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest as read; nothing is looked up yet."""

    path: Path
    """The file."""
    rows: tuple[ManifestRow, ...]
    """Its rows in order; at least one."""
    notes: tuple[str, ...] = ()
    """What a user should know: columns that mean nothing here."""


def read_manifest(path: str | Path) -> Manifest:
    """Return the rows of a manifest.

    Parameters
    ----------
    path : str or Path
        A CSV file in UTF-8 with a header; `path` or `url` is required, `id`, `mpp`, `light`, `mask`, `label` and
        `bands` (joined by `;`, `|` or spaces) are optional. Byte-order mark, CRLF and quoted fields are understood, as
        are `;` and tabs between fields. By its suffix a text file (`.txt`) with a path or URL a line, or a JSON file: a
        list of these, of objects with the columns above, or a STAC ItemCollection whose items link to themselves.

    Returns
    -------
    Manifest
        Rows and notes.

    Raises
    ------
    ConfigError
        When the file cannot be read, has no header or no rows, or a row is wrong; with file and line.
    """
    path = Path(path)
    what = f"manifest `{path}`"
    text = read_text(path, what=what, expected="a header with a column `path` or `url`")
    items = read_items(path, text)
    if items is not None:
        return _of_items(path, items)
    records = iter_records(text, what=what)
    names, notes = _columns(path, next(records, None))
    rows = tuple(
        _row(path, line, dict(zip(names, padded(fields, len(names), what=f"{what} line {line}"), strict=True)))
        for line, fields in records
    )
    return _checked(path, rows, notes, got="a header and no rows")


def _of_items(path: Path, items: list[Row]) -> Manifest:
    rows = tuple(_row(path, number, values) for number, values in items)
    unknown = sorted({name for _, values in items for name in values if name not in COLUMNS})
    notes = (_kept_aside(path, unknown),) if unknown else ()
    return _checked(path, rows, notes, got="a list of nothing")


def _checked(path: Path, rows: tuple[ManifestRow, ...], notes: tuple[str, ...], *, got: str) -> Manifest:
    if not rows:
        raise ConfigError.of(f"manifest `{path}`", got=got, expected="one row an image", do="Add the images.")
    _require_unique(path, rows)
    return Manifest(path=path, rows=rows, notes=notes)


def _kept_aside(path: Path, names: Sequence[str]) -> str:
    return f"{path.name}: columns kept aside, they mean nothing here: {', '.join(names)}"


def _columns(path: Path, first: tuple[int, list[str]] | None) -> tuple[list[str], tuple[str, ...]]:
    fields = first[1] if first else []
    names = [{"url": "path"}.get(name.casefold(), name.casefold()) for name in fields]
    known = [name for name in names if name in COLUMNS]
    if known.count("path") != 1 or len(set(names)) != len(names):
        raise ConfigError.of(
            f"manifest `{path}` line {first[0] if first else 1}",
            got=f"the header {fields}",
            expected="one column `path` or `url`, and no column twice",
            do="Name the columns in the first line: path,id,mpp,light,mask,label,bands.",
        )
    unknown = [field for field, name in zip(fields, names, strict=True) if name not in COLUMNS]
    notes = (_kept_aside(path, unknown),) if unknown else ()
    return names, notes


def _row(path: Path, line: int, values: dict[str, str]) -> ManifestRow:
    if not values.get("path"):
        _refuse(path, line, "no path", "a path or URL in each row", "Fill it in, or remove the row.")
    return ManifestRow(
        line=line,
        path=values["path"],
        id=values.get("id") or None,
        mpp=_mpp(path, line, values.get("mpp", "")),
        light=_light(path, line, values.get("light", "").casefold()),
        mask=values.get("mask") or None,
        label=values.get("label") or None,
        bands=tuple(values.get("bands", "").replace(";", " ").replace("|", " ").replace(",", " ").split()),
        extra=tuple((name, value) for name, value in values.items() if name not in COLUMNS),
    )


def _mpp(path: Path, line: int, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        _refuse(
            path, line, f"mpp `{text}`", "micrometres per pixel above 0, such as 0.25", "Correct it, or leave it empty."
        )
    return value


def _light(path: Path, line: int, text: str) -> str | None:
    if text and text not in LIGHTS:
        _refuse(path, line, f"light `{text}`", f"one of {', '.join(LIGHTS)}", "Correct it, or leave it empty.")
    return text or None


def _require_unique(path: Path, rows: tuple[ManifestRow, ...]) -> None:
    for what, values in (("path", [row.path for row in rows]), ("id", [row.id for row in rows])):
        seen: dict[str, int] = {}
        for row, value in zip(rows, values, strict=True):
            if value is not None and value in seen:
                _refuse(
                    path,
                    row.line,
                    f"{what} `{value}`, also in line {seen[value]}",
                    "each one once",
                    "Remove one of them.",
                )
            if value is not None:
                seen[value] = row.line


def _refuse(path: Path, line: int, got: str, expected: str, do: str) -> NoReturn:
    raise ConfigError.of(f"manifest `{path}` line {line}", got=got, expected=expected, do=do)
