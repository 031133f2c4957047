"""Optical density of transmitted light, and the amounts of stains that make it up.

    density(v) = −log10((v + 1) / white),  white = 256 for 8 bits, 65536 for 16          Beer-Lambert law
    density_ch = Σ_k amount_k stain_k,ch   so   amount = density · M⁻¹,  rows of M = stains of length 1

The rule for density is that of HistomicsTK's `rgb_to_od` in units of log10: glass at full white is 0, black is 2.41
and finite, no value is altered. scikit-image takes ln max(v / 255, 1e-6) / ln 1e-6, which is a sixth of log10(255 / v)
(black 1), uses stains as printed, not of length 1, and sets negative amounts to 0; TIAToolbox: ln(255 / max(v, 1)).
The default stains are hematoxylin, eosin and DAB as published; of two stains the third is their cross product, which
takes up what they do not explain (Landini's Colour Deconvolution does the same).

Source: Ruifrok & Johnston, Quantification of histochemical staining by color deconvolution, Anal Quant Cytol Histol 23,
2001. Densities come from a table in float32, each product is added with one rounding, in the order blue, green, red:
the same bits on CPU and CUDA. Tolerance of the tests, against float64: 4e-7 of Σ |density M⁻¹|, and of the density.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need
from tilestream.kernels.constants import constant
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel, fma
from tilestream.kernels.pixelwise import batch_shape, batch_view, over_rows, pixel_grid
from tilestream.kernels.place import Array, dtype_of, empty_like, place
from tilestream.kernels.rows import flat_view

Matrix = Sequence[Sequence[float]]
"""Density of each stain in red, green and blue, any length."""

HED: tuple[tuple[float, ...], ...] = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Hematoxylin, eosin, DAB; Ruifrok & Johnston 2001."""

DTYPES = ("uint8", "uint16")


@functools.cache
def density_table(dtype: str) -> npt.NDArray[np.float64]:
    """Return the optical density of every code of a type.

    Parameters
    ----------
    dtype : {"uint8", "uint16"}
        Type of the samples.

    Returns
    -------
    ndarray of float64
        `(256,)` or `(65536,)`, read-only.
    """
    white = 2 ** (8 * np.dtype(dtype).itemsize)
    table = np.array([-math.log10((v + 1) / white) for v in range(white)])
    table[-1] = 0.0  # and not -0
    table.flags.writeable = False
    return table


@functools.cache
def _table(dtype: str) -> npt.NDArray[np.float32]:
    return density_table(dtype).astype(np.float32)


def unmixing(stains: Matrix = HED) -> tuple[tuple[float, ...], ...]:
    """Return the matrix that turns densities of red, green and blue into amounts of stains.

    Parameters
    ----------
    stains : sequence
        Two or three rows of red, green, blue; each is brought to length 1. Of two, the third is their cross product.

    Returns
    -------
    tuple of tuple of float
        `(3, 3)`: `amounts = densities @ matrix`; by cofactors, the same bits whatever linear algebra is installed.

    Raises
    ------
    ConfigError
        When there are not two or three stains of three finite values, or one is a mixture of the others.
    """
    try:
        rows = [[float(v) for v in row] for row in stains]
    except (TypeError, ValueError):
        _refuse_stains(stains)
    lengths = [math.sqrt(sum(v * v for v in row)) for row in rows]
    shaped = len(rows) in (2, 3) and all(len(row) == 3 for row in rows)
    if not shaped or not all(math.isfinite(length) and length > 0 for length in lengths):
        _refuse_stains(stains)
    unit = [[v / length for v in row] for row, length in zip(rows, lengths, strict=True)]
    if len(unit) == 2:
        (a, b, c), (d, e, f) = unit
        third = [b * f - c * e, c * d - a * f, a * e - b * d]
        length = math.sqrt(sum(v * v for v in third))
        unit.append([v / length for v in third] if length > 0 else third)
    (a, b, c), (d, e, f), (g, h, i) = unit
    cofactors = (
        (e * i - f * h, c * h - b * i, b * f - c * e),
        (f * g - d * i, a * i - c * g, c * d - a * f),
        (d * h - e * g, b * g - a * h, a * e - b * d),
    )
    determinant = a * cofactors[0][0] + b * cofactors[1][0] + c * cofactors[2][0]
    if abs(determinant) < 1e-6:
        _refuse_stains(stains)
    return tuple(tuple(v / determinant for v in row) for row in cofactors)


