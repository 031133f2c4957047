"""Positions in level 0 as samplers take them, and what belongs to each of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need
from tilestream.kernels.constants import constant
from tilestream.kernels.leveltable import LevelTable
from tilestream.kernels.place import Array, Place, dtype_of, empty_like
from tilestream.kernels.rows import flat_view

REALS = ("float32", "float64")
Run = tuple[Any, int, tuple[int, ...]]
"""Memory, start and steps: see `tilestream.kernels.rows.flat_view`."""


@dataclass(frozen=True, kw_only=True)
class Positions:
    """The positions of one call."""

    shape: tuple[int, ...]
    """As the caller gave them, without the last axis: `(n,)` or `(h, w)`."""
    grid: tuple[int, int]
    """The same as rows and columns."""
    run: Run
    """Steps of rows, columns and of y to x."""
    dtype: np.dtype[Any]
    """float32 or float64."""

    @property
    def size(self) -> int:
        """How many positions there are."""
        return self.grid[0] * self.grid[1]


def positions(operation: str, at_yx: Array) -> Positions:
    """Return positions as kernels take them.

    Parameters
    ----------
    operation : str
        Whose they are, for errors.
    at_yx : array of float32 or float64
        `(n, 2)` or `(h, w, 2)`, any strides.

    Returns
    -------
    Positions
        Not copied.

    Raises
    ------
    ConfigError
        When they are no positions, or are on the host and not finite.
    """
    need(operation, "at_yx", at_yx, dtypes=REALS, ndim=(2, 3), empty=True, finite=True)
    shape = tuple(int(n) for n in at_yx.shape)
    if shape[-1] != 2:
        raise ConfigError.of(
            f"`at_yx` of `{operation}`", got=f"shape {shape}", expected="a last axis of 2: y and x", do="Stack y and x."
        )
    grid = (shape[0], shape[1]) if len(shape) == 3 else (1, shape[0])
    return Positions(shape=shape[:-1], grid=grid, run=_run(at_yx, 3), dtype=dtype_of(at_yx))


def beside(operation: str, name: str, value: Array | float, at: Positions, here: Place, *, pair: bool = False) -> Run:
    """Return what belongs to each position: a number, or a pair (y, x), for all of them or for each.

    Parameters
    ----------
    operation, name : str
        Whose parameter it is, and what it is called.
    value : array of float32 or float64, number or pair of numbers
        One for all, or an array with one for each position.
    at : Positions
        What it belongs to.
    here : Place
        Where the operation runs.
    pair : bool
        Whether it is a pair.

    Returns
    -------
    tuple
        Memory, start and steps of rows and columns, and of y to x for a pair.

    Raises
    ------
    ConfigError
        When it does not fit the positions, or is not finite.
    """
    if not hasattr(value, "shape") or isinstance(value, np.generic):
        try:
            numbers = np.asarray(value, at.dtype).reshape(-1)
        except (TypeError, ValueError, OverflowError):
            numbers = np.zeros(0, at.dtype)
        if numbers.size != 1 + pair or not all(math.isfinite(number) for number in numbers):
            raise ConfigError.of(
                f"`{name}` of `{operation}`",
                got=repr(value),
                expected="two finite numbers (y, x)" if pair else "a finite number",
                do="Give one for all positions, or an array with one for each.",
            )
        return constant(here, numbers), 0, (0, 0, 1) if pair else (0, 0)
    shape = (*at.shape, 2) if pair else at.shape
    need(operation, name, value, dtypes=REALS, shape=shape, empty=True, finite=True)
    return _run(value, 3 if pair else 2)


def result_for(
    operation: str, table: LevelTable, shape: tuple[int, ...], like: Array, out: Array | None
) -> tuple[Array, Run]:
    """Return an array for one value a channel and position, and its memory.

    Parameters
    ----------
    operation : str
        Whose result it is.
    table : LevelTable
        What is sampled; levels without a channel axis give a result without one.
    shape : tuple of int
        Of the positions: `(n,)` or `(h, w)`.
    like : array
        Decides the kind of a new array.
    out : array or None
        What the caller wants written.

    Returns
    -------
    out : array
        `(c, …)` or `(…)`.
    run : tuple
        Its memory, start and steps of channels, rows and columns.

    Raises
    ------
    ConfigError
        When `out` does not fit.
    """
    whole = (table.channels, *shape) if table.planes else shape
    need(operation, "out", out, dtypes=(np.dtype(table.real).name,), shape=whole, empty=True)
    found = empty_like(like, whole, table.real) if out is None else out
    if 0 in whole:
        return found, (None, 0, (0, 0, 0))
    flat, start, steps = flat_view(found, writable=True)
    rows = steps[-len(shape) :] if len(shape) == 2 else (0, steps[-1])
    return found, (flat, start, (steps[0] if table.planes else 0, *rows))


def _run(array: Array, axes: int) -> Run:
    if 0 in array.shape:
        return None, 0, (0,) * axes
    flat, start, steps = flat_view(array)
    return flat, start, (0,) * (axes - len(steps)) + steps
