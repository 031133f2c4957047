"""Size and time, or entity tag, of the files of an image: by these a run notices that one changes under its hands."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from tilestream.errors import SourceError
from tilestream.sources.files import File
from tilestream.sources.fingerprint import digest
from tilestream.sources.ranges import REQUESTS
from tilestream.sources.recognise import ZARR_MARKERS, inside, list_folder
from tilestream.types import Source

MOST_FILES = 256
"""Most files of one folder that are looked at; a look costs two microseconds, and each unit of work takes one."""


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What is remembered of one file."""

    path: str
    """Local path or URL."""
    size_bytes: int
    """Its size."""
    mtime_ns: int = 0
    """When a local file was last changed."""
    version: str | None = None
    """Entity tag or time of change of a remote file, None where its service tells neither."""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """fsspec storage options of a remote file."""


def stamps_of(source: Source) -> tuple[Stamp, ...]:
    """Return the stamps of the files that a source holds.

    Parameters
    ----------
    source : Source
        The opened image.

    Returns
    -------
    tuple of Stamp
        Sorted by path; of a folder the files in it, as far as `MOST_FILES`. None for arrays.

    Notes
    -----
    Chunks in folders of their own (Zarr) are not looked at, nor is what OpenSlide opens by itself beside its file.
    """
    files = {file.url: file for file in _files(source, set())}
    return (
        *_local_stamps(files.values()),
        *_remote_stamps([file for _, file in sorted(files.items()) if not file.is_local]),
    )


def state_of(source: Source) -> str:
    """Return a digest of size and time, or entity tag, of the files of an image, by which caches know it again.

    Parameters
    ----------
    source : Source
        The opened image.

    Returns
    -------
    str
        Empty where these do not tell a change of pixels: of arrays, of folders, in which files of any depth may change
        (Zarr, MRXS), and of remote files whose service does not say what they are.
    """
    files = {file.url: file for file in _files(source, set())}
    if any(file.is_local and (Path(file.path).is_dir() or file.path.endswith(".mrxs")) for file in files.values()):
        return ""
    remote = [_remote_identity(file) for file in files.values() if not file.is_local]
    if not all(isinstance(name, bytes) for name in remote):
        return ""
    local = [(stamp.path, stamp.size_bytes, stamp.mtime_ns) for stamp in _local_stamps(files.values())]
    return digest(*local, *remote) if local or remote else ""


def _remote_identity(file: File) -> object:
    from tilestream.sources.remoteidentity import identity_of

    try:
        return identity_of(file.url, file.options, file.seen)
    except SourceError:  # a folder, or nothing there
        return None


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
    remote = [stamp for stamp in stamps if "://" in stamp.path]
    if remote:
        with ThreadPoolExecutor(min(len(remote), REQUESTS)) as pool:
            for _ in pool.map(_require_remote, remote):
                pass
    for stamp in stamps:
        if "://" in stamp.path:
            continue
        try:
            found = os.stat(stamp.path)
        except OSError as error:
            raise _changed(stamp, (error.strerror or str(error)).lower()) from error
        if found.st_size != stamp.size_bytes:
            raise _changed(stamp, f"{found.st_size} bytes")
        if found.st_mtime_ns != stamp.mtime_ns:
            raise _changed(stamp, "another time of change")


def _require_remote(stamp: Stamp) -> None:
    from tilestream.sources.remotefiles import remote_file

    seen = remote_file(stamp.path, stamp.options).look(max_age_s=0)
    if seen.size_bytes != stamp.size_bytes:
        raise _changed(stamp, f"{seen.size_bytes} bytes")
    if seen.version != stamp.version:
        raise _changed(stamp, "another entity tag or time of change")


def _remote_stamps(files: Sequence[File]) -> Iterator[Stamp]:
    for file in files:
        try:
            yield _remote_stamp(file)
        except SourceError:  # a folder: its metadata stand for a Zarr store
            folder = list_folder(file)
            for name in sorted(folder.names.intersection(ZARR_MARKERS)) if folder is not None else ():
                yield _remote_stamp(inside(file, name))


def _remote_stamp(file: File) -> Stamp:
    seen = file.seen
    return Stamp(path=file.url, size_bytes=seen.size_bytes, version=seen.version, options=file.options)


def _changed(stamp: Stamp, got: str) -> SourceError:
    return SourceError.of(
        f"`{stamp.path}` changed during the run",
        got=got,
        expected=f"the {stamp.size_bytes} bytes that it had when it was opened",
        do="Nothing was made of a mixture; run the same command again when the file is at rest.",
    )


def _local_stamps(files: Iterable[File]) -> list[Stamp]:
    return [stamp for path in sorted({file.path for file in files if file.is_local}) for stamp in _stamps(path)]


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
