"""Which pixels of a coarse level show tissue, by stated rules on single pixels.

Brightfield, on 8-bit red, green, blue at about 8 µm a pixel; hi, lo = largest and smallest of the three, c = hi − lo
the chroma, t = (g − b) / c the position on the red side of the hue circle (hue / 60°):

    stained   lo ≤ 235 (an optical density of 0.035 in the channel most absorbed) and
              (r − g) + (b − g) ≥ 14 and r − g ≥ 4 where green is lowest (hematoxylin with eosin: purple to pink, faint
              ones and fat included; bluish glass has r = g),
              c ≥ 16 where blue is highest (hematoxylin alone),
              c ≥ 30 elsewhere (brown of DAB, green counterstains): yellowed glass stays below that
    black     hi < 90 and c < 40                                  ink, and whatever else lets no light through
    red       r highest, r ≥ 80, and (c ≥ 0.5 hi and −0.34 < t < 0.2, or c ≥ 0.62 hi and −0.5 < t < 0.2)
    green     g highest, c ≥ 0.35 hi; or teal: r lowest, b − g ≤ 0.25 c, c ≥ 0.5 hi
    blue      b highest, r lowest, c ≥ 0.65 hi, b − g ≥ 0.4 c
    tissue    stained and not ink

Eosin lies at t < −0.25 and seldom above c = 0.5 hi at this resolution, red ink at t ≈ −0.2 … 0.05 and c = 0.5 … 0.95
hi. The bounds were set on the labelled tiles and slides of the tests. What a pixel alone cannot tell, the pink rim of a
blurred red line or a lone dark pixel in tissue, is for those who look at neighbours: `pen_marks` gives them the ink.

Integers only, the same on CPU and CUDA: tolerance of the tests is 0. Slides with light on black: see
`tilestream.kernels.fluorescence`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need
from tilestream.kernels.constants import constant
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.pixelwise import batch_shape, batch_view, mask_view, over_rows, pixel_grid
from tilestream.kernels.place import Array, dtype_of, empty_like, place
from tilestream.kernels.rows import flat_view

DARKEST_GLASS = 235
"""Glass is above this in every channel, or grey."""

_NO_INK, _BLACK, _RED, _GREEN, _BLUE = 0, 1, 2, 3, 4


@core
def _ink_core(r: Any, g: Any, b: Any) -> int:
    """Return which pen a pixel was drawn with, 0 for none."""
    hi, lo = max(r, g, b), min(r, g, b)
    c = hi - lo
    if hi < 90 and c < 40:
        return _BLACK
    if r == hi and r >= 80:
        t = 100 * (g - b)
        reddish = 100 * c >= 50 * hi and -34 * c < t < 20 * c
        crimson = 100 * c >= 62 * hi and -50 * c < t < 20 * c
        return _RED if reddish or crimson else _NO_INK
    if g == hi:
        return _GREEN if 100 * c >= 35 * hi else _NO_INK
    if r == lo and 4 * (b - g) <= c and 2 * c >= hi:
        return _GREEN
    if r == lo and 100 * c >= 65 * hi and 10 * (b - g) >= 4 * c:
        return _BLUE
    return _NO_INK


@core
def _judge_core(r: Any, g: Any, b: Any, ink: Any) -> Any:
    """Return whether a pixel is ink, or whether it is tissue."""
    hi, lo = max(r, g, b), min(r, g, b)
    c = hi - lo
    if lo > DARKEST_GLASS:  # no ink is that bright
        return False
    drawn = _ink_core(r, g, b) != _NO_INK
    if ink or drawn:
        return ink and drawn
    if r - g >= 4 and g == lo:
        return r - g + b - g >= 14
    if b == hi:
        return c >= 16
    return c >= 30


@cpu_kernel
def _brightfield_cpu(source: Any, valid: Any, masked: bool, ink: bool, shift: Any, band: Any, out: Any) -> None:
    flat, start, steps = source
    seen, seen_start, seen_steps = valid
    height, width = out.shape[1], out.shape[2]
    for row in range(band[0], band[1]):
        i, y = row // height, row % height
        first = start + i * steps[0] + y * steps[2]
        second, third = first + steps[1], first + 2 * steps[1]
        seen_first = seen_start + i * seen_steps[0] + y * seen_steps[1]
        line = out[i, y]
        for x in range(width):
            at = x * steps[3]
            r, g, b = (
                np.int64(flat[np.uint64(first + at)]),
                np.int64(flat[np.uint64(second + at)]),
                np.int64(flat[np.uint64(third + at)]),
            )
            if not masked or seen[seen_first + x * seen_steps[2]] != 0:
                r, g, b = r >> shift, g >> shift, b >> shift
                line[x] = _judge_core(r, g, b, ink)
            else:
                line[x] = False


@cuda_kernel(
    "void(uint8[::1], int64, UniTuple(int64, 4), UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean, "
    "boolean, int32, uint8[::1])"
)
def _brightfield_cuda(
    flat: Any, start: Any, steps: Any, shape: Any, seen: Any, seen_start: Any, seen_steps: Any, masked: Any, ink: Any,
    shift: Any, out: Any,
) -> None:  # fmt: skip
    """Judge a pixel of each so-manieth row and image a thread."""
    x = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    n, _, height, width = shape
    if x >= width:
        return
    for i in range(cuda.blockIdx.z, n, cuda.gridDim.z):
        for y in range(cuda.blockIdx.y, height, cuda.gridDim.y):
            at = start + i * steps[0] + y * steps[2] + x * steps[3]
            r, g, b = np.int32(flat[at]), np.int32(flat[at + steps[1]]), np.int32(flat[at + 2 * steps[1]])
            good = not masked or seen[seen_start + i * seen_steps[0] + y * seen_steps[1] + x * seen_steps[2]] != 0
            good = good and _judge_core(r >> shift, g >> shift, b >> shift, ink)
            out[(i * height + y) * width + x] = 1 if good else 0


def _brightfield(name: str, rgb: Array, valid: Array | None, *, out: Array | None, **where: Any) -> Array:
    here = place(name, rgb=rgb, valid=valid, out=out, **where)
    lead, size = tuple(rgb.shape)[:-3], tuple(rgb.shape)[-2:]
    if dtype_of(rgb).name not in ("uint8", "uint16") or len(rgb.shape) not in (3, 4) or tuple(rgb.shape)[-3] != 3:
        raise ConfigError.of(
            f"`rgb` of `{name}`",
            got=f"{dtype_of(rgb)} of shape {tuple(rgb.shape)}",
            expected="(3, y, x) or (n, 3, y, x) red, green, blue of 8 or 16 bits",
            do="Choose the tiles with `--where all` or a mask of your own.",
        )
    need(name, "rgb", rgb, dtypes=("uint8", "uint16"))
    need(name, "valid", valid, dtypes=("bool",), shape=(*lead, *size))
    need(name, "out", out, dtypes=("bool",), shape=(*lead, *size), contiguous=True)
    found = empty_like(rgb, (*lead, *size), np.bool_) if out is None else out
    shape = batch_shape(rgb)
    n, _, height, width = shape
    source, mask = batch_view(rgb), mask_view(valid, constant(here, np.zeros(1, np.uint8)))
    ink, shift = name == "pen_marks", np.int32(8 * (dtype_of(rgb).itemsize - 1))
    if here.backend == "cuda":
        run = flat_view(found, writable=True)[0]
        grid = pixel_grid(n, height, width)
        here.launch(_brightfield_cuda, *grid, *source, shape, *mask, valid is not None, ink, shift, run)
        return found
    target = found.reshape(n, height, width)
    over_rows(
        here, lambda a, b: _brightfield_cpu(source, mask, valid is not None, ink, shift, (a, b), target),
        n, height, width,
    )  # fmt: skip
    return found


def tissue_brightfield(
    rgb: Array,
    valid: Array | None = None,
    *,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return which pixels of a brightfield slide are stained tissue and not ink.

    Parameters
    ----------
    rgb : array of uint8 or uint16
        `(3, y, x)` or `(n, 3, y, x)` at about 8 µm a pixel, on the host or a device; any strides. Of 16 bits the upper
        eight count.
    valid : array of bool, optional
        `(y, x)` or `(n, y, x)`; what is False is no tissue.
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
        `(y, x)` or `(n, y, x)`: `out`, or a new array of the kind of `rgb`.

    Raises
    ------
    ConfigError
        When the samples are not red, green and blue, or the arrays do not belong together.
    """
    where = {"backend": backend, "stream": stream, "threads": threads}
    return _brightfield("tissue_brightfield", rgb, valid, out=out, **where)


def pen_marks(
    rgb: Array,
    valid: Array | None = None,
    *,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return which pixels of a brightfield slide are black, red, green or blue ink, or opaque.

    Parameters
    ----------
    rgb : array of uint8 or uint16
        `(3, y, x)` or `(n, 3, y, x)` at about 8 µm a pixel, on the host or a device; any strides.
    valid : array of bool, optional
        `(y, x)` or `(n, y, x)`; what is False is no ink.
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
        `(y, x)` or `(n, y, x)`: `out`, or a new array of the kind of `rgb`.

    Raises
    ------
    ConfigError
        When the samples are not red, green and blue, or the arrays do not belong together.
    """
    where = {"backend": backend, "stream": stream, "threads": threads}
    return _brightfield("pen_marks", rgb, valid, out=out, **where)
