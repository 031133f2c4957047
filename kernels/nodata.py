"""Which pixels were measured: not those that hold a stated value, class or flag, nor those that are not finite.

    missing_ch = x_ch ∈ values  or  x_ch & bits ≠ 0
    valid      = every channel is finite, and not all channels are missing        rule "all", the default
                 every channel is finite, and no channel is missing               rule "any"

"all" is how GDAL makes one mask of a dataset with a nodata value (`gdalwarp` with UNIFIED_SRC_NODATA=YES; rasterio's
`dataset_mask`) and how the engine's sources do: black water in one band is measured, a frame that is 0 in all is not.
That a pixel with any channel that is not finite is never valid is the engine's own rule: no statistic survives it.

A value is compared in the type of the samples: for floats the nearest number of the type, as in GDAL; for integers one
that the type cannot hold occurs nowhere. Exact: tolerance of the tests is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need, whole
from tilestream.kernels.constants import constant
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.pixelwise import batch_shape, batch_view, over_rows, pixel_grid
from tilestream.kernels.place import Array, dtype_of, empty_like, place
from tilestream.kernels.rows import flat_view

Rule = Literal["all", "any"]

DTYPES = (
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64",
)  # fmt: skip
MAX_VALUES = 256
"""Each is compared with each sample."""


@core
def _missing_core(value: Any, bits: Any) -> Any:
    """Return whether a sample has a flag; floats have none, and come with no bits."""
    return np.int64(value) & bits != 0


@core
def _is_finite_core(value: Any) -> Any:
    return value - value == value - value


@cpu_kernel
def _nodata_cpu(source: Any, values: Any, bits: int, channels: int, needs_all: bool, band: Any, out: Any) -> None:
    flat, start, steps = source
    height, width = out.shape[1], out.shape[2]
    for row in range(band[0], band[1]):
        i, y = row // height, row % height
        first = start + i * steps[0] + y * steps[2]
        line = out[i, y]
        for x in range(width):
            missing, good = needs_all, True
            for ch in range(channels):
                value = flat[np.uint64(first + x * steps[3] + ch * steps[1])]
                found = _missing_core(value, bits)
                for k in range(values.shape[0]):
                    found |= value == values[k]
                missing = (missing & found) if needs_all else (missing | found)
                good &= _is_finite_core(value)
            line[x] = good and not missing


@cuda_kernel(
    "void(float32[::1], int64, UniTuple(int64, 4), UniTuple(int64, 4), float32[::1], int64, int64, boolean, "
    "uint8[::1])",
)
def _nodata_cuda(
    flat: Any, start: Any, steps: Any, shape: Any, values: Any, n_values: Any, bits: Any, needs_all: Any, out: Any
) -> None:
    """Judge a pixel of each so-manieth row and image a thread."""
    x = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    n, channels, height, width = shape
    if x >= width:
        return
    for i in range(cuda.blockIdx.z, n, cuda.gridDim.z):
        for y in range(cuda.blockIdx.y, height, cuda.gridDim.y):
            at = start + i * steps[0] + y * steps[2] + x * steps[3]
            missing, good = needs_all, True
            for ch in range(channels):
                value = flat[at + ch * steps[1]]
                found = _missing_core(value, bits)
                for k in range(n_values):
                    found = found or value == values[k]
                missing = (missing and found) if needs_all else (missing or found)
                good = good and _is_finite_core(value)
            out[(i * height + y) * width + x] = 1 if good and not missing else 0


def nodata_mask(
    pixels: Array,
    values: float | Sequence[float] = (),
    *,
    bits: int = 0,
    rule: Rule = "all",
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return which pixels are valid.

    Parameters
    ----------
    pixels : array
        `(y, x)`, `(c, y, x)` or `(n, c, y, x)` of any type, on the host or a device; any strides.
    values : float or sequence of float
        Up to 256 values that mean "not measured", or classes to leave out. NaN adds nothing: what is not finite is
        never valid.
    bits : int
        Flags of an integer type that mean "not measured", such as those of a quality band.
    rule : {"all", "any"}
        Whether a pixel is left out when all of its channels are missing, or when one is.
    out : array of bool, optional
        `(y, x)` or `(n, y, x)`, contiguous; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array of bool
        `(y, x)` or `(n, y, x)`, True where valid: `out`, or a new array of the kind of `pixels`.

    Raises
    ------
    ConfigError
        When the arrays are no images or do not belong together, there are too many values, or floats are asked for
        flags.
    """
    name = "nodata_mask"
    here = place(name, backend=backend, stream=stream, threads=threads, pixels=pixels, out=out)
    need(name, "pixels", pixels, dtypes=DTYPES, ndim=(2, 3, 4))
    shape = batch_shape(pixels)
    n, channels, height, width = shape
    size = ((n,) if len(pixels.shape) == 4 else ()) + (height, width)
    need(name, "out", out, dtypes=("bool",), shape=size, contiguous=True)
    dtype = _compared(dtype_of(pixels))
    typed = _typed(np.atleast_1d(np.asarray(values, object)).ravel().tolist(), dtype_of(pixels)).astype(dtype)
    bits = whole(name, "bits", bits, most=2**64)
    _check(len(typed), bits, rule, dtype)
    found = empty_like(pixels, size, np.bool_) if out is None else out
    needs_all, flags = rule == "all", _signed(bits & (2 ** (8 * dtype.itemsize) - 1))
    if here.backend == "cuda":
        run, table = flat_view(found, writable=True)[0], constant(here, typed if len(typed) else np.zeros(1, dtype))
        grid = pixel_grid(n, height, width)
        here.launch(_nodata_cuda, *grid, *batch_view(pixels), shape, table, len(typed), flags, needs_all, run)
        return found
    target, table = found.reshape(n, height, width), constant(here, typed)
    if dtype_of(pixels) != np.float16:
        source = batch_view(pixels)
        over_rows(
            here, lambda a, b: _nodata_cpu(source, table, flags, channels, needs_all, (a, b), target), n, height, width
        )
        return found
    batch = pixels.reshape(shape)

    def by_row(first: int, last: int) -> None:
        # Numba has no arithmetic on float16 here: a row of it at a time becomes float32
        for row in range(first, last):
            i, y = divmod(row, height)
            line = batch_view(batch[i, :, y : y + 1].astype(np.float32))
            _nodata_cpu(line, table, flags, channels, needs_all, (0, 1), target[i : i + 1, y : y + 1])

    over_rows(here, by_row, n, height, width)
    return found


