"""Byte ranges of a file or object, local or remote, without an open handle in the record."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from tilestream.errors import DamagedError, SourceError
from tilestream.metrics import count, timed
from tilestream.sources.shares import read_shared

if TYPE_CHECKING:
    from tilestream.sources.fetching import Seen
    from tilestream.sources.remotefiles import RemoteFile

OPEN_FILES = 128
"""Local handles kept open in one process; well under the usual limit of 1,024 a process."""

_READ_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class FileVersion(NamedTuple):
    """What tells a file from another that takes its name later."""

    size_bytes: int
    """Its size."""
    marks: tuple[object, ...]
    """Number and time of change of a local file, tag or time of a remote one as far as its server tells."""


class _Handles:
    """Read-only descriptors of local files, reopened after a fork (a child must not share a parent's offsets)."""

    def __init__(self) -> None:
        self.reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        """Forget every handle and the lock, which a thread of the parent may have held."""
        self._lock = Lock()
        self._open: dict[str, _Descriptor] = {}

    def get(self, path: str) -> _Descriptor:
        # Without the lock: every thread asks once a tile, and would wait for whichever was switched out holding it.
        found = self._open.get(path)
        if found is not None:
            return found
        with self._lock:
            if path not in self._open:
                while len(self._open) >= OPEN_FILES:
                    del self._open[next(iter(self._open))]  # the one opened first; reopening costs microseconds
                self._open[path] = _Descriptor(path)
            return self._open[path]

    def drop(self, path: str) -> None:
        with self._lock:
            self._open.pop(path, None)

    def drop_replaced(self, path: str, found: os.stat_result) -> None:
        """Let go of a handle on the file that lay at `path` before the one found there now."""
        held = self._open.get(path)
        if held is not None and not os.path.samestat(os.fstat(held.number), found):
            self.drop(path)


class _Descriptor:
    """One open file; closed when the last user lets go, so that eviction cannot pull it from under a reader."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, _READ_FLAGS)

    def __del__(self) -> None:
        number = getattr(self, "number", None)
        if number is not None:
            os.close(number)


_handles = _Handles()


@dataclass(frozen=True, kw_only=True)
class File:
    """A file or object that is read by ranges; picklable."""

    url: str
    """Local path or fsspec URL."""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """fsspec storage options; not shown, since they may hold secrets."""

    @property
    def is_local(self) -> bool:
        """Return whether the file lies in the local file system."""
        return "://" not in self.url or self.url.startswith("file://")

    @property
    def path(self) -> str:
        """Return the path inside its file system."""
        return self.url.removeprefix("file://")

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    def beside(self, name: str) -> File:
        """Return the file `name` in the same folder."""
        head, slash, _ = self.url.rpartition("/")
        return File(url=head + slash + name, options=self.options)

    @cached_property
    def size(self) -> int:
        """Return the size in bytes; raise `SourceError` when there is no such file."""
        try:
            if self.is_local:
                found = os.stat(self.path)
                _handles.drop_replaced(self.path, found)  # long-lived workers see many runs
                return found.st_size
            return self.seen.size_bytes
        except SourceError:
            raise
        except (OSError, ValueError) as error:
            raise SourceError.of(
                f"`{self.url}`", got=_reason(error), expected="a readable file", do="Check the path and permissions."
            ) from error

    @property
    def exists(self) -> bool:
        """Return whether the file is there."""
        if self.is_local:
            return os.path.isfile(self.path)
        return self._remote.exists()

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return `nbytes` bytes from `offset`.

        Parameters
        ----------
        offset, nbytes : int
            Range in bytes; it must lie inside the file.

        Returns
        -------
        bytes
            Exactly `nbytes` bytes.

        Raises
        ------
        DamagedError
            When the range reaches outside the file; checked before anything is allocated.
        SourceError
            When the file system fails.
        """
        self._require_inside(offset, nbytes)
        with timed("read"):
            if not self.is_local:
                data = self._remote.read(offset, offset + nbytes, self.seen) if nbytes else b""
            else:
                try:
                    data = self._pread(offset, nbytes)
                except OSError as error:
                    _handles.drop(self.path)
                    raise SourceError.of(
                        f"`{self.url}`", got=_reason(error), expected="readable bytes", do="Check the disk."
                    ) from error
        if self.is_local:  # of remote files is counted what is fetched, which memory may have already
            count("bytes_read", len(data))
        if len(data) != nbytes:
            raise DamagedError(f"bytes {offset}..{offset + nbytes} could not be read: got {len(data)}")
        return data

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of several `(offset, nbytes)` ranges; remote ones that lie close together in one request.

        Parameters
        ----------
        ranges : sequence of (int, int)
            In any order; each must lie inside the file.

        Returns
        -------
        list of bytes
            In the order of the ranges. Memory is that of all requests: gaps of up to 1 MiB come along.

        Raises
        ------
        DamagedError
            When a range reaches outside the file.
        SourceError
            When the file system fails, or the file changed.
        """
        if self.is_local:
            return [self.read(offset, nbytes) for offset, nbytes in ranges]
        for offset, nbytes in ranges:
            self._require_inside(offset, nbytes)
        with timed("read"):
            return self._remote.read_ranges(ranges, self.seen)

    def warm(self, ranges: Sequence[tuple[int, int]], *, version: FileVersion | None = None) -> None:
        """Fetch ranges of a remote file ahead of `read`, those that lie close together in one request.

        Parameters
        ----------
        ranges : sequence of (int, int)
            Offset and length. Those outside the file are left to `read`, which names them.
        version : FileVersion, optional
            For `read_version`.

        Raises
        ------
        SourceError
            When the file system fails, or the file changed.
        """
        if self.is_local:
            return
        seen = self.seen if version is None else self._remote.seen_as(version)
        inside = [(offset, nbytes) for offset, nbytes in ranges if 0 <= offset <= seen.size_bytes - nbytes]
        with timed("read"):
            self._remote.warm(inside, seen)

    def _require_inside(self, offset: int, nbytes: int) -> None:
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise DamagedError(f"bytes {offset}..{offset + nbytes} lie outside the file of {self.size} bytes")

    def read_whole(self, most_bytes: int) -> bytes | None:
        """Return the content of a small file, None when there is none of that name.

        Parameters
        ----------
        most_bytes : int
            Of a larger file no more is read.

        Returns
        -------
        bytes or None
            The content. No handle stays open: chunks are files by the thousand.

        Raises
        ------
        DamagedError
            When it is larger.
        SourceError
            When it is there and cannot be read.
        """
        data = self.read_part(0, most_bytes + 1)
        if data is not None and len(data) > most_bytes:
            raise DamagedError(f"`{self.url}` holds more than {most_bytes:,} bytes, more than it can need")
        return data

    def read_part(self, start: int, nbytes: int) -> bytes | None:
        """Return bytes of a small file, fewer where it ends before; the rest as of `read_whole`.

        Two parts may be of two files, where it was replaced in between: only a checksum over both tells.
        """
        with timed("read"):
            data = self._slurp(start, nbytes) if self.is_local else self._remote.part(start, start + nbytes)
        if data is not None:
            count("bytes_read", len(data))
        return data

    def version(self) -> FileVersion | None:
        """Return what tells this file from another that takes its name later, None when there is none now.

        Returns
        -------
        FileVersion or None
            Asked anew at each call.

        Raises
        ------
        SourceError
            When it is there and cannot be read.
        """
        if not self.is_local:
            seen = self._remote.find()
            return None if seen is None else FileVersion(seen.size_bytes, (seen.version, seen.etag))
        try:
            found = os.stat(self.path)
            _handles.drop_replaced(self.path, found)
            return None if stat.S_ISDIR(found.st_mode) else _version_of(found)
        except _ABSENT:
            return None
        except OSError as error:
            raise SourceError.of(
                f"`{self.url}`", got=_reason(error), expected="a readable file", do="Check the path and permissions."
            ) from error

    def read_version(self, version: FileVersion, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of several ranges of a file that is still the one it was.

        Parameters
        ----------
        version : FileVersion
            What it was; of a remote file it is not asked for again.
        ranges : sequence of tuple
            `(offset, nbytes)`.

        Returns
        -------
        list of bytes
            One for each range.

        Raises
        ------
        DamagedError
            When a range reaches outside the file.
        SourceError
            When the file was replaced or changed, or cannot be read.
        """
        for offset, nbytes in ranges:
            if offset + nbytes > version.size_bytes:
                raise DamagedError(
                    f"bytes {offset}..{offset + nbytes} lie outside the file of {version.size_bytes} bytes"
                )
        if not self.is_local:
            with timed("read"):
                return self._remote.read_ranges(ranges, self._remote.seen_as(version))
        with timed("read"):
            try:
                handle = _handles.get(self.path)
                is_same = _version_of(os.fstat(handle.number)) == version
                parts = [read_shared(self.path, handle.number, part, _pread) for part in ranges] if is_same else []
            except OSError as error:
                _handles.drop(self.path)
                raise SourceError.of(
                    f"`{self.url}`", got=_reason(error), expected="readable bytes", do="Check the disk or network."
                ) from error
        if not is_same or any(len(part) != nbytes for part, (_, nbytes) in zip(parts, ranges, strict=True)):
            raise SourceError.of(
                f"`{self.url}` changed while it was read",
                got="another file of that name",
                expected=f"the {version.size_bytes:,} bytes that it had",
                do="Open the image again when it is at rest.",
            )
        count("bytes_read", sum(map(len, parts)))
        return parts

    def _slurp(self, start: int, nbytes: int) -> bytes | None:
        try:
            descriptor = os.open(self.path, _READ_FLAGS)
            try:
                size = os.fstat(descriptor).st_size
                return _pread(descriptor, start, max(0, min(size - start, nbytes)))
            finally:
                os.close(descriptor)
        except _ABSENT:
            return None
        except OSError as error:
            raise SourceError.of(
                f"`{self.url}`", got=_reason(error), expected="readable bytes", do="Check the disk."
            ) from error

    def _pread(self, offset: int, nbytes: int) -> bytes:
        return read_shared(self.path, _handles.get(self.path).number, (offset, nbytes), _pread)

    @cached_property
    def seen(self) -> Seen:
        """Return what a remote file was when this record was first used; what it reads is of just that."""
        return self._remote.look()

    @property
    def _remote(self) -> RemoteFile:
        from tilestream.sources.remotefiles import remote_file  # what reads local files does without

        return remote_file(self.url, self.options)

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "options": self.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _pread(descriptor: int, offset: int, nbytes: int) -> bytes:
    data = os.pread(descriptor, nbytes, offset)
    while 0 < len(data) < nbytes:  # one call returns at most about 2 GiB
        more = os.pread(descriptor, nbytes - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def _version_of(found: os.stat_result) -> FileVersion:
    return FileVersion(size_bytes=found.st_size, marks=(found.st_dev, found.st_ino, found.st_mtime_ns))


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
