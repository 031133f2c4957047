"""Files and folders that are either whole on disk or not there: temporary name, fsync, rename."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tilestream.codecs.checksums import Digest, checksum, new_digest
from tilestream.errors import OutputError
from tilestream.metrics import advance

PARTIAL_SUFFIX = ".partial"
STALE_TRIES = 5
"""How often a file is opened that each time is another by the time it is read; a share that is gone says the same."""
_MODE = 0o666  # before the user's mask
# File systems that cannot fsync a folder say one of these; the rename itself is still atomic there.
_NO_DIRECTORY_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
# errno → (what was found, what was expected, what to do)
_EXPLAINED = {
    errno.ENOSPC: (
        "a full disk",
        "room for the file",
        "Free some space or choose another `--out`, then run the same command again: finished work is kept.",
    ),
    errno.EDQUOT: (
        "an exhausted quota",
        "room for the file",
        "Free some space or choose another `--out`, then run the same command again: finished work is kept.",
    ),
    errno.EROFS: ("a read-only file system", "a place that can be written", "Choose another `--out`."),
    errno.EACCES: (
        "no permission to write",
        "a folder that this user may write",
        "Change its permissions or choose another `--out`.",
    ),
    errno.EPERM: (
        "no permission to write",
        "a folder that this user may write",
        "Change its permissions or choose another `--out`.",
    ),
    errno.ENOTDIR: ("a file on the way", "a folder", "Choose another `--out`, or move that file away."),
    errno.EEXIST: ("a file of that name", "a folder", "Choose another `--out`, or move that file away."),
    errno.EISDIR: ("a folder of that name", "a file", "Choose another `--out`, or move that folder away."),
    errno.ENAMETOOLONG: (
        "a name that the file system refuses as too long",
        "at most 255 bytes for each part of the path",
        "Shorten the name of the input or choose a shorter `--out`.",
    ),
}


def explain_os_error(path: Path, error: OSError) -> OutputError:
    """Return the error that tells a user why `path` cannot be written and what to do.

    Parameters
    ----------
    path : Path
        File or folder that was to be written.
    error : OSError
        What the operating system said.

    Returns
    -------
    OutputError
        With the same `errno`, so that callers can still tell a full disk from the rest.
    """
    unknown = (
        error.strerror or str(error),
        "a place that can be written",
        "Check that place or choose another `--out`.",
    )
    got, expected, do = _EXPLAINED.get(error.errno or 0, unknown)
    explained = OutputError.of(f"`{path}`", got=got, expected=expected, do=do)
    explained.errno = error.errno
    return explained


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the operating system raises inside the block into an `OutputError` about `path`.

    Parameters
    ----------
    path : Path
        File or folder that is being written.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    OutputError
        When the operating system refuses.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise explain_os_error(path, error) from error


def sync_directory(path: Path) -> None:
    """Make the names in a folder durable.

    Parameters
    ----------
    path : Path
        Existing folder.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(descriptor)


def ensure_directory(path: Path) -> None:
    """Create a folder and its parents durably; one that exists is left as it is.

    Parameters
    ----------
    path : Path
        Folder.

    Raises
    ------
    OutputError
        When it, or something on the way to it, is a file or cannot be written.
    """
    if path.is_dir():
        return
    missing = [path]
    while not missing[-1].parent.exists() and missing[-1].parent != missing[-1]:
        missing.append(missing[-1].parent)
    with explained(path):
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            sync_directory(folder.parent)


class DurableFile:
    """A file that appears under its name only when it is whole; use it as a context manager.

    Leaving the block commits, leaving it by an exception removes what was written. Two processes may write the same
    file at once: each has its own temporary name and the last rename wins.

    Parameters
    ----------
    path : Path
        Final name; its folder is created.
    digest : optional
        Takes every byte for `checksum`, BLAKE2b-128 by default.

    Raises
    ------
    OutputError
        When the place cannot be written.
    """

    def __init__(self, path: Path, digest: Digest | None = None) -> None:
        ensure_directory(path.parent)
        self.path = path
        # Not derived from the final name, which may already be as long as the file system allows.
        self._temporary = path.parent / f".{uuid.uuid4().hex[:16]}{PARTIAL_SUFFIX}"
        self._digest = digest or new_digest()
        self.size_bytes = 0
        with explained(path):
            self._file = self._temporary.open("xb")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes.

        Parameters
        ----------
        data : bytes
            What comes next.

        Raises
        ------
        OutputError
            When the disk is full.
        """
        with explained(self.path):
            self._file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)

    @property
    def checksum(self) -> str:
        """Return the checksum of what was written so far, in hex."""
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        advance()
        if kind is not None:
            self._abandon()
            return
        try:
            with explained(self.path):
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                self._temporary.replace(self.path)
                sync_directory(self.path.parent)
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        # Closing flushes, which fails again on a full disk; the first error is the one to report.
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._temporary.unlink()


@contextmanager
def durable_path(path: Path) -> Iterator[Path]:
    """Yield a hidden name beside `path`: the file written there takes that place when the block ends well.

    For files that are not written from first to last byte. The hidden name follows from `path`, so that the next
    attempt writes over what a killed process left; the caller sees to it that there is one attempt at a time.

    Parameters
    ----------
    path : Path
        Final name; its folder is created, a file of that name is replaced.

    Yields
    ------
    Path
        Where to write; removed when an exception passes through.

    Raises
    ------
    OutputError
        When the place cannot be written.
    """
    ensure_directory(path.parent)
    temporary = path.parent / f".{checksum(path.name.encode())[:16]}{PARTIAL_SUFFIX}"
    try:
        yield temporary
        with explained(path):
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_directory(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_durable(path: Path, data: bytes) -> str:
    """Return the checksum of `data` after it is whole and durable under `path`.

    Parameters
    ----------
    path : Path
        Final name; its folder is created, a file of that name is replaced.
    data : bytes
        Whole content.

    Returns
    -------
    str
        BLAKE2b-128 in hex.

    Raises
    ------
    OutputError
        When the place cannot be written; nothing is left behind then.
    """
    with DurableFile(path) as file:
        file.write(data)
    return file.checksum


def read_if_there(path: Path) -> bytes | None:
    """Return the content of a file, None when there is none.

    Parameters
    ----------
    path : Path
        Any name.

    Returns
    -------
    bytes or None
        Whole content. On a network share a file can be removed or replaced by another machine while it is being read;
        then it is opened again.
    """
    tries = 0
    while True:
        tries += 1
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ESTALE or tries == STALE_TRIES:
                raise


def create_file(path: Path, data: bytes) -> bool:
    """Return whether a file was made that was not there before.

    Parameters
    ----------
    path : Path
        File whose folder must exist.
    data : bytes
        Whole content; another may see the file before all of it.

    Returns
    -------
    bool
        False when there is a file of that name.

    Raises
    ------
    OutputError
        When the file cannot be written; nothing is left behind then.
    """
    with explained(path):
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _MODE)
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
