"""The levels of a pyramid as one argument of a kernel: one run of memory, and a table of where each level lies in it.

A launch costs some microseconds for each array it is handed, and a tuple of arrays indexed by a number that is known
only at run time compiles to a switch at every texel. So the levels, which are allocated separately, become one run that
reaches from the first sample of the lowest to the last of the highest, of which only samples of levels are touched.

A position (i + f) px of level 0, i whole and 0 <= f < 1, is in a level of ratio num/den

    u = (i + f)·num/den − 1/2 = q + t,     q = ⌊i·num/den⌋ exactly, in integers; t in the arithmetic of the output

so that a position keeps the precision of its fraction at any distance from the corner (about 1e-7 px in float32),
without float64 and without a division: q comes from a reciprocal that is at most one too small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need, number_of
from tilestream.kernels.float16 import half_values
from tilestream.kernels.place import Array, dtype_of
from tilestream.kernels.rows import flat_view, one_run

COLUMNS = 13
"""Of a level's row in the table: START, STEP_C, LOG2, and from Y and X on: step, length, num, den, reciprocal."""
START, STEP_C, LOG2, Y, X = 0, 1, 2, 3, 8
"""LOG2: binary logarithm of how many px of level 0 a px of the level is long, times LOG2_UNIT."""
LOG2_UNIT = 2.0**48
RECIPROCAL_BITS = 31
MAX_EDGE_PX = 2**30
"""Longest edge: products of two stay inside int64."""
DTYPES = ("uint8", "uint16", "float16", "float32", "float64")
Ratio = float | Fraction
_NO_HALVES = np.zeros(1, np.float32)


@dataclass(frozen=True, kw_only=True)
class LevelTable:
    """The levels of one call."""

    flat: Array
    """The run of memory; float16 on the host as codes in uint16, since Numba has no arithmetic on it there."""
    halves: npt.NDArray[np.float32]
    """What each code stands for where `flat` holds codes of float16, else one number."""
    rows: npt.NDArray[np.int64]
    """`(levels, COLUMNS)`."""
    dtype: np.dtype[Any]
    """Of the samples."""
    channels: int
    """In each level."""
    planes: bool
    """Whether levels have a channel axis."""
    size_yx: tuple[int, int]
    """Of level 0, px."""

    @property
    def real(self) -> type[np.float32] | type[np.float64]:
        """The arithmetic of results: float64 for float64, else float32."""
        return np.float64 if self.dtype == np.float64 else np.float32

    @property
    def log2_ratios(self) -> npt.NDArray[np.float64]:
        """Binary logarithm of the px of level 0 under a px, of each level."""
        return self.rows[:, LOG2] / LOG2_UNIT


