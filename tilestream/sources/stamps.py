"""Size and time of the local files of an image, by which a run notices that one of them is changed under its hands."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from stat import S_ISDIR

from tilestream.errors import SourceError
from tilestream.sources.files import File
from tilestream.types import Source

MOST_FILES = 256
"""Most files of one folder that are looked at; a look costs two microseconds, and each unit of work takes one."""


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What is remembered of one file."""

    path: str
    """Local path."""
    size_bytes: int
    """Its size."""
    mtime_ns: int
    """When it was last changed."""


def stamps_of(source: Source) -> tuple[Stamp, ...]:
    """Return the stamps of the local files that a source holds.

    Parameters
    ----------
    source : Source
        The opened image.

    Returns
    -------
    tuple of Stamp
        Sorted by path; of a folder the files in it, as far as `MOST_FILES`. None for remote files and arrays.

    Notes
    -----
    Chunks in folders of their own (Zarr) are not looked at, nor is what OpenSlide opens by itself beside its file.
    """
    paths = {file.path for file in _files(source, set()) if file.is_local}
    return tuple(stamp for path in sorted(paths) for stamp in _stamps(path))


def require_unchanged(stamps: Iterable[Stamp]) -> None:
    """Raise unless all files still have their size and time.

    Parameters
    ----------
    stamps : iterable of Stamp
        As `stamps_of` gave them when the image was opened.

    Raises
    ------
    SourceError
        When one was changed, replaced or removed during the run.
    """
    for stamp in stamps:
        try:
            found = os.stat(stamp.path)
        except OSError as error:
            raise _changed(stamp, (error.strerror or str(error)).lower()) from error
        if found.st_size != stamp.size_bytes:
            raise _changed(stamp, f"{found.st_size} bytes")
        if found.st_mtime_ns != stamp.mtime_ns:
            raise _changed(stamp, "another time of change")


def _changed(stamp: Stamp, got: str) -> SourceError:
    return SourceError.of(
        f"`{stamp.path}` changed during the run",
        got=got,
        expected=f"the {stamp.size_bytes} bytes that it had when it was opened",
        do="Nothing was made of a mixture; run the same command again when the file is at rest.",
    )


def _stamps(path: str) -> Iterator[Stamp]:
    try:
        found = os.stat(path)
    except OSError:
        return  # an address that is no path, or one that reading will name
    if not S_ISDIR(found.st_mode):
        yield Stamp(path=path, size_bytes=found.st_size, mtime_ns=found.st_mtime_ns)
        return
    with os.scandir(path) as entries:
        names = sorted(entry.path for entry in entries if entry.is_file())
    for name in names[:MOST_FILES]:
        yield from _stamps(name)


def _files(value: object, seen: set[int]) -> Iterator[File]:
    """Yield the files in the records of a source; arrays and texts are not looked into."""
    if isinstance(value, File):
        yield value
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    if is_dataclass(value):
        inner: Iterable[object] = [getattr(value, field.name) for field in fields(value)]
    elif isinstance(value, Mapping):
        inner = value.values()
    else:
        inner = value if isinstance(value, tuple | list) else ()
    for item in inner:
        yield from _files(item, seen)
