"""Decoded tiles as one normalised model batch, in one pass: whole images, or the rows of a patch embedding.

    out[n, c, y, x] = (v[n, c, y, x]·scale − mean_c) / std_c        what torchvision's ToTensor and Normalize compute

is evaluated in float32 as (v − m_c)·a_c with m_c = mean_c / scale and a_c = scale / std_c, each rounded once from
float64: a subtraction, then a product, which no compiler can fuse, so CPU and CUDA give the same bits. With patches of
p px the batch is `(n, (h/p)·(w/p), c·p·p)`: patches row by row, and in each the order c, y, x of a flattened weight of
`Conv2d(c, d, kernel_size=p, stride=p)`, so that patch embedding is one product with `weight.reshape(d, -1).T`.

Tolerance of the tests, against NumPy in float64 and against torch: 2.5e-7 of (|v·scale| + |mean_c|) / std_c, the sum of
the four roundings; twice that against torch, which rounds as often; for float16 half a unit in the last place besides.
Shares: 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need, number_of, whole
from tilestream.kernels.constants import constant
from tilestream.kernels.float16 import half_code_core
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.place import Array, Place, dtype_of, empty_like, place
from tilestream.kernels.rows import flat_view

THREADS = 128
"""Of a block, which lies along a row of pixels."""
MAX_TILES = 2**15
"""Blocks along the tiles; a thread goes on to the tile that many further on."""
LEAST_PX = 2**14
"""Fewest pixels that are worth a band."""
INFINITY = np.float32(np.inf)


@core
def _normalise_core(sample: Any, middle: Any, factor: Any) -> Any:
    return (np.float32(sample) - middle) * factor


@cpu_kernel
def _lines_cpu(flat: Any, start: int, steps: Any, table: Any, lines: Any) -> None:
    """Normalise one row of pixels, a line a channel."""
    channels, width = lines.shape
    if channels == 3 and steps[0] == 1 and steps[1] == 3:
        row = flat[start : start + 3 * width]
        m0, m1, m2, a0, a1, a2 = table[0], table[1], table[2], table[3], table[4], table[5]
        for x in range(width):
            lines[0, x] = _normalise_core(row[3 * x], m0, a0)
            lines[1, x] = _normalise_core(row[3 * x + 1], m1, a1)
            lines[2, x] = _normalise_core(row[3 * x + 2], m2, a2)
        return
    for ch in range(channels):
        first, middle, factor = start + ch * steps[0], table[ch], table[channels + ch]
        if steps[1] == 1:
            row = flat[first : first + width]
            for x in range(width):
                lines[ch, x] = _normalise_core(row[x], middle, factor)
            continue
        for x in range(width):
            lines[ch, x] = _normalise_core(flat[first + x * steps[1]], middle, factor)


@cpu_kernel
def _fill_cpu(valid: Any, first: int, floats: bool, fill: Any, lines: Any, good: Any) -> None:
    """Mark in `good` which pixels of a row are valid, and fill the others."""
    mask, _, steps, masked = valid
    channels, width = lines.shape
    for x in range(width):
        good[x] = mask[first + x * steps[2]] if masked else 1
    for ch in range(channels if floats else 0):
        for x in range(width):
            good[x] &= abs(lines[ch, x]) < INFINITY
    for ch in range(channels):
        for x in range(width):
            lines[ch, x] = lines[ch, x] if good[x] else fill


@cpu_kernel
def _emit_cpu(lines: Any, strip: int, inside: int, out: Any) -> None:
    """Write a row of pixels into the patches that it crosses."""
    _, wide, channels, _, patch = out.shape
    for ch in range(channels):
        for tx in range(wide):
            # loops of a fixed length are one instruction or two
            if patch == 16:
                for k in range(16):
                    out[strip, tx, ch, inside, k] = lines[ch, tx, k]
            elif patch == 14:
                for k in range(14):
                    out[strip, tx, ch, inside, k] = lines[ch, tx, k]
            else:
                for k in range(patch):
                    out[strip, tx, ch, inside, k] = lines[ch, tx, k]


@cpu_kernel
def _emit_half_cpu(lines: Any, strip: int, inside: int, out: Any) -> None:
    """Do what `_emit_cpu` does, into codes of float16."""
    _, wide, channels, _, patch = out.shape
    for ch in range(channels):
        for tx in range(wide):
            if patch == 16:
                for k in range(16):
                    out[strip, tx, ch, inside, k] = half_code_core(lines[ch, tx, k])
            else:
                for k in range(patch):
                    out[strip, tx, ch, inside, k] = half_code_core(lines[ch, tx, k])


@cpu_kernel
def _patchify_cpu(
    pixels: Any, valid: Any, table: Any, fill: Any, scratch: Any, band: Any, out: Any, share: Any
) -> None:
    """Write a band of strips: rows of pixels that belong to one row of patches each."""
    flat, start, steps, floats, strips = pixels
    lines, cut, good, rows = scratch
    _, wide, _, high, patch = out.shape
    for k in range(band[0], band[1]):
        # a strip is a row of patches, or one row of pixels in it
        strip, top = k * rows // high, k * rows % high
        i, y0 = strip // strips, strip % strips * high
        for y in range(y0 + top, y0 + top + rows):
            _lines_cpu(flat, start + i * steps[0] + y * steps[2], (steps[1], steps[3]), table, lines)
            if valid[3] or floats:
                _fill_cpu(valid, valid[1] + i * valid[2][0] + y * valid[2][1], floats, fill, lines, good)
            if out.itemsize == 2:
                _emit_half_cpu(cut, strip, y - y0, out)
            else:
                _emit_cpu(cut, strip, y - y0, out)
            for tx in range(wide if share.shape[0] else 0):
                for px in range(patch):
                    share[strip, tx] += good[tx * patch + px]


@cuda_kernel(
    "void(uint8[::1], int64, UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean, boolean, "
    "float32[::1], float32, UniTuple(int64, 4), UniTuple(int64, 2), float16[::1])",
    "void(float32[::1], int64, UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean, boolean, "
    "float32[::1], float32, UniTuple(int64, 4), UniTuple(int64, 2), float32[::1])",
)
def _patchify_cuda(
    flat: Any, start: Any, steps: Any, valid: Any, valid_start: Any, valid_steps: Any, masked: Any, floats: Any,
    table: Any, fill: Any, shape: Any, patch: Any, out: Any,
) -> None:  # fmt: skip
    """Write one row of one tile a block."""
    n, channels, height, width = shape
    y, wide = cuda.blockIdx.x, width // patch[1]
    row = y // patch[0] * wide
    inside = y % patch[0] * patch[1]
    for i in range(cuda.blockIdx.y, n, cuda.gridDim.y):
        for tx in range(cuda.threadIdx.y, wide, cuda.blockDim.y):
            token = i * (height // patch[0]) * wide + row + tx
            for px in range(cuda.threadIdx.x, patch[1], cuda.blockDim.x):
                x = tx * patch[1] + px
                at = start + i * steps[0] + y * steps[2] + x * steps[3]
                good = not masked or valid[valid_start + i * valid_steps[0] + y * valid_steps[1] + x * valid_steps[2]]
                for ch in range(channels if floats else 0):
                    value = _normalise_core(flat[at + ch * steps[1]], table[ch], table[channels + ch])
                    good = good and abs(value) < INFINITY
                for ch in range(channels):
                    value = _normalise_core(flat[at + ch * steps[1]], table[ch], table[channels + ch])
                    out[(token * channels + ch) * patch[0] * patch[1] + inside + px] = value if good else fill


@cuda_kernel(
    "void(float32[::1], int64, UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean, boolean, "
    "float32[::1], UniTuple(int64, 3), UniTuple(int64, 2), float32[::1])"
)
def _share_cuda(
    flat: Any, start: Any, steps: Any, valid: Any, valid_start: Any, valid_steps: Any, masked: Any, floats: Any,
    table: Any, shape: Any, patch: Any, share: Any,
) -> None:  # fmt: skip
    """Count the valid pixels of one patch a block."""
    count = cuda.shared.array(1, np.int32)
    channels, high, wide = shape
    i, token = cuda.blockIdx.x // (high * wide), cuda.blockIdx.x % (high * wide)
    top, left = token // wide * patch[0], token % wide * patch[1]
    if cuda.threadIdx.x == 0:
        count[0] = 0
    cuda.syncthreads()
    mine = 0
    for k in range(cuda.threadIdx.x, patch[0] * patch[1], cuda.blockDim.x):
        y, x = top + k // patch[1], left + k % patch[1]
        good = not masked or valid[valid_start + i * valid_steps[0] + y * valid_steps[1] + x * valid_steps[2]] != 0
        for ch in range(channels if floats else 0):
            sample = flat[start + i * steps[0] + ch * steps[1] + y * steps[2] + x * steps[3]]
            good = good and abs(_normalise_core(sample, table[ch], table[channels + ch])) < INFINITY
        mine += 1 if good else 0
    cuda.atomic.add(count, 0, mine)
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        share[cuda.blockIdx.x] = np.float32(count[0]) / np.float32(patch[0] * patch[1])


def patchify(
    pixels: Array,
    valid: Array | None = None,
    *,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    scale: float | None = None,
    patch_px: int | None = None,
    dtype: str = "float32",
    fill: float = 0.0,
    share: Array | None = None,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return tiles as a normalised batch: images `(n, c, h, w)`, or the flattened patches of a patch embedding.

    Parameters
    ----------
    pixels : array of uint8, uint16, int16 or float32
        `(n, c, h, w)` decoded samples, on the host or a device; any strides.
    valid : array of bool, optional
        `(n, h, w)`; by default every pixel is valid. A float pixel that is not finite after normalisation in every
        channel is not valid either.
    mean, std : float or sequence of float
        Of each channel, or one for all, in units of `scale` times the samples; `std` is positive.
    scale : float, optional
        By default 1 / the largest value of integers, which makes 0..1 of 8-bit samples, and 1 for floats.
    patch_px : int, optional
        Edge of a patch, which must divide height and width; by default whole images come out.
    dtype : {"float32", "float16"}
        Of the batch. What float16 cannot hold becomes infinite, as in a cast.
    fill : float
        What pixels that are not valid become, after normalisation; 0 is the mean colour.
    share : array of float32, optional
        `(n, t)`, contiguous; overwritten with the valid share of each of the t patches of a tile (1 without patches).
    out : array, optional
        The batch, contiguous; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array of float32 or float16
        `(n, c, h, w)`, or `(n, (h/p)·(w/p), c·p·p)` with features in the order c, y, x: `out`, or a new contiguous
        array of the kind of `pixels`.

    Raises
    ------
    ConfigError
        When samples, statistics or patches cannot be worked with, or the arrays are not in one place.

    Examples
    --------
    >>> tiles = np.zeros((2, 3, 224, 224), np.uint8)
    >>> patchify(tiles, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), patch_px=16).shape
    (2, 196, 768)
    """
    here = place(
        "patchify", backend=backend, stream=stream, threads=threads, pixels=pixels, valid=valid, share=share, out=out
    )
    need("patchify", "pixels", pixels, dtypes=("uint8", "uint16", "int16", "float32"), ndim=4, empty=True)
    n, channels, height, width = (int(edge) for edge in pixels.shape)
    if dtype not in ("float32", "float16"):
        raise ConfigError.of("`dtype`", got=repr(dtype), expected="'float32' or 'float16'", do="Choose one of them.")
    patch = _patch(patch_px, height, width)
    tokens = (height // patch[0]) * (width // patch[1]) if height and width else 0
    shape = (n, channels, height, width) if patch_px is None else (n, tokens, channels * patch[0] * patch[1])
    need("patchify", "valid", valid, dtypes=("bool",), shape=(n, height, width), empty=True)
    need("patchify", "share", share, dtypes=("float32",), shape=(n, tokens), contiguous=True, empty=True)
    need("patchify", "out", out, dtypes=(dtype,), shape=shape, contiguous=True, empty=True)
    table = constant(here, _table(dtype_of(pixels), channels, mean, std, scale))
    found = empty_like(pixels, shape, dtype) if out is None else out
    if 0 in pixels.shape:
        return found
    given: Any = fill
    if not isinstance(given, (int, float, np.number)) or 1e38 < abs(float(given)) < np.inf:
        raise ConfigError.of("`fill` of `patchify`", got=repr(fill), expected="a number of float32", do="Use 0.")
    filler = np.float32(fill)
    (_on_cuda if here.backend == "cuda" else _on_cpu)(here, pixels, valid, table, filler, patch, found, share)
    return found


def _patch(patch_px: int | None, height: int, width: int) -> tuple[int, int]:
    if patch_px is None:
        return max(1, height), max(1, width)
    patch_px = whole("patchify", "patch_px", patch_px)
    if patch_px < 1 or height % patch_px or width % patch_px:
        raise ConfigError.of(
            "`patch_px`",
            got=f"{patch_px} for tiles of {height} x {width} px",
            expected="a size that divides height and width",
            do="Read tiles whose edge is a multiple of the patch.",
        )
    return patch_px, patch_px


def _table(
    dtype: np.dtype[Any],
    channels: int,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    scale: float | None,
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return m of each channel, then a of each."""
    factor = (
        (1.0 if dtype.kind == "f" else 1.0 / np.iinfo(dtype).max)
        if scale is None
        else number_of("patchify", "scale", scale)
    )
    values = []
    for name, given in (("mean", mean), ("std", std)):
        try:
            found = np.asarray(given, np.float64)
        except (TypeError, ValueError):
            found = np.array([np.nan])
        if found.shape not in ((), (channels,)) or not np.isfinite(found).all() or (name == "std" and found.min() <= 0):
            raise ConfigError.of(
                f"`{name}` of `patchify`",
                got=given,
                expected=f"one {'positive ' * (name == 'std')}finite number, or one for each of {channels} channels",
                do="Take them from the contract of the model.",
            )
        values.append(np.broadcast_to(found, (channels,)))
    if not 1e-30 < abs(factor) < 1e30:
        raise ConfigError.of("`scale` of `patchify`", got=scale, expected="a number from 1e-30 to 1e30", do="Fix it.")
    return np.concatenate([values[0] / factor, factor / values[1]]).astype(np.float32)


def _on_cuda(
    here: Place, pixels: Array, valid: Array | None, table: Array, fill: Any, patch: tuple[int, int], out: Array,
    share: Array | None,
) -> None:  # fmt: skip
    n, channels, height, width = pixels.shape
    samples, floats = flat_view(pixels), dtype_of(pixels).kind == "f"
    run, _, _ = flat_view(out, writable=True)
    # where every pixel is valid the mask is not looked at: any bytes will do
    mask = flat_view(valid) if valid is not None else (table.view(np.uint8), 0, (0, 0, 0))
    along = min(patch[1], THREADS)
    block = (along, max(1, min(width // patch[1], THREADS // along)))
    here.launch(
        _patchify_cuda, (height, min(n, MAX_TILES)), block, *samples, *mask, valid is not None, floats, table, fill,
        (n, channels, height, width), patch, run,
    )  # fmt: skip
    if share is not None:
        high, wide = height // patch[0], width // patch[1]
        here.launch(
            _share_cuda, n * high * wide, min(THREADS, patch[0] * patch[1]), *samples, *mask, valid is not None, floats,
            table, (channels, high, wide), patch, flat_view(share, writable=True)[0],
        )  # fmt: skip


def _on_cpu(
    here: Place, pixels: Array, valid: Array | None, table: Array, fill: Any, patch: tuple[int, int], out: Array,
    share: Array | None,
) -> None:  # fmt: skip
    n, channels, height, width = pixels.shape
    high, wide = height // patch[0], width // patch[1]
    flat, start, steps = flat_view(pixels)
    samples = (flat, start, steps, pixels.dtype.kind == "f", high)
    mask = (*flat_view(valid), True) if valid is not None else (table.view(np.uint8), 0, (0, 0, 0), False)
    found = out.reshape(n * high, wide, channels, *patch)
    codes = found.view(np.uint16) if out.dtype == np.float16 else found
    counts = np.zeros((0 if share is None else n * high, wide), np.int64)
    # the pixels of a patch are counted by one thread
    rows = 1 if share is None else patch[0]

    def work(first: int, stop: int) -> None:
        lines = np.empty((channels, width), np.float32)
        scratch = (lines, lines.reshape(channels, wide, patch[1]), np.ones(width, np.uint8), rows)
        _patchify_cpu(samples, mask, table, fill, scratch, (first, stop), codes, counts)

    over_bands(work, n * height // rows, threads=here.threads, least=max(1, LEAST_PX // (width * rows)))
    if share is not None:
        np.divide(counts, patch[0] * patch[1], out=share.reshape(counts.shape), dtype=np.float32, casting="unsafe")