def level_table(
    operation: str,
    levels: Sequence[Array],
    *,
    ratios: Sequence[Ratio | tuple[Ratio, Ratio]] | None = None,
    writable: bool = False,
) -> LevelTable:
    """Return the levels of a pyramid as kernels take them.

    Parameters
    ----------
    operation : str
        Whose they are, for errors.
    levels : sequence of array
        `(c, y, x)` or `(y, x)`, level 0 first, all of one type and in one place, any strides; not copied.
    ratios : sequence of number or of pair of number, optional
        How many px of level 0 a px of each level is long; a pair is (y, x). By default the true ratios of the sizes.
    writable : bool
        Whether a kernel writes to the levels.

    Returns
    -------
    LevelTable
        Valid as long as the levels are.

    Raises
    ------
    ConfigError
        When they are not levels of one pyramid.
    """
    given: Any = levels  # whatever the caller took for a list
    if not isinstance(given, (list, tuple)) or not given:
        got = "none" if isinstance(given, (list, tuple)) else type(given).__name__
        raise ConfigError.of(
            f"`levels` of `{operation}`", got=got, expected="a list of arrays, level 0 first", do="Wrap it: [level_0]."
        )
    first = levels[0]
    need(operation, "levels[0]", first, dtypes=DTYPES, ndim=(2, 3))
    for i, level in enumerate(levels):
        need(operation, f"levels[{i}]", level, dtypes=(dtype_of(first).name,), ndim=len(first.shape))
        _check_size(operation, i, tuple(level.shape), tuple(first.shape))
    shapes = [tuple(int(n) for n in level.shape) for level in levels]
    scales = _scales(operation, [shape[-2:] for shape in shapes], ratios)
    half = dtype_of(first) == np.float16 and isinstance(first, np.ndarray)
    runs = [flat_view(level.view(np.uint16) if half else level, writable=writable) for level in levels]
    flat, offsets = one_run([run for run, _, _ in runs], writable=writable)
    rows = np.zeros((len(levels), COLUMNS), np.int64)
    for row, shape, (_, start, steps), offset, scale in zip(rows, shapes, runs, offsets, scales, strict=True):
        row[START] = start + offset
        row[STEP_C] = steps[0] if len(steps) == 3 else 0
        for column, step, length, ratio in zip((Y, X), steps[-2:], shape[-2:], scale, strict=True):
            num, den = ratio.denominator, ratio.numerator  # px of the level by px of level 0
            row[column : column + 5] = step, length, num, den, (num << RECIPROCAL_BITS) // den
        row[LOG2] = round(math.log2(max(scale)) * LOG2_UNIT)
    return LevelTable(
        flat=flat,
        halves=half_values() if half else _NO_HALVES,
        rows=rows,
        dtype=dtype_of(first),
        channels=shapes[0][0] if len(shapes[0]) == 3 else 1,
        planes=len(shapes[0]) == 3,
        size_yx=(shapes[0][-2], shapes[0][-1]),
    )


def named_levels(levels: Sequence[Array]) -> dict[str, Array]:
    """Return the levels by the names that errors call them by, for `place`."""
    many = levels if isinstance(levels, (list, tuple)) else []
    for i, level in enumerate(many):
        if level is None:
            raise ConfigError.of(f"`levels[{i}]`", got="None", expected="an array", do="Hand in the level.")
    return {f"levels[{i}]": level for i, level in enumerate(many)}


def _check_size(operation: str, i: int, found: tuple[int, ...], first: tuple[int, ...]) -> None:
    larger = any(n > m for n, m in zip(found[-2:], first[-2:], strict=True))
    if found[:-2] != first[:-2] or larger or max(first[-2:]) > MAX_EDGE_PX:
        raise ConfigError.of(
            f"`levels[{i}]` of `{operation}`",
            got=f"shape {found} under a level 0 of {first}",
            expected=f"as many channels, no edge longer than that of level 0, and none above {MAX_EDGE_PX} px",
            do="Hand in the levels of one pyramid, the finest first.",
        )


def _scales(
    operation: str, sizes: list[tuple[int, ...]], ratios: Sequence[Ratio | tuple[Ratio, Ratio]] | None
) -> list[tuple[Fraction, Fraction]]:
    """Return the px of level 0 under a px of each level, along y and x."""
    if ratios is None:
        return [(Fraction(sizes[0][0], size[0]), Fraction(sizes[0][1], size[1])) for size in sizes]
    given = ratios if isinstance(ratios, (list, tuple, np.ndarray)) else []
    pairs = [ratio if isinstance(ratio, tuple) else (ratio, ratio) for ratio in given]
    usable = len(pairs) == len(sizes) and all(len(pair) == 2 for pair in pairs)
    usable = usable and all(number_of(operation, "ratios", n) >= 1 for pair in pairs for n in pair)
    if not usable or max(pairs[0]) != 1:
        raise ConfigError.of(
            f"`ratios` of `{operation}`",
            got=str([tuple(map(str, pair)) for pair in pairs]),
            expected=f"{len(sizes)} numbers, 1 for level 0 and none below 1",
            do="Give the px of level 0 that a px of each level is long.",
        )
    return [
        (Fraction(y).limit_denominator(MAX_EDGE_PX // 2**10), Fraction(x).limit_denominator(MAX_EDGE_PX // 2**10))
        for y, x in pairs
    ]
