"""What the operations ask of their arrays, refused in the same words everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NoReturn

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
    if contiguous and isinstance(array, np.ndarray) and not (array.dtype.isnative and array.flags.aligned):
        _refuse(operation, name, f"{got}, of foreign byte order or not aligned", "native samples", "Copy it first.")
    if contiguous and not _is_contiguous(array):
        _refuse(operation, name, f"{got}, not contiguous", "C order without gaps", "Allocate it afresh.")
    if finite and isinstance(array, np.ndarray) and not np.isfinite(array).all():
        _refuse(operation, name, "values that are not finite", "finite ones", "Replace or leave out NaN and infinity.")


def need_kind(operation: str, name: str, value: object, kind: type | tuple[type, ...], *, do: str) -> None:
    """Raise unless what a parameter holds is of a type.

    Parameters
    ----------
    operation, name : str
        Whose parameter it is, and what it is called.
    value : object
        What was handed in.
    kind : type or tuple of type
        What it must be.
    do : str
        The remedy.

    Raises
    ------
    ConfigError
        When it is of another.
    """
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        _refuse(operation, name, type(value).__name__, " or ".join(each.__name__ for each in kinds), do)


def whole(operation: str, name: str, value: object, *, least: int | None = None, most: int = 2**62) -> int:
    """Return a whole number that a parameter holds.

    Parameters
    ----------
    operation, name : str
        Whose parameter it is, and what it is called.
    value : object
        What was handed in: an int, or a float without a fraction.
    least, most : int, optional
        The smallest, -`most` by default, and the largest allowed.

    Returns
    -------
    int
        The number.

    Raises
    ------
    ConfigError
        When it is none, or out of range.
    """
    low = -most if least is None else least
    real = isinstance(value, (int, float, np.integer, np.floating))
    if not real or not low <= value <= most or int(value) != value:  # type: ignore[operator, call-overload]
        limit = f"up to {most}" if most < 2**62 else "of 62 bits"
        least_words = "" if least is None else f" of at least {least},"
        _refuse(operation, name, repr(value), f"a whole number{least_words} {limit}", "Give one.")
    return int(value)  # type: ignore[call-overload, no-any-return]


def whole_pair(operation: str, name: str, value: object, *, least: int | None = None) -> tuple[int, int]:
    """Return the two whole numbers, y before x, that a parameter holds.

    Parameters
    ----------
    operation, name : str
        Whose parameter it is, and what it is called.
    value : object
        What was handed in.
    least : int, optional
        The smallest allowed.

    Returns
    -------
    tuple of int
        The numbers.

    Raises
    ------
    ConfigError
        When it is no pair of whole numbers, or they are out of range.
    """
    if not isinstance(value, (tuple, list, np.ndarray)) or len(value) != 2:
        _refuse(operation, name, repr(value), "two whole numbers (y, x)", "Give both.")
    return whole(operation, name, value[0], least=least), whole(operation, name, value[1], least=least)


def number_of(operation: str, name: str, value: object, *, least: float = -np.inf) -> float:
    """Return a finite number that a parameter holds.

    Parameters
    ----------
    operation, name : str
        Whose parameter it is, and what it is called.
    value : object
        What was handed in.
    least : float
        The smallest allowed.

    Returns
    -------
    float
        The number.

    Raises
    ------
    ConfigError
        When it is none, not finite, or too small.
    """
    real = isinstance(value, (int, float, np.integer, np.floating, Fraction))
    if not real or not abs(value) < 1.8e308 or value < least:  # type: ignore[arg-type, operator]
        words = "a finite number" if least == -np.inf else f"a finite number of at least {least}"
        _refuse(operation, name, repr(value), words, "Give one.")
    return float(value)  # type: ignore[arg-type]


def numbers_of(operation: str, name: str, value: object, n: int, *, least: float = -np.inf) -> tuple[float, ...]:
    """Return the finite numbers that a parameter of `n` of them holds.

    Parameters
    ----------
    operation, name : str
        Whose parameter it is, and what it is called.
    value : object
        What was handed in.
    n : int
        How many it must hold.
    least : float
        The smallest allowed.

    Returns
    -------
    tuple of float
        The numbers.

    Raises
    ------
    ConfigError
        When they are not so many, or one is none, not finite, or too small.
    """
    if not isinstance(value, (tuple, list, np.ndarray)) or len(value) != n:
        _refuse(operation, name, repr(value), f"{n} finite numbers", "Give one for each.")
    return tuple(number_of(operation, name, each, least=least) for each in value)


def _is_contiguous(array: Array) -> bool:
    if hasattr(array, "is_contiguous"):  # torch
        return bool(array.is_contiguous())
    return bool(array.flags["C_CONTIGUOUS"])


def _refuse(operation: str, name: str, got: str, expected: str, do: str) -> NoReturn:
    raise ConfigError.of(f"`{name}` of `{operation}`", got=got, expected=expected, do=do)
