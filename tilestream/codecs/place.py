"""A folder that is written to, on a local disk or on object storage: files in it are whole or not there.

On a disk a file is written under another name, synchronised and renamed. On object storage one put does the same. Where
a service does not know exclusive creation (old servers that imitate S3 ignore the condition), `create` always succeeds:
two processes may then do the same work twice, which is harmless since outputs are deterministic and replaced whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from tilestream.codecs.durable import DurableFile, checksum, ensure_directory, explained, write_durable
from tilestream.codecs.objects import ObjectFile, explained_store, file_system, is_taken, missing

MODE = 0o666
"""What a new local file may be used for, before the user's mask."""
REQUESTS = 10
"""Most requests at once; botocore keeps as many connections."""


class WholeFile(Protocol):
    """A file in the making: `DurableFile` on a disk, `ObjectFile` on object storage."""

    @property
    def path(self) -> Path | str:
        """Return the final name, for messages."""

    @property
    def checksum(self) -> str:
        """Return the checksum of what was written so far, in hex."""

    @property
    def size_bytes(self) -> int:
        """Return the number of bytes written so far."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes."""

    def __enter__(self) -> Self:
        """Begin; the file does not exist yet."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Make the file appear whole, or leave nothing of it when an exception passes through."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder on a local disk or on object storage; picklable, it need not exist."""

    url: str
    """Local path or fsspec URL, without a slash at its end."""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """fsspec storage options."""

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
        with explained_store(self.url):
            system, path = file_system(self.url, self.options)
            try:
                system.ls(path, detail=False)
            except Exception as error:
                if not missing(error):
                    raise
                bucket = path.partition("/")[0]
                if "/" in path and not system.exists(bucket):
                    raise FileNotFoundError(f"the specified bucket does not exist: {bucket}") from error

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
        with explained_store(self._url(name)):
            system, path = file_system(self._url(name), self.options)
            system.pipe_file(path, data)
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
            return _create_local(self.path / name, data)
        with explained_store(self._url(name)):
            system, path = file_system(self._url(name), self.options)
            try:
                system.pipe_file(path, data, mode="create")
            except Exception as error:
                if is_taken(error):
                    return False
                raise
        return True

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
        if self.is_local:
            try:
                return (self.path / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None
        with explained_store(self._url(name)):
            system, path = file_system(self._url(name), self.options)
            try:
                return bytes(system.cat_file(path))
            except Exception as error:
                if missing(error):
                    return None
                raise

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
        with explained_store(self.url):
            system, root = file_system(self.url, self.options)
            by_path = {f"{root}/{name}": name for name in wanted}
            found = system.cat(list(by_path), on_error="return")
            result: dict[str, bytes] = {}
            for path, data in found.items():
                if not isinstance(data, BaseException):
                    result[by_path[path]] = bytes(data)
                elif not missing(data):
                    raise data
        return result

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
        with explained_store(self._url(name)):
            system, path = file_system(self._url(name), self.options)
            return bool(system.exists(path))

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
            entries = self._listed()
            found = [entry["name"].rpartition("/")[2] for entry in entries if entry["type"] != "directory"]
        return sorted(name for name in found if name and fnmatchcase(name, pattern))

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file in the place and its folders, by relative path.

        Returns
        -------
        dict
            Relative path with `/` → bytes; empty when the place is not there.
        """
        if self.is_local:
            files = (file for file in self.path.rglob("*") if file.is_file())
            return {file.relative_to(self.path).as_posix(): file.stat().st_size for file in files}
        with explained_store(self.url):
            system, root = file_system(self.url, self.options)
            found = system.find(root, detail=True)
        return {path[len(root) + 1 :]: int(entry["size"]) for path, entry in found.items() if path != root}

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
                with explained(self.path / name):
                    (self.path / name).unlink(missing_ok=True)
        elif names:
            self._remove([f"{self._path}/{name}" for name in names])

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
                below = self.at(name)
                self._remove([f"{below._path}/{path}" for path in below.sizes()] + [below._path])
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
        return DurableFile(self.path / name) if self.is_local else ObjectFile(self._url(name), self.options)

    def _url(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    @property
    def _path(self) -> str:
        return file_system(self.url, self.options)[1]

    def _listed(self) -> list[dict[str, Any]]:
        with explained_store(self.url):
            system, path = file_system(self.url, self.options)
            try:
                return [entry for entry in system.ls(path, detail=True) if entry["name"].rstrip("/") != path]
            except Exception as error:
                if missing(error):
                    return []
                raise

    def _remove(self, paths: list[str]) -> None:
        with explained_store(self.url):
            system, _ = file_system(self.url, self.options)
            # One by one: a bulk request of S3 tells of those it was not allowed to remove, and s3fs does not look.
            with ThreadPoolExecutor(min(len(paths), REQUESTS)) as pool:
                for removed in [pool.submit(system.rm_file, path) for path in paths]:
                    error = removed.exception()
                    if error is not None and not missing(error):
                        raise error


def _create_local(path: Path, data: bytes) -> bool:
    with explained(path):
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, MODE)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
        except OSError:  # a full disk; half of a file must not stand for the whole
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise
    return True