def _compared(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type in which samples are compared."""
    return np.dtype({"bool": "uint8", "float16": "float32"}.get(dtype.name, dtype.newbyteorder("=")))


def _signed(bits: int) -> int:
    """Return 64 bits as the int64 that holds them."""
    return bits - 2**64 if bits >= 2**63 else bits


def _typed(values: list[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return the values that can occur in a type."""
    dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.array([v for v in np.asarray(values, np.float64).astype(dtype) if np.isfinite(v)], dtype)
    limits = np.iinfo(dtype)
    whole = [int(v) for v in values if v == v and abs(v) != float("inf") and int(v) == v]
    return np.array([v for v in whole if limits.min <= v <= limits.max], dtype)


def _check(n_values: int, bits: int, rule: str, dtype: np.dtype[Any]) -> None:
    if rule not in ("all", "any"):
        raise ConfigError.of("`rule`", got=repr(rule), expected="'all' or 'any'", do="Leave it out for GDAL's.")
    if n_values > MAX_VALUES:
        raise ConfigError.of("`values`", got=n_values, expected=f"at most {MAX_VALUES}", do="Map the classes first.")
    if bits < 0 or (bits and dtype.kind == "f"):
        raise ConfigError.of(
            "`bits`", got=f"{bits} with samples of type {dtype}", expected="flags of an integer type, 0 for none",
            do="Hand in the band of flags.",
        )  # fmt: skip
