"""Area-weighted means, one output row after the other: how the CPU resamples (see `tilestream.kernels.resample`).

The stored rows under an output row are added into one row of column sums, whose weighted sums are its pixels.
Tolerances are those of `tilestream.kernels.resample`.
"""

from __future__ import annotations

from typing import Any

from tilestream.kernels.language import cpu_kernel
from tilestream.kernels.rounding import mean_core


@cpu_kernel
def _add_row(row: Any, wy: int, valid: Any, at: int, step: int, masked: bool, sums: Any, weights: Any) -> None:
    """Add one stored row `(width·c,)` to the column sums."""
    n = row.shape[0]
    if not masked:
        for k in range(n):
            sums[k] += wy * row[k]
        return
    width = weights.shape[0]
    channels = n // width
    for x in range(width):
        if valid[at + x * step]:
            weights[x] += wy
            for ch in range(channels):
                sums[x * channels + ch] += wy * row[x * channels + ch]


@cpu_kernel
def _gather(flat: Any, start: int, steps: Any, channels: int, row: Any) -> None:
    """Copy one row of any strides."""
    if steps[1] == 1 and channels == 3:
        red, green, blue = start, start + steps[2], start + 2 * steps[2]
        for x in range(row.shape[0] // 3):
            row[3 * x] = flat[red + x]
            row[3 * x + 1] = flat[green + x]
            row[3 * x + 2] = flat[blue + x]
        return
    k = 0
    for x in range(row.shape[0] // channels):
        for ch in range(channels):
            row[k] = flat[start + x * steps[1] + ch * steps[2]]
            k += 1


@cpu_kernel
def _column_cpu(source: Any, mask: Any, first: int, weight_y: Any, scratch: Any) -> int:
    """Add the stored rows under one output row into the sums; return the weight of a row that is valid throughout."""
    flat, start, steps, width, channels, interleaved = source
    valid, valid_start, valid_steps, masked = mask
    sums, weights, rows, held = scratch
    n = width * channels
    total = 0
    sums[:n] = 0
    if masked:
        weights[:width] = 0
    for t in range(weight_y.shape[0]):
        wy = weight_y[t]
        if wy == 0:
            continue
        total += wy
        y = first + t
        at = valid_start + y * valid_steps[0]
        begin = start + y * steps[0]
        if interleaved and not masked:
            row = flat[begin : begin + n]
            for k in range(n):
                sums[k] += wy * row[k]
            continue
        if interleaved:
            _add_row(flat[begin : begin + n], wy, valid, at, valid_steps[1], masked, sums, weights[:width])
            continue
        # the last row under one output pixel is often the first under the next
        if held[y % 2] != y:
            _gather(flat, begin, steps, channels, rows[y % 2])
            held[y % 2] = y
        _add_row(rows[y % 2], wy, valid, at, valid_steps[1], masked, sums, weights[:width])
    return total


@cpu_kernel
def _row_cpu(sums: Any, wy: int, taps_x: Any, how: int, out: Any, out_valid: Any) -> None:
    """Write one output row from column sums that are valid throughout."""
    first_x, weight_x = taps_x
    width, channels = out.shape
    for ox in range(width):
        i = first_x[ox]
        weight = 0
        for t in range(weight_x.shape[1]):
            weight += weight_x[ox, t]
        weight *= wy
        out_valid[ox] = weight > 0
        for ch in range(channels):
            total = sums[0] * 0
            for t in range(weight_x.shape[1]):
                total += weight_x[ox, t] * sums[(i + t) * channels + ch]
            out[ox, ch] = mean_core(total, weight, how) if weight > 0 else 0


@cpu_kernel
def _row_rgb_cpu(sums: Any, wy: int, taps_x: Any, how: int, out: Any, out_valid: Any) -> None:
    """Do what `_row_cpu` does for three channels, which share the loop over the weights."""
    first_x, weight_x = taps_x
    for ox in range(out.shape[0]):
        k = first_x[ox] * 3
        weight = 0
        red = green = blue = sums[0] * 0
        for t in range(weight_x.shape[1]):
            w = weight_x[ox, t]
            weight += w
            red += w * sums[k]
            green += w * sums[k + 1]
            blue += w * sums[k + 2]
            k += 3
        weight *= wy
        out_valid[ox] = weight > 0
        if weight > 0:
            out[ox, 0] = mean_core(red, weight, how)
            out[ox, 1] = mean_core(green, weight, how)
            out[ox, 2] = mean_core(blue, weight, how)
        else:
            out[ox, :] = 0


@cpu_kernel
def _row_masked_cpu(sums: Any, weights: Any, taps_x: Any, how: int, out: Any, out_valid: Any) -> None:
    """Write one output row from column sums with a weight each."""
    first_x, weight_x = taps_x
    width, channels = out.shape
    for ox in range(width):
        i = first_x[ox]
        weight = 0
        for t in range(weight_x.shape[1]):
            weight += weight_x[ox, t] * weights[i + t]
        out_valid[ox] = weight > 0
        for ch in range(channels):
            total = sums[0] * 0
            for t in range(weight_x.shape[1]):
                total += weight_x[ox, t] * sums[(i + t) * channels + ch]
            out[ox, ch] = mean_core(total, weight, how) if weight > 0 else 0


@cpu_kernel
def resample_rows(
    source: Any, mask: Any, taps_y: Any, taps_x: Any, scratch: Any, how: int, band: Any, out: Any, out_valid: Any
) -> None:
    """Write a band of output rows.

    Parameters
    ----------
    source : tuple
        Stored samples as `tilestream.kernels.rows.flat_view` returns them, width, channels, and whether the samples of
        a row lie side by side.
    mask : tuple
        Validity of the stored pixels in the same form, and whether to look at it.
    taps_y, taps_x : tuple
        What `tilestream.kernels.taps.taps` returns for each axis.
    scratch : tuple
        Sums of the columns, their weights, two rows of samples, and which stored rows those hold (-1: none).
    how : int
        What `tilestream.kernels.rounding.rounding_of` says.
    band : tuple of int
        First output row, and the one after the last.
    out, out_valid : ndarray
        `(y, x, c)` and `(y, x)`.
    """
    channels, masked = source[4], mask[3]
    first_y, weight_y = taps_y
    sums, weights = scratch[0], scratch[1]
    for oy in range(band[0], band[1]):
        wy = _column_cpu(source, mask, first_y[oy], weight_y[oy], scratch)
        if masked:
            _row_masked_cpu(sums, weights, taps_x, how, out[oy], out_valid[oy])
        elif channels == 3:
            _row_rgb_cpu(sums, wy, taps_x, how, out[oy], out_valid[oy])
        else:
            _row_cpu(sums, wy, taps_x, how, out[oy], out_valid[oy])
