"""The CPU form of `gather`: two rows of texels become one, which is then read at the columns of the samples.

Between rows there are as many texels as a row of the token spans, contiguous where pixels are, so that the first half
runs at the speed of memory; the second half is p gathers a channel from a row that the first-level cache holds. A token
that lies on texels of one level is copied, to the same bits, in a fifth of the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.float16 import half_code_core
from tilestream.kernels.language import cpu_kernel
from tilestream.kernels.lattice import BITS, lattice_core, tap_core
from tilestream.kernels.leveltable import COLUMNS, STEP_C, X, Y
from tilestream.kernels.texel import level_core

SPARSE = 4
"""From this many texels a sample on, the columns between samples are not looked at."""


@cpu_kernel
def _between(flat: Any, halves: Any, upper: Any, lower: Any, t: Any, out: Any) -> None:
    """Write the mean of two contiguous runs of texels."""
    a, b = flat[upper : upper + out.shape[0]], flat[lower : lower + out.shape[0]]
    if halves.size > 1:
        for k in range(out.shape[0]):
            first = halves[np.uint64(a[k])]
            out[k] = first + t * (halves[np.uint64(b[k])] - first)
        return
    if t == 0:
        for k in range(out.shape[0]):
            out[k] = np.float32(a[k])
        return
    for k in range(out.shape[0]):
        out[k] = np.float32(a[k]) + t * (np.float32(b[k]) - np.float32(a[k]))


@cpu_kernel
def _between_at(flat: Any, halves: Any, upper: Any, lower: Any, t: Any, columns: Any, out: Any) -> None:
    """Write the mean of two rows of texels at some columns."""
    for k in range(out.shape[0]):
        a, b = flat[upper + columns[k]], flat[lower + columns[k]]
        if halves.size > 1:
            first = halves[np.uint64(a)]
            out[k] = first + t * (halves[np.uint64(b)] - first)
        else:
            out[k] = np.float32(a) + t * (np.float32(b) - np.float32(a))


@cpu_kernel
def _read_row(row: Any, taps: Any, out: Any) -> None:
    """Write a row of texels at the columns of samples."""
    near, far, weights = taps
    for i in range(out.shape[0]):
        k = near[i]
        out[i] = row[k] + weights[i] * (row[far[i]] - row[k])


@cpu_kernel
def _mix_row(row: Any, taps: Any, share: Any, out: Any) -> None:
    """Do the same, and blend it with what is there."""
    near, far, weights = taps
    for i in range(out.shape[0]):
        k = near[i]
        out[i] += share * (row[k] + weights[i] * (row[far[i]] - row[k]) - out[i])


@cpu_kernel
def _three_channels(fine: Any, coarse: Any, share: Any, affine: Any, red: Any, green: Any, blue: Any) -> None:
    """Write rows of three channels together, which takes two thirds of the time: they share places and weights."""
    row_0, step_0, near_0, far_0, weights_0 = fine
    row_1, step_1, near_1, far_1, weights_1 = coarse
    for i in range(red.shape[0]):
        a, b, t = near_0[i], far_0[i], weights_0[i]
        c, d, s = near_1[i], far_1[i], weights_1[i]
        fine_r = row_0[a] + t * (row_0[b] - row_0[a])
        coarse_r = row_1[c] + s * (row_1[d] - row_1[c])
        a, b, c, d = a + step_0, b + step_0, c + step_1, d + step_1
        fine_g = row_0[a] + t * (row_0[b] - row_0[a])
        coarse_g = row_1[c] + s * (row_1[d] - row_1[c])
        a, b, c, d = a + step_0, b + step_0, c + step_1, d + step_1
        fine_b = row_0[a] + t * (row_0[b] - row_0[a])
        coarse_b = row_1[c] + s * (row_1[d] - row_1[c])
        red[i] = (fine_r + share * (coarse_r - fine_r)) * affine[0] + affine[1]
        green[i] = (fine_g + share * (coarse_g - fine_g)) * affine[2] + affine[3]
        blue[i] = (fine_b + share * (coarse_b - fine_b)) * affine[4] + affine[5]


@cpu_kernel
def _store(line: Any, gain: Any, offset: Any, half: Any, out: Any) -> None:
    """Write a row of normalised samples."""
    if half:
        for i in range(out.shape[0]):
            out[i] = half_code_core(line[i] * gain + offset)
    else:
        for i in range(out.shape[0]):
            out[i] = line[i] * gain + offset


@cpu_kernel
def _columns(table: Any, read: Any, token: Any, patch: Any, channels: Any, near: Any, far: Any, weights: Any) -> Any:
    """Fill the columns of the samples in a window of a level; return what the window is.

    Returns the offset of its first column, its width, the steps of channel and column in a row that was blended, and
    the columns to be looked at one by one, none where the window is contiguous.
    """
    k = read * COLUMNS
    step, last = table[k + X], table[k + X + 1] - 1
    first, stride = lattice_core(token[2], token[3], patch, table[k + X + 2], table[k + X + 3])
    left, _, _ = tap_core(first, last)
    _, right, _ = tap_core(first + (patch - 1) * stride, last)
    interleaved = table[k + STEP_C] == 1 and step == channels
    dense = (interleaved or step == 1) and right - left < SPARSE * patch
    listed = np.empty(0 if dense else 2 * patch, np.int64)
    width = right - left + 1 if dense else 2 * patch
    row_step = channels if interleaved and dense else 1
    for i in range(patch):
        one, two, t = tap_core(first + i * stride, last)
        near[i] = (one - left) * row_step if dense else 2 * i
        far[i] = (two - left) * row_step if dense else 2 * i + 1
        if not dense:
            listed[2 * i] = one * step
            listed[2 * i + 1] = two * step
        weights[i] = t
    return (left * step if dense else 0), width, (1 if row_step > 1 else width), row_step, listed


@cpu_kernel
def _blend_rows(flat: Any, halves: Any, table: Any, read: Any, lattice: Any, j: Any, window: Any, row: Any) -> None:
    """Write the row of a level that output row j lies on, all channels."""
    first_column, width, row_c, row_x, listed = window
    k = read * COLUMNS
    y0, y1, t = tap_core(lattice[0] + j * lattice[1], table[k + Y + 1] - 1)
    upper = table[k] + y0 * table[k + Y] + first_column
    lower = table[k] + y1 * table[k + Y] + first_column
    channels = row.shape[0] // width
    if row_x > 1:
        _between(flat, halves, upper, lower, t, row)
        return
    for ch in range(channels):
        shift = ch * table[k + STEP_C]
        part = row[ch * row_c : ch * row_c + width]
        if listed.shape[0] > 0:
            _between_at(flat, halves, upper + shift, lower + shift, t, listed, part)
        else:
            _between(flat, halves, upper + shift, lower + shift, t, part)


@cpu_kernel
def _on_texels(table: Any, read: Any, token: Any, patch: Any) -> Any:
    """Return whether the samples of a token are texels inside of a level, and where the first one lies in it."""
    k = read * COLUMNS
    one = np.int64(1) << BITS
    y, step_y = lattice_core(token[1], token[3], patch, table[k + Y + 2], table[k + Y + 3])
    x, step_x = lattice_core(token[2], token[3], patch, table[k + X + 2], table[k + X + 3])
    whole = step_y == one and step_x == one and y & (one - 1) == 0 and x & (one - 1) == 0
    y, x = y >> BITS, x >> BITS
    inside = y >= 0 and x >= 0 and y + patch <= table[k + Y + 1] and x + patch <= table[k + X + 1]
    return whole and inside, table[k] + y * table[k + Y] + x * table[k + X]


@cpu_kernel
def _copied(texel: Any, gain: Any, offset: Any) -> Any:
    """Return a normalised sample, to the bits of a mean of which the other part has no weight: infinity is none."""
    value = np.float32(texel)
    return (value + np.float32(0) * (value - value)) * gain + offset


@cpu_kernel
def _copy_rgb(flat: Any, start: Any, affine: Any, red: Any, green: Any, blue: Any) -> None:
    """Write a row of interleaved texels of three channels."""
    row = flat[start : start + 3 * red.shape[0]]
    a, b, c, d, e, f = affine[0], affine[1], affine[2], affine[3], affine[4], affine[5]
    for i in range(red.shape[0]):
        red[i] = _copied(row[3 * i], a, b)
        green[i] = _copied(row[3 * i + 1], c, d)
        blue[i] = _copied(row[3 * i + 2], e, f)


@cpu_kernel
def _copy_token(flat: Any, start: Any, table: Any, affine: Any, patch: Any, lines: Any, half: Any, out: Any) -> None:
    """Write a token that lies on texels; `out` is its part of the batch, `table` the part of its level."""
    channels = out.shape[0] // (patch * patch)
    step_y, step_x, step_c = table[Y], table[X], table[STEP_C]
    rgb = channels == 3 and step_c == 1 and step_x == 3
    for j in range(patch):
        if rgb and not half:
            red, green, blue = (
                out[j * patch : (j + 1) * patch],
                out[(patch + j) * patch : (patch + j + 1) * patch],
                out[(2 * patch + j) * patch : (2 * patch + j + 1) * patch],
            )
            _copy_rgb(flat, start + j * step_y, affine, red, green, blue)
            continue
        for ch in range(channels):
            first = start + j * step_y + ch * step_c
            target = out[(ch * patch + j) * patch : (ch * patch + j + 1) * patch]
            line = lines[0]
            for i in range(patch):
                line[i] = _copied(flat[first + i * step_x], affine[2 * ch], affine[2 * ch + 1])
            _store(line, np.float32(1), np.float32(0), half, target)


@cpu_kernel
def gather_cpu(
    flat: Any, halves: Any, table: Any, tokens: Any, affine: Any, shape: Any, half: Any, band: Any, out: Any
) -> None:
    """Write the tokens of a band."""
    token_flat, token_start, token_steps = tokens
    channels, patch = shape
    near, far = np.empty((2, patch), np.uint64), np.empty((2, patch), np.uint64)
    weights = np.empty((2, patch), np.float32)
    line, lines = np.empty(patch, np.float32), np.empty((3, patch), np.float32)
    same = np.array([1.0, 0.0], np.float32)
    for n in range(band[0], band[1]):
        m = token_start + n * token_steps[0]
        token = (
            np.float64(token_flat[m]), np.float64(token_flat[m + token_steps[1]]),
            np.float64(token_flat[m + 2 * token_steps[1]]), np.float64(token_flat[m + 3 * token_steps[1]]),
        )  # fmt: skip
        finer, share = level_core(token[0], table.size // COLUMNS, np.float64, np.float32)
        coarser = finer + (share > 0)
        if share == 0 and halves.size <= 1:
            copied, start = _on_texels(table, finer, token, patch)
            if copied:
                part = out[n * channels * patch * patch : (n + 1) * channels * patch * patch]
                level = table[finer * COLUMNS : (finer + 1) * COLUMNS]
                _copy_token(flat, start, level, affine, patch, lines, half, part)
                continue
        window_0 = _columns(table, finer, token, patch, channels, near[0], far[0], weights[0])
        window_1 = _columns(table, coarser, token, patch, channels, near[1], far[1], weights[1])
        k0, k1 = finer * COLUMNS + Y, coarser * COLUMNS + Y
        lattice_0 = lattice_core(token[1], token[3], patch, table[k0 + 2], table[k0 + 3])
        lattice_1 = lattice_core(token[1], token[3], patch, table[k1 + 2], table[k1 + 3])
        row_0 = np.empty(window_0[1] * channels, np.float32)
        row_1 = np.empty(window_1[1] * channels, np.float32)
        fine = row_0, np.uint64(window_0[2]), near[0], far[0], weights[0]
        coarse = row_1, np.uint64(window_1[2]), near[1], far[1], weights[1]
        for j in range(patch):
            _blend_rows(flat, halves, table, finer, lattice_0, j, window_0, row_0)
            if share > 0:
                _blend_rows(flat, halves, table, coarser, lattice_1, j, window_1, row_1)
            first = (n * channels * patch + j) * patch
            if channels == 3 and share > 0:
                plane = patch * patch
                red, green, blue = (
                    out[first : first + patch],
                    out[first + plane : first + plane + patch],
                    out[first + 2 * plane : first + 2 * plane + patch],
                )
                if half:
                    _three_channels(fine, coarse, share, affine, lines[0], lines[1], lines[2])
                    _store(lines[0], same[0], same[1], half, red)
                    _store(lines[1], same[0], same[1], half, green)
                    _store(lines[2], same[0], same[1], half, blue)
                else:
                    _three_channels(fine, coarse, share, affine, red, green, blue)
                continue
            for ch in range(channels):
                _read_row(row_0[ch * window_0[2] :], (near[0], far[0], weights[0]), line)
                if share > 0:
                    _mix_row(row_1[ch * window_1[2] :], (near[1], far[1], weights[1]), share, line)
                _store(line, affine[2 * ch], affine[2 * ch + 1], half, out[first : first + patch])
                first += patch * patch
