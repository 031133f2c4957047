"""One tensor as a `.pt` file that torch opens, with a word of ours where torch does not look."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError, DamagedError


def write_tensor(path: Path, values: npt.NDArray[Any], word: str) -> None:
    """Write an array as a file that `torch.load` opens.

    Parameters
    ----------
    path : Path
        Where to write.
    values : ndarray
        The array.
    word : str
        What `word_of` finds again: the comment of the ZIP archive that such a file is.

    Raises
    ------
    ConfigError
        When torch is not installed.
    """
    torch = _torch(path)
    with path.open("wb") as file:
        torch.save(torch.from_numpy(values), file)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = word.encode()


def read_tensor(path: Path) -> npt.NDArray[Any]:
    """Return the array of a `.pt` file that holds one tensor; nothing else in it is run.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    ndarray
        Its values.

    Raises
    ------
    ConfigError
        When torch is not installed.
    DamagedError
        When the file is cut, or holds something else.
    """
    torch = _torch(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what its unpickler happens to stumble over
        raise DamagedError(f"`{path}`: no file of one tensor ({type(error).__name__}: {error})") from error
    if not isinstance(found, torch.Tensor):
        raise DamagedError(f"`{path}`: a {type(found).__name__}, not a tensor")
    found = found.detach()
    return np.asarray((found.float() if found.dtype == torch.bfloat16 else found).numpy())


def word_of(path: Path) -> str | None:
    """Return the word that `write_tensor` put into a file, None where there is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment.decode("utf-8", "replace") or None
    except (OSError, zipfile.BadZipFile):
        return None


def _torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ConfigError.of(
            f"`{path.name}`",
            got="no module `torch`",
            expected="it installed",
            do="Run `pip install -e '.[torch]'` in the clone.",
        ) from error
    return torch
