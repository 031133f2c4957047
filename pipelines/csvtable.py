"""Tables that people write with a spreadsheet: text in UTF-8, one record after the other with its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from tilestream.errors import ConfigError

DELIMITERS = ",;\t"
"""Spreadsheets of some countries write `;`; the header tells which one a file uses."""


def read_text(path: Path, *, what: str, expected: str) -> str:
    """Return the content of a table.

    Parameters
    ----------
    path : Path
        The file; a byte-order mark is understood.
    what : str
        What errors call it.
    expected : str
        What an empty file should hold.

    Returns
    -------
    str
        Not blank.

    Raises
    ------
    ConfigError
        When it cannot be read, is not UTF-8 or is empty.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        got = (error.strerror or str(error)).lower()
        raise ConfigError.of(what, got=got, expected="a CSV file", do="Check the path.") from error
    except UnicodeDecodeError as error:
        raise ConfigError.of(
            what,
            got=f"bytes that are not UTF-8 at position {error.start}",
            expected="text in UTF-8",
            do="Save it as `CSV UTF-8`.",
        ) from error
    if not text.strip():
        raise ConfigError.of(what, got="an empty file", expected=expected, do="Fill it.")
    return text


def iter_records(text: str, *, what: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that holds anything with the number of its first line, the header first.

    Parameters
    ----------
    text : str
        The table; fields between commas, `;` or tabs.
    what : str
        What errors call it.

    Yields
    ------
    line : int
        From 1.
    fields : list of str
        Without blanks around them.

    Raises
    ------
    ConfigError
        When quotes do not match.
    """
    header, _, _ = text.lstrip("\r\n").partition("\n")
    delimiter = max(DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    last = 0
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise ConfigError.of(
                f"{what} line {last + 1}", got=str(error), expected="CSV", do="Check the quotes."
            ) from error
        if fields is None:
            return
        if any(field.strip() for field in fields):
            yield last + 1, [field.strip() for field in fields]
        last = reader.line_num


def padded(fields: list[str], count: int, *, what: str) -> list[str]:
    """Return the fields of a record as many as the header has; spreadsheets add and leave out empty ones.

    Parameters
    ----------
    fields : list of str
        The record.
    count : int
        Fields of the header.
    what : str
        What errors call the record.

    Returns
    -------
    list of str
        `count` fields.

    Raises
    ------
    ConfigError
        When there are more that hold something.
    """
    if len(fields) > count and not any(fields[count:]):
        fields = fields[:count]
    if len(fields) > count:
        raise ConfigError.of(
            what,
            got=f"{len(fields)} fields",
            expected=f"{count}, as in the header",
            do="Quote fields that hold a comma.",
        )
    return fields + [""] * (count - len(fields))
