"""Vectors from a file: what another program has made of texts or pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.numpyfiles import read_npy, read_npz
from tilestream.errors import ConfigError

SUFFIXES = (".npy", ".npz", ".safetensors", ".pt", ".pth")
"""How names of files of vectors end."""


def is_vector_file(path: Path) -> bool:
    """Return whether a file holds vectors, by the end of its name."""
    return path.suffix.lower() in SUFFIXES


def read_vectors(path: Path) -> npt.NDArray[Any]:
    """Return the vectors in a file that holds one array; nothing else in it is run.

    Parameters
    ----------
    path : Path
        NumPy's `.npy` or `.npz`, `.safetensors`, or `.pt` with one tensor.

    Returns
    -------
    ndarray
        As it stands there.

    Raises
    ------
    ConfigError
        When there is no such file, it is damaged, or it holds something else or several arrays.
    """
    readers = {".npy": read_npy, ".npz": _npz, ".safetensors": _safetensors}
    try:
        return readers.get(path.suffix.lower(), _torch)(path)
    except ConfigError:
        raise
    except Exception as error:  # each library raises what its parser stumbles over
        raise ConfigError.of(
            f"vectors in `{path}`",
            got=f"{type(error).__name__}: {error}",
            expected="one array of numbers, (d,) or (k, d)",
            do="Save one with numpy.save, safetensors or torch.save.",
        ) from error


def _npz(path: Path) -> npt.NDArray[Any]:
    found = read_npz(path)
    return found[_only(path, list(found))]


def _safetensors(path: Path) -> npt.NDArray[Any]:
    from safetensors.numpy import load_file

    found = load_file(path)
    return np.asarray(found[_only(path, list(found))])


def _torch(path: Path) -> npt.NDArray[Any]:
    from tilestream.codecs.tensorfile import read_tensor

    return read_tensor(path)


def _only(path: Path, names: list[str]) -> str:
    if len(names) != 1:
        raise ConfigError.of(
            f"vectors in `{path}`",
            got=f"{len(names)} arrays ({', '.join(names[:4])})",
            expected="one array, (d,) or (k, d)",
            do="Save the one that is meant by itself.",
        )
    return names[0]
