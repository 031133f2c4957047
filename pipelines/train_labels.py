"""The labels that a head is trained on: a table of slides, and which of a cohort's slides each row means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias, get_args

from tilestream.errors import ConfigError
from tilestream.pipelines.csvtable import iter_records, padded, read_text
from tilestream.sinks.jobfiles import stem_of

Split: TypeAlias = Literal["train", "val", "test"]

NAMES = ("slide", "id", "path", "url")
"""Columns that name a slide; a table has one of them."""
GROUPS = ("patient", "group", "case")
"""Columns whose equal values are never on both sides of a split."""
SPLITS: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, kw_only=True)
class LabelRow:
    """One line of a table of labels."""

    line: int
    """Its number in the file, from 1."""
    name: str
    """Slide as written: its path, the end of it, its `id`, or its name without the suffix."""
    label: str
    """Class; empty where none is known."""
    group: str | None = None
    """Patient."""
    split: Split | None = None
    """Side on which a table puts it."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """A table of labels as read; no slide is looked up yet."""

    path: Path
    """The file."""
    rows: tuple[LabelRow, ...]
    """Its rows in order."""
    is_grouped: bool
    """Whether it says which slides are of one patient."""
    is_split: bool
    """Whether it says what is trained on and what is tested."""
    notes: tuple[str, ...] = ()
    """Columns that mean nothing here."""


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Which slides of a cohort have a label."""

    rows: Mapping[int, LabelRow]
    """Row by the slide's number, ascending."""
    featureless: tuple[str, ...]
    """Names in the table of which there are no features."""
    unlabelled: tuple[str, ...]
    """Slides with features that the table does not name, or gives no label."""


def read_labels(path: Path) -> Labels:
    """Return the rows of a table of labels.

    Parameters
    ----------
    path : Path
        CSV file in UTF-8 with a header: `slide` (or `id`, `path`), `label`, and if wanted `patient` (or `group`,
        `case`) and `split` with the values train, val and test. Commas, `;` or tabs between fields.

    Returns
    -------
    Labels
        Rows and notes.

    Raises
    ------
    ConfigError
        When it cannot be read, a column is missing or there twice, or a row is wrong.
    """
    what = f"labels `{path}`"
    text = read_text(path, what=what, expected="a header with the columns `slide` and `label`")
    records = iter_records(text, what=what)
    line, fields = next(records)
    header = [field.casefold() for field in fields]
    if len(set(header)) < len(header):
        raise _header_error(what, line, fields)
    name = _column(header, NAMES)
    group, split = _column(header, GROUPS), _column(header, ("split",))
    if name is None or "label" not in header:
        raise _header_error(what, line, fields)
    rows = []
    for line, fields in records:
        values = dict(zip(header, padded(fields, len(header), what=f"{what} line {line}"), strict=True))
        if not values[name]:
            raise ConfigError.of(
                f"{what} line {line}", got=f"no `{name}`", expected="a slide in each row", do="Fill it in."
            )
        rows.append(
            LabelRow(
                line=line,
                name=values[name],
                label=values["label"],
                group=None if group is None else values[group] or None,
                split=None if split is None else _split(values[split], f"{what} line {line}"),
            )
        )
    if not rows:
        raise ConfigError.of(what, got="a header and no rows", expected="one row a slide", do="Add the slides.")
    known = {name, group, split, "label"}
    unknown = [one for one in header if one and one not in known]
    notes = (f"{path.name}: columns that mean nothing here: {', '.join(unknown)}",) if unknown else ()
    return Labels(path=path, rows=tuple(rows), is_grouped=group is not None, is_split=split is not None, notes=notes)


def _column(header: Sequence[str], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in header), None)


def _header_error(what: str, line: int, fields: Sequence[str]) -> ConfigError:
    return ConfigError.of(
        f"{what} line {line}",
        got=f"the header {list(fields)}",
        expected="`slide` (or `id`, `path`) and `label`, if wanted `patient` and `split`, and no column twice",
        do="Name the columns in the first line: slide,label,patient,split.",
    )


def _split(text: str, what: str) -> Split | None:
    if not text:
        return None
    found = SPLITS.get(text.casefold())
    if found is None:
        expected = f"one of {list(get_args(Split))}, or nothing"
        raise ConfigError.of(what, got=f"split `{text}`", expected=expected, do="Correct it.")
    return found


def match_labels(labels: Labels, keys: Sequence[str], ids: Sequence[str]) -> Matched:
    """Return which slide each row means.

    Parameters
    ----------
    labels : Labels
        The table.
    keys : sequence of str
        Relative path of each slide.
    ids : sequence of str
        Name of each slide by a manifest; empty where there is none.

    Returns
    -------
    Matched
        Rows by slide, and what is left over on either side. Rows without a label count as not there.

    Raises
    ------
    ConfigError
        When a row fits several slides, or two rows are of one.
    """
    what = f"labels `{labels.path}`"
    finder = _Finder(keys, ids)
    found: dict[int, LabelRow] = {}
    featureless = []
    for row in labels.rows:
        fitting = finder.find(row.name)
        if len(fitting) > 1:
            names = ", ".join(keys[number] for number in fitting[:3])
            raise ConfigError.of(
                f"{what} line {row.line}",
                got=f"`{row.name}`, which fits {len(fitting)} slides: {names}",
                expected="one slide a row",
                do="Write the path as in the cohort.",
            )
        if not fitting:
            featureless.append(row.name)
            continue
        if fitting[0] in found:
            raise ConfigError.of(
                f"{what} line {row.line}",
                got=f"`{row.name}`, the same slide as line {found[fitting[0]].line} (`{keys[fitting[0]]}`)",
                expected="each slide once",
                do="Remove one of the rows.",
            )
        found[fitting[0]] = row
    labelled = {number: found[number] for number in sorted(found) if found[number].label}
    left = tuple(key for number, key in enumerate(keys) if number not in labelled)
    return Matched(rows=labelled, featureless=tuple(featureless), unlabelled=left)


class _Finder:
    """Finds the slides that a name can mean: what it says exactly goes before what it only ends like."""

    def __init__(self, keys: Sequence[str], ids: Sequence[str]) -> None:
        self._exact: dict[str, list[int]] = {}
        self._last: dict[str, list[int]] = {}
        self._stem: dict[str, list[int]] = {}
        self._keys = keys
        for number, (key, name) in enumerate(zip(keys, ids, strict=True)):
            for exact in {key, name} - {""}:
                self._exact.setdefault(exact, []).append(number)
            self._last.setdefault(PurePosixPath(key).name, []).append(number)
            for stem in {PurePosixPath(key).stem, key.removesuffix(PurePosixPath(key).suffix)}:
                self._stem.setdefault(stem, []).append(number)

    def find(self, name: str) -> list[int]:
        """Return the numbers of the slides."""
        wanted = name.replace("\\", "/").removeprefix("./")
        if wanted in self._exact:
            return self._exact[wanted]
        same = self._last.get(PurePosixPath(wanted).name, [])
        fitting = [
            n for n in same if f"/{wanted}".endswith(f"/{self._keys[n]}") or self._keys[n].endswith(f"/{wanted}")
        ]
        # features that were TRIDENT's or CLAM's know a slide by its name without the suffix
        return fitting or self._stem.get(wanted, []) or self._exact.get(stem_of(wanted), [])
