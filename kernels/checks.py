"""What the operations ask of their arrays, refused in the same words everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.place import Array, dtype_of


def need(
    operation: str,
    name: str,
    array: Array | None,
    *,
    dtypes: Sequence[str],
    ndim: int | Sequence[int] | None = None,
    shape: Sequence[int] | None = None,
    empty: bool = False,
    contiguous: bool = False,
    finite: bool = False,
) -> None:
    """Raise unless an array is what an operation asks for; None always passes.

    Parameters
    ----------
    operation, name : str
        Whose parameter it is, and what it is called.
    array : array or None
        On the host or a device.
    dtypes : sequence of str
        NumPy's names of the types allowed.
    ndim : int or sequence of int, optional
        Numbers of axes allowed.
    shape : sequence of int, optional
        The only shape allowed.
    empty : bool
        Whether an axis may be 0 long.
    contiguous : bool
        Whether it must be in C order without gaps.
    finite : bool
        Whether every sample of a host array must be finite. Device arrays are not looked at, since that would wait
        for them.

    Raises
    ------
    ConfigError
        Naming the parameter, what was got and what was expected.
    """
    if array is None:
        return
    found = tuple(int(n) for n in array.shape)
    ranks = (ndim,) if isinstance(ndim, int) else ndim
    expected = " or ".join(dtypes)
    got = f"{dtype_of(array)} of shape {found}"
    if dtype_of(array).name not in dtypes:
        _refuse(operation, name, got, f"samples of type {expected}", "Convert it first.")
    if ranks is not None and len(found) not in ranks:
        _refuse(operation, name, got, f"{' or '.join(map(str, ranks))} axes", "Add or select axes.")
    if shape is not None and found != tuple(shape):
        _refuse(operation, name, got, f"shape {tuple(shape)}", "Make it fit the other arrays.")
    if not empty and 0 in found:
        _refuse(operation, name, got, "at least one sample", "Leave empty arrays out.")
    if contiguous and not _is_contiguous(array):
        _refuse(operation, name, f"{got}, not contiguous", "C order without gaps", "Allocate it afresh.")
    if finite and isinstance(array, np.ndarray) and not np.isfinite(array).all():
        _refuse(operation, name, "values that are not finite", "finite ones", "Replace or leave out NaN and infinity.")


def _is_contiguous(array: Array) -> bool:
    if hasattr(array, "is_contiguous"):  # torch
        return bool(array.is_contiguous())
    return bool(array.flags["C_CONTIGUOUS"])


def _refuse(operation: str, name: str, got: str, expected: str, do: str) -> None:
    raise ConfigError.of(f"`{name}` of `{operation}`", got=got, expected=expected, do=do)
