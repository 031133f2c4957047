"""The integer decoder of the pyramid codec, written once more: slow, in int64 and in the order of its definition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tilestream.codecs.pyramid.nets import FEATURE_BITS, FEATURE_MOST, FILTER_BITS, PIXEL_MOST, Layer, PyramidNets

Ints = npt.NDArray[np.int64]
Grids = Sequence[npt.NDArray[np.int16]]


def rounded(sums: Ints, shift: int) -> Ints:
    return (sums + (1 << (shift - 1))) >> shift


def clipped(values: Ints) -> Ints:
    return np.clip(values, -FEATURE_MOST, FEATURE_MOST)


def through(layer: Layer, values: Ints) -> Ints:
    """Return what a layer gives for values of features first, any axes behind."""
    sums = np.tensordot(layer.weights.astype(np.int64), values, axes=1)
    assert np.abs(sums).max(initial=0) < 2**31
    return rounded(sums + layer.bias.reshape(-1, *[1] * (values.ndim - 1)), layer.shift)


def raised_rows(values: Ints, taps: Ints, size: int) -> Ints:
    """Return channels whose axis 1 is raised to `size`."""
    n = values.shape[1]
    found = np.zeros((values.shape[0], size, *values.shape[2:]), np.int64)
    for to in range(size):
        i = to // 2
        for k in range(4):
            tap, source = (taps[k], i - 1 + k) if to % 2 else (taps[3 - k], i - 2 + k)
            found[:, to] += tap * values[:, min(max(source, 0), n - 1)]
    return clipped(rounded(found, FILTER_BITS))


def raised(grids: Grids, nets: PyramidNets, level: int) -> Ints:
    """Return the grids from a level on at the size of its grid, finest first."""
    found = grids[-1][None].astype(np.int64) << FEATURE_BITS
    for number in range(len(grids) - 2, level - 1, -1):
        height, width = grids[number].shape
        taps = nets.filters[number].astype(np.int64)
        found = raised_rows(found, taps, height)
        found = raised_rows(found.transpose(0, 2, 1), taps, width).transpose(0, 2, 1)
        found = np.concatenate([grids[number][None].astype(np.int64) << FEATURE_BITS, found])
    return found


def synthesis(grids: Grids, nets: PyramidNets, level: int) -> Ints:
    """Return the channels of a level before they are clamped to pixels."""
    net, grids_raised = nets.synth[level], raised(grids, nets, level)
    hidden = np.clip(through(net.first, grids_raised), 0, FEATURE_MOST)
    values = clipped(through(net.second, np.concatenate([hidden, grids_raised])))
    for number, conv in enumerate(net.convs):
        _, height, width = values.shape
        padded = np.pad(values, ((0, 0), (1, 1), (1, 1)), mode="edge")
        windows = np.stack([padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=1)
        values = clipped(values + through(conv, windows.reshape(-1, height, width)))
        if number < len(net.convs) - 1:
            values = np.maximum(values, 0)
    return values


def pixels(values: Ints, low: int, high: int) -> Ints:
    """Return samples from low to high."""
    return low + (np.clip(values, 0, PIXEL_MOST) * (high - low) + PIXEL_MOST // 2) // PIXEL_MOST


def places(shape: tuple[int, int], turn: int) -> list[tuple[int, int]]:
    """Return the places of a pass in raster order."""
    passes = {(0, 0): 0, (1, 1): 1, (0, 1): 2, (1, 0): 2}
    return [(i, j) for i in range(shape[0]) for j in range(shape[1]) if passes[i % 2, j % 2] == turn]


def neighbours(grids: Grids, number: int, turn: int, i: int, j: int) -> list[int]:
    """Return the 9 inputs of a context at one place."""
    grid = grids[number]
    height, width = grid.shape

    def same(dy: int, dx: int) -> int:
        y, x = (i + dy if 0 <= i + dy < height else i - dy), (j + dx if 0 <= j + dx < width else j - dx)
        return int(grid[y, x]) if 0 <= y < height and 0 <= x < width else 0

    steps = (
        [],
        [(-1, -1), (-1, 1), (1, -1), (1, 1)],
        [(-1, 0), (1, 0), (0, -1), (0, 1)],
    )[turn]
    found = [same(*step) for step in steps] or [0] * 4
    if number + 1 < len(grids):
        coarser = grids[number + 1]
        near_y, near_x = (1 if i % 2 else -1), (1 if j % 2 else -1)
        for dy, dx in ((0, 0), (near_y, 0), (0, near_x), (near_y, near_x)):
            y, x = np.clip(i // 2 + dy, 0, coarser.shape[0] - 1), np.clip(j // 2 + dx, 0, coarser.shape[1] - 1)
            found.append(int(coarser[y, x]))
    else:
        found += [0] * 4
    found.append(int(grids[number + 2][i // 4, j // 4]) if number + 2 < len(grids) else 0)
    return found


def context(
    grids: Grids, number: int, turn: int, net: tuple[Layer, Layer, Layer]
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Return middles in 1/16 and indices of scales of the places of a pass."""
    at = places(grids[number].shape, turn)
    inputs = np.array([neighbours(grids, number, turn, i, j) for i, j in at], np.int64).reshape(-1, 9)
    values = inputs.T << FEATURE_BITS
    for layer in net[:2]:
        values = np.clip(through(layer, values), 0, FEATURE_MOST)
    middle, scale = through(net[2], values)
    return (
        np.clip(rounded(middle, 2), -4080, 4080).astype(np.int16),
        np.clip(rounded(scale, 4), 0, 63).astype(np.uint8),
    )
