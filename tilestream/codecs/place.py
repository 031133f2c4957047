"""A folder that is written to, on a local disk or on object storage: files in it are whole or not there.

On a disk a file is written under another name, synchronised and renamed. On object storage one put does the same. Where
a service does not know exclusive creation (old servers that imitate S3 ignore the condition), `create` always succeeds:
two processes may then do the same work twice, which is harmless since outputs are deterministic and replaced whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tilestream.codecs import remote
from tilestream.codecs.checksums import Crc32c, checksum
from tilestream.codecs.durable import (
    DurableFile,
    create_file,
    ensure_directory,
    explained,
    read_if_there,
    write_durable,
)
from tilestream.codecs.objects import ObjectFile
from tilestream.codecs.wholefile import WholeFile
from tilestream.metrics import advance


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder on a local disk or on object storage; picklable, it need not exist."""

    url: str
    """Local path or fsspec URL, without a slash at its end."""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)
    """fsspec storage options; not shown, since they may hold secrets."""

    @classmethod
    def of(cls, place: Place | Path | str, options: Mapping[str, Any] | None = None) -> Place:
        """Return the place that a path or URL names; a place is returned as it is.

        Parameters
        ----------
        place : Place, Path or str
            Local path, `file://` or fsspec URL.
        options : Mapping, optional
            fsspec storage options.

        Returns
        -------
        Place
            Nothing is created or looked at.
        """
        if isinstance(place, Place):
            return place
        text = os.fspath(place).removeprefix("file://")
        return cls(url=text.rstrip("/") or "/", options=dict(options or {}))

    def at(self, *parts: str) -> Place:
        """Return the folder below this one.

        Parameters
        ----------
        *parts : str
            Relative paths with `/`.

        Returns
        -------
        Place
            With the same options.
        """
        return Place(url="/".join([self.url.rstrip("/"), *(part.strip("/") for part in parts)]), options=self.options)

    @property
    def is_local(self) -> bool:
        """Return whether the folder lies in the local file system."""
        return "://" not in self.url

    @property
    def path(self) -> Path:
        """Return the local path; a place on object storage has none."""
        if not self.is_local:
            raise TypeError(f"{self.url} is not a local path")
        return Path(self.url)

    @property
    def name(self) -> str:
        """Return the last part of the URL."""
        return self.url.rpartition("/")[2]

    def prepare(self) -> None:
        """Make the folder durably where folders exist; on object storage see that the bucket answers.

        Raises
        ------
        OutputError
            When it cannot be written to, or there is no such bucket.
        """
        if self.is_local:
            ensure_directory(self.path)
            return
        remote.require_bucket(self.url, self.options)

    def put(self, name: str, data: bytes) -> str:
        """Return the checksum of `data` after it is whole and durable under its name.

        Parameters
        ----------
        name : str
            Relative path; folders on the way are created, a file of that name is replaced.
        data : bytes
            Whole content.

        Returns
        -------
        str
            BLAKE2b-128 in hex.

        Raises
        ------
        OutputError
            When the place cannot be written; what was there before is there still.
        """
        if self.is_local:
            return write_durable(self.path / name, data)
        remote.put(self._url(name), self.options, data)
        return checksum(data)

    def create(self, name: str, data: bytes) -> bool:
        """Return whether a file was made that was not there before; of several that try at once one succeeds.

        Parameters
        ----------
        name : str
            Relative path; on a disk its folder must exist.
        data : bytes
            Whole content. On a disk another may see the file before all of it.

        Returns
        -------
        bool
            False when there is a file of that name, which is left as it is.

        Raises
        ------
        OutputError
            When the place cannot be written.

        Notes
        -----
        Locally `O_EXCL`. Remotely `If-None-Match: *` on S3, generation 0 on Google, no overwriting on Azure, all
        behind fsspec's `mode="create"`. A put that was answered too late and sent again finds its own object: a caller
        to whom that matters writes something unique and reads it back.
        """
        if self.is_local:
            return create_file(self.path / name, data)
        return remote.create(self._url(name), self.options, data)

    def get(self, name: str) -> bytes | None:
        """Return the content of a file, None when there is none.

        Parameters
        ----------
        name : str
            Relative path.

        Returns
        -------
        bytes or None
            Whole content.

        Raises
        ------
        OutputError
            When a storage service does not let it be read.
        """
        advance()
        if self.is_local:
            return read_if_there(self.path / name)
        return remote.get(self._url(name), self.options)

    def get_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the contents of several files by name, on object storage got at once; absent ones are left out.

        Parameters
        ----------
        names : iterable of str
            Relative paths.

        Returns
        -------
        dict
            Name → whole content.
        """
        wanted = list(names)
        if self.is_local or len(wanted) < 2:
            return {name: data for name in wanted if (data := self.get(name)) is not None}
        return remote.get_many(self.url, self.options, wanted)

    def exists(self, name: str = "") -> bool:
        """Return whether there is a file or folder of that name; without a name, whether the place itself is there.

        Parameters
        ----------
        name : str
            Relative path.

        Returns
        -------
        bool
            A folder on object storage is there as long as anything lies in it.
        """
        if self.is_local:
            return (self.path / name).exists()
        return remote.exists(self._url(name), self.options)

    def version(self, name: str) -> str | None:
        """Return a text that differs when the file was replaced, None when there is none.

        Parameters
        ----------
        name : str
            Relative path.

        Returns
        -------
        str or None
            Inode and time of change on a disk, entity tag or its like on object storage.
        """
        if self.is_local:
            try:
                found = os.stat(self.path / name)
            except (FileNotFoundError, NotADirectoryError):
                return None
            return f"{found.st_ino}-{found.st_mtime_ns}"
        return remote.version(self._url(name), self.options)

    def modified_s(self, name: str) -> float | None:
        """Return when a file was written, None when there is none.

        Parameters
        ----------
        name : str
            Relative path.

        Returns
        -------
        float or None
            Seconds since 1970 on the clock of the disk's machine or of the storage service.
        """
        if self.is_local:
            try:
                return os.stat(self.path / name).st_mtime
            except (FileNotFoundError, NotADirectoryError):
                return None
        return remote.modified_s(self._url(name), self.options)

    def names(self, pattern: str = "*") -> list[str]:
        """Return the names of the files directly in the place, sorted.

        Parameters
        ----------
        pattern : str
            `*`, `?` and `[…]` as in a shell; names that begin with a dot are matched too.

        Returns
        -------
        list of str
            Empty when the place is not there.
        """
        if self.is_local:
            try:
                found = [entry.name for entry in os.scandir(self.path) if not entry.is_dir()]
            except (FileNotFoundError, NotADirectoryError):
                return []
        else:
            found = remote.names(self.url, self.options)
        return sorted(name for name in found if name and fnmatchcase(name, pattern))

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file in the place and its folders, by relative path.

        What another process removes meanwhile is there or not there, never an error.

        Returns
        -------
        dict
            Relative path with `/` → bytes; empty when the place is not there.
        """
        if self.is_local:
            return dict(_sizes(self.path))
        return remote.sizes(self.url, self.options)

    def remove(self, *names: str) -> None:
        """Remove files; those that are not there are passed over.

        Parameters
        ----------
        *names : str
            Relative paths of files.

        Raises
        ------
        OutputError
            When one cannot be removed.
        """
        if self.is_local:
            for name in names:
                advance()
                with explained(self.path / name):
                    (self.path / name).unlink(missing_ok=True)
        elif names:
            remote.remove(self.url, self.options, names)

    def clear(self, *names: str) -> None:
        """Remove files and whole folders; those that are not there are passed over.

        Parameters
        ----------
        *names : str
            Relative paths. There is no way to remove the place itself without naming what lies in it.

        Raises
        ------
        OutputError
            When one cannot be removed.
        """
        for name in names:
            if not name.strip("/."):
                raise ValueError(f"`{name}` names the place itself")
            if not self.is_local:
                remote.remove(self.url, self.options, [name, *(f"{name}/{path}" for path in self.at(name).sizes())])
                continue
            path = self.path / name
            with explained(path):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    def free_bytes(self) -> int | None:
        """Return how many bytes can still be written, None where that has no limit that can be asked for.

        Returns
        -------
        int or None
            Free bytes of the disk that the folder lies on, or will lie on.
        """
        if not self.is_local:
            return None
        path = self.path.absolute()
        while not path.exists() and path.parent != path:
            path = path.parent
        return shutil.disk_usage(path).free

    def writer(self, name: str) -> WholeFile:
        """Return a file in the making, to be used as a context manager and appended to.

        Parameters
        ----------
        name : str
            Relative path; folders on the way are created, a file of that name is replaced at the end.

        Returns
        -------
        WholeFile
            It appears under its name when the block ends, and leaves nothing behind when an exception ends it.

        Raises
        ------
        OutputError
            When the place cannot be written.
        """
        return DurableFile(self.path / name, Crc32c()) if self.is_local else ObjectFile(self._url(name), self.options)

    def _url(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url


def _sizes(root: Path) -> Iterator[tuple[str, int]]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            with suppress(FileNotFoundError):
                yield path.relative_to(root).as_posix(), path.stat().st_size
