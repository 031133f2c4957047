"""Counts of the samples of square tiles on a device: the CUDA twins of `tilestream.kernels.tile_bins`.

Atomic counters in shared memory serialise the threads of a warp that hit the same bin, which on glass is all of them.
So where pixels lie in whole words each thread counts for itself, in bytes: four bins a 32-bit word, 8 words for 32
bins, one set of them for each byte of a word of pixels, laid out so that neighbouring threads use neighbouring banks.
There are no atomics and no conflicts, and a tile costs the same whatever it shows. A thread's counters are added up
before 255 samples could overflow them. Everything else (other types, masks, more bins, odd strides) takes the plain
form, one block a tile and channel with atomic counters in shared memory.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilestream.kernels.language import SIMULATED, core, cuda, cuda_core, cuda_kernel
from tilestream.kernels.place import Array, Place
from tilestream.kernels.rows import flat_view
from tilestream.kernels.tile_bins import MAX_BINS, bin_core

WORDS_THREADS = 128
"""Of a block; a multiple of 32, so that a thread's counters share one bank."""
WORDS_BINS = 32
WORDS_ROUND = 255
"""Words a thread can count before one of its counters overflows."""
MAX_GRID_Y = 65_535
AHEAD = 3
"""Words that are under way to a thread while it counts one: as many as `_words_cuda` has variables for."""
PLAIN_THREADS = 128
"""Of a block."""

_f32, _u32, _i32 = np.float32, np.uint32, np.int32
_COUNTERS, _TOTALS = 32 * WORDS_THREADS, 4 * WORDS_BINS
_LOW = _u32(0x00FF00FF)


@core
def _term_core(c: Any) -> Any:
    """Return c·log2 c of a count in float32, with 0 for none."""
    return _f32(c) * _f32(math.log2(_f32(c))) if c > _u32(1) else _f32(0.0)


@core
def _entropy_core(n: Any, terms: Any, bins: Any) -> Any:
    """Return the entropy of n samples as a share of log2 B in float32."""
    if n == _u32(0):
        return _f32(math.nan)
    share = _f32((_f32(math.log2(_f32(n))) - terms / _f32(n)) / _f32(math.log2(_f32(bins))))
    share = share if share > _f32(0.0) else _f32(0.0)
    return share if share < _f32(1.0) else _f32(1.0)


@core
def _counter_core(word: Any, byte: Any, me: Any) -> Any:
    """Return where the counter of a byte's bin is: its byte, its upper three bits, the thread."""
    upper = _u32(_u32(word >> _u32(8 * byte + 5)) & _u32(7))
    return _u32(_u32(_u32(upper + _u32(8 * byte)) * _u32(WORDS_THREADS)) + me)


@core
def _one_core(word: Any, byte: Any) -> Any:
    """Return 1 in the byte of a counter that the next two bits choose."""
    return _u32(_u32(1) << _u32(_u32(word >> _u32(8 * byte)) & _u32(24)))


@core
def _channel_core(byte: Any, part: Any, period: Any) -> Any:
    """Return the channel of a byte of the words that a thread of this part reads."""
    # 3 channels and words of 4 bytes: a thread reads every 126th word, whose first channel stays the same
    return (byte + part) % 3 if period == 3 else byte % period


@cuda_core
def _add_up(counters: Any, totals: Any, here: Any, period: Any) -> None:
    """Add one row of four byte counters of every thread of a channel to the totals of the tile."""
    row, part = here
    size = 42 if period == 3 else 32
    # each thread of a warp begins elsewhere, so that no two read from one bank
    owner = row % size
    even, odd = _u32(0), _u32(0)
    for _ in range(size):
        slot = part + 3 * owner if period == 3 else 32 * part + owner
        value = counters[row * WORDS_THREADS + slot]
        even = _u32(even + _u32(value & _LOW))
        odd = _u32(odd + _u32(_u32(value >> _u32(8)) & _LOW))
        owner = owner + 1 if owner + 1 < size else 0
    slot = _channel_core(row >> 3, part, period) * WORDS_BINS + 4 * (row & 7)
    cuda.atomic.add(totals, slot, _u32(even & _u32(0xFFFF)))
    cuda.atomic.add(totals, slot + 1, _u32(odd & _u32(0xFFFF)))
    cuda.atomic.add(totals, slot + 2, _u32(even >> _u32(16)))
    cuda.atomic.add(totals, slot + 3, _u32(odd >> _u32(16)))


@cuda_core
def _write_tile(
    totals: Any, terms: Any, tile: Any, form: Any, histograms: Any, wants_histograms: Any, entropies: Any,
    wants_entropies: Any,
) -> None:  # fmt: skip
    """Write the histogram and the entropy of a tile of n samples from its totals."""
    plane, i, j, n = tile
    bins, period = form
    joined = WORDS_BINS // bins
    ch, b = cuda.threadIdx.x // WORDS_BINS, cuda.threadIdx.x % WORDS_BINS
    count = _u32(0)
    where = ((plane * period + ch) * cuda.gridDim.y + i) * cuda.gridDim.x + j
    if b < bins and ch < period:
        for join in range(joined):
            count = _u32(count + totals[ch * WORDS_BINS + b * joined + join])
        if wants_histograms:
            histograms[where * bins + b] = count
    if wants_entropies:
        terms[cuda.threadIdx.x] = _term_core(count)
        half = WORDS_BINS // 2
        while half > 0:
            cuda.syncthreads()
            if b < half:
                terms[cuda.threadIdx.x] += terms[cuda.threadIdx.x + half]
            half //= 2
        if b == 0 and ch < period:
            entropies[where] = _entropy_core(n, terms[cuda.threadIdx.x], bins)


