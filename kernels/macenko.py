"""The two stains of an image, from the plane in which its optical densities lie.

    1. keep the valid pixels whose density is at least β in every channel
    2. S = Σ d dᵀ over them; e1, e2 = eigenvectors of its two largest eigenvalues, e1 with a positive sum
    3. φ = angle of a pixel's projection (d·e1, d·e2); φ_low, φ_high = its α and 100 − α percentiles
    4. stains = e1 cos φ + e2 sin φ; the one with more red is first (hematoxylin before eosin)

Densities are whole numbers of 2⁻¹² (code 254 is 7 of them), summed in int64. Angles are counted in 2¹⁴ classes of
s = d2 / (d1 + |d2|), which rises with φ and needs no arc tangent: projections in float32, each product added with one
rounding. So everything up to the counts is the same on CPU and CUDA, for any number of threads; a percentile is
interpolated within its class, which is 1.2e-4 to 2.4e-4 rad wide. Eigenvectors by Jacobi rotations in float64, the
same bits whatever linear algebra is installed. Tolerance of the tests, against float64 throughout: 5e-4.

Source: Macenko et al., A method for normalizing histology slides for quantitative analysis, ISBI 2009, whose defaults
(β = 0.15 in log10, α = 1) these are. S is not centred, as there and in HistomicsTK: densities of mixtures lie in a
plane through 0. StainTools and TIAToolbox take the covariance about the mean, and β in natural logarithms.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need, number_of
from tilestream.kernels.constants import constant
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel, fma
from tilestream.kernels.pixelwise import MAX_BLOCKS, batch_shape, batch_view, mask_view, over_rows
from tilestream.kernels.place import Array, Place, dtype_of, place
from tilestream.kernels.rows import flat_view
from tilestream.kernels.scratch import fetched, zeros
from tilestream.kernels.stain import DTYPES, density_table

STEP = 2.0**-12
"""Of the densities that are summed."""
CLASSES = 2**14
"""Of angles."""
THREADS = 128
SUMS = 7
"""Number of pixels, and the six different terms of S."""
_PARTS = SUMS * THREADS
MAX_BLOCKS_X = 512
MAX_DENSITY = 1000.0
"""Far above what samples can have."""
LEAST_PIXELS = 16
"""Fewest stained pixels that say anything."""
LEAST_SPREAD = 1e-3
"""Least angle between two stains in radians."""


@functools.cache
def _whole(dtype: str) -> npt.NDArray[np.int32]:
    return np.rint(density_table(dtype) / STEP).astype(np.int32)


@core
def _class_core(red: Any, green: Any, blue: Any, frame: Any) -> Any:
    """Return the class of a pixel's angle."""
    d1 = fma(red, frame[0], fma(green, frame[1], blue * frame[2]))
    d2 = fma(red, frame[3], fma(green, frame[4], blue * frame[5]))
    whole = d1 + abs(d2)
    s = d2 / whole if whole > np.float32(0.0) else np.float32(0.0)
    k = np.int64((s + np.float32(1.0)) * np.float32(CLASSES // 2))
    return min(max(k, 0), CLASSES - 1)


@cpu_kernel
def _sums_cpu(source: Any, valid: Any, masked: bool, table: Any, least: int, size: Any, band: Any, out: Any) -> None:
    flat, start, steps = source
    seen, seen_start, seen_steps = valid
    height, width = size
    for row in range(band[0], band[1]):
        i, y = row // height, row % height
        first = start + i * steps[0] + y * steps[2]
        second, third = first + steps[1], first + 2 * steps[1]
        seen_first = seen_start + i * seen_steps[0] + y * seen_steps[1]
        zero = np.int64(0)
        n, rr, rg, rb, gg, gb, bb = zero, zero, zero, zero, zero, zero, zero
        for x in range(width):
            at = x * steps[3]
            r, g, b = (
                np.int64(table[flat[first + at]]), np.int64(table[flat[second + at]]), np.int64(table[flat[third + at]])
            )  # fmt: skip
            if min(r, g, b) >= least and (not masked or seen[seen_first + x * seen_steps[2]] != 0):
                n += 1
                rr, rg, rb = rr + r * r, rg + r * g, rb + r * b
                gg, gb, bb = gg + g * g, gb + g * b, bb + b * b
        out[0] += n
        out[1] += rr
        out[2] += rg
        out[3] += rb
        out[4] += gg
        out[5] += gb
        out[6] += bb


@cpu_kernel
def _angles_cpu(
    source: Any, valid: Any, masked: bool, table: Any, least: int, frame: Any, size: Any, band: Any, out: Any
) -> None:
    flat, start, steps = source
    seen, seen_start, seen_steps = valid
    height, width = size
    for row in range(band[0], band[1]):
        i, y = row // height, row % height
        first = start + i * steps[0] + y * steps[2]
        second, third = first + steps[1], first + 2 * steps[1]
        seen_first = seen_start + i * seen_steps[0] + y * seen_steps[1]
        for x in range(width):
            at = x * steps[3]
            r, g, b = table[flat[first + at]], table[flat[second + at]], table[flat[third + at]]
            if min(r, g, b) >= least and (not masked or seen[seen_first + x * seen_steps[2]] != 0):
                out[_class_core(np.float32(r), np.float32(g), np.float32(b), frame)] += 1


@cuda_kernel(
    "void(uint8[::1], int64, UniTuple(int64, 4), UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean, "
    "int32[::1], int32, int64[::1])"
)
def _sums_cuda(
    flat: Any, start: Any, steps: Any, shape: Any, seen: Any, seen_start: Any, seen_steps: Any, masked: Any, table: Any,
    least: Any, out: Any,
) -> None:  # fmt: skip
    """Sum up every so-manieth pixel a thread, then the threads of a block, then the blocks."""
    parts = cuda.shared.array(_PARTS, np.int64)
    me = cuda.threadIdx.x
    n, _, height, width = shape
    zero = np.int64(0)
    count, rr, rg, rb, gg, gb, bb = zero, zero, zero, zero, zero, zero, zero
    for i in range(cuda.blockIdx.z, n, cuda.gridDim.z):
        for y in range(cuda.blockIdx.y, height, cuda.gridDim.y):
            for x in range(cuda.blockIdx.x * THREADS + me, width, cuda.gridDim.x * THREADS):
                at = start + i * steps[0] + y * steps[2] + x * steps[3]
                here = seen_start + i * seen_steps[0] + y * seen_steps[1] + x * seen_steps[2]
                r, g, b = table[flat[at]], table[flat[at + steps[1]]], table[flat[at + 2 * steps[1]]]
                if min(r, g, b) >= least and (not masked or seen[here] != 0):
                    r64, g64, b64 = np.int64(r), np.int64(g), np.int64(b)
                    count += 1
                    rr, rg, rb = rr + r64 * r64, rg + r64 * g64, rb + r64 * b64
                    gg, gb, bb = gg + g64 * g64, gb + g64 * b64, bb + b64 * b64
    parts[me] = count
    parts[THREADS + me] = rr
    parts[2 * THREADS + me] = rg
    parts[3 * THREADS + me] = rb
    parts[4 * THREADS + me] = gg
    parts[5 * THREADS + me] = gb
    parts[6 * THREADS + me] = bb
    cuda.syncthreads()
    if me < SUMS:
        total = np.int64(0)
        for k in range(THREADS):
            total += parts[me * THREADS + k]
        cuda.atomic.add(out, me, total)


@cuda_kernel(
    "void(uint8[::1], int64, UniTuple(int64, 4), UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean, "
    "int32[::1], int32, UniTuple(float32, 6), int64[::1])"
)
def _angles_cuda(
    flat: Any, start: Any, steps: Any, shape: Any, seen: Any, seen_start: Any, seen_steps: Any, masked: Any, table: Any,
    least: Any, frame: Any, out: Any,
) -> None:  # fmt: skip
    """Count the angle of every so-manieth pixel a thread."""
    n, _, height, width = shape
    for i in range(cuda.blockIdx.z, n, cuda.gridDim.z):
        for y in range(cuda.blockIdx.y, height, cuda.gridDim.y):
            for x in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, width, cuda.gridDim.x * THREADS):
                at = start + i * steps[0] + y * steps[2] + x * steps[3]
                here = seen_start + i * seen_steps[0] + y * seen_steps[1] + x * seen_steps[2]
                r, g, b = table[flat[at]], table[flat[at + steps[1]]], table[flat[at + 2 * steps[1]]]
                if min(r, g, b) >= least and (not masked or seen[here] != 0):
                    k = _class_core(np.float32(r), np.float32(g), np.float32(b), frame)
                    cuda.atomic.add(out, k, np.int64(1))


def estimate_stains(
    rgb: Array,
    valid: Array | None = None,
    *,
    least_density: float = 0.15,
    percentile: float = 1.0,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> npt.NDArray[np.float64]:
    """Return the densities of the two stains of an image, by Macenko's method.

    Parameters
    ----------
    rgb : array of uint8 or uint16
        `(3, y, x)` or `(n, 3, y, x)` red, green, blue of transmitted light, on the host or a device; any strides. A
        batch is one sample of one slide.
    valid : array of bool, optional
        `(y, x)` or `(n, y, x)`, such as tissue without ink; by default every pixel is valid.
    least_density : float
        Least density of each channel of a pixel that counts.
    percentile : float
        Share of the pixels in percent that lie beyond either stain, 0 to less than 50.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one. The result is on the host, so the call waits.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    ndarray of float64
        `(2, 3)` on the host, rows of length 1, the one with more red first: what `stain_separation` takes.

    Raises
    ------
    ConfigError
        When the samples are not red, green, blue of 8 or 16 bits, a limit makes no sense, fewer than 16 pixels are
        stained, or they are of one colour.
    """
    name = "estimate_stains"
    here = place(name, backend=backend, stream=stream, threads=threads, rgb=rgb, valid=valid)
    need(name, "rgb", rgb, dtypes=DTYPES, ndim=(3, 4))
    lead, size = tuple(rgb.shape)[:-3], tuple(rgb.shape)[-2:]
    need(name, "rgb", rgb, dtypes=DTYPES, shape=(*lead, 3, *size))
    need(name, "valid", valid, dtypes=("bool",), shape=(*lead, *size))
    percentile = number_of(name, "percentile", percentile)
    least_density = number_of(name, "least_density", least_density)
    if not (0 <= percentile < 50 and 0 <= least_density <= MAX_DENSITY):
        raise ConfigError.of(
            "`percentile`, `least_density`",
            got=f"{percentile}, {least_density}",
            expected="0 to less than 50 percent, and a density of 0 to 1,000",
            do="Leave them out for 1 and 0.15.",
        )
    least = max(1, round(least_density / STEP))
    count, *terms = (int(v) for v in _passed(here, rgb, valid, least, None))
    if count < LEAST_PIXELS:
        _refuse(f"{count} stained pixels", f"at least {LEAST_PIXELS} of density {least_density} or more")
    e1, e2 = plane([v / count for v in terms])
    frame = tuple(np.float32(v) for v in (*e1, *e2))
    angles = _percentiles(_passed(here, rgb, valid, least, frame), percentile / 100)
    if angles[1] - angles[0] < LEAST_SPREAD:
        _refuse("stained pixels of one colour", "two stains")
    found = [[math.cos(a) * p + math.sin(a) * q for p, q in zip(e1, e2, strict=True)] for a in angles]
    return np.array(sorted(found, key=lambda stain: -stain[0]))


def _refuse(got: str, expected: str) -> None:
    raise ConfigError.of(
        "`rgb` of `estimate_stains`", got=got, expected=expected, do="Take more tissue, or state the stains."
    )


def _passed(here: Place, rgb: Array, valid: Array | None, least: int, frame: Any) -> npt.NDArray[np.int64]:
    """Return the sums over an image, or with a frame the counts of angles in it."""
    shape = batch_shape(rgb)
    n, _, height, width = shape
    source, table = batch_view(rgb), constant(here, _whole(dtype_of(rgb).name))
    length = SUMS if frame is None else CLASSES
    if here.backend == "cuda":
        out = zeros(here, rgb, (length,))
        run = flat_view(out, writable=True)[0]
        mask = mask_view(valid, constant(here, np.zeros(1, np.uint8)))
        grid = (min(-(-width // THREADS), MAX_BLOCKS_X), min(height, 64), min(n, MAX_BLOCKS))
        given = (*source, shape, *mask, valid is not None, table, np.int32(least))
        if frame is None:
            here.launch(_sums_cuda, grid, THREADS, *given, run)
        else:
            here.launch(_angles_cuda, grid, THREADS, *given, frame, run)
        return fetched(here, out)
    mask, parts = mask_view(valid, constant(here, np.zeros(1, np.uint8))), []

    def work(first: int, last: int) -> None:
        part, band, size = np.zeros(length, np.int64), (first, last), (height, width)
        if frame is None:
            _sums_cpu(source, mask, valid is not None, table, least, size, band, part)
        else:
            _angles_cpu(source, mask, valid is not None, table, least, frame, size, band, part)
        parts.append(part)

    over_rows(here, work, n, height, width)
    return np.asarray(np.sum(parts, axis=0), np.int64)


def plane(terms: list[float]) -> tuple[list[float], list[float]]:
    """Return the eigenvectors of the two largest eigenvalues of a symmetric 3×3 matrix, by Jacobi rotations.

    Parameters
    ----------
    terms : list of float
        Elements 00, 01, 02, 11, 12, 22.

    Returns
    -------
    first, second : list of float
        Of length 1; the sum of the first, and the largest element of the second, are positive.

    References
    ----------
    Golub & Van Loan, Matrix Computations, 4th edition, 8.5.
    """
    a, b, c, d, e, f = (float(v) for v in terms)  # NumPy's own warn of overflow
    matrix, vectors = [[a, b, c], [b, d, e], [c, e, f]], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    for _ in range(12):  # converges quadratically; six sweeps are enough for float64
        for p, q in ((0, 1), (0, 2), (1, 2)):
            if matrix[p][q] == 0.0:
                continue
            theta = (matrix[q][q] - matrix[p][p]) / (2.0 * matrix[p][q])
            t = math.copysign(1.0, theta) / (abs(theta) + math.sqrt(theta * theta + 1.0))
            cos = 1.0 / math.sqrt(t * t + 1.0)
            sin = t * cos
            for row in (*matrix, *vectors):
                row[p], row[q] = cos * row[p] - sin * row[q], sin * row[p] + cos * row[q]
            upper, lower = matrix[p], matrix[q]
            matrix[p] = [cos * u - sin * v for u, v in zip(upper, lower, strict=True)]
            matrix[q] = [sin * u + cos * v for u, v in zip(upper, lower, strict=True)]
            matrix[p][q] = matrix[q][p] = 0.0
    order = sorted(range(3), key=lambda k: -matrix[k][k])
    first, second = ([row[k] for row in vectors] for k in order[:2])
    first = first if sum(first) > 0 else [-v for v in first]
    return first, second if max(second, key=abs) > 0 else [-v for v in second]


def _percentiles(counts: npt.NDArray[np.int64], share: float) -> tuple[float, float]:
    """Return the angles below which `share` and `1 - share` of the pixels lie."""
    sums = np.cumsum(counts)
    angles = []
    for wanted in (share * sums[-1], (1 - share) * sums[-1]):
        k = int(np.searchsorted(sums, max(wanted, 1)))
        below = sums[k] - counts[k]
        s = (k + (max(wanted, 1) - below) / counts[k]) / (CLASSES // 2) - 1.0
        angles.append(math.atan2(s, 1.0 - abs(s)))
    return angles[0], angles[1]
