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

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need, numbers_of
from tilestream.kernels.constants import constant
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.pixelwise import batch_shape, batch_view, mask_view, over_rows, pixel_grid
from tilestream.kernels.place import Array, Place, dtype_of, empty_like, place
from tilestream.kernels.rows import flat_view

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
    if dtype.kind not in "biuf" or dtype == np.float16 or dtype.itemsize > 8:
        raise ConfigError.of(
            "`pixels` of `compand`",
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


@functools.lru_cache(maxsize=32)
def _typed_edges(dtype: str, value_range: tuple[float, float] | None) -> npt.NDArray[Any]:
    """Return edges to compare samples of a type with as they are: `edge <= v` holds for the same v as in float64."""
    edges, kind = code_edges(dtype, value_range=value_range), np.dtype(dtype)
    if kind == np.float32:
        with np.errstate(over="ignore"):
            near = edges.astype(np.float32)
        return np.where(near < edges, np.nextafter(near, np.float32(np.inf)), near)
    if kind.kind in "iu" and kind.itemsize == 4:
        return np.ceil(edges).clip(-(2.0**62), 2.0**62).astype(np.int64)
    return edges  # 64-bit integers are rounded to float64 first


@core
def _step_core(code: Any, step: Any, edge: Any, value: Any) -> Any:
    """Return one step of the search for the number of edges at or below a value, by halving."""
    # a choice between two values would become a branch, which is wrong half of the time: 5 times slower on the CPU
    return code + step * np.int64(edge <= value)


@core
def _is_finite_core(value: Any) -> Any:
    return value - value == value - value


@cpu_kernel
def _is_interleaved(steps: Any, channels: int) -> bool:
    return bool(steps[3] == channels and (channels == 1 or steps[1] == 1))


@cpu_kernel
def _table_cpu(source: Any, table: Any, low: int, shape: Any, band: Any, target: Any) -> None:
    flat, start, steps = source
    out, out_start, out_steps = target
    _, channels, height, width = shape
    plain = _is_interleaved(steps, channels) and _is_interleaved(out_steps, channels)
    for row in range(band[0], band[1]):
        i, y = row // height, row % height
        first, to = start + i * steps[0] + y * steps[2], out_start + i * out_steps[0] + y * out_steps[2]
        if plain:
            line, codes = flat[first : first + width * channels], out[to : to + width * channels]
            for k in range(width * channels):
                codes[k] = table[np.int64(line[k]) - low]
            continue
        for ch in range(channels):
            for x in range(width):
                value = flat[first + ch * steps[1] + x * steps[3]]
                out[to + ch * out_steps[1] + x * out_steps[3]] = table[np.int64(value) - low]


@cpu_kernel
def _search_cpu(source: Any, edges: Any, shape: Any, band: Any, target: Any, finite: Any) -> bool:
    """Write codes, and where a sample is not finite; return whether all are."""
    flat, start, steps = source
    out, out_start, out_steps = target
    _, channels, height, width = shape
    clean = True
    for row in range(band[0], band[1]):
        i, y = row // height, row % height
        first, to = start + i * steps[0] + y * steps[2], out_start + i * out_steps[0] + y * out_steps[2]
        for x in range(width):
            for ch in range(channels):
                value = flat[first + ch * steps[1] + x * steps[3]]
                code, step = 0, 128
                while step > 0:
                    code = _step_core(code, step, edges[code + step - 1], value)
                    step >>= 1
                if not _is_finite_core(value):
                    code = 0
                    finite[i, y, x] = False
                    clean = False
                out[to + ch * out_steps[1] + x * out_steps[3]] = code
    return clean


@cuda_kernel(
    "void(uint16[::1], int64, UniTuple(int64, 4), UniTuple(int64, 4), uint8[::1], int64, uint8[::1], int64, "
    "UniTuple(int64, 4))"
)
def _table_cuda(
    flat: Any, start: Any, steps: Any, shape: Any, table: Any, low: Any, out: Any, out_start: Any, out_steps: Any
) -> None:
    """Write all channels of a pixel of each so-manieth row and image a thread."""
    x = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    n, channels, height, width = shape
    if x >= width:
        return
    for i in range(cuda.blockIdx.z, n, cuda.gridDim.z):
        for y in range(cuda.blockIdx.y, height, cuda.gridDim.y):
            at = start + i * steps[0] + y * steps[2] + x * steps[3]
            to = out_start + i * out_steps[0] + y * out_steps[2] + x * out_steps[3]
            for ch in range(channels):
                out[to + ch * out_steps[1]] = table[np.int64(flat[at + ch * steps[1]]) - low]


@cuda_kernel(
    "void(float32[::1], int64, UniTuple(int64, 4), UniTuple(int64, 4), float32[::1], uint8[::1], int64, "
    "UniTuple(int64, 3), boolean, uint8[::1], int64, UniTuple(int64, 4), uint8[::1], boolean)",
    "void(int32[::1], int64, UniTuple(int64, 4), UniTuple(int64, 4), int64[::1], uint8[::1], int64, "
    "UniTuple(int64, 3), boolean, uint8[::1], int64, UniTuple(int64, 4), uint8[::1], boolean)",
)
def _search_cuda(
    flat: Any, start: Any, steps: Any, shape: Any, edges: Any, seen: Any, seen_start: Any, seen_steps: Any,
    masked: Any, out: Any, out_start: Any, out_steps: Any, valid: Any, tells: Any,
) -> None:  # fmt: skip
    """Write all channels of a pixel of each so-manieth row and image a thread, and whether it is valid."""
    x = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    n, channels, height, width = shape
    if x >= width:
        return
    for i in range(cuda.blockIdx.z, n, cuda.gridDim.z):
        for y in range(cuda.blockIdx.y, height, cuda.gridDim.y):
            at = start + i * steps[0] + y * steps[2] + x * steps[3]
            to = out_start + i * out_steps[0] + y * out_steps[2] + x * out_steps[3]
            good = not masked or seen[seen_start + i * seen_steps[0] + y * seen_steps[1] + x * seen_steps[2]] != 0
            for ch in range(channels):
                value = flat[at + ch * steps[1]]
                code, step = 0, 128
                while step > 0:
                    code = _step_core(code, step, edges[code + step - 1], value)
                    step >>= 1
                if not _is_finite_core(value):
                    code = 0
                    good = False
                out[to + ch * out_steps[1]] = code
            if tells:
                valid[(i * height + y) * width + x] = 1 if good else 0


def compand(
    pixels: Array,
    valid: Array | None = None,
    *,
    value_range: tuple[float, float] | None = None,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> tuple[Array, Array | None]:
    """Return the 8-bit codes of samples and which pixels are valid.

    Parameters
    ----------
    pixels : array
        `(n, c, h, w)` samples of any integer type, float32 or float64, on the host or a device; any strides.
    valid : array of bool, optional
        `(n, h, w)`; by default every pixel is valid.
    value_range : (low, high), optional
        Values that become codes 0 and 255 of a linear mapping; by default the fixed mapping of the type.
    out : array of uint8, optional
        `(n, c, h, w)` of any strides; overwritten with the codes.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    codes : array of uint8
        `(n, c, h, w)`: `out`, or a view of new interleaved memory of the kind of `pixels` (of new planar memory on a
        device); `pixels` itself when they are codes already.
    valid : array of bool or None
        `valid` less the pixels with a sample that is not finite; None when all are valid. On a device floats always
        have an array, since whether all are valid is not looked at.

    Raises
    ------
    ConfigError
        When the type is not a number, the range is not ascending and finite, or the arrays do not belong together.
    """
    here = place("compand", backend=backend, stream=stream, threads=threads, pixels=pixels, valid=valid, out=out)
    dtype = dtype_of(pixels).newbyteorder("=")
    need("compand", "pixels", pixels, dtypes=(dtype_of(pixels).name,), ndim=4, empty=True)
    shape = tuple(int(v) for v in pixels.shape)
    n, _, height, width = shape
    need("compand", "valid", valid, dtypes=("bool",), shape=(n, height, width), empty=True)
    need("compand", "out", out, dtypes=("uint8",), shape=shape, empty=True)
    if value_range is not None:
        low, high = numbers_of("compand", "value_range", value_range, 2)
        value_range = (low, high)
    edges = _typed_edges(dtype.str, value_range)
    if dtype == np.uint8 and value_range is None and out is None:
        return pixels, valid
    codes = _made(here, pixels, shape) if out is None else out
    if 0 in shape:
        return codes, valid
    if dtype.kind != "f" and dtype.itemsize <= 2:
        _by_table(here, pixels, codes, _table(dtype.str, value_range), _lowest(dtype))
        return codes, valid
    return codes, _by_search(here, pixels, valid, codes, edges)


def _lowest(dtype: np.dtype[Any]) -> int:
    return int(np.iinfo(dtype).min) if dtype.kind == "i" else 0


def _made(here: Place, pixels: Array, shape: tuple[int, ...]) -> Array:
    n, channels, height, width = shape
    if here.backend == "cuda":
        return empty_like(pixels, shape, np.uint8)
    return np.moveaxis(np.empty((n, height, width, channels), np.uint8), 3, 1)


def _by_table(here: Place, pixels: Array, codes: Array, table: npt.NDArray[np.uint8], low: int) -> None:
    source, target, steps = batch_view(pixels), batch_view(codes, writable=True), constant(here, table)
    shape = batch_shape(pixels)
    n, _, height, width = shape
    if here.backend == "cuda":
        here.launch(_table_cuda, *pixel_grid(n, height, width), *source, shape, steps, low, *target)
        return
    over_rows(here, lambda a, b: _table_cpu(source, steps, low, shape, (a, b), target), n, height, width)


def _by_search(here: Place, pixels: Array, valid: Array | None, codes: Array, edges: npt.NDArray[Any]) -> Array | None:
    source, target, steps = batch_view(pixels), batch_view(codes, writable=True), constant(here, edges)
    shape = batch_shape(pixels)
    n, _, height, width = shape
    tells = dtype_of(pixels).kind == "f"
    if here.backend == "cuda":
        found = empty_like(pixels, (n, height, width), np.bool_) if tells else codes
        flags = flat_view(found, writable=True)[0]
        mask = mask_view(valid, constant(here, np.zeros(1, np.uint8)))
        here.launch(
            _search_cuda, *pixel_grid(n, height, width), *source, shape, steps, *mask, valid is not None, *target,
            flags, tells,
        )  # fmt: skip
        return found if tells else valid
    finite, clean = np.ones((n, height, width) if tells else (1, 1, 1), np.bool_), []
    over_rows(
        here, lambda a, b: clean.append(_search_cpu(source, steps, shape, (a, b), target, finite)), n, height, width
    )
    if all(clean):
        return valid
    return finite if valid is None else valid & finite
