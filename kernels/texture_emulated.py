"""The texture unit in Python, for Numba's simulator: what kernels ask of it can be tested without a device.

It filters as the CUDA C++ Programming Guide says ("Texture Fetching", "Linear Filtering"): weights have 8 bits after
the point, here rounded to nearest; anisotropic footprints follow EXT_texture_filter_anisotropic, which hardware is free
to vary. Textures and surfaces are known by numbers, as on a device.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

WEIGHT_STEPS = 256
"""Weights are whole numbers of 1/256."""


@dataclass(frozen=True, kw_only=True)
class EmulatedTexture:
    """A mipmapped array and how it is read."""

    levels: list[npt.NDArray[Any]]
    """`(y, x, lanes)`, in sizes that halve and are rounded down."""
    scale: float
    """What a stored sample is multiplied by when it is read: 1/255 for 8-bit codes."""
    max_anisotropy: int
    """Most probes of a footprint."""


_textures: dict[int, EmulatedTexture] = {}
_surfaces: dict[int, npt.NDArray[Any]] = {}
_numbers = itertools.count(1)


def add_texture(texture: EmulatedTexture) -> int:
    """Return the handle of a new texture."""
    handle = next(_numbers)
    _textures[handle] = texture
    return handle


def add_surface(level: npt.NDArray[Any]) -> int:
    """Return the handle of a new surface over `(y, x, lanes)` memory."""
    handle = next(_numbers)
    _surfaces[handle] = level
    return handle


def forget(handle: int) -> None:
    """Destroy a texture or a surface."""
    _textures.pop(handle, None)
    _surfaces.pop(handle, None)


def surf2d_write(
    surface: int, x: int, y: int, item_bytes: int, lanes: int, a: int, b: int, c: int, d: int
) -> int:  # fmt: skip
    """Store the bits of one texel."""
    level = _surfaces[int(surface)]
    assert level.itemsize == item_bytes
    assert level.shape[2] == lanes
    level.view(f"u{item_bytes}")[y, x] = (a, b, c, d)[:lanes]
    return 0


def tex2d_lod(texture: int, u: float, v: float, level: float) -> tuple[np.float32, ...]:
    """Return four channels at u, v (0 to 1) and a level."""
    return _trilinear(_textures[int(texture)], float(u), float(v), float(level))


def tex2d_grad(
    texture: int, u: float, v: float, du_a: float, dv_a: float, du_b: float, dv_b: float
) -> tuple[np.float32, ...]:
    """Return four channels over the footprint that two steps span."""
    sampled = _textures[int(texture)]
    height, width, _ = sampled.levels[0].shape
    a, b = (float(du_a), float(dv_a)), (float(du_b), float(dv_b))
    length_a, length_b = math.hypot(a[0] * width, a[1] * height), math.hypot(b[0] * width, b[1] * height)
    (longer, major), shorter = ((length_a, a), length_b) if length_a >= length_b else ((length_b, b), length_a)
    if longer == 0:
        return _trilinear(sampled, float(u), float(v), 0.0)
    most = max(sampled.max_anisotropy, 1)
    probes = most if shorter * most <= longer else math.ceil(longer / shorter)
    level = math.log2(longer / probes)
    total = np.zeros(4)
    for i in range(1, probes + 1):
        along = i / (probes + 1) - 0.5
        total += _trilinear(sampled, float(u) + along * major[0], float(v) + along * major[1], level)
    return tuple(np.float32(value) for value in total / probes)


def _trilinear(texture: EmulatedTexture, u: float, v: float, level: float) -> tuple[np.float32, ...]:
    level = min(max(level, 0.0), len(texture.levels) - 1.0)
    finer = math.floor(level)
    share = _weight(level - finer)
    value = _bilinear(texture.levels[finer], u, v)
    if share:
        value = (1 - share) * value + share * _bilinear(texture.levels[finer + 1], u, v)
    texel = np.zeros(4)
    texel[: value.size] = value * texture.scale
    return tuple(np.float32(sample) for sample in texel)


def _bilinear(level: npt.NDArray[Any], u: float, v: float) -> npt.NDArray[np.float64]:
    rows, ty = _pair(v, level.shape[0])
    columns, tx = _pair(u, level.shape[1])
    near = level[np.ix_(rows, columns)].astype(np.float64)
    upper, lower = near[:, 0] * (1 - tx) + near[:, 1] * tx
    return np.asarray(upper * (1 - ty) + lower * ty)


def _pair(at: float, size: int) -> tuple[list[int], float]:
    """Return the two texels around a normalised coordinate, clamped to the edge, and the weight of the second."""
    place = min(max(at * size, -1.0), size + 1.0) - 0.5
    first = math.floor(place)
    return [min(max(first + k, 0), size - 1) for k in (0, 1)], _weight(place - first)


def _weight(fraction: float) -> float:
    return round(fraction * WEIGHT_STEPS) / WEIGHT_STEPS
