"""Hash grids and networks in slow NumPy, from the table of rules alone: what the kernels are compared with."""

import itertools
import math

import numpy as np

PRIMES = (1, 2654435761, 805459861)


def levels(grid):
    """Return scale, vertices, entries and first entry of every level."""
    found, first = [], 0
    for level in range(grid.levels):
        power = np.float32(2.0 ** float(np.float32(level) * np.float32(np.log2(grid.growth))))
        scale = np.float32(power * np.float32(grid.n_min)) - np.float32(1)
        vertices = math.ceil(scale) + 1
        size = min(-(-(vertices**grid.dims) // 8) * 8, 2**grid.log2_table)
        found.append((scale, vertices, size, first))
        first += size
    return found


def corners(grid, coords, level):
    """Return entries (n, 2^d), weights (n, 2^d) and their derivatives (n, 2^d, d) at one level."""
    scale, vertices, size, _ = levels(grid)[level]
    exact = coords.dtype.type(1)
    at = (np.float64(scale) * coords.astype(np.float64) + 0.5).astype(exact.dtype).astype(np.float64)
    cell = np.floor(at).astype(np.int64)
    rest = at - cell
    entries, weights, slopes = [], [], []
    for corner in itertools.product((0, 1), repeat=grid.dims):
        vertex = [(cell[:, d] + corner[d]) % 2**32 for d in range(grid.dims)]
        if vertices**grid.dims <= size:
            index = sum(v * vertices**d for d, v in enumerate(vertex)) % 2**32
        else:
            index = np.zeros(len(coords), np.int64)
            for v, prime in zip(vertex, PRIMES, strict=False):
                index ^= np.array([int(i) * prime % 2**32 for i in v], np.int64).reshape(index.shape)
        share = np.stack([rest[:, d] if corner[d] else 1 - rest[:, d] for d in range(grid.dims)], axis=1)
        slope = [
            np.prod(np.delete(share, d, axis=1), axis=1) * (1 if corner[d] else -1) * scale for d in range(grid.dims)
        ]
        entries.append(index % size)
        weights.append(share.prod(axis=1))
        slopes.append(np.stack(slope, axis=1))
    return np.stack(entries, 1), np.stack(weights, 1), np.stack(slopes, 1)


def encode(grid, coords, table, max_level=None):
    """Return features (n, L · F) in float64."""
    n = len(coords)
    found = np.zeros((n, grid.levels, grid.features))
    most = np.broadcast_to(np.inf if max_level is None else np.asarray(max_level, np.float64), (n,))
    for level, (_, _, _, first) in enumerate(levels(grid)):
        entries, weights, _ = corners(grid, coords, level)
        values = table.astype(np.float64)[first + entries]
        found[:, level] = np.einsum("nc,ncf->nf", weights, values) * (level <= most + 1e-4)[:, None]
    return found.reshape(n, -1)


def gradients(grid, coords, table, upstream, max_level=None):
    """Return the gradients to table and coordinates in float64."""
    to_table, to_coords = np.zeros(table.shape), np.zeros(coords.shape)
    most = np.broadcast_to(np.inf if max_level is None else np.asarray(max_level, np.float64), (len(coords),))
    split = upstream.astype(np.float64).reshape(len(coords), grid.levels, grid.features)
    for level, (_, _, _, first) in enumerate(levels(grid)):
        entries, weights, slopes = corners(grid, coords, level)
        part = split[:, level] * (level <= most + 1e-4)[:, None]
        np.add.at(to_table, first + entries, weights[:, :, None] * part[:, None])
        to_coords += np.einsum("ncd,ncf,nf->nd", slopes, table.astype(np.float64)[first + entries], part)
    return to_table, to_coords


def network(inputs, matrices, biases=None, activation=lambda z: np.maximum(z, 0)):
    """Return the outputs of a multilayer perceptron, by default ReLU between its layers, in float64."""
    value = inputs.astype(np.float64)
    for index, matrix in enumerate(matrices):
        value = value @ matrix.astype(np.float64).T
        if biases is not None:
            value = value + biases[index].astype(np.float64)
        if index < len(matrices) - 1:
            value = activation(value)
    return value
