"""The folder of the disk tier: known by a marker, so that nothing is ever written into or removed from another's."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from tilestream.cache.mounts import on_network
from tilestream.errors import ConfigError

MARKER = "tilestream-cache-1"
"""Name of the file that makes a folder ours; the number is that of the format."""
TAG = "CACHEDIR.TAG"
"""By this file programs for backups know that a folder need not be kept (https://bford.info/cachedir/)."""
_TAG_TEXT = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# Tiles of remote images that tilestream keeps; the whole folder may be removed while no run uses it.\n"
)
_STEM, _SUFFIX = "stored-", ".sqlite"


def claim_folder(folder: Path) -> Path:
    """Return a folder for the disk tier, made when it is not there.

    Parameters
    ----------
    folder : Path
        An empty folder, one of an earlier run, or a path where one can be made.

    Returns
    -------
    Path
        The absolute path.

    Raises
    ------
    ConfigError
        When it holds files of others, cannot be written, or lies on a network share.
    """
    folder = folder.absolute()
    if on_network(str(folder / MARKER)):
        raise _refused(folder, "a folder on a network share", "one on a disk of the machine, such as /scratch")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # pixels of patients are nobody else's business
        names = {entry.name for entry in folder.iterdir()}
        if names and MARKER not in names:
            example = min(names)
            raise _refused(folder, f"a folder with other files (`{example}`)", "an empty folder, or an earlier cache")
        with suppress(FileExistsError):  # the first of several processes that begin at once
            os.close(os.open(folder / MARKER, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        if TAG not in names:
            (folder / TAG).write_text(_TAG_TEXT)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise _refused(folder, "a folder without write permission", "one that can be written")
    except OSError as error:
        raise _refused(folder, (error.strerror or str(error)).lower(), "a folder that can be written") from error
    return folder


def database(folder: Path) -> Path:
    """Return the path of the file in use, which may have to be made."""
    numbers = [_number(path) for path in folder.glob(f"{_STEM}*{_SUFFIX}")]
    return folder / f"{_STEM}{max([1, *numbers])}{_SUFFIX}"


def next_database(path: Path) -> Path:
    """Return the path of the file that takes the place of a damaged one, which is removed.

    Parameters
    ----------
    path : Path
        The damaged file.

    Returns
    -------
    Path
        Under another name: processes that still have the old one open do not meet its successor.
    """
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        with suppress(OSError):
            (path.parent / name).unlink()
    successor = path.with_name(f"{_STEM}{_number(path) + 1}{_SUFFIX}")
    return max(successor, database(path.parent), key=_number)


def _number(path: Path) -> int:
    digits = path.name.removeprefix(_STEM).removesuffix(_SUFFIX)
    return int(digits) if digits.isdigit() else 0


def _refused(folder: Path, got: str, expected: str) -> ConfigError:
    return ConfigError.of(f"`--disk-cache {folder}`", got=got, expected=expected, do="Name another folder.")
