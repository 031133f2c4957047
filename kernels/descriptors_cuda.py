"""The sums of `tilestream.kernels.descriptors` on a device: a tile is cut into regions of 64 px, one a block.

A block keeps the luma of its region and of 4 px around it in shared memory, halves it twice, and adds up the terms of
all three scales: regions begin at multiples of 4, so that cells of every scale lie whole in one. What lies outside the
tile is not valid, which leaves out the same terms as the CPU does. A thread's sums fit int32 (16 pixels of at most
(4·255)², and the same in cells of the other scales, whose number shrinks fourfold while the terms grow 16-fold, 66 M at
most); the sums of threads are added in int64. Integers: bit-equal to the CPU, whatever the order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.language import core, cuda, cuda_core, cuda_kernel
from tilestream.kernels.pixelwise import batch_view, mask_view
from tilestream.kernels.place import Array, Place
from tilestream.kernels.rows import flat_view

THREADS = 256
REGION_PX = 64
AROUND_PX = 4
"""One cell of the coarsest scale."""
_WIDE = REGION_PX + 2 * AROUND_PX
_CELLS = _WIDE * _WIDE
_ALL_CELLS = _CELLS + _CELLS // 4 + _CELLS // 16
_SCALES = 3
_TERMS = 15
_ROWS = 16
"""Sums of a tile: the terms, and the number of valid pixels."""
_PARTS = _ROWS * THREADS
_SHARE = THREADS // _ROWS
"""Threads that add up one sum, and how many parts each of them takes."""
BAND_PX = 64
"""Rows of one block of products."""

_i16, _i32, _i64, _u8 = np.int16, np.int32, np.int64, np.uint8


@core
def luma_core(red: Any, green: Any, blue: Any) -> Any:
    """Return the luma of 8-bit red, green, blue."""
    return (77 * red + 150 * green + 29 * blue + 128) >> 8


@cuda_core
def _halve(planes: Any, masks: Any, first: Any, wide: Any, me: Any) -> None:
    """Write the 2×2 sums of a plane behind it; a cell is valid when its four pixels are."""
    narrow, k = _i32(wide // 2), _i32(me)
    while k < narrow * narrow:
        at = _i32(first + (k // narrow) * 2 * wide + (k % narrow) * 2)
        to = _i32(first + wide * wide + k)
        upper = _i32(planes[at]) + _i32(planes[at + 1])
        planes[to] = _i16(upper + _i32(planes[at + wide]) + _i32(planes[at + wide + 1]))
        masks[to] = masks[at] & masks[at + 1] & masks[at + wide] & masks[at + wide + 1]
        k = _i32(k + THREADS)


@cuda_core
def _terms(planes: Any, masks: Any, first: Any, wide: Any, around: Any, row: Any, me: Any, parts: Any) -> None:
    """Write a thread's sums of the terms of one scale."""
    inner, k = _i32(wide - 2 * around), _i32(me)
    n, xx, xy, yy, ll = _i32(0), _i32(0), _i32(0), _i32(0), _i32(0)
    while k < inner * inner:
        at = _i32(first + (around + k // inner) * wide + around + k % inner)
        if masks[at] & masks[at - 1] & masks[at + 1] & masks[at - wide] & masks[at + wide]:
            left, right = _i32(planes[at - 1]), _i32(planes[at + 1])
            top, bottom = _i32(planes[at - wide]), _i32(planes[at + wide])
            ix, iy = _i32(right - left), _i32(bottom - top)
            laplace = _i32(left + right + top + bottom - 4 * _i32(planes[at]))
            n, xx, xy = _i32(n + 1), _i32(xx + ix * ix), _i32(xy + ix * iy)
            yy, ll = _i32(yy + iy * iy), _i32(ll + laplace * laplace)
        k = _i32(k + THREADS)
    parts[row * THREADS + me] = n
    parts[(row + 1) * THREADS + me] = xx
    parts[(row + 2) * THREADS + me] = xy
    parts[(row + 3) * THREADS + me] = yy
    parts[(row + 4) * THREADS + me] = ll


@cuda_core
def _luma(flat: Any, at: Any, step: Any, channels: Any, rgb: Any) -> Any:
    if rgb:
        return luma_core(_i32(flat[at]), _i32(flat[at + step]), _i32(flat[at + 2 * step]))
    total = _i32(0)
    for ch in range(channels):
        total = _i32(total + _i32(flat[at + ch * step]))
    return (2 * total + _i32(channels)) // (2 * _i32(channels))


@cuda_kernel(
    "void(uint8[::1], int64, UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean, UniTuple(int64, 5), "
    "boolean, int64[::1], int64[::1])"
)
def _structure_cuda(
    flat: Any, start: Any, steps: Any, seen: Any, seen_start: Any, seen_steps: Any, masked: Any, shape: Any, rgb: Any,
    count: Any, structure: Any,
) -> None:  # fmt: skip
    """Add the structure and the number of valid pixels of one region of a tile."""
    planes = cuda.shared.array(_ALL_CELLS, np.int16)
    masks = cuda.shared.array(_ALL_CELLS, np.uint8)
    parts = cuda.shared.array(_PARTS, np.int32)
    channels, height, width, down, across = shape
    me = cuda.threadIdx.x
    tile, region = cuda.blockIdx.x // (down * across), cuda.blockIdx.x % (down * across)
    first_y, first_x = (region // across) * REGION_PX - AROUND_PX, (region % across) * REGION_PX - AROUND_PX
    valid, k = _i32(0), _i32(me)
    while k < _CELLS:
        local_y, local_x = k // _WIDE, k % _WIDE
        y, x = first_y + local_y, first_x + local_x
        good, value = _u8(0), _i32(0)
        if 0 <= y < height and 0 <= x < width:
            value = _luma(flat, start + tile * steps[0] + y * steps[2] + x * steps[3], steps[1], channels, rgb)
            if not masked or seen[seen_start + tile * seen_steps[0] + y * seen_steps[1] + x * seen_steps[2]] != 0:
                good = _u8(1)
        planes[k], masks[k] = value, good
        if AROUND_PX <= local_y < _WIDE - AROUND_PX and AROUND_PX <= local_x < _WIDE - AROUND_PX:
            valid = _i32(valid + good)
        k = _i32(k + THREADS)
    cuda.syncthreads()
    first, wide, around = _i32(0), _i32(_WIDE), _i32(AROUND_PX)
    for s in range(_SCALES):
        _terms(planes, masks, first, wide, around, 5 * s, me, parts)
        if s < _SCALES - 1:
            _halve(planes, masks, first, wide, me)
        cuda.syncthreads()
        first, wide, around = _i32(first + wide * wide), _i32(wide // 2), _i32(around // 2)
    parts[_TERMS * THREADS + me] = valid
    cuda.syncthreads()
    row, total = me // _SHARE, _i64(0)
    for part in range(_ROWS):
        total += parts[row * THREADS + me % _SHARE + part * _SHARE]
    if row == _TERMS:
        cuda.atomic.add(count, tile, total)
    else:
        cuda.atomic.add(structure, tile * _TERMS + row, total)


@cuda_kernel(
    "void(uint8[::1], int64, UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean, UniTuple(int64, 4), "
    "int64[::1])"
)
def _cross_cuda(
    flat: Any, start: Any, steps: Any, seen: Any, seen_start: Any, seen_steps: Any, masked: Any, shape: Any, out: Any
) -> None:
    """Add the products of two channels over some rows of a tile."""
    parts = cuda.shared.array(THREADS, np.int64)
    channels, height, width, pairs = shape
    me = cuda.threadIdx.x
    tile, pair = cuda.blockIdx.x // pairs, cuda.blockIdx.x % pairs
    i, left = 0, pair
    while left >= channels - 1 - i:
        left -= channels - 1 - i
        i += 1
    j = i + 1 + left
    total = _i64(0)
    first = start + tile * steps[0]
    for y in range(cuda.blockIdx.y * BAND_PX, min(height, (cuda.blockIdx.y + 1) * BAND_PX)):
        for x in range(me, width, THREADS):
            if not masked or seen[seen_start + tile * seen_steps[0] + y * seen_steps[1] + x * seen_steps[2]] != 0:
                at = first + y * steps[2] + x * steps[3]
                total += _i32(flat[at + i * steps[1]]) * _i32(flat[at + j * steps[1]])
    parts[me] = total
    cuda.syncthreads()
    if me < _SHARE:
        total = _i64(0)
        for k in range(_ROWS):
            total += parts[me + k * _SHARE]
        cuda.atomic.add(out, tile * pairs + pair, total)


def add_sums(
    here: Place, pixels: Array, valid: Array | None, unused: Array, *, rgb: bool, count: Array, cross: Array,
    structure: Array,
) -> None:  # fmt: skip
    """Add what describes each tile to sums on a device.

    Parameters
    ----------
    here : Place
        The device.
    pixels : array of uint8
        `(n, c, h, w)`, without the halo.
    valid : array of bool or None
        `(n, h, w)`.
    unused : array of uint8
        One-dimensional on the device, for a mask that is None.
    rgb : bool
        Whether luma is that of red, green and blue.
    count, cross, structure : array of int64
        As in `DescriptorSums`, contiguous.
    """
    n, channels, height, width = (int(v) for v in pixels.shape)
    given = (*batch_view(pixels), *mask_view(valid, unused), valid is not None)
    down, across = -(-height // REGION_PX), -(-width // REGION_PX)
    runs = [flat_view(array, writable=True)[0] for array in (count, structure)]
    here.launch(
        _structure_cuda, n * down * across, THREADS, *given, (channels, height, width, down, across), rgb, *runs
    )
    pairs = channels * (channels - 1) // 2
    if pairs:
        run = flat_view(cross, writable=True)[0]
        grid = (n * pairs, -(-height // BAND_PX))
        here.launch(_cross_cuda, grid, THREADS, *given, (channels, height, width, pairs), run)
