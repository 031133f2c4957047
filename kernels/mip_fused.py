"""Means of several levels in one CUDA kernel: a block brings 64×64 pixels down to one (after AMD FidelityFX SPD).

One launch reads a level once and writes up to six from it: sums and counts stay in shared memory, and all images of a
batch share the launch. Levels whose sums begin anew take one launch more, of a 256th of the work for the default of
four levels. Sums are int32 where they fit, else int64; float32 for float16 and float32, float64 for float64, added in
the order of `tilestream.kernels.mip_sums`: the same bits. Sums of pixels that are not valid, or not there, are -0.0,
which changes no sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.kernels.language import cuda, cuda_kernel, device
from tilestream.kernels.mip_layout import THREADS, Frame, Reduction, frame, masks_of
from tilestream.kernels.place import Place, dtype_of
from tilestream.kernels.rounding import always_core, finite_core, float_mean_core, integer_mean_core

TILE_PX = 64
MAX_LEVELS = 6
"""Of one launch: 64 = 2^6."""
CELLS = 1024
"""Of 2×2 pixels in a tile."""
CHUNK = 4
"""Channels that are in shared memory at once: 40 KiB of int64."""
COUNTS, SUMS = CELLS + CELLS // 4, CHUNK * (CELLS + CELLS // 4)
"""Entries in shared memory: one level, and beside it the next one."""


def _weigh_of(sum_type: Any, finite: Any) -> Any:
    """Return the part that finds out which pixels of a cell are there and valid."""

    @device
    def is_good(source: Any, at: Any, channels: Any, nodata: Any, has_nodata: Any) -> Any:
        flat, _, steps = source
        fits, other = True, not has_nodata
        for _ in range(channels):
            fits, other = fits and finite(sum_type(flat[at])), other or flat[at] != nodata
            at += steps[1]
        return fits and other

    @device
    def weigh(source: Any, mask: Any, where: Any, shape: Any, nodata: Any, deep: Any) -> Any:
        """Return a bit for each pixel: (0, 0), (1, 0), (0, 1), (1, 1)."""
        _, start, steps = source
        valid, valid_start, valid_steps, masked, has_nodata = mask
        image, y, x = where
        bits = 0
        for k in range(4):
            row, column = y + (k & 1), x + (k >> 1)
            fits = row < shape[2] and column < shape[3]
            if fits and masked:
                fits = valid[valid_start + image * valid_steps[0] + row * valid_steps[1] + column * valid_steps[2]] != 0
            if fits and deep:
                at = start + image * steps[0] + row * steps[2] + column * steps[3]
                fits = is_good(source, at, shape[1], nodata, has_nodata)
            if fits:
                bits |= 1 << k
        return bits

    return weigh


def _cell_of(sum_type: Any) -> Any:
    """Return the part that adds the valid pixels of a cell."""

    @device
    def add(flat: Any, at: Any, down: Any, right: Any, bits: Any) -> Any:
        left, beside = sum_type(-0.0), sum_type(-0.0)
        if bits & 1:
            left += sum_type(flat[at])
        if bits & 2:
            left += sum_type(flat[at + down])
        if bits & 4:
            beside += sum_type(flat[at + right])
        if bits & 8:
            beside += sum_type(flat[at + right + down])
        return left + beside

    return add


@device
def _halve(sums: Any, counts: Any, here: Any, there: Any, edge: Any, chunk: Any) -> None:
    """Add 2×2 cells of a level that is twice `edge` long."""
    for cell in range(np.int64(cuda.threadIdx.x), edge * edge, THREADS):
        first = cell // edge * 4 * edge + cell % edge * 2
        for ch in range(chunk):
            k = here[0] + ch * 4 * edge * edge + first
            left, beside = sums[k] + sums[k + 2 * edge], sums[k + 1] + sums[k + 2 * edge + 1]
            sums[there[0] + ch * edge * edge + cell] = left + beside
        k = here[1] + first
        left_count, count = counts[k] + counts[k + 2 * edge], counts[k + 1] + counts[k + 2 * edge + 1]
        counts[there[1] + cell] = left_count + count


def _climb_of(sum_type: Any, mean_core: Any) -> Any:
    """Return the part that writes all levels from cells of 2×2 on."""

    @device
    def climb(sums: Any, counts: Any, where: Any, shape: Any, levels: Any, to: Any, fill: Any) -> None:
        image, c0, chunk, tile_y, tile_x = where
        runs, geometry, ok_runs, wants_ok = to
        edge, here, there = 32, (0, 0), (CHUNK * CELLS, CELLS)
        for level in range(1, levels + 1):
            run, at = runs[level - 1], geometry[level - 1]
            for cell in range(np.int64(cuda.threadIdx.x), edge * edge, THREADS):
                y, x = tile_y * edge + cell // edge, tile_x * edge + cell % edge
                if y > (shape[2] - 1) >> level or x > (shape[3] - 1) >> level:
                    continue
                count = counts[here[1] + cell]
                first = at[0] + image * at[1] + c0 * at[2] + y * at[3] + x * at[4]
                for k in range(here[0] + cell, here[0] + chunk * edge * edge, edge * edge):
                    run[first] = mean_core(sums[k], sum_type(count), level) if count else fill
                    first += at[2]
                if wants_ok and c0 == 0:
                    ok_runs[level - 1][at[5] + image * at[6] + y * at[7] + x * at[8]] = count > 0
            cuda.syncthreads()
            edge //= 2
            _halve(sums, counts, here, there, edge, chunk)
            here, there = there, here
        cuda.syncthreads()

    return climb


def _mip_cuda(name: str, sum_type: Any, mean_core: Any, finite: Any, sample: str) -> Any:
    """Return the kernel whose sums are of one type."""
    floating = np.dtype(sum_type).kind == "f"
    weigh, add, climb = _weigh_of(sum_type, finite), _cell_of(sum_type), _climb_of(sum_type, mean_core)

    def kernel(
        flat: Any, start: Any, steps: Any, valid: Any, valid_start: Any, valid_steps: Any, masked: Any,
        nodata: Any, has_nodata: Any, fill: Any, shape: Any, tiles: Any, levels: Any, runs: Any, geometry: Any,
        ok_runs: Any, wants_ok: Any,
    ) -> None:  # fmt: skip
        """Reduce one tile of one image."""
        sums = cuda.shared.array(SUMS, sum_type)
        counts = cuda.shared.array(COUNTS, np.int32)
        block = np.int64(cuda.blockIdx.x)
        tile_y, tile_x = tiles[0] + block // tiles[3] % tiles[1], tiles[2] + block % tiles[3]
        image = block // (tiles[1] * tiles[3])
        source, mask = (flat, start, steps), (valid, valid_start, valid_steps, masked, has_nodata)
        for c0 in range(0, shape[1], CHUNK):
            chunk = min(CHUNK, shape[1] - c0)
            for cell in range(np.int64(cuda.threadIdx.x), CELLS, THREADS):
                y, x = tile_y * TILE_PX + cell // 32 * 2, tile_x * TILE_PX + cell % 32 * 2
                first = start + image * steps[0] + c0 * steps[1] + y * steps[2] + x * steps[3]
                whole = not masked and y + 1 < shape[2] and x + 1 < shape[3]
                deep, again, bits = has_nodata or (floating and shape[1] > CHUNK), True, 15
                while again:  # a second time only where a sum is not finite
                    if deep or not whole:
                        bits = weigh(source, mask, (image, y, x), shape, nodata, deep)
                    again = False
                    for ch in range(chunk):
                        total = add(flat, first + ch * steps[1], steps[2], steps[3], bits)
                        sums[ch * CELLS + cell] = total
                        again = again or not finite(total)
                    again, deep = again and not deep, deep or again
                counts[cell] = (bits & 1) + (bits >> 1 & 1) + (bits >> 2 & 1) + (bits >> 3)
            to = (runs, geometry, ok_runs, wants_ok)
            climb(sums, counts, (image, c0, chunk, tile_y, tile_x), shape, levels, to, fill)

    kernel.__name__ = kernel.__qualname__ = f"_mip_{name}_cuda"
    scalar = sample if floating else "int64"
    return cuda_kernel(
        f"void({sample}[::1], int64, UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean, "
        f"{scalar}, boolean, {scalar}, UniTuple(int64, 4), UniTuple(int64, 4), int64, UniTuple({sample}[::1], 6), "
        "UniTuple(UniTuple(int64, 9), 6), UniTuple(uint8[::1], 6), boolean)"
    )(kernel)


_KERNELS = {
    "i4": _mip_cuda("int32", np.int32, integer_mean_core, always_core, "uint8"),
    "i8": _mip_cuda("int64", np.int64, integer_mean_core, always_core, "int32"),
    "f4": _mip_cuda("float32", np.float32, float_mean_core, finite_core, "float32"),
    "f8": _mip_cuda("float64", np.float64, float_mean_core, finite_core, "float64"),
}


def sum_type(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return the type that holds sums of samples over `MAX_LEVELS` levels on a device."""
    found = np.dtype(dtype)
    if found.kind == "f":
        return np.dtype(np.float64 if found.itemsize == 8 else np.float32)
    return np.dtype(np.int32 if found.itemsize < 4 else np.int64)