def _refuse_stains(stains: Matrix) -> None:
    raise ConfigError.of(
        "`stains`",
        got=stains,
        expected="two or three rows of red, green, blue densities, none of them a mixture of the others",
        do="Leave it out for hematoxylin, eosin and DAB, or take those of `estimate_stains`.",
    )


@core
def _amount_core(red: Any, green: Any, blue: Any, of_red: Any, of_green: Any, of_blue: Any, least: Any) -> Any:
    return max(fma(red, of_red, fma(green, of_green, blue * of_blue)), least)


@cpu_kernel
def _separate_cpu(source: Any, table: Any, matrix: Any, least: Any, band: Any, out: Any) -> None:
    flat, start, steps = source
    height, width = out.shape[2], out.shape[3]
    a0, a1, a2, b0, b1, b2, c0, c1, c2 = matrix
    for row in range(band[0], band[1]):
        i, y = row // height, row % height
        first = start + i * steps[0] + y * steps[2]
        second, third = first + steps[1], first + 2 * steps[1]
        out0, out1, out2 = out[i, 0, y], out[i, 1, y], out[i, 2, y]
        for x in range(width):
            at = x * steps[3]
            red, green, blue = table[flat[first + at]], table[flat[second + at]], table[flat[third + at]]
            out0[x] = _amount_core(red, green, blue, a0, b0, c0, least)
            out1[x] = _amount_core(red, green, blue, a1, b1, c1, least)
            out2[x] = _amount_core(red, green, blue, a2, b2, c2, least)


@cuda_kernel(
    "void(uint8[::1], int64, UniTuple(int64, 4), UniTuple(int64, 4), float32[::1], UniTuple(float32, 9), float32, "
    "float32[::1])"
)
def _separate_cuda(
    flat: Any, start: Any, steps: Any, shape: Any, table: Any, matrix: Any, least: Any, out: Any
) -> None:
    """Write the three amounts of a pixel of each so-manieth row and image a thread."""
    x = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    n, _, height, width = shape
    if x >= width:
        return
    plane = height * width
    a0, a1, a2, b0, b1, b2, c0, c1, c2 = matrix
    for i in range(cuda.blockIdx.z, n, cuda.gridDim.z):
        for y in range(cuda.blockIdx.y, height, cuda.gridDim.y):
            at = start + i * steps[0] + y * steps[2] + x * steps[3]
            to = 3 * i * plane + y * width + x
            red, green, blue = table[flat[at]], table[flat[at + steps[1]]], table[flat[at + 2 * steps[1]]]
            out[to] = _amount_core(red, green, blue, a0, b0, c0, least)
            out[to + plane] = _amount_core(red, green, blue, a1, b1, c1, least)
            out[to + 2 * plane] = _amount_core(red, green, blue, a2, b2, c2, least)


@cpu_kernel
def _density_cpu(source: Any, table: Any, band: Any, out: Any) -> None:
    flat, start, steps = source
    _, channels, height, width = out.shape
    for row in range(band[0], band[1]):
        i, y = row // height, row % height
        for ch in range(channels):
            first = start + i * steps[0] + ch * steps[1] + y * steps[2]
            target = out[i, ch, y]
            for x in range(width):
                target[x] = table[flat[first + x * steps[3]]]


@cuda_kernel("void(uint8[::1], int64, UniTuple(int64, 4), UniTuple(int64, 4), float32[::1], float32[::1])")
def _density_cuda(flat: Any, start: Any, steps: Any, shape: Any, table: Any, out: Any) -> None:
    """Write all channels of a pixel of each so-manieth row and image a thread."""
    x = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    n, channels, height, width = shape
    if x >= width:
        return
    for i in range(cuda.blockIdx.z, n, cuda.gridDim.z):
        for y in range(cuda.blockIdx.y, height, cuda.gridDim.y):
            at = start + i * steps[0] + y * steps[2] + x * steps[3]
            to = i * channels * height * width + y * width + x
            for ch in range(channels):
                out[to + ch * height * width] = table[flat[at + ch * steps[1]]]


