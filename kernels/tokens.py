"""What tokens must be before they are read, and how much of each lies in the image.

    share = |[y, y + size) ∩ [0, height)| · |[x, x + size) ∩ [0, width)| / size²

Tolerance of the tests: 1e-6 absolute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.checks import number_of, whole
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.lattice import FAR_PX
from tilestream.kernels.leveltable import LevelTable
from tilestream.kernels.place import Array, Place
from tilestream.kernels.rows import flat_view

MAX_PATCH_PX = 2**14
THREADS = 128


@core
def _share_core(first: Any, size: Any, length: Any) -> Any:
    """Share of [first, first + size) that lies in [0, length)."""
    first, size, length = np.float64(first), np.float64(size), np.float64(length)
    inside = min(first + size, length) - max(first, 0.0)
    return np.float32(inside / size) if inside > 0.0 else np.float32(0.0)


@cpu_kernel
def _token_shares_cpu(tokens: Any, size: Any, out: Any) -> None:
    flat, start, steps = tokens
    run, run_start, run_steps = out
    for n in range(size[2]):
        m = start + n * steps[0]
        edge = flat[m + 3 * steps[1]]
        run[run_start + n * run_steps[0]] = _share_core(flat[m + steps[1]], edge, size[0]) * _share_core(
            flat[m + 2 * steps[1]], edge, size[1]
        )


@cuda_kernel(
    "void(float64[::1], int64, UniTuple(int64, 2), UniTuple(int64, 3), float32[::1], int64, UniTuple(int64, 1))",
    hot=False,
)
def _token_shares_cuda(flat: Any, start: Any, steps: Any, size: Any, run: Any, run_start: Any, run_steps: Any) -> None:
    n = cuda.grid(1)
    if n < size[2]:
        m = start + n * steps[0]
        edge = flat[m + 3 * steps[1]]
        run[run_start + n * run_steps[0]] = _share_core(flat[m + steps[1]], edge, size[0]) * _share_core(
            flat[m + 2 * steps[1]], edge, size[1]
        )


def token_shares(here: Place, tokens: Array, size_yx: tuple[int, int], out: Array) -> None:
    """Write how much of each token's area lies in the image, 0 to 1.

    Parameters
    ----------
    here : Place
        Where the arrays are.
    tokens : array
        `(n, 4)`: level, y, x, size.
    size_yx : tuple of int
        Of the image, px of level 0.
    out : array of float32
        `(n,)`.
    """
    n = int(tokens.shape[0])
    listed, run = flat_view(tokens), flat_view(out, writable=True)
    if here.backend == "cuda":
        here.launch(_token_shares_cuda, -(-n // THREADS), THREADS, *listed, (*size_yx, n), *run)
    else:
        _token_shares_cpu(listed, (*size_yx, n), run)


def check_gather(table: LevelTable, tokens: Array, patch_px: int) -> int:
    """Return the edge of a patch after tokens on the host were looked at.

    Parameters
    ----------
    table : LevelTable
        What they are read from.
    tokens : array
        `(n, 4)`.
    patch_px : int
        Edge of what each becomes.

    Returns
    -------
    int
        `patch_px`.

    Raises
    ------
    ConfigError
        Naming the first token that cannot be read.
    """
    patch_px = whole("gather", "patch_px", patch_px, least=1, most=MAX_PATCH_PX)
    if not isinstance(tokens, np.ndarray):
        return patch_px
    level, y, x, size = tokens.astype(np.float64).T
    height, width = table.size_yx
    last = len(table.rows) - 1
    faults = (
        (~np.isfinite(tokens).all(axis=1), "finite numbers"),
        (~((level >= 0) & (level <= last)), f"a level from 0 to {last}"),
        (~((size > 0) & (size <= FAR_PX)), "a size above 0 px"),
        (~((y < height) & (y + size > 0) & (x < width) & (x + size > 0)), f"px inside an image of {height} × {width}"),
    )
    for bad, expected in faults:
        if bad.any():
            first = int(np.argmax(bad))
            raise ConfigError.of(
                f"`tokens[{first}]` of `gather`",
                got=f"(level, y, x, size) = {tuple(tokens[first].tolist())}",
                expected=expected,
                do="Leave such tokens out.",
            )
    return patch_px


def affine_of(
    channels: int, mean: Sequence[float] | float, std: Sequence[float] | float, scale: float
) -> npt.NDArray[np.float32]:
    """Return gain and offset of each channel, so that value·gain + offset = (value·scale − mean) / std.

    Parameters
    ----------
    channels : int
        How many.
    mean, std : float or sequence of float
        One number, or one a channel.
    scale : float
        Not 0.

    Returns
    -------
    ndarray of float32
        `(channels, 2)`.

    Raises
    ------
    ConfigError
        When there is not one number a channel, or one is not finite or would divide by zero.
    """
    numbers = {"mean": np.asarray(mean, np.float64).reshape(-1), "std": np.asarray(std, np.float64).reshape(-1)}
    for name, values in numbers.items():
        if values.size not in (1, channels) or not np.isfinite(values).all() or (name == "std" and (values == 0).any()):
            raise ConfigError.of(
                f"`{name}` of `gather`",
                got=str(values.tolist()),
                expected=f"1 or {channels} finite numbers" + (", none of them 0" if name == "std" else ""),
                do="Give one for all channels, or one a channel.",
            )
    if not 0 < abs(number_of("gather", "scale", scale)) < 1e30:
        raise ConfigError.of(
            "`scale` of `gather`", got=scale, expected="a number but 0, below 1e30", do="Use 1/255 for 8 bits."
        )
    gain = np.broadcast_to(scale / numbers["std"], channels)
    return np.stack([gain, np.broadcast_to(-numbers["mean"] / numbers["std"], channels)], 1).astype(np.float32)
