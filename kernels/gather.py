"""Tokens of a pyramid as one normalised batch: each a square of any size and place, read at its own level.

A token (level, y, x, size), in px of level 0, becomes p × p samples, trilinear as in `tilestream.kernels.sample`:

    out[n, ch, j, i] = (value(y + (j + 1/2)·size/p, x + (i + 1/2)·size/p, level)·scale − mean[ch]) / std[ch]

Positions are those of `tilestream.kernels.lattice`, precise at any distance. A token that lies on texels of a level
(integer level, whole position in it, size = p·ratio) is read exactly before it is normalised. Arithmetic in float32.
Tolerance of the tests: 2e-6 (float32) of the range of the result, half a unit in the last place more for float16,
against NumPy in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need
from tilestream.kernels.constants import constant
from tilestream.kernels.gather_rows import gather_cpu
from tilestream.kernels.language import cuda, cuda_core, cuda_kernel
from tilestream.kernels.lattice import lattice_core, tap_core
from tilestream.kernels.leveltable import COLUMNS, STEP_C, LevelTable, Ratio, X, Y, level_table, named_levels
from tilestream.kernels.place import Array, Place, dtype_of, empty_like, place
from tilestream.kernels.rows import flat_view
from tilestream.kernels.texel import bilinear_cuda, level_core
from tilestream.kernels.tokens import affine_of, check_gather, token_shares

THREADS = 128
"""Of a block, which reads ROWS rows of one token."""
ROWS = 16
_ROW_WEIGHTS = 2 * ROWS
_ROW_ENDS = 4 * ROWS
DTYPES = ("float16", "float32")
TOKEN_DTYPES = ("float64", "float32", "int64", "int32")


@cuda_core
def _mean_cuda(flat: Any, finer: Any, coarser: Any, share: Any, shift: Any, shift_1: Any) -> Any:
    """Mean of two levels in the channel that lies `shift` and `shift_1` samples on."""
    value = bilinear_cuda(flat, finer, shift, np.float32)
    if share > 0:
        value += share * (bilinear_cuda(flat, coarser, shift_1, np.float32) - value)
    return value


@cuda_kernel(
    "void(uint8[::1], int64[::1], float64[::1], int64, UniTuple(int64, 2), float32[::1], UniTuple(int64, 3), "
    "float16[::1])"
)
def _gather_cuda(
    flat: Any, table: Any, tokens: Any, token_start: Any, token_steps: Any, affine: Any, shape: Any, out: Any
) -> None:
    """Read ROWS rows of a token a block, a column or more a thread; float64 only in the four numbers of the token."""
    row_at = cuda.shared.array(_ROW_ENDS, np.int64)  # upper and lower row of texels of each row, in both levels
    row_t = cuda.shared.array(_ROW_WEIGHTS, np.float32)
    column = cuda.shared.array(4, np.int64)  # first and step, in both levels
    channels, patch, strips = shape
    n, strip, me = cuda.blockIdx.x // strips, cuda.blockIdx.x % strips, cuda.threadIdx.x
    m = token_start + n * token_steps[0]
    finer, share = level_core(np.float64(tokens[m]), table.size // COLUMNS, np.float64, np.float32)
    k0 = finer * COLUMNS
    k1 = (finer + (share > 0)) * COLUMNS
    if me < 2 * ROWS + 2:
        is_row = me < 2 * ROWS
        k = (k1 if me % 2 else k0) + (Y if is_row else X)
        corner, size = tokens[m + (1 if is_row else 2) * token_steps[1]], tokens[m + 3 * token_steps[1]]
        first, step = lattice_core(np.float64(corner), np.float64(size), patch, table[k + 2], table[k + 3])
        if is_row:
            y0, y1, ty = tap_core(first + (strip * ROWS + me // 2) * step, table[k + 1] - 1)
            row_at[2 * me] = table[k - Y] + y0 * table[k]
            row_at[2 * me + 1] = table[k - Y] + y1 * table[k]
            row_t[me] = ty
        else:
            column[2 * (me % 2)] = first
            column[2 * (me % 2) + 1] = step
    cuda.syncthreads()
    lanes = min(patch, THREADS)
    rows = min(ROWS, patch - strip * ROWS)
    step_0, step_1 = table[k0 + STEP_C], table[k1 + STEP_C]
    if me >= THREADS // lanes * lanes:
        return
    for i in range(me % lanes, patch, lanes):
        x0, x1, tx = tap_core(column[0] + i * column[1], table[k0 + X + 1] - 1)
        left_0, right_0, tx_0 = x0 * table[k0 + X], x1 * table[k0 + X], tx
        x0, x1, tx = tap_core(column[2] + i * column[3], table[k1 + X + 1] - 1)
        left_1, right_1 = x0 * table[k1 + X], x1 * table[k1 + X]
        for j in range(me // lanes, rows, THREADS // lanes):
            a, b, c, d = row_at[4 * j], row_at[4 * j + 1], row_at[4 * j + 2], row_at[4 * j + 3]
            fine = (a + left_0, a + right_0, b + left_0, b + right_0, row_t[2 * j], tx_0)
            coarse = (c + left_1, c + right_1, d + left_1, d + right_1, row_t[2 * j + 1], tx)
            target = (n * channels * patch + strip * ROWS + j) * patch + i
            if channels == 3 and step_0 == 1 and step_1 == 1:
                for ch in range(3):  # offsets that the compiler knows: a third of the address arithmetic
                    value = _mean_cuda(flat, fine, coarse, share, ch, ch)
                    out[target + ch * patch * patch] = value * affine[2 * ch] + affine[2 * ch + 1]
            else:
                for ch in range(channels):
                    value = _mean_cuda(flat, fine, coarse, share, ch * step_0, ch * step_1)
                    out[target + ch * patch * patch] = value * affine[2 * ch] + affine[2 * ch + 1]


def gather(
    levels: Sequence[Array],
    tokens: Array,
    *,
    patch_px: int,
    mean: Sequence[float] | float = 0.0,
    std: Sequence[float] | float = 1.0,
    scale: float = 1.0,
    dtype: str = "float32",
    ratios: Sequence[Ratio | tuple[Ratio, Ratio]] | None = None,
    out: Array | None = None,
    out_share: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return tokens of a pyramid as one normalised batch.

    Parameters
    ----------
    levels : sequence of array of uint8, uint16, float16 or float32
        `(c, y, x)` or `(y, x)`, level 0 first, in any strides; interleaved and planar memory are read fastest.
    tokens : array of float64, float32, int64 or int32
        `(n, 4)`: level, y and x of the upper left corner, and edge, the last three in px of level 0. A fractional level
        is a mean of two. What lies outside the image is its nearest texel.
    patch_px : int
        Edge of what each token becomes, px.
    mean, std : float or sequence of float
        Of all channels or of each, in the units of `scale`.
    scale : float
        What texels are multiplied by before `mean` and `std`, such as 1/255.
    dtype : {"float32", "float16"}
        Of the batch, where `out` does not say.
    ratios : sequence of number or of pair of number, optional
        How many px of level 0 a px of each level is long; a pair is (y, x). By default the true ratios of the sizes; of
        a pyramid whose levels have ceil(s/2) px, tokens of patch_px·2^level lie on texels with ratios of 2^level.
    out : array of float16 or float32, optional
        `(n, c, patch_px, patch_px)`, contiguous; overwritten.
    out_share : array of float32, optional
        `(n,)`; receives how much of each token's area lies in the image, 0 to 1.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array
        `(n, c, patch_px, patch_px)`: `out`, or a new array of the kind of `tokens`.

    Raises
    ------
    ConfigError
        When arrays do not belong together or are not in one place, or tokens on the host are not finite, have no area,
        a level that does not exist, or no px in the image. Tokens on a device are not looked at, since that would wait
        for them: their levels are clamped, and `out_share` is 0 for those outside.
    """
    here = place(
        "gather", backend=backend, stream=stream, threads=threads,
        **named_levels(levels), tokens=tokens, out=out, out_share=out_share,
    )  # fmt: skip
    table = level_table("gather", levels, ratios=ratios)
    need("gather", "levels[0]", levels[0], dtypes=("uint8", "uint16", "float16", "float32"))
    need("gather", "tokens", tokens, dtypes=TOKEN_DTYPES, ndim=2, empty=True)
    n = int(tokens.shape[0])
    need("gather", "tokens", tokens, dtypes=TOKEN_DTYPES, shape=(n, 4), empty=True)
    patch = check_gather(table, tokens, patch_px)
    affine = affine_of(table.channels, mean, std, scale)
    shape = (n, table.channels, patch, patch)
    need("gather", "out", out, dtypes=DTYPES, shape=shape, empty=True, contiguous=True)
    need("gather", "out_share", out_share, dtypes=("float32",), shape=(n,), empty=True)
    if out is None:
        if dtype not in DTYPES:
            raise ConfigError.of("`dtype` of `gather`", got=repr(dtype), expected=" or ".join(DTYPES), do="Choose one.")
        out = empty_like(tokens, shape, dtype)
    if n:
        _gather(here, table, tokens, affine, out)
        if out_share is not None:
            token_shares(here, tokens, table.size_yx, out_share)
    return out


def _gather(here: Place, table: LevelTable, tokens: Array, affine: npt.NDArray[np.float32], out: Array) -> None:
    rows, numbers = constant(here, table.rows), constant(here, affine)
    n, channels, patch, _ = (int(k) for k in out.shape)
    listed = flat_view(tokens)
    if here.backend == "cuda":
        run, _, _ = flat_view(out, writable=True)
        strips = -(-patch // ROWS)
        shape = (channels, patch, strips)
        here.launch(_gather_cuda, n * strips, THREADS, table.flat, rows, *listed, numbers, shape, run)
        return
    half = dtype_of(out) == np.float16
    run, _, _ = flat_view(out.view(np.uint16) if half else out, writable=True)
    over_bands(
        lambda start, stop: gather_cpu(
            table.flat, table.halves, rows, listed, numbers, (channels, patch), half, (start, stop), run
        ),
        n, threads=here.threads, least=max(1, 2**15 // patch**2),
    )  # fmt: skip
