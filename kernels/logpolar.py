"""Log-polar view of a pyramid around a centre, each ring at the level of its own spacing; and the way back.

    ring i = 0 … R − 1       ρ_i = e_min·(e_max/e_min)^(i/(R − 1)),     spacing s_i = ρ_i·ln(e_max/e_min)/(R − 1)
    direction j = 0 … T − 1  θ_j = 2π·j/T, from +x towards +y
    value[i, j]              trilinear at centre + ρ_i·(sin θ_j, cos θ_j), level of max(s_i, 2π·ρ_i/T) px

(Meng et al. 2018, "Kernel foveated rendering", doi:10.1145/3203199, with the kernel K(x) = x). The level is that of the
wider of the two spacings, found between the true ratios of the levels, so that nothing aliases along either; with
T = 2π(R − 1)/ln(e_max/e_min) directions both are the same and the level is log2(s_i). Radii, levels and directions are
computed in float64 once for all rings, and kept on the device. Arithmetic in float32, in float64 for float64 levels.
Tolerance of the tests: 1e-5 (float32) and 1e-11 (float64) of the range of the texels, against NumPy in float64; 1e-4
for the way back in float32, whose ring is a logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import number_of, numbers_of, whole
from tilestream.kernels.constants import constant
from tilestream.kernels.language import cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.leveltable import COLUMNS, STEP_C, LevelTable, Ratio, level_table, named_levels
from tilestream.kernels.place import Array, place
from tilestream.kernels.positions import result_for
from tilestream.kernels.texel import bilinear_cpu, bilinear_cuda, corners_cpu, corners_cuda, level_core, shift_core

THREADS = 128
LEAST_PX = 2**11


@cpu_kernel
def _logpolar_cpu(
    flat: Any, halves: Any, table: Any, rings: Any, turns: Any, centre: Any, box: Any, shape: Any, band: Any, out: Any
) -> None:
    run, start, steps = out
    real = run.dtype.type
    channels, directions = shape
    for i in range(band[0], band[1]):
        finer, share = level_core(rings[2 * i + 1], table.size // COLUMNS, real, real)
        for j in range(directions):
            y = shift_core(centre[0], rings[2 * i] * turns[2 * j], box[0], box[2], real, real)
            x = shift_core(centre[1], rings[2 * i] * turns[2 * j + 1], box[1], box[3], real, real)
            weight = real(1) - share
            for read in range(finer, finer + 1 + (share > 0)):
                corners = corners_cpu(table, read, y, x, real)
                for ch in range(channels):
                    k = start + ch * steps[0] + i * steps[1] + j * steps[2]
                    value = weight * bilinear_cpu(flat, halves, corners, ch * table[read * COLUMNS + STEP_C], real)
                    run[k] = value if read == finer else run[k] + value
                weight = share


@cuda_kernel(
    "void(uint8[::1], int64[::1], float32[::1], float32[::1], UniTuple(float32, 2), UniTuple(int64, 4), "
    "UniTuple(int64, 3), float32[::1], int64, UniTuple(int64, 3))"
)
def _logpolar_cuda(
    flat: Any, table: Any, rings: Any, turns: Any, centre: Any, box: Any, shape: Any, out: Any, start: Any, steps: Any
) -> None:
    """Take one sample a thread."""
    n = cuda.grid(1)
    channels, count, directions = shape
    real = out.dtype.type
    if n < count * directions:
        i = n // directions
        j = n - i * directions
        finer, share = level_core(rings[2 * i + 1], table.size // COLUMNS, real, real)
        y = shift_core(centre[0], rings[2 * i] * turns[2 * j], box[0], box[2], real, real)
        x = shift_core(centre[1], rings[2 * i] * turns[2 * j + 1], box[1], box[3], real, real)
        weight = real(1) - share
        for read in range(finer, finer + 1 + (share > 0)):
            corners = corners_cuda(table, read, y, x, real)
            for ch in range(channels):
                k = start + ch * steps[0] + i * steps[1] + j * steps[2]
                value = weight * bilinear_cuda(flat, corners, ch * table[read * COLUMNS + STEP_C], real)
                out[k] = value if read == finer else out[k] + value
            weight = share


def logpolar(
    levels: Sequence[Array],
    centre_yx: tuple[float, float],
    *,
    e_min_px: float,
    e_max_px: float,
    n_rho: int,
    n_theta: int,
    ratios: Sequence[Ratio | tuple[Ratio, Ratio]] | None = None,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return what lies around a centre, by rings whose spacing and resolution go with their radius.

    Parameters
    ----------
    levels : sequence of array of uint8, uint16, float16, float32 or float64
        `(c, y, x)` or `(y, x)`, level 0 first, in any strides and of any sizes that do not grow.
    centre_yx : tuple of float
        Px of level 0; the centre of the first texel is at (0.5, 0.5).
    e_min_px, e_max_px : float
        Radius of the first and of the last ring, px of level 0.
    n_rho, n_theta : int
        How many rings, at least 2, and directions.
    ratios : sequence of number or of pair of number, optional
        How many px of level 0 a px of each level is long; a pair is (y, x). By default the true ratios of the sizes.
    out : array of float32, or of float64 for float64 levels, optional
        `(c, n_rho, n_theta)`, without c for levels without; any strides; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array
        `out`, or a new array of the kind of the levels.

    Raises
    ------
    ConfigError
        When the levels do not belong together, or the rings are no rings.
    """
    here = place("logpolar", backend=backend, stream=stream, threads=threads, **named_levels(levels), out=out)
    table = level_table("logpolar", levels, ratios=ratios)
    check_rings("logpolar", centre_yx, e_min_px, e_max_px, n_rho, n_theta)
    found, run = result_for("logpolar", table, (n_rho, n_theta), levels[0], out)
    rings, turns = _rings(table, e_min_px, e_max_px, n_rho, n_theta)
    whole = [math.floor(each) for each in centre_yx]
    centre = tuple(table.real(each - first) for each, first in zip(centre_yx, whole, strict=True))
    box = (*whole, *table.size_yx)
    rows, rings, turns = (constant(here, each) for each in (table.rows, rings, turns))
    if here.backend == "cuda":
        blocks = -(-n_rho * n_theta // THREADS)
        shape = (table.channels, n_rho, n_theta)
        here.launch(_logpolar_cuda, blocks, THREADS, table.flat, rows, rings, turns, centre, box, shape, *run)
        return found
    over_bands(
        lambda start, stop: _logpolar_cpu(
            table.flat, table.halves, rows, rings, turns, centre, box, (table.channels, n_theta), (start, stop), run
        ),
        n_rho, threads=here.threads, least=max(1, LEAST_PX // n_theta),
    )  # fmt: skip
    return found


def _rings(
    table: LevelTable, e_min_px: float, e_max_px: float, n_rho: int, n_theta: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return radius and level of each ring, and sine and cosine of each direction."""
    growth = math.log(e_max_px / e_min_px) / (n_rho - 1)
    radius = e_min_px * np.exp(growth * np.arange(n_rho))
    spacing = radius * max(growth, 2 * math.pi / n_theta)
    logs, wanted = table.log2_ratios, np.log2(spacing)
    finer = np.maximum(np.searchsorted(logs, wanted, side="right") - 1, 0)
    coarser = np.minimum(finer + 1, len(logs) - 1)
    gap = logs[coarser] - logs[finer]
    level = finer + np.divide(np.maximum(wanted - logs[finer], 0), gap, where=gap > 0, out=np.zeros_like(gap))
    angle = 2 * math.pi * np.arange(n_theta) / n_theta
    return (
        np.stack([radius, level], 1).astype(table.real),
        np.stack([np.sin(angle), np.cos(angle)], 1).astype(table.real),
    )


def check_rings(
    operation: str, centre_yx: tuple[float, float], e_min_px: float, e_max_px: float, n_rho: int, n_theta: int
) -> None:
    """Raise unless rings are rings.

    Parameters
    ----------
    operation : str
        Whose they are.
    centre_yx : tuple of float
        Px of level 0.
    e_min_px, e_max_px : float
        First and last radius.
    n_rho, n_theta : int
        How many rings and directions.

    Raises
    ------
    ConfigError
        When they are not.
    """
    if not all(abs(each) < 2**30 for each in numbers_of(operation, "centre_yx", centre_yx, 2)):
        raise ConfigError.of(
            f"`centre_yx` of `{operation}`", got=str(centre_yx), expected="two numbers of px (y, x)", do="Change it."
        )
    for name, radius in (("e_min_px", e_min_px), ("e_max_px", e_max_px)):
        number_of(operation, name, radius)
    if not 0 < e_min_px < e_max_px < 2**30:
        raise ConfigError.of(
            f"`e_min_px`, `e_max_px` of `{operation}`", got=f"{e_min_px}, {e_max_px}",
            expected="0 < e_min_px < e_max_px", do="Change them.",
        )  # fmt: skip
    for name, n in (("n_rho", n_rho), ("n_theta", n_theta)):
        whole(operation, name, n)
    if n_rho < 2 or n_theta < 1:
        raise ConfigError.of(
            f"`n_rho`, `n_theta` of `{operation}`", got=f"{n_rho}, {n_theta}",
            expected="at least 2 rings and 1 direction", do="Change them.",
        )  # fmt: skip
