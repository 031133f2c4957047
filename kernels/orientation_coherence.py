"""Direction, coherence and elongation of what a structure tensor describes.

    D = λ₁ − λ₂ = √((Jxx − Jyy)² + 4 Jxy²),   T = λ₁ + λ₂ = Jxx + Jyy
    θ = ½ atan2(2 Jxy, Jxx − Jyy)             direction of the strongest change, from +x towards +y, in (−π/2, π/2]
    coherence = (D / T)²                      0 where all directions are alike or nothing changes, 1 on a straight edge
    ratio = min(√((λ₁ + ε) / (λ₂ + ε)), 16)   how much longer than wide what is alike is; its long axis is at θ + π/2

Bigün & Granlund, ICCV 1987; the ratio is what anisotropic sampling takes. float32. Tolerance of the tests against NumPy
in float64: θ 1e-5 where the coherence is above 0.01, coherence 1e-5, ratio 1e-3 relative for ε ≥ 1e-3 T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need, number_of
from tilestream.kernels.gradient import BLOCK_YX, pixel_grid
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.place import Array, empty_like, place
from tilestream.kernels.rows import flat_view

MAX_RATIO = 16.0
"""Largest elongation, as that of texture hardware."""

_f32 = np.float32


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """What a structure tensor says at each pixel."""

    theta: Array
    """`(y, x)` float32, direction of the strongest change in radians, from +x towards +y."""
    coherence: Array
    """`(y, x)` float32, 0 to 1."""
    ratio: Array
    """`(y, x)` float32, 1 to 16."""


@core
def _spread_core(jyy: Any, jxy: Any, jxx: Any) -> Any:
    """Return the difference of the eigenvalues."""
    difference = jxx - jyy
    return _f32(math.sqrt(_f32(difference * difference + _f32(4.0) * jxy * jxy)))


@core
def _theta_core(jyy: Any, jxy: Any, jxx: Any) -> Any:
    return _f32(0.5) * _f32(math.atan2(_f32(jxy + jxy), _f32(jxx - jyy)))


@core
def _coherence_core(spread: Any, trace: Any) -> Any:
    share = spread / trace if trace > _f32(0.0) else _f32(0.0)
    # rounding can leave the difference above the sum
    return share * share if share < _f32(1.0) else _f32(1.0)


@core
def _ratio_core(spread: Any, trace: Any, epsilon: Any) -> Any:
    small = _f32(0.5) * (trace - spread)
    small = small if small > _f32(0.0) else _f32(0.0)
    ratio = _f32(math.sqrt(_f32((_f32(0.5) * (trace + spread) + epsilon) / (small + epsilon))))
    return ratio if ratio < _f32(MAX_RATIO) else _f32(MAX_RATIO)


@cpu_kernel
def _orientation_cpu(tensor: Any, epsilon: Any, band: Any, out: Any) -> None:
    flat, start, steps = tensor
    for y in range(band[0], band[1]):
        for x in range(out.shape[2]):
            at = start + y * steps[1] + x * steps[2]
            jyy, jxy, jxx = flat[at], flat[at + steps[0]], flat[at + 2 * steps[0]]
            spread, trace = _spread_core(jyy, jxy, jxx), jxx + jyy
            out[0, y, x] = _theta_core(jyy, jxy, jxx)
            out[1, y, x] = _coherence_core(spread, trace)
            out[2, y, x] = _ratio_core(spread, trace, epsilon)


@cuda_kernel("void(float32[::1], int64, UniTuple(int64, 3), UniTuple(int64, 2), float32, float32[::1])")
def _orientation_cuda(flat: Any, start: Any, steps: Any, shape: Any, epsilon: Any, out: Any) -> None:
    """Write one pixel a thread, and those whole grids below."""
    height, width = shape
    x = cuda.blockIdx.x * BLOCK_YX[1] + cuda.threadIdx.x
    if x >= width:
        return
    for y in range(cuda.blockIdx.y * BLOCK_YX[0] + cuda.threadIdx.y, height, cuda.gridDim.y * BLOCK_YX[0]):
        at = start + y * steps[1] + x * steps[2]
        jyy, jxy, jxx = flat[at], flat[at + steps[0]], flat[at + 2 * steps[0]]
        spread, trace = _spread_core(jyy, jxy, jxx), jxx + jyy
        out[y * width + x] = _theta_core(jyy, jxy, jxx)
        out[(height + y) * width + x] = _coherence_core(spread, trace)
        out[(2 * height + y) * width + x] = _ratio_core(spread, trace, epsilon)


def orientation_coherence(
    tensor: Array,
    *,
    epsilon: float = 1e-6,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Orientation:
    """Return direction, coherence and elongation at each pixel of a structure tensor.

    Parameters
    ----------
    tensor : array of float32
        `(3, y, x)`: Jyy, Jxy, Jxx as `structure_tensor` returns them; any strides.
    epsilon : float
        Energy of change that counts as none, in the unit of the tensor; above 0. Where only noise is left the ratio
        falls to 1 the sooner the larger it is.
    out : array of float32, optional
        `(3, y, x)`, contiguous; overwritten. The result is views of it.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    Orientation
        Arrays of the kind of `tensor`.

    Raises
    ------
    ConfigError
        When type, shape or `epsilon` are others, or the arrays are not in one place.
    """
    name = "orientation_coherence"
    here = place(name, backend=backend, stream=stream, threads=threads, tensor=tensor, out=out)
    need(name, "tensor", tensor, dtypes=("float32",), ndim=3, shape=(3, *(int(n) for n in tensor.shape[1:])))
    if not 0 < number_of(name, "epsilon", epsilon) < 1e30:
        raise ConfigError.of(f"`epsilon` of `{name}`", got=epsilon, expected="above 0, below 1e30", do="Leave it out.")
    _, height, width = (int(n) for n in tensor.shape)
    need(name, "out", out, dtypes=("float32",), shape=(3, height, width), contiguous=True)
    found = empty_like(tensor, (3, height, width), np.float32) if out is None else out
    flat = flat_view(tensor)
    if here.backend == "cuda":
        run, _, _ = flat_view(found, writable=True)
        grid = pixel_grid(height, width, 1)
        here.launch(_orientation_cuda, grid, BLOCK_YX[::-1], *flat, (height, width), _f32(epsilon), run)
    else:
        over_bands(
            lambda first, last: _orientation_cpu(flat, _f32(epsilon), (first, last), found),
            height, threads=here.threads, least=max(1, 2**14 // width),
        )  # fmt: skip
    return Orientation(theta=found[0], coherence=found[1], ratio=found[2])