def reduce_on_cuda(reduction: Reduction, here: Place) -> None:
    """Write the levels of a reduction of arrays on a device.

    Parameters
    ----------
    reduction : Reduction
        At most `MAX_LEVELS` levels.
    here : Place
        Where its arrays are.
    """
    images, channels, height, width = reduction.shape
    dtype = dtype_of(reduction.pixels)
    scalar = int if dtype.kind != "f" else dtype.type
    source = frame(reduction.pixels)
    mask, oks = masks_of(reduction)
    runs, ok_runs, geometry = _padded([frame(out, writable=True) for out in reduction.outs], oks)
    shape = (images, channels, height, width)
    for tiles in _tiles(reduction, -(-height // TILE_PX), -(-width // TILE_PX)):
        here.launch(
            _KERNELS[sum_type(dtype).str[1:]], images * tiles[1] * tiles[3], THREADS, *source, *mask,
            reduction.valid is not None, scalar(reduction.nodata or 0), reduction.nodata is not None,
            scalar(reduction.fill), shape, tiles, len(reduction.outs), runs, geometry, ok_runs, bool(reduction.valids),
        )  # fmt: skip


def _padded(
    outs: list[Frame], oks: list[Frame]
) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[tuple[int, ...], ...]]:
    """Return runs of six levels and of their validity, and start and steps of both."""
    missing = MAX_LEVELS - len(outs)
    outs, oks = outs + outs[-1:] * missing, oks + oks[-1:] * missing
    at = tuple(
        (start, *((0,) * (4 - len(steps)) + steps), ok_start, *ok_steps)
        for (_, start, steps), (_, ok_start, ok_steps) in zip(outs, oks, strict=True)
    )
    return tuple(run for run, _, _ in outs), tuple(run for run, _, _ in oks), at


def _tiles(reduction: Reduction, rows: int, columns: int) -> list[tuple[int, int, int, int]]:
    """Return first row, rows, first column and columns of the tiles to work on."""
    if reduction.boxes is None:
        return [(0, rows, 0, columns)]
    low, high = reduction.boxes[:, :2] // TILE_PX, -(-reduction.boxes[:, 2:] // TILE_PX)
    return [
        (int(y0), int(y1 - y0), int(x0), int(x1 - x0)) for (y0, x0), (y1, x1) in zip(low, high, strict=True)
    ]  # fmt: skip
