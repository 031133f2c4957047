"""Means of 2×2, 4×4, … pixels of one array on the CPU, each from sums that nothing was rounded in.

    sum_l[y, x] = (sum_{l-1}[2y, 2x] + sum_{l-1}[2y+1, 2x]) + (sum_{l-1}[2y, 2x+1] + sum_{l-1}[2y+1, 2x+1])
    out_l       = sum_l / count_l,   count_l = valid pixels under it

A job is a block of 2^levels rows: its pixels are read once, and the sums of all levels stay in the nearest caches.
Sums of integers fit their type and are divided as float32 (sums of up to 16 bits) or float64. That is exact: a
quotient that is no tie is at least 1/(2·count) away from one, with counts of at most 2⁸ for sums of 16 bits and 2¹²
otherwise; the division is wrong by at most 2⁻¹⁷ and 2⁻²². Floats add in the order of the formula, the same as on CUDA.
Tolerance of the tests: 0 for integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.language import core, cpu_kernel


@cpu_kernel
def _columns_cpu(wide: Any, narrow: Any, n: int, channels: Any) -> None:
    """Write the sums of neighbours in a row of `n` pixels; an odd last one has no neighbour."""
    half = n // 2
    if channels == 1:
        for x in range(half):
            narrow[x] = wide[2 * x] + wide[2 * x + 1]
    elif channels == 3:
        for x in range(half):
            narrow[3 * x] = wide[6 * x] + wide[6 * x + 3]
            narrow[3 * x + 1] = wide[6 * x + 1] + wide[6 * x + 4]
            narrow[3 * x + 2] = wide[6 * x + 2] + wide[6 * x + 5]
    elif channels == 4:
        for x in range(half):
            for ch in range(4):  # known, so that the loop is unrolled
                narrow[4 * x + ch] = wide[8 * x + ch] + wide[8 * x + 4 + ch]
    else:
        for k in range(half * channels):
            first = k + k // channels * channels
            narrow[k] = wide[first] + wide[first + channels]
    if n % 2:
        narrow[half * channels : (half + 1) * channels] = wide[(n - 1) * channels : n * channels]


@cpu_kernel
def _rows_cpu(flat: Any, first: int, second: int, total: Any) -> None:
    """Write the sums of two rows of samples, or the only one where `second` is negative."""
    n = total.size
    above = flat[first : first + n]
    if second < 0:
        for k in range(n):
            total[k] = above[k]
        return
    below = flat[second : second + n]
    for k in range(n):
        total[k] = total.dtype.type(above[k]) + total.dtype.type(below[k])


@cpu_kernel
def _halve_cpu(wide: Any, rows: int, n: int, channels: Any, line: Any, narrow: Any) -> None:
    """Write the sums of 2×2 from `rows` rows of sums of `n` pixels."""
    step, narrow_step = n * channels, (n + 1) // 2 * channels
    for y in range((rows + 1) // 2):
        below = (2 * y + 1) * step if 2 * y + 1 < rows else -1
        _rows_cpu(wide, 2 * y * step, below, line[:step])
        _columns_cpu(line, narrow[y * narrow_step : (y + 1) * narrow_step], n, channels)


@cpu_kernel
def _far_rows_cpu(flat: Any, first: int, second: int, steps: Any, channels: int, total: Any) -> None:
    """Do what `_rows_cpu` does where samples lie apart."""
    for x in range(total.size // channels):
        for ch in range(channels):
            at = x * steps[3] + ch * steps[1]
            value = total.dtype.type(flat[first + at])
            total[x * channels + ch] = value + total.dtype.type(flat[second + at]) if second >= 0 else value


@core
def _shift_core(total: Any, shift: int) -> Any:
    """Return a sum of 16 bits over 2^shift, ties to even: 255·2⁸ and what is added to it still fit 16 bits."""
    rest = np.uint16((1 << (shift - 1)) - 1)
    return np.uint16(total + rest + ((total >> np.uint16(shift)) & np.uint16(1))) >> np.uint16(shift)


@cpu_kernel
def _shifted_cpu(sums: Any, count: int, out: Any) -> None:
    """Write means of unsigned sums of 16 bits over 4, 16, 64 or 256: constants, so that lanes stay 16 bits wide."""
    n = out.size
    if count == 4:
        for k in range(n):
            out[k] = _shift_core(np.uint16(sums[k]), 2)
    elif count == 16:
        for k in range(n):
            out[k] = _shift_core(np.uint16(sums[k]), 4)
    elif count == 64:
        for k in range(n):
            out[k] = _shift_core(np.uint16(sums[k]), 6)
    else:
        for k in range(n):
            out[k] = _shift_core(np.uint16(sums[k]), 8)


@cpu_kernel
def _means_cpu(sums: Any, full: int, count: int, last: int, how: Any, out: Any) -> None:
    """Write the means of samples of which the first `full` have `count` pixels under them, the others `last`."""
    scales, integer, _, short = how
    work = scales.dtype.type
    if short and count & (count - 1) == 0 and count & 0x154:
        _shifted_cpu(sums, count, out[:full])
    elif count & (count - 1) == 0:
        scale = work(1) / work(count)
        if integer:
            for k in range(full):
                out[k] = np.rint(work(sums[k]) * scale)
        else:
            for k in range(full):
                out[k] = sums[k] * scale
    else:
        for k in range(full):
            mean = work(sums[k]) / work(count)
            out[k] = np.rint(mean) if integer else mean
    for k in range(full, out.size):
        mean = work(sums[k]) / work(last)
        out[k] = np.rint(mean) if integer else mean


@cpu_kernel
def _masked_means_cpu(sums: Any, counts: Any, channels: int, how: Any, out: Any) -> None:
    """Write the means of pixels with a count each, and what stands for none where it is 0."""
    scales, integer, fill, _ = how
    work = scales.dtype.type
    for x in range(counts.size):
        if counts[x] == 0:
            out[x * channels : (x + 1) * channels] = fill[0]
            continue
        for ch in range(channels):
            mean = work(sums[x * channels + ch]) / work(counts[x])
            out[x * channels + ch] = np.rint(mean) if integer else mean


@cpu_kernel
def _level_cpu(job: Any, level: int, sums: Any, counts: Any, how: Any, run: Any, at: Any, line: Any) -> None:
    """Write the means of one level of a job; no counts where all its pixels are valid."""
    y0, rows, x0, x1, channels = job
    n, full = (x1 - x0 + (1 << level) - 1) >> level, (x1 - x0) >> level
    rest = (x1 - x0) - (full << level)
    together = (channels == 1 or at[1] == 1) and at[3] == channels
    for y in range((rows + (1 << level) - 1) >> level):
        first = at[0] + ((y0 >> level) + y) * at[2] + (x0 >> level) * at[3]
        total = sums[y * n * channels : (y + 1) * n * channels]
        out = run[first : first + n * channels] if together else line[: n * channels]
        if counts.size:
            _masked_means_cpu(total, counts[y * n : (y + 1) * n], channels, how, out)
        else:
            under = min(1 << level, rows - (y << level))
            _means_cpu(total, full * channels, under << level, under * rest, how, out)
        if not together:
            for x in range(n):
                for ch in range(channels):
                    run[first + x * at[3] + ch * at[1]] = out[x * channels + ch]


@cpu_kernel
def _validity_cpu(job: Any, level: int, counts: Any, run: Any, at: Any) -> None:
    """Write whether anything valid lies under each pixel of one level of a job; no counts where all is."""
    y0, rows, x0, x1, _ = job
    n = (x1 - x0 + (1 << level) - 1) >> level
    for y in range((rows + (1 << level) - 1) >> level):
        first = at[0] + ((y0 >> level) + y) * at[1] + (x0 >> level) * at[2]
        for x in range(n):
            run[first + x * at[2]] = counts.size == 0 or counts[y * n + x] > 0


@cpu_kernel
def _levels_cpu(place: Any, levels: int, sums: Any, counts: Any, lines: Any, to: Any) -> None:
    """Bring sums of 2×2 up all levels and write the means of each."""
    image, plane, y0, rows, x0, x1, channels = place
    outs, geometry, valids, valid_geometry, how, row = to
    line, count_line = lines
    job = (y0, rows, x0, x1, channels)
    first, first_count = 0, 0
    for level in range(1, levels + 1):
        h, w = (rows + (1 << level) - 1) >> level, (x1 - x0 + (1 << level) - 1) >> level
        size, count_size = h * w * channels, h * w if counts.size else 0
        here, here_counts = sums[first : first + size], counts[first_count : first_count + count_size]
        g = geometry[level - 1]
        at = (g[0] + image * g[1] + plane * g[2], g[2], g[3], g[4])
        _level_cpu(job, level, here, here_counts, how, outs[level - 1], at, row)
        if valid_geometry.size and plane == 0:
            v = valid_geometry[level - 1]
            _validity_cpu(job, level, here_counts, valids[level - 1], (v[0] + image * v[1], v[2], v[3]))
        first += size
        first_count += count_size
        if level < levels:
            _halve_cpu(here, h, w, channels, line, sums[first:])
            if count_size:
                _halve_cpu(here_counts, h, w, np.int64(1), count_line, counts[first_count:])


@cpu_kernel
def _dense_cpu(source: Any, job: Any, plane: Any, channels: int, rows: int, scratch: Any) -> bool:
    """Write the sums of 2×2 of a job whose pixels are all valid; return whether they are finite."""
    flat, start, steps = source
    image, y0, x0, x1 = job
    line, sums, _, _, _ = scratch
    width = x1 - x0
    n, narrow = width * channels, (width + 1) // 2 * channels
    together = (channels == 1 or steps[1] == 1) and steps[3] == channels
    for y in range((rows + 1) // 2):
        first = start + image * steps[0] + plane * steps[1] + (y0 + 2 * y) * steps[2] + x0 * steps[3]
        second = -1 if 2 * y + 1 == rows else first + steps[2]
        if together:
            _rows_cpu(flat, first, second, line[:n])
        else:
            _far_rows_cpu(flat, first, second, steps, channels, line[:n])
        _columns_cpu(line, sums[y * narrow : (y + 1) * narrow], width, channels)
    finite = True
    for k in range((rows + 1) // 2 * narrow):
        finite &= np.isfinite(sums[k])
    return finite


@cpu_kernel
def _valid_row_cpu(source: Any, mask: Any, rule: Any, place: Any, n_channels: int, row: Any) -> None:
    """Write 1 for every valid pixel of a row: by the mask, finite, and not the value that says otherwise."""
    flat, start, steps = source
    valid, valid_start, valid_steps, masked = mask
    nodata, has_nodata, floating = rule
    image, y, x0 = place
    first = start + image * steps[0] + y * steps[2] + x0 * steps[3]
    valid_first = valid_start + image * valid_steps[0] + y * valid_steps[1] + x0 * valid_steps[2]
    for x in range(row.size):
        good = not masked or valid[valid_first + x * valid_steps[2]] != 0
        if good and floating:
            for ch in range(n_channels):
                good &= np.isfinite(flat[first + x * steps[3] + ch * steps[1]])
        if good and has_nodata:
            other = False
            for ch in range(n_channels):
                other |= flat[first + x * steps[3] + ch * steps[1]] != nodata[0]
            good = other
        row[x] = good


@cpu_kernel
def _masked_row_cpu(source: Any, first: int, weights: Any, channels: int, line: Any, count_line: Any) -> None:
    """Add the valid pixels of a row to a row of sums, and count them."""
    flat, _, steps = source
    for x in range(weights.size):
        if weights[x]:
            count_line[x] += 1
            for ch in range(channels):
                line[x * channels + ch] += flat[first + x * steps[3] + ch * steps[1]]


@cpu_kernel
def _masked_cpu(source: Any, job: Any, plane: Any, channels: int, rows: int, scratch: Any) -> None:
    """Write the sums of 2×2 of a job and how many pixels are in them, by the weights of its pixels."""
    _, start, steps = source
    image, y0, x0, x1 = job
    line, sums, count_line, counts, weights = scratch
    width = x1 - x0
    half = (width + 1) // 2
    for y in range((rows + 1) // 2):
        line[: width * channels] = -0.0  # of floats, so that a sum of negative zeros stays one as it does above
        count_line[:width] = 0
        for row in range(2 * y, min(2 * y + 2, rows)):
            first = start + image * steps[0] + plane * steps[1] + (y0 + row) * steps[2] + x0 * steps[3]
            _masked_row_cpu(source, first, weights[row, :width], channels, line, count_line)
        _columns_cpu(line, sums[y * half * channels : (y + 1) * half * channels], width, channels)
        _columns_cpu(count_line, counts[y * half : (y + 1) * half], width, np.int64(1))


@cpu_kernel
def _all_valid_cpu(mask: Any, job: Any, rows: int) -> bool:
    """Return whether every pixel of a job is valid by the mask."""
    valid, start, steps, masked = mask
    image, y0, x0, x1 = job
    if not masked:
        return True
    for y in range(y0, y0 + rows):
        first = start + image * steps[0] + y * steps[1] + x0 * steps[2]
        good = True
        for x in range(x1 - x0):
            good &= valid[first + x * steps[2]] != 0
        if not good:
            return False
    return True


@cpu_kernel
def reduce_cpu(source: Any, mask: Any, rule: Any, shape: Any, jobs: Any, band: Any, scratch: Any, to: Any) -> None:
    """Write all levels of some jobs, which share no output pixel.

    Parameters
    ----------
    source : tuple
        Flat samples, start, and steps of image, channel, row and pixel.
    mask : tuple
        Flat bytes, start, steps of image, row and pixel, and whether to look at them.
    rule : tuple
        One sample that marks invalid pixels, whether it does, and whether samples can be other than finite.
    shape : tuple of int
        Planes that are reduced one by one, channels that lie together in each, height, levels.
    jobs : ndarray of int64
        `(n, 4)`: image, first row, first column, column after the last; the first ones multiples of 2^levels.
    band : tuple of int
        First job, and the one after the last.
    scratch : tuple of ndarray
        A line of sums and the sums of a job, a line of counts and those of a job, of the same type so that less is
        compiled, and `(2^levels, width)` weights.
    to : tuple
        Per level flat outputs and their geometry, flat validity and its geometry, how means are rounded, and a row.
    """
    planes, channels, height, levels = shape
    line, sums, count_line, counts, weights = scratch
    for index in range(band[0], band[1]):
        image, y0, x0, x1 = jobs[index]
        job = (image, y0, x0, x1)
        rows = min(1 << levels, height - y0)
        masked = rule[1] or not _all_valid_cpu(mask, job, rows)
        plane, weighed = np.int64(0), False
        while plane < planes:
            if masked and not weighed:
                for y in range(rows):
                    _valid_row_cpu(source, mask, rule, (image, y0 + y, x0), planes * channels, weights[y, : x1 - x0])
                weighed = True
            if masked:
                _masked_cpu(source, job, plane, channels, rows, scratch)
            elif not _dense_cpu(source, job, plane, channels, rows, scratch):
                masked, plane = True, np.int64(0)
                continue
            place = (image, plane, y0, rows, x0, x1, channels)
            _levels_cpu(place, levels, sums, counts if masked else counts[:0], (line, count_line), to)
            plane += 1
