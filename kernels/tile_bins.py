"""Counts of the samples of square tiles in equal bins, on the CPU: what tile histograms and tile entropies share.

    codes:   bin(v) = v >> (8 − log2 B)                                   8-bit samples without a value range
    values:  bin(v) = clip(⌊(v − low) · (B / (high − low))⌋, 0, B − 1)    float32, as on a device; NaN is not counted

Both bins and counts are integers and the same on every backend: tolerance of the tests is 0, but for values within one
rounding error of float32 of the edge of a bin. Up to 32 bins are counted by `tilestream.kernels.bit_planes`, more in
tables.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilestream.kernels.bit_planes import PART, PLANES, SMALL, add_counts, add_sets, sets_to_counts
from tilestream.kernels.language import core, cpu_kernel, prefetch

MAX_BINS = 256
BAG_BYTES = 8192
"""Samples that are collected before they are counted, so that they stay in the first cache; long rows need more."""

LINE_BYTES = 64
AHEAD = 2
"""Tiles of the same row."""

_f32, _i32, _u8 = np.float32, np.int32, np.uint8


@core
def bin_core(value: Any, low: Any, scale: Any, last: Any) -> Any:
    """Return the bin of a value: 0 to `last`, which is a float32; 0 for NaN."""
    t = (_f32(value) - low) * scale
    # written as choices, which vectorise, and so that NaN falls to 0
    t = t if t > _f32(0.0) else _f32(0.0)
    t = t if t < last else last
    return _i32(t)


@core
def term_core(c: Any) -> Any:
    """Return c·log2 c of a count, with 0 for none."""
    return c * math.log2(c) if c > 1 else 0.0


@cpu_kernel
def _planar_cpu(flat: Any, first: int, step: int, area: Any, keep: Any, bag: Any) -> None:
    """Collect rows of codes that lie side by side."""
    height, width = area
    for y in range(height):
        # without slices indices might be negative, and without `keep` each row is a call of memmove: 5 times slower
        row, part = flat[first + y * step : first + y * step + width], bag[y * width : (y + 1) * width]
        if width == LINE_BYTES:
            for x in range(LINE_BYTES):  # a constant, and so one instruction where registers are as wide
                part[x] = row[x] & keep
            continue
        for x in range(width):
            part[x] = row[x] & keep


@cpu_kernel
def _every_third_cpu(flat: Any, first: int, step: int, area: Any, keep: Any, bag: Any) -> None:
    """Collect rows of every third code: a constant step is what compilers vectorise."""
    height, width = area
    for y in range(height):
        row, part = flat[first + y * step : first + y * step + 3 * width - 2], bag[y * width : (y + 1) * width]
        for x in range(width):
            part[x] = row[3 * x] & keep


@cpu_kernel
def _every_fourth_cpu(flat: Any, first: int, step: int, area: Any, keep: Any, bag: Any) -> None:
    """Collect rows of every fourth code."""
    height, width = area
    for y in range(height):
        row, part = flat[first + y * step : first + y * step + 4 * width - 3], bag[y * width : (y + 1) * width]
        for x in range(width):
            part[x] = row[4 * x] & keep


@cpu_kernel
def _codes_cpu(flat: Any, first: int, steps: Any, area: Any, keep: Any, bag: Any) -> None:
    """Collect rows of 8-bit codes."""
    height, width = area
    if steps[1] == 1:
        _planar_cpu(flat, first, steps[0], area, keep, bag)
    elif steps[1] == 3:
        _every_third_cpu(flat, first, steps[0], area, keep, bag)
    elif steps[1] == 4:
        _every_fourth_cpu(flat, first, steps[0], area, keep, bag)
    else:
        for y in range(height):
            for x in range(width):
                bag[y * width + x] = flat[first + y * steps[0] + x * steps[1]] & keep


@cpu_kernel
def _values_cpu(flat: Any, first: int, steps: Any, area: Any, rule: Any, bag: Any) -> int:
    """Bin rows of values; return how many are numbers."""
    height, width = area
    low, scale, last = rule
    numbers = 0
    for y in range(height):
        part, at = bag[y * width : (y + 1) * width], first + y * steps[0]
        if steps[1] == 1:
            row = flat[at : at + width]
            for x in range(width):
                part[x] = _u8(bin_core(row[x], low, scale, last))
            for x in range(width):
                numbers += row[x] == row[x]
            continue
        for x in range(width):
            value = flat[at + x * steps[1]]
            part[x] = _u8(bin_core(value, low, scale, last))
            numbers += value == value
    return numbers


@cpu_kernel
def _mask_cpu(flat: Any, first: int, steps: Any, area: Any, mask: Any, bag: Any) -> int:
    """Make 0 of the bins of samples that are not valid; return how many are valid numbers."""
    height, width = area
    valid, valid_first, valid_steps = mask
    count = 0
    for y in range(height):
        part, at, valid_at = bag[y * width : (y + 1) * width], first + y * steps[0], valid_first + y * valid_steps[0]
        for x in range(width):
            value, here = flat[at + x * steps[1]], valid[valid_at + x * valid_steps[1]]
            part[x] = part[x] * here
            count += here & (value == value)
    return count


@cpu_kernel
def _tile_cpu(pixels: Any, mask: Any, area: Any, codes: Any, rule: Any, bins: int, scratch: Any, counts: Any) -> int:
    """Write the counts of one tile and channel; return how many samples were counted."""
    flat, first, steps = pixels
    valid, valid_first, valid_steps, masked = mask
    height, width = area
    words, bag, planes, tables = scratch
    for b in range(counts.shape[0]):
        counts[b] = 0
    total, shift = 0, 0
    step = bag.size // width
    for y in range(0, height, step):
        part, at = (min(step, height - y), width), first + y * steps[0]
        found = part[0] * width
        # which one it is follows from the types: None is seen at compile time
        if codes is not None:
            _codes_cpu(flat, at, steps, part, _u8(255 >> codes << codes), bag)
            shift = codes
        if rule is not None:
            found = _values_cpu(flat, at, steps, part, rule, bag)
        if masked:
            found = _mask_cpu(flat, at, steps, part, (valid, valid_first + y * valid_steps[0], valid_steps), bag)
        total += found
        if bins <= SMALL:
            add_sets(words, part[0] * width, shift, planes, counts)
        else:
            add_counts(bag, part[0] * width, shift, tables, counts)
    if bins <= SMALL:
        counts[0] = total
        sets_to_counts(counts)
    else:
        counts[0] -= height * width - total
    return total


@cpu_kernel
def _entropy_cpu(counts: Any, n: int, bins: int, terms: Any, unit: float) -> Any:
    """Return the entropy as a share of log2 B; `terms[c]` is c·log2 c in units of `unit` as far as it reaches."""
    if n == 0:
        return np.nan
    if terms.shape[0] // 2 <= n < terms.shape[0]:
        # integers may be added in any order, so this is vectorised; of fewer samples their rounding would show
        whole = np.int64(0)
        for b in range(bins):
            whole += terms[counts[b]]
        return min(1.0, max(0, terms[n] - whole) * unit / (n * math.log2(bins)))
    total = 0.0
    for b in range(bins):
        total += term_core(counts[b])
    return min(1.0, max(0.0, (term_core(n) - total) / (n * math.log2(bins))))


@cpu_kernel
def _ahead_cpu(flat: Any, first: int, step: int, height: int, span: int) -> None:
    """Fetch the rows of a tile that comes later: too short and too far apart for the CPU to see a pattern in them."""
    line = LINE_BYTES // flat.itemsize
    for y in range(height):
        for k in range(0, span, line):
            prefetch(flat, first + y * step + k)


@cpu_kernel
def tiles_cpu(pixels: Any, mask: Any, shape: Any, codes: Any, rule: Any, band: Any, out: Any) -> None:
    """Write histograms or entropies of the tiles of some rows of tiles.

    Parameters
    ----------
    pixels : tuple
        `flat_view` of `(c, y, x)` samples.
    mask : tuple
        `flat_view` of `(y, x)` bytes that are 0 or 1, and whether they are to be looked at.
    shape : tuple of int
        Channels, height, width, tile size, bins.
    codes : int or None
        Lower bits of 8-bit codes that do not count, 8 − log2 B; None where there is a rule.
    rule : tuple of float32 or None
        Low, bins per unit, last bin; None for codes.
    band : tuple of int
        First and last row of tiles.
    out : tuple
        Histograms uint32 `(c, ny, nx, bins)` and whether to write them, entropies float32 `(c, ny, nx)` and whether to
        write them, c·log2 c as far as it is tabulated, and the unit of the table.
    """
    flat, start, steps = pixels
    valid, valid_start, valid_steps, masked = mask
    channels, height, width, tile_px, bins = shape
    histograms, wants_histograms, entropies, wants_entropies, terms, unit = out
    capacity = (max(BAG_BYTES, min(tile_px, width)) + 63) // 64
    words = np.empty(PART * capacity, np.uint64)
    scratch = (words, words.view(np.uint8), np.empty((PLANES, capacity), np.uint64), np.empty((4, MAX_BINS), np.uint32))
    counts = np.empty(max(SMALL, bins), np.int64)
    interleaved = 0 <= steps[0] < steps[2]
    for i in range(band[0], band[1]):
        y = i * tile_px
        for j in range(-(-width // tile_px)):
            x = j * tile_px
            area = (min(tile_px, height - y), min(tile_px, width - x))
            after = start + y * steps[1] + (x + AHEAD * tile_px) * steps[2]
            if interleaved:
                _ahead_cpu(flat, after, steps[1], area[0], tile_px * steps[2])
            here = (valid, valid_start + y * valid_steps[0] + x * valid_steps[1], valid_steps, masked)
            for ch in range(channels):
                if not interleaved and steps[2] > 0:
                    _ahead_cpu(flat, after + ch * steps[0], steps[1], area[0], tile_px * steps[2])
                tile = (flat, start + ch * steps[0] + y * steps[1] + x * steps[2], (steps[1], steps[2]))
                n = _tile_cpu(tile, here, area, codes, rule, bins, scratch, counts)
                if wants_histograms:
                    for b in range(bins):
                        histograms[ch, i, j, b] = counts[b]
                if wants_entropies:
                    entropies[ch, i, j] = _entropy_cpu(counts, n, bins, terms, unit)