@cuda_kernel("void(uint32[::1], UniTuple(int64, 2), UniTuple(int64, 6), uint32[::1], boolean, float32[::1], boolean)")
def _words_cuda(
    words: Any, steps: Any, shape: Any, histograms: Any, wants_histograms: Any, entropies: Any, wants_entropies: Any
) -> None:
    """Count one tile of one plane a block; a plane holds `period` interleaved channels."""
    counters = cuda.shared.array(_COUNTERS, np.uint32)
    totals = cuda.shared.array(_TOTALS, np.uint32)
    terms = cuda.shared.array(_TOTALS, np.float32)
    plane_step, row_step = steps
    height, width_words, tile_px, tile_words, bins, period = shape
    me, j, i, plane = cuda.threadIdx.x, cuda.blockIdx.x, cuda.blockIdx.y, cuda.blockIdx.z
    tall, wide = _u32(min(tile_px, height - i * tile_px)), _u32(min(tile_words, width_words - j * tile_words))
    active = _u32(126 if period == 3 else WORDS_THREADS)
    part, parts = (me >> 5, 3 if period == 3 else 4)
    for slot in range(me, _TOTALS, WORDS_THREADS):
        totals[slot] = _u32(0)
    own = _u32(me)
    y, x = _u32(own // wide), _u32(own % wide)
    down, right = _u32(active // wide), _u32(active % wide)
    at = plane * plane_step + i * tile_px * row_step + j * tile_words + y * row_step + x
    step, wrap = down * row_step + right, row_step - wide
    words_here = tall * wide
    most = _i32(_u32(_u32(words_here + active - _u32(1)) // active))
    mine = _i32(_u32(_u32(words_here - own + active - _u32(1)) // active)) if own < min(active, words_here) else _i32(0)
    w0, w1, w2 = _u32(0), _u32(0), _u32(0)
    k, stop = _i32(-AHEAD), _i32(0)
    while stop < most:
        stop = _i32(min(stop + WORDS_ROUND, most))
        for row in range(32):
            counters[row * WORDS_THREADS + me] = _u32(0)
        # no barrier: until the next one each thread touches its own counters only
        while k < stop:
            word, w0, w1 = w0, w1, w2
            if k + AHEAD < mine:
                w2 = words[at]
                x, at = _u32(x + right), at + step
                if x >= wide:
                    x, at = _u32(x - wide), at + wrap
            if 0 <= k < mine:
                k0, k1 = _counter_core(word, 0, own), _counter_core(word, 1, own)
                k2, k3 = _counter_core(word, 2, own), _counter_core(word, 3, own)
                # four different counters: all are read before the first is written
                c0, c1, c2, c3 = counters[k0], counters[k1], counters[k2], counters[k3]
                counters[k0] = _u32(c0 + _one_core(word, 0))
                counters[k1] = _u32(c1 + _one_core(word, 1))
                counters[k2] = _u32(c2 + _one_core(word, 2))
                counters[k3] = _u32(c3 + _one_core(word, 3))
            k = _i32(k + 1)
        cuda.syncthreads()
        if part < parts:
            _add_up(counters, totals, (me & 31, part), period)
        cuda.syncthreads()
    tile = (plane, i, j, _u32(tall * _u32(_u32(wide * _u32(4)) // _u32(period))))
    _write_tile(totals, terms, tile, (bins, period), histograms, wants_histograms, entropies, wants_entropies)


@cuda_kernel(
    "void(uint8[::1], int64, UniTuple(int64, 3), uint8[::1], int64, UniTuple(int64, 2), boolean, UniTuple(int64, 5), "
    "boolean, UniTuple(float32, 3), uint32[::1], boolean, float32[::1], boolean)",
    "void(float32[::1], int64, UniTuple(int64, 3), uint8[::1], int64, UniTuple(int64, 2), boolean, UniTuple(int64, 5), "
    "boolean, UniTuple(float32, 3), uint32[::1], boolean, float32[::1], boolean)",
)
def _plain_cuda(  # noqa: C901
    flat: Any, start: Any, steps: Any, valid: Any, valid_start: Any, valid_steps: Any, masked: Any, shape: Any,
    is_codes: Any, rule: Any, histograms: Any, wants_histograms: Any, entropies: Any, wants_entropies: Any,
) -> None:  # fmt: skip
    """Count one tile and channel a block."""
    totals = cuda.shared.array(MAX_BINS, np.uint32)
    terms = cuda.shared.array(PLAIN_THREADS, np.float32)
    samples = cuda.shared.array(PLAIN_THREADS, np.uint32)
    height, width, tile_px, bins, nx = shape
    low, scale, last = rule
    me = cuda.threadIdx.x
    tile, ch = cuda.blockIdx.x, cuda.blockIdx.y
    top, left = tile // nx * tile_px, tile % nx * tile_px
    tall, wide = min(tile_px, height - top), min(tile_px, width - left)
    for b in range(me, bins, PLAIN_THREADS):
        totals[b] = _u32(0)
    cuda.syncthreads()
    first = start + ch * steps[0] + top * steps[1] + left * steps[2]
    valid_first = valid_start + top * valid_steps[0] + left * valid_steps[1]
    down, right = PLAIN_THREADS // wide, PLAIN_THREADS % wide
    y, x = me // wide, me % wide
    while y < tall:
        value = flat[first + y * steps[1] + x * steps[2]]
        # NaN is the value that is not itself
        if value == value and (not masked or valid[valid_first + y * valid_steps[0] + x * valid_steps[1]]):
            cuda.atomic.add(totals, _i32(value) * bins >> 8 if is_codes else bin_core(value, low, scale, last), _u32(1))
        y, x = y + down, x + right
        if x >= wide:
            y, x = y + 1, x - wide
    cuda.syncthreads()
    where = ch * cuda.gridDim.x + tile
    total, count = _f32(0.0), _u32(0)
    for b in range(me, bins, PLAIN_THREADS):
        total += _term_core(totals[b])
        count = _u32(count + totals[b])
        if wants_histograms:
            histograms[where * bins + b] = totals[b]
    if wants_entropies:
        terms[me], samples[me] = total, count
        half = PLAIN_THREADS // 2
        while half > 0:
            cuda.syncthreads()
            if me < half:
                terms[me] += terms[me + half]
                samples[me] += samples[me + half]
            half //= 2
        if me == 0:
            entropies[where] = _entropy_core(samples[0], terms[0], bins)


def _as_words(pixels: Any, valid: Array | None, shape: Any, rule: Any) -> tuple[Any, int] | None:
    """Return pixels as 32-bit words and the number of interleaved channels in them; None where that cannot be."""
    flat, start, (channel_step, row_step, column_step) = pixels
    channels, height, width, tile_px, bins = shape
    period = channels if channel_step == 1 and column_step == channels else 1
    if valid is not None or rule is not None or bins > WORDS_BINS or period > 4 or -(-height // tile_px) > MAX_GRID_Y:
        return None
    column_step = column_step if width > 1 else period
    outer = (0 if period == channels else channel_step, row_step if height > 1 else 0)
    address = flat._ary.ctypes.data if SIMULATED else flat.device_ctypes_pointer.value
    edges = (start, address, width * period, tile_px * period, *outer)
    if column_step != period or min(outer) < 0 or any(edge % 4 for edge in edges):
        return None
    words = type(flat)(flat._ary.view(np.uint32)) if SIMULATED else flat.view(np.uint32)
    return words, period


def tiles_on_cuda(
    here: Place, pixels: Any, valid: Array | None, shape: Any, rule: Any, histograms: Array | None,
    entropies: Array | None,
) -> None:  # fmt: skip
    """Put the launch that writes histograms or entropies on the stream.

    Parameters
    ----------
    here : Place
        On a device.
    pixels : tuple
        `flat_view` of `(c, y, x)` samples.
    valid : array or None
        `(y, x)`.
    shape : tuple of int
        Channels, height, width, tile size, bins.
    rule : tuple of float32 or None
        Low, bins per unit, last bin; None for 8-bit codes.
    histograms, entropies : array or None
        What to write: uint32 `(c, ny, nx, bins)`, float32 `(c, ny, nx)`; one of them at least.
    """
    channels, height, width, tile_px, bins = shape
    nx, ny = -(-width // tile_px), -(-height // tile_px)
    given = histograms if histograms is not None else entropies
    filler = flat_view(given, writable=True)[0].view
    counts = filler(np.uint32) if histograms is None else flat_view(histograms, writable=True)[0]
    shares = filler(np.float32) if entropies is None else flat_view(entropies, writable=True)[0]
    out = (counts, histograms is not None, shares, entropies is not None)
    packed = _as_words(pixels, valid, shape, rule)
    if packed is not None:
        words, period = packed
        steps = (pixels[2][0] // 4 if period == 1 else 0, pixels[2][1] // 4)
        geometry = (height, width * period // 4, tile_px, tile_px * period // 4, bins, period)
        here.launch(_words_cuda, (nx, ny, channels // period), WORDS_THREADS, words, steps, geometry, *out)
        return
    flat = pixels[0]
    mask = (flat.view(np.uint8), 0, (0, 0)) if valid is None else flat_view(valid)
    limits = (_f32(0), _f32(0), _f32(0)) if rule is None else rule
    here.launch(
        _plain_cuda, (nx * ny, channels), PLAIN_THREADS, *pixels, *mask, valid is not None,
        (height, width, tile_px, bins, nx), rule is None, limits, *out,
    )  # fmt: skip
