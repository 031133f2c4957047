"""What a product says of its scene: the files of its bands and class layers, found but not yet opened."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tilestream.errors import SourceError
from tilestream.sources.files import File
from tilestream.types import Channel, ClassBand

MOST_METADATA_BYTES = 64 << 20
"""A larger metadata file is none."""


@dataclass(frozen=True, kw_only=True)
class BandFile:
    """One spectral band of a scene."""

    file: File
    """Its file."""
    channel: Channel
    """Name, and scale and offset by the product."""
    nodata: float | None = None
    """Value that the product gives to pixels without a measurement; None = what the file says."""


@dataclass(frozen=True, kw_only=True)
class LayerFile:
    """One class layer of a scene."""

    file: File
    """Its file."""
    band: ClassBand
    """Name and classes."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One scene as its metadata describes it."""

    format: str
    """Short name of the product (`sentinel2-l2a`, `landsat-c2-l2sp`, `stac-bands`)."""
    bands: tuple[BandFile, ...]
    """Spectral bands, in the order of their channels."""
    layers: tuple[LayerFile, ...] = ()
    """Class layers."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Bands and layers that the metadata names and that are not there, with the reason."""
    left_out: tuple[str, ...] = ()
    """Names of other images of the product, which are neither."""
    datetime: str | None = None
    """When it was taken, ISO 8601."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Technical facts of the product, see `scenefacts.py`."""
    notes: tuple[str, ...] = ()
    """What a user should know."""
    named: frozenset[str] = frozenset()
    """Names of all files that the metadata say belong to it, bands or not."""


def find(folder: str, names: Iterable[str], *, like: File) -> File | None:
    """Return the first of some files that is there, None when none is.

    Parameters
    ----------
    folder : str
        Path or URL of a folder.
    names : iterable of str
        Relative paths in it.
    like : File
        Carries the storage options.

    Returns
    -------
    File or None
        The file.
    """
    for name in names:
        file = File(url=joined(folder, name), options=like.options)
        if file.exists:
            return file
    return None


def joined(folder: str, name: str) -> str:
    """Return the address of a name in a folder, `.` and `..` resolved.

    Parameters
    ----------
    folder : str
        Path or URL of a folder.
    name : str
        Relative path.

    Returns
    -------
    str
        Path or URL.
    """
    scheme, mark, rest = folder.partition("://")
    if not mark:
        return posixpath.normpath(f"{folder}/{name}") if folder else posixpath.normpath(name)
    return f"{scheme}://{posixpath.normpath(f'{rest}/{name}')}"


def folder_of(file: File) -> str:
    """Return the address of the folder that a file lies in."""
    head, slash, _ = file.url.rpartition("/")
    return head if slash else "."


def metadata_text(file: File) -> str:
    """Return a metadata file as text.

    Parameters
    ----------
    file : File
        XML, JSON or MTL.

    Returns
    -------
    str
        Its text.

    Raises
    ------
    SourceError
        When it is too large to be one, or is not UTF-8.
    """
    if file.size > MOST_METADATA_BYTES:
        raise broken(file, f"{file.size:,} bytes", f"metadata of at most {MOST_METADATA_BYTES >> 20} MiB")
    try:
        return file.read(0, file.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise broken(file, f"bytes that are not UTF-8 at position {error.start}", "text in UTF-8") from error


def broken(file: File, got: str, expected: str) -> SourceError:
    """Return the error for metadata that cannot be what it should.

    Parameters
    ----------
    file : File
        The metadata file.
    got, expected : str
        What is wrong with it.

    Returns
    -------
    SourceError
        Ready to raise.
    """
    return SourceError.of(
        f"`{file.url}`", got=got, expected=expected, do="Copy the product again from where it came, metadata included."
    )


def iso_time(text: object) -> str | None:
    """Return a time as ISO 8601, None when it is none.

    Parameters
    ----------
    text : object
        What metadata says: a date, or a date and time; digits of seconds beyond six are dropped.

    Returns
    -------
    str or None
        Such as `2020-02-19T11:34:25.405Z`; in UTC where it says so.
    """
    if not isinstance(text, str) or not re.match(r"\d{4}-\d\d-\d\d", text.strip()):
        return None
    trimmed = re.sub(r"(\.\d{6})\d+", r"\1", text.strip())
    try:
        datetime.fromisoformat(trimmed)
    except ValueError:
        return None
    return trimmed


def finite(file: File, name: str, text: object) -> float:
    """Return a number of metadata; raise `SourceError` when it is none, or not finite."""
    try:
        value = float(str(text))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise broken(file, f"{name} `{str(text)[:40]}`", "a number")
    return value


def not_there(names: Iterable[str]) -> dict[str, str]:
    """Return the reason for each band that the metadata names and whose file is not there."""
    return dict.fromkeys(names, "a band that the metadata names and whose file is not there")
