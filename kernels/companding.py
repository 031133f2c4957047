"""Samples of any type as 8-bit codes through a fixed monotone mapping, never one stretched by tile or image.

A mapping is a table of 255 ascending edges; the code of a value is the number of edges at or below it:

    uint8            code = v
    int8             code = v + 128
    uint16           code = min(255, round(16 log2(1 + v)))                       16 codes an octave, 0 … 65535
    uint32, uint64   code = min(255, round(8 log2(1 + v)))                         8 codes an octave
    int16            code = 128 + sign(v) min(127, round(8 log2(1 + |v|)))         8 codes an octave
    int32, int64     code = 128 + sign(v) min(127, round(4 log2(1 + |v|)))         4 codes an octave
    float            code = 128 + sign(v) min(127, round(5 log2(1 + 1024 |v|)))    5 codes an octave, 0.001 … 43,000
    value_range      code = round(255 (v − low) / (high − low)), clipped to 0 … 255

A logarithm keeps contrast, the ratio of two values, alike over the whole range, which is what texture needs when the
range is not known beforehand; whoever knows it states `value_range`. NaN and infinities are not valid. Edges are
float64; codes are integers: tolerance of the tests is 0, but for values within 1e-9 of an edge. μ-law is the model:
ITU-T G.711.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from tilestream.errors import ConfigError
from tilestream.kernels.rows import flat_rows

UNSIGNED_PER_OCTAVE = {2: 16, 4: 8, 8: 8}
"""Codes an octave of unsigned integers, by bytes a sample."""

SIGNED_PER_OCTAVE = {2: 8, 4: 4, 8: 4}
"""Codes an octave of signed integers, by bytes a sample."""

FLOAT_PER_OCTAVE = 5
"""Codes an octave of floats."""

FLOAT_UNIT = 2.0**-10
"""Value of a float below which the logarithm turns linear."""


def _logarithmic(n: int, per_octave: int, unit: float) -> npt.NDArray[np.float64]:
    # pow of the C library, value by value: vectorised exp2 may differ in the last bit from one processor to the next
    return np.array([unit * (2.0 ** ((j - 0.5) / per_octave) - 1.0) for j in range(1, n + 1)])


def code_edges(dtype: npt.DTypeLike, *, value_range: tuple[float, float] | None = None) -> npt.NDArray[np.float64]:
    """Return the 255 values at which the code of a sample goes up by one.

    Parameters
    ----------
    dtype : dtype-like
        Type of the samples.
    value_range : (low, high), optional
        Values that become codes 0 and 255 of a linear mapping; by default the fixed mapping of the type.

    Returns
    -------
    ndarray of float64
        `(255,)` ascending; the code of `v` is the number of edges `<= v`.

    Raises
    ------
    ConfigError
        When the type is not a number or the range is not ascending and finite.
    """
    dtype = np.dtype(dtype)
    if dtype.kind not in "biuf" or dtype == np.float16:
        raise ConfigError.of(
            "`compand`",
            got=f"samples of type {dtype}",
            expected="integers, float32 or float64",
            do="Convert the image first.",
        )
    if value_range is not None:
        low, high = (float(v) for v in value_range)
        if not (np.isfinite([low, high]).all() and low < high):
            raise ConfigError.of(
                "`value_range`",
                got=(low, high),
                expected="two finite values, the lower first",
                do="Give the values that are to become black and white.",
            )
        return np.asarray(low + (np.arange(1, 256) - 0.5) * ((high - low) / 255.0), np.float64)
    if dtype.kind == "b" or dtype.itemsize == 1:
        return np.arange(-127.0, 128.0) if dtype.kind == "i" else np.arange(1.0, 256.0)
    if dtype.kind == "u":
        return _logarithmic(255, UNSIGNED_PER_OCTAVE[dtype.itemsize], 1.0)
    per_octave, unit = (FLOAT_PER_OCTAVE, FLOAT_UNIT) if dtype.kind == "f" else (SIGNED_PER_OCTAVE[dtype.itemsize], 1.0)
    positive = _logarithmic(127, per_octave, unit)
    # just above -t, so that v and -v stand equally far from code 128; code 0 is left unused
    negative = np.nextafter(-positive[::-1], np.inf)
    return np.concatenate([[-np.inf], negative, positive])


@functools.lru_cache(maxsize=32)
def _table(dtype: str, value_range: tuple[float, float] | None) -> npt.NDArray[np.uint8]:
    """Return the code of every value of a type of up to 16 bits, from the smallest on."""
    kind = np.dtype(dtype)
    low, high = (0, 1) if kind.kind == "b" else (np.iinfo(kind).min, np.iinfo(kind).max)
    values = np.arange(low, high + 1, dtype=np.float64)
    return np.searchsorted(code_edges(kind, value_range=value_range), values, side="right").astype(np.uint8)


@njit(nogil=True, cache=True)
def _compand_core(value: float, edges: Any) -> int:
    """Return the number of edges at or below the value, by halving, in 8 steps."""
    code = 0
    step = 128
    while step > 0:
        if edges[code + step - 1] <= value:
            code += step
        step >>= 1
    return code


@njit(nogil=True, cache=True)
def _compand_table_cpu(source: Any, table: Any, low: int, out: Any) -> None:
    flat, tile_step, row_step = source
    for i in range(out.shape[0]):
        for y in range(out.shape[1]):
            start = i * tile_step + y * row_step
            row = flat[start : start + out.shape[2]]
            for k in range(out.shape[2]):
                out[i, y, k] = table[np.int64(row[k]) - low]


@njit(nogil=True, cache=True)
def _compand_cpu(source: Any, edges: Any, channels: int, out: Any, finite: Any) -> bool:
    """Write codes, and where a sample is not finite; return whether all are."""
    flat, tile_step, row_step = source
    clean = True
    for i in range(out.shape[0]):
        for y in range(out.shape[1]):
            start = i * tile_step + y * row_step
            row = flat[start : start + out.shape[2]]
            for k in range(out.shape[2]):
                value = np.float64(row[k])
                if np.isfinite(value):
                    out[i, y, k] = _compand_core(value, edges)
                else:
                    out[i, y, k] = 0
                    finite[i, y, k // channels] = False
                    clean = False
    return clean


def compand(
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_] | None = None,
    *,
    value_range: tuple[float, float] | None = None,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_] | None]:
    """Return the 8-bit codes of samples and which pixels are valid.

    Parameters
    ----------
    pixels : ndarray
        `(n, c, h, w)` samples of any integer type, float32 or float64; views of interleaved memory are read in place.
    valid : ndarray of bool, optional
        `(n, h, w)`; by default every pixel is valid.
    value_range : (low, high), optional
        Values that become codes 0 and 255 of a linear mapping; by default the fixed mapping of the type.

    Returns
    -------
    codes : ndarray of uint8
        `(n, c, h, w)` view of interleaved memory; `pixels` itself when they are codes already.
    valid : ndarray of bool or None
        `valid` less the pixels with a sample that is not finite; None when all are valid.

    Raises
    ------
    ConfigError
        When the type is not a number or the range is not ascending and finite.
    """
    if pixels.dtype == np.uint8 and value_range is None:
        return pixels, valid
    if value_range is not None:
        value_range = (float(value_range[0]), float(value_range[1]))
    edges = code_edges(pixels.dtype, value_range=value_range)
    samples = np.moveaxis(pixels, 1, 3)
    n, height, width, channels = samples.shape
    flat, (tile_step, row_step) = flat_rows(samples)
    out = np.empty((n, height, width * channels), np.uint8)
    codes = np.moveaxis(out.reshape(n, height, width, channels), 3, 1)
    if pixels.dtype.kind != "f" and pixels.dtype.itemsize <= 2:
        table = _table(pixels.dtype.str, value_range)
        low = int(np.iinfo(pixels.dtype).min) if pixels.dtype.kind == "i" else 0
        _compand_table_cpu((flat, tile_step, row_step), table, low, out)
        return codes, valid
    finite = np.ones((n, height, width), np.bool_)
    if not _compand_cpu((flat, tile_step, row_step), edges, channels, out, finite):
        valid = finite if valid is None else valid & finite
    return codes, valid
