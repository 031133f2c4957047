"""Files of NumPy, read by one thread of a process at a time.

NumPy reads the header of an array by `ast`, and CPython 3.11 counts how deep that builds for all threads together:
where two build at once, each has a chance of a SystemError. Source: CPython issue 106905.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np

from tilestream.types import Array

_ONE = Lock()


def read_npy(file: Path | BinaryIO) -> Array:
    """Return the array of an `.npy` file.

    Parameters
    ----------
    file : Path or file object
        Of the user's.

    Returns
    -------
    ndarray
        Of numbers: pickled objects are refused.

    Raises
    ------
    ValueError
        When it is no such file.
    """
    with _ONE:
        return np.asarray(np.load(file, allow_pickle=False))


def read_npz(file: Path | BinaryIO) -> dict[str, Array]:
    """Return the arrays of an `.npz` archive by name.

    Parameters
    ----------
    file : Path or file object
        With all its arrays small enough for memory.

    Returns
    -------
    dict
        In the order of the archive; pickled objects are refused.

    Raises
    ------
    ValueError, zipfile.BadZipFile
        When it is no such archive.
    """
    with _ONE, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
