"""Parts: the rows of one super-tile in one small file, checked against its receipt before it is used."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tilestream.codecs.checksums import checksum, checksum_file
from tilestream.codecs.durable import PARTIAL_SUFFIX, explained, write_durable
from tilestream.codecs.numpyfiles import read_npz
from tilestream.errors import OutputError
from tilestream.metrics import advance
from tilestream.types import Array, Receipt

_PREFIX = "part-"


def part_name(first_row: int) -> str:
    """Return the file name of the part that begins with a feature row; names sort in plan order."""
    return f"{_PREFIX}{first_row:012d}.npz"


def write_part(work: Path, first_row: int, arrays: Mapping[str, Array]) -> dict[str, str]:
    """Return the checksum of a part by its name after it is durable.

    Parameters
    ----------
    work : Path
        Folder of the parts.
    first_row : int
        Feature row of the first one in it.
    arrays : Mapping
        Arrays by name; equal arrays give equal bytes, since NumPy puts no time into the archive.

    Returns
    -------
    dict
        One entry.

    Raises
    ------
    OutputError
        When the place cannot be written.
    """
    buffer = io.BytesIO()
    ordered: dict[str, Any] = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    np.savez(buffer, **ordered)
    name = part_name(first_row)
    return {name: write_durable(work / name, buffer.getvalue())}


def expected_parts(receipts: Iterable[Receipt]) -> dict[str, str]:
    """Return the checksums of all parts by name, in plan order.

    Parameters
    ----------
    receipts : iterable of Receipt
        Receipts of one image; outputs that are no parts are left out.

    Returns
    -------
    dict
        Checksum by name.
    """
    found = {name: value for receipt in receipts for name, value in receipt.outputs.items() if name.startswith(_PREFIX)}
    return dict(sorted(found.items()))


def iter_parts(work: Path, expected: Mapping[str, str]) -> Iterator[dict[str, Array]]:
    """Yield the arrays of each part in plan order; one part is in memory at a time.

    Parameters
    ----------
    work : Path
        Folder of the parts.
    expected : Mapping
        Checksum by name, as `expected_parts` gives it.

    Yields
    ------
    dict
        Arrays by name.

    Raises
    ------
    OutputError
        When a part is missing or is not the one that the receipt speaks of.
    """
    for name, wanted in expected.items():
        advance()
        path = work / name
        try:
            with explained(path):
                data = path.read_bytes()
        except OutputError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            raise _lost(path, "no file") from error
        if checksum(data) != wanted:
            raise _lost(path, f"checksum {checksum(data)}")
        yield read_npz(io.BytesIO(data))


def lost_parts(work: Path, expected: Mapping[str, str]) -> frozenset[str]:
    """Return the names of the parts that are missing or are not what their receipts say.

    Parameters
    ----------
    work : Path
        Folder of the parts.
    expected : Mapping
        Checksum by name.

    Returns
    -------
    frozenset of str
        Empty when all can be used.

    Raises
    ------
    OutputError
        When one is there but cannot be read.
    """
    lost = set()
    for name, wanted in expected.items():
        advance()
        with explained(work / name):
            try:
                found = checksum_file(work / name)
            except (FileNotFoundError, NotADirectoryError):
                found = None
        if found != wanted:
            lost.add(name)
    return frozenset(lost)


def remove_parts(work: Path) -> None:
    """Remove all parts, half-written ones of killed workers, and the folder when nothing else is in it.

    Parameters
    ----------
    work : Path
        Folder of the parts.
    """
    if not work.is_dir():
        return
    with explained(work):
        for path in (*work.glob(f"{_PREFIX}*"), *work.glob(f".*{PARTIAL_SUFFIX}")):
            path.unlink(missing_ok=True)
        if not any(work.iterdir()):
            work.rmdir()


def _lost(path: Path, got: str) -> OutputError:
    return OutputError.of(
        f"`{path}`",
        got=got,
        expected="the file that its receipt describes",
        do="Run the same command again: what is lost is computed anew.",
    )