def optical_density(
    pixels: Array,
    *,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return the optical density of every sample.

    Parameters
    ----------
    pixels : array of uint8 or uint16
        `(y, x)`, `(c, y, x)` or `(n, c, y, x)` of transmitted light, on the host or a device; any strides.
    out : array of float32, optional
        Of the shape of `pixels`, contiguous; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array of float32
        0 for full white to 2.41 (8 bits) or 4.82 (16 bits) for black: `out`, or a new array of the kind of `pixels`.

    Raises
    ------
    ConfigError
        When the samples are not of 8 or 16 bits, or the arrays do not belong together.
    """
    name = "optical_density"
    here = place(name, backend=backend, stream=stream, threads=threads, pixels=pixels, out=out)
    need(name, "pixels", pixels, dtypes=DTYPES, ndim=(2, 3, 4))
    need(name, "out", out, dtypes=("float32",), shape=pixels.shape, contiguous=True)
    found = empty_like(pixels, tuple(pixels.shape), np.float32) if out is None else out
    shape = batch_shape(pixels)
    n, _, height, width = shape
    source, table = batch_view(pixels), constant(here, _table(dtype_of(pixels).name))
    if here.backend == "cuda":
        here.launch(_density_cuda, *pixel_grid(n, height, width), *source, shape, table, _run(found))
        return found
    target = found.reshape(shape)
    over_rows(here, lambda a, b: _density_cpu(source, table, (a, b), target), n, height, width)
    return found


def stain_separation(
    rgb: Array,
    stains: Matrix = HED,
    *,
    clip: bool = False,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return how much of each stain every pixel holds, in optical density.

    Parameters
    ----------
    rgb : array of uint8 or uint16
        `(3, y, x)` or `(n, 3, y, x)` red, green, blue of transmitted light, on the host or a device; any strides.
    stains : sequence
        Two or three rows of red, green, blue densities of any length; by default hematoxylin, eosin, DAB.
    clip : bool
        Whether negative amounts, which noise and other stains cause, become 0.
    out : array of float32, optional
        Of the shape of `rgb`, contiguous; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array of float32
        `(3, y, x)` or `(n, 3, y, x)`, stains in their order; of two stains the third plane is what they leave over.
        `out`, or a new array of the kind of `rgb`.

    Raises
    ------
    ConfigError
        When the samples are not red, green, blue of 8 or 16 bits, or the stains cannot be told apart.
    """
    name = "stain_separation"
    here = place(name, backend=backend, stream=stream, threads=threads, rgb=rgb, out=out)
    need(name, "rgb", rgb, dtypes=DTYPES, ndim=(3, 4))
    shape = batch_shape(rgb)
    n, _, height, width = shape
    need(name, "rgb", rgb, dtypes=DTYPES, shape=(*tuple(rgb.shape)[:-3], 3, height, width))
    need(name, "out", out, dtypes=("float32",), shape=rgb.shape, contiguous=True)
    matrix = tuple(np.float32(v) for row in unmixing(stains) for v in row)
    least = np.float32(0.0 if clip else -np.inf)
    found = empty_like(rgb, tuple(rgb.shape), np.float32) if out is None else out
    source, table = batch_view(rgb), constant(here, _table(dtype_of(rgb).name))
    if here.backend == "cuda":
        here.launch(_separate_cuda, *pixel_grid(n, height, width), *source, shape, table, matrix, least, _run(found))
        return found
    target = found.reshape(shape)
    over_rows(here, lambda a, b: _separate_cpu(source, table, matrix, least, (a, b), target), n, height, width)
    return found


def _run(out: Array) -> Any:
    return flat_view(out, writable=True)[0]
