"""Trilinear and anisotropic sampling of a pyramid by the texture unit of a GPU, beside the software samplers.

    sample_texture        one `tex2DLod` at (x/W, y/H, level), or two where levels round up: see `texture_memory`
    anisotropic_texture   one `tex2DGrad`: N trilinear probes along the longer of two gradients at level λ, by the rule
                          of `tilestream.kernels.footprint`, which hardware may vary

Positions, levels and results are those of `tilestream.kernels.sample` and `anisotropic`: px of level 0, texel centres
at +0.5, clamp to edge, true ratios s_l/s_0, level clamped to those there are. What differs is precision: the texture
unit weighs texels with fixed-point numbers of 8 bits after the point (CUDA C++ Programming Guide, "Linear Filtering"),
whatever the type of the texels. With Δ the contrast of the texels around a position and D that between the two levels,
the error is at most Δ/256 + D/512 where weights are rounded, and twice that where they are cut off; coordinates from 0
to 1 in float32 add 2^-24 of the edge in px, less than a step of the weights up to 32,768 px. Tolerance of the tests:
Δ/128 + D/256 and 1e-5 of the range. Of anisotropic footprints only what no choice of probes changes is tested.

Nothing uses a texture unless it is asked to. That it is faster is for `tests/gpu/bench_texture.py` to show.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need
from tilestream.kernels.constants import constant
from tilestream.kernels.language import core, cuda, cuda_kernel
from tilestream.kernels.place import Array, Place, device_of, empty_like, place
from tilestream.kernels.positions import Positions, Run, beside, positions
from tilestream.kernels.rows import flat_view
from tilestream.kernels.texture_memory import COLUMNS, Texture
from tilestream.kernels.texture_source import tex2d_grad, tex2d_lod

THREADS = 128
"""Of a block; each takes one position."""
_POSITIONS = "float32[::1], int64, UniTuple(int64, 3)"
_RESULT = "float32, UniTuple(int64, 3), float32[::1], int64, UniTuple(int64, 3)"


@core
def _clamped_core(level: Any, top: Any) -> Any:
    """Return a level that there is; what is not a number is level 0."""
    if not level > np.float32(0):
        level = np.float32(0)
    return min(level, np.float32(top))


@core
def _normal_core(at: Any, ratio: Any, size: Any, allocated: Any) -> Any:
    """Coordinate from 0 to 1 of a position of level 0 in a level of `size` px that has room for `allocated`."""
    u = at * ratio
    if not u > np.float32(0.5):
        u = np.float32(0.5)  # at the centre of the edge, where what lies beyond has no weight
    return min(u, size - np.float32(0.5)) / allocated


@cuda_kernel(
    f"void(uint64, UniTuple(float32, 2), int64, {_POSITIONS}, float32[::1], int64, UniTuple(int64, 2), {_RESULT})",
    cache=False,
)
def _sample_texture_cuda(
    texture: Any, size: Any, top: Any, at: Any, at_start: Any, at_steps: Any, level: Any, level_start: Any,
    level_steps: Any, scale: Any, shape: Any, out: Any, start: Any, steps: Any,
) -> None:  # fmt: skip
    """Fetch one position a thread."""
    i = cuda.grid(1)
    channels, height, width = shape
    if i < height * width:
        r, q = i // width, i % width
        k = at_start + r * at_steps[0] + q * at_steps[1]
        wanted = _clamped_core(level[level_start + r * level_steps[0] + q * level_steps[1]], top)
        texel = tex2d_lod(texture, at[k + at_steps[2]] / size[1], at[k] / size[0], wanted)
        first = start + r * steps[1] + q * steps[2]
        out[first] = scale * texel[0]
        if channels > 1:
            out[first + steps[0]] = scale * texel[1]
        if channels > 2:
            out[first + 2 * steps[0]] = scale * texel[2]
        if channels > 3:
            out[first + 3 * steps[0]] = scale * texel[3]


@cuda_kernel(
    f"void(uint64, float32[::1], int64, {_POSITIONS}, float32[::1], int64, UniTuple(int64, 2), {_RESULT})",
    cache=False,
)
def _sample_levels_cuda(
    texture: Any, table: Any, top: Any, at: Any, at_start: Any, at_steps: Any, level: Any, level_start: Any,
    level_steps: Any, scale: Any, shape: Any, out: Any, start: Any, steps: Any,
) -> None:  # fmt: skip
    """Fetch one position a thread from two levels, each at its own ratio."""
    i = cuda.grid(1)
    channels, height, width = shape
    if i < height * width:
        r, q = i // width, i % width
        k = at_start + r * at_steps[0] + q * at_steps[1]
        y, x = at[k], at[k + at_steps[2]]
        wanted = _clamped_core(level[level_start + r * level_steps[0] + q * level_steps[1]], top)
        finer = np.int64(math.floor(wanted))
        share = wanted - np.float32(finer)
        # the coarser level has no share in the last one
        near, far = finer * COLUMNS, min(finer + 1, top) * COLUMNS
        a = tex2d_lod(
            texture,
            _normal_core(x, table[near + 1], table[near + 3], table[near + 5]),
            _normal_core(y, table[near], table[near + 2], table[near + 4]),
            np.float32(finer),
        )
        b = tex2d_lod(
            texture,
            _normal_core(x, table[far + 1], table[far + 3], table[far + 5]),
            _normal_core(y, table[far], table[far + 2], table[far + 4]),
            np.float32(min(finer + 1, top)),
        )
        first = start + r * steps[1] + q * steps[2]
        out[first] = scale * (a[0] + share * (b[0] - a[0]))
        if channels > 1:
            out[first + steps[0]] = scale * (a[1] + share * (b[1] - a[1]))
        if channels > 2:
            out[first + 2 * steps[0]] = scale * (a[2] + share * (b[2] - a[2]))
        if channels > 3:
            out[first + 3 * steps[0]] = scale * (a[3] + share * (b[3] - a[3]))


@cuda_kernel(
    f"void(uint64, UniTuple(float32, 2), {_POSITIONS}, {_POSITIONS}, {_POSITIONS}, {_RESULT})",
    cache=False,
)
def _anisotropic_texture_cuda(
    texture: Any, size: Any, at: Any, at_start: Any, at_steps: Any, a: Any, a_start: Any, a_steps: Any, b: Any,
    b_start: Any, b_steps: Any, scale: Any, shape: Any, out: Any, start: Any, steps: Any,
) -> None:  # fmt: skip
    """Fetch one footprint a thread."""
    i = cuda.grid(1)
    channels, height, width = shape
    if i < height * width:
        r, q = i // width, i % width
        k = at_start + r * at_steps[0] + q * at_steps[1]
        ka = a_start + r * a_steps[0] + q * a_steps[1]
        kb = b_start + r * b_steps[0] + q * b_steps[1]
        texel = tex2d_grad(
            texture, at[k + at_steps[2]] / size[1], at[k] / size[0], a[ka + a_steps[2]] / size[1], a[ka] / size[0],
            b[kb + b_steps[2]] / size[1], b[kb] / size[0],
        )  # fmt: skip
        first = start + r * steps[1] + q * steps[2]
        out[first] = scale * texel[0]
        if channels > 1:
            out[first + steps[0]] = scale * texel[1]
        if channels > 2:
            out[first + 2 * steps[0]] = scale * texel[2]
        if channels > 3:
            out[first + 3 * steps[0]] = scale * texel[3]


def sample_texture(
    texture: Texture, at_yx: Array, level: Array | float, *, out: Array | None = None, stream: int = 0
) -> Array:
    """Return a texture sampled at positions and levels, linear in y, x and level.

    Parameters
    ----------
    texture : Texture
        From `make_texture`.
    at_yx : array of float32
        `(n, 2)` or `(h, w, 2)` on the device of the texture, px of level 0; the centre of the first texel of level 0
        is at (0.5, 0.5). Outside the image the nearest texel is read.
    level : array of float32, or number
        Of each position, in the shape of `at_yx` without its last axis, or of all; clamped to the levels there are.
    out : array of float32, optional
        `(c, n)` or `(c, h, w)`, without c for levels without; any strides; overwritten.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.

    Returns
    -------
    array of float32
        `out`, or a new array of the kind of `at_yx`; codes come back as 0 to 255 or 65,535.

    Raises
    ------
    ConfigError
        When the arrays do not belong together or are not on the device of the texture.
    """
    here, at = _begin("sample_texture", texture, at_yx, stream, {"level": level}, out)
    wanted = beside("sample_texture", "level", level, at, here)
    found, run = _result("sample_texture", texture, at, at_yx, out)
    if 0 in found.shape:
        return found
    grid, top, tail = _blocks(at), len(texture.table) - 1, _tail(texture, at, run)
    if texture.one_fetch:
        here.launch(_sample_texture_cuda, grid, THREADS, *_size(texture), top, *at.run, *wanted, *tail)
    else:
        table = constant(here, texture.table)
        here.launch(
            _sample_levels_cuda, grid, THREADS, np.uint64(texture.handle), table, top, *at.run, *wanted, *tail
        )  # fmt: skip
    return found


def anisotropic_texture(
    texture: Texture,
    at_yx: Array,
    du_yx: Array | tuple[float, float],
    dv_yx: Array | tuple[float, float],
    *,
    out: Array | None = None,
    stream: int = 0,
) -> Array:
    """Return a texture sampled with footprints that may be longer than wide, as the hardware does it.

    Parameters
    ----------
    texture : Texture
        From `make_texture`, of levels that halve and are rounded down: one fetch reads several of them.
    at_yx : array of float32
        `(n, 2)` or `(h, w, 2)` on the device of the texture, px of level 0: the centres of the footprints.
    du_yx, dv_yx : array of float32, or pair of float
        How far the position moves from one sample to the next along both axes of the output, px of level 0; for each
        sample in the shape of `at_yx`, or a pair for all.
    out : array of float32, optional
        `(c, n)` or `(c, h, w)`, without c for levels without; any strides; overwritten.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.

    Returns
    -------
    array of float32
        `out`, or a new array of the kind of `at_yx`; codes come back as 0 to 255 or 65,535.

    Raises
    ------
    ConfigError
        When the arrays do not belong together or are not on the device of the texture, or its levels are rounded up.
    """
    name = "anisotropic_texture"
    here, at = _begin(name, texture, at_yx, stream, {"du_yx": du_yx, "dv_yx": dv_yx}, out)
    if not texture.one_fetch:
        height, width = texture.size_yx
        raise ConfigError.of(
            f"`texture` of `{name}`",
            got=f"levels of a level 0 of {height}×{width} px that are rounded up",
            expected="levels of max(1, ⌊s/2^l⌋) px, which one fetch reads at their true ratios",
            do="Make it of a tile with edges that can be halved that often, or use the software sampler.",
        )
    a = beside(name, "du_yx", du_yx, at, here, pair=True)
    b = beside(name, "dv_yx", dv_yx, at, here, pair=True)
    found, run = _result(name, texture, at, at_yx, out)
    if 0 not in found.shape:
        grid = _blocks(at)
        here.launch(
            _anisotropic_texture_cuda, grid, THREADS, *_size(texture), *at.run, *a, *b, *_tail(texture, at, run)
        )
    return found


def _begin(
    name: str, texture: Texture, at_yx: Array, stream: int, besides: dict[str, Any], out: Array | None
) -> tuple[Place, Positions]:
    if not isinstance(texture, Texture):
        raise ConfigError.of(
            f"`texture` of `{name}`", got=type(texture).__name__, expected="a Texture", do="Use make_texture."
        )
    arrays = {
        key: value for key, value in besides.items() if hasattr(value, "dtype") and not isinstance(value, np.generic)
    }
    here = place(name, backend=None, stream=stream, threads=None, at_yx=at_yx, **arrays, out=out)
    if here.backend != "cuda" or device_of(at_yx) != texture.device:
        raise ConfigError.of(
            f"`at_yx` of `{name}`",
            got="positions on the host" if here.backend != "cuda" else f"positions on CUDA device {device_of(at_yx)}",
            expected=f"CUDA device {texture.device}, where the texture is",
            do="Move them there first.",
        )
    for key, value in {"at_yx": at_yx, **arrays}.items():
        need(name, key, value, dtypes=("float32",), empty=True)
    return here, positions(name, at_yx)


def _result(name: str, texture: Texture, at: Positions, like: Array, out: Array | None) -> tuple[Array, Run]:
    whole = (texture.channels, *at.shape) if texture.planes else at.shape
    need(name, "out", out, dtypes=("float32",), shape=whole, empty=True)
    found = empty_like(like, whole, np.float32) if out is None else out
    if 0 in whole:
        return found, (None, 0, (0, 0, 0))
    flat, start, steps = flat_view(found, writable=True)
    rows = steps[-2:] if len(at.shape) == 2 else (0, steps[-1])
    return found, (flat, start, (steps[0] if texture.planes else 0, *rows))


def _blocks(at: Positions) -> int:
    return -(-at.size // THREADS)


def _size(texture: Texture) -> tuple[Any, tuple[Any, Any]]:
    height, width = texture.allocated_yx
    return np.uint64(texture.handle), (np.float32(height), np.float32(width))


def _tail(texture: Texture, at: Positions, run: Run) -> tuple[Any, ...]:
    return np.float32(texture.scale), (texture.channels, *at.grid), *run
