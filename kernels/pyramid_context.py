"""What the pyramid codec foretells of each latent of a pass, from those that are decoded before it.

    x = 4 neighbours of the same grid, 4 of the next coarser one, 1 of the one after, each y << 6
    (m, z) = L3(relu(L2(relu(L1(x)))));  middle = R(m, 2) in 1/16, index = clamp(R(z, 4), 0, 63)

A grid is decoded in three passes: places of even row and column, which know nothing of their own grid; of odd row and
column, which see the four diagonal ones; the rest, which see the four straight ones. Outside the grid these are
mirrored, so that only what is decoded is seen, and 0 where that is outside too. R(a, s) is a / 2^s rounded, halves up;
layers are those of `tilestream.kernels.pyramid_layers`. Every form gives the same bits.

Source: the checkerboard of He et al. 2021 (arXiv 2103.15306), the grids and the network of Cool-chic (Ladune et al.
2023, arXiv 2212.05458) and C3 (Kim et al. 2023, arXiv 2312.02753); in whole numbers as Ballé et al. 2019 ("Integer
networks for data compression with latent-variable models").
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need, need_kind, whole
from tilestream.kernels.constants import constant
from tilestream.kernels.language import CudaKernel, core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.mlp_layers import add_layer
from tilestream.kernels.place import Array, Place, empty_like, place
from tilestream.kernels.product_tile import COLUMNS
from tilestream.kernels.pyramid_layers import (
    BLOCK,
    LAYOUT,
    add_input,
    clamp_core,
    finish_rows,
    need_halving,
    pack_layers,
    round_shift_core,
    start_sums,
)
from tilestream.kernels.pyramid_neighbours import REST, gather_cpu, gather_cuda
from tilestream.kernels.pyramid_numbers import (
    CONTEXT_OUT,
    FEATURE_MOST,
    MIDDLE_BITS,
    MIDDLE_MOST,
    MOST_WIDTH,
    NEIGHBOURS,
    PASSES,
    SCALE_BITS,
    SCALES_MOST,
    WholeLayer,
)
from tilestream.kernels.rows import flat_view, one_run

WIDTHS = (16, 32, 64)
"""Registers that CUDA kernels set aside for the outputs of a layer."""
THREADS = 128


@core
def _middle_core(total: Any, shift: Any) -> Any:
    """Return the middle, in 1/16, that a sum of the last layer gives."""
    value = round_shift_core(round_shift_core(total, shift), MIDDLE_BITS)
    return np.int16(clamp_core(value, -MIDDLE_MOST, MIDDLE_MOST))


@core
def _index_core(total: Any, shift: Any) -> Any:
    """Return the index of a scale that a sum of the last layer gives."""
    return np.uint8(clamp_core(round_shift_core(round_shift_core(total, shift), SCALE_BITS), 0, SCALES_MOST))


@cpu_kernel
def _context_cpu(
    grids: Any, views: Any, turn: Any, run: Any, layout: Any, band: Any, middles: Any, indices: Any
) -> None:
    widest = layout[:, :2].max()
    blocks = np.zeros((2, widest, BLOCK), np.int32)
    for first in range(band[0], band[1], BLOCK):
        n = min(BLOCK, band[1] - first)
        lanes = n + -n % COLUMNS
        gather_cpu(grids, views, turn, first, n, blocks[0])
        blocks[0, NEIGHBOURS : layout[0, 0]] = 0  # padding, where the block before left features
        for layer in range(2):
            target = blocks[1 - layer]
            add_layer(run, layout[layer], blocks[layer], target, lanes)
            finish_rows(target, layout[layer, 1], lanes, layout[layer, 4], 0)
        add_layer(run, layout[2], blocks[0], blocks[1], lanes)
        middle, scale, shift = blocks[1, 0], blocks[1, 1], layout[2, 4]
        for p in range(n):
            middles[first + p] = _middle_core(middle[p], shift)
            indices[first + p] = _index_core(scale[p], shift)


_SIGNATURE = (
    "void(int16[::1], Tuple((UniTuple(int64, 3), UniTuple(int64, 6), UniTuple(int64, 6))), UniTuple(int64, 2), "
    "int32[::1], int64[::1], int16[::1], uint8[::1])"
)


@functools.cache
def context_kernel(width: int) -> CudaKernel:
    """Return the CUDA kernel for layers of up to `width`."""
    held_size = width * THREADS

    def context(grids: Any, views: Any, asked: Any, run: Any, layout: Any, middles: Any, indices: Any) -> None:
        """Take one place a thread through all layers; `asked` are the pass and its places."""
        held = cuda.shared.array(held_size, np.int32)
        sums = cuda.local.array(width, np.int32)
        turn, places = asked
        me = cuda.threadIdx.x
        p = cuda.blockIdx.x * THREADS + me
        if p >= places:
            return
        gather_cuda(grids, views, turn, p, held, me, THREADS)
        for layer in range(3):
            row = LAYOUT * layer
            taken, outputs, start = layout[row], layout[row + 1], layout[row + 2]
            start_sums(run, layout[row + 3], outputs, width, sums)
            for j in range(NEIGHBOURS if layer == 0 else taken):
                add_input(run, start + j, taken, held[j * THREADS + me], outputs, width, sums)
            if layer < 2:
                for i in range(width):
                    held[i * THREADS + me] = clamp_core(round_shift_core(sums[i], layout[row + 4]), 0, FEATURE_MOST)
        middles[p] = _middle_core(sums[0], layout[2 * LAYOUT + 4])
        indices[p] = _index_core(sums[1], layout[2 * LAYOUT + 4])

    context.__qualname__ = f"pyramid_context_{width}"  # by which compiled kernels are told apart
    return cuda_kernel(_SIGNATURE)(context)


context_kernel(16)  # known to the tests from now on; all are compiled when they are launched


def pass_places(shape: tuple[int, int], turn: int) -> int:
    """Return how many places of a grid belong to a pass."""
    height, width = shape
    if turn == REST:
        return height // 2 * width + height % 2 * (width // 2)
    return ((height + 1 - turn) // 2) * ((width + 1 - turn) // 2)


def pyramid_context(
    grids: Sequence[Array],
    number: int,
    turn: int,
    net: Sequence[WholeLayer],
    *,
    out: tuple[Array, Array] | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> tuple[Array, Array]:
    """Return the middle and the scale that a network foretells of each latent of a pass.

    Parameters
    ----------
    grids : sequence of array of int16
        `(y, x)` each, finest first, each half of the one before, rounded up; any strides. Magnitudes up to 255. Of the
        grid itself only places of earlier passes are read, of finer ones nothing.
    number : int
        The grid, 0 for the finest.
    turn : int
        The pass: 0 for places of even row and column, 1 of odd row and column, 2 for the rest.
    net : sequence of WholeLayer
        Three layers: 9 inputs, up to 64 features twice, 2 outputs. Their sums must stay within 32 bits, as
        `PyramidNets.check` makes sure.
    out : tuple of array, optional
        int16 and uint8 of a place each, contiguous; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    middle : array of int16
        `(n,)` in 1/16, of the places of the pass in raster order; n may be 0.
    index : array of uint8
        `(n,)` of 0 to 63; the scale is 2^((index − 30) / 6).

    Raises
    ------
    ConfigError
        When types or shapes do not fit, or the arrays are not in one place.
    """
    name = "pyramid_context"
    number, turn = _checked(name, grids, number, turn)
    seen = list(grids[number : number + 3])
    named = {f"grids[{number + n}]": grid for n, grid in enumerate(seen)}
    if out is not None:
        need_kind(name, "out", out, (tuple, list), do="Hand in an array for middles and one for indices.")
    outs = {f"out[{n}]": each for n, each in enumerate(out or ())}
    here = place(name, backend=backend, stream=stream, threads=threads, **named, **outs)
    need_halving(name, seen, number)
    n = pass_places(tuple(seen[0].shape), turn)
    middles, indices = (empty_like(seen[0], (n,), kind) for kind in (np.int16, np.uint8)) if out is None else out
    need(name, "out", middles, dtypes=("int16",), shape=(n,), contiguous=True, empty=True)
    need(name, "out", indices, dtypes=("uint8",), shape=(n,), contiguous=True, empty=True)
    run, layout = _packed(name, net)
    if n:
        work = _on_device if here.backend == "cuda" else _on_host
        work(here, seen, turn, run, layout, (middles, indices))
    return middles, indices


def _checked(name: str, grids: object, number: object, turn: object) -> tuple[int, int]:
    need_kind(name, "grids", grids, (list, tuple), do="Hand in the pyramid, finest first.")
    last = len(grids) - 1  # type: ignore[arg-type]
    return whole(name, "number", number, least=0, most=last), whole(name, "turn", turn, least=0, most=PASSES - 1)


def _packed(name: str, net: object) -> tuple[Any, Any]:
    """Return the layers as a run and its layout."""
    need_kind(name, "net", net, (list, tuple), do="Hand in three layers.")
    layers: Sequence[WholeLayer] = net  # type: ignore[assignment]
    widths = [NEIGHBOURS, *(len(layer.bias) for layer in layers)]
    if len(layers) != 3 or widths[-1] != CONTEXT_OUT or not 1 <= min(widths) <= max(widths) <= MOST_WIDTH:
        raise ConfigError.of(
            f"`net` of `{name}`",
            got=f"outputs of {widths[1:]}",
            expected=f"three layers, of up to {MOST_WIDTH} features, the last of {CONTEXT_OUT}",
            do="Hand in a context of `PyramidNets`.",
        )
    return pack_layers(name, layers, [np.arange(width) for width in widths[:-1]])


def _views(grids: Sequence[Array]) -> tuple[Any, Any]:
    """Return a run of all grids, and their starts, steps and sizes in it."""
    views = [flat_view(grid) for grid in grids]
    run, offsets = one_run([view[0] for view in views])
    gone = 3 - len(grids)
    starts = (*(offset + view[1] for offset, view in zip(offsets, views, strict=True)), *[0] * gone)
    steps = (*(step for view in views for step in view[2]), *[0] * (2 * gone))
    sizes = (*(int(n) for grid in grids for n in grid.shape), *[0] * (2 * gone))
    return run, (starts, steps, sizes)


def _on_host(here: Place, grids: Sequence[Array], turn: int, run: Any, layout: Any, out: tuple[Array, Array]) -> None:
    samples, views = _views(grids)
    over_bands(
        lambda start, stop: _context_cpu(samples, views, turn, run, layout, (start, stop), *out),
        len(out[0]), threads=here.threads, least=8 * BLOCK, align=BLOCK,
    )  # fmt: skip


def _on_device(here: Place, grids: Sequence[Array], turn: int, run: Any, layout: Any, out: tuple[Array, Array]) -> None:
    samples, views = _views(grids)
    n = int(out[0].shape[0])
    width = next(width for width in WIDTHS if width >= layout[:, :2].max())
    here.launch(
        context_kernel(width), -(-n // THREADS), THREADS, samples, views, (turn, n), constant(here, run),
        constant(here, layout), *(flat_view(each, writable=True)[0] for each in out),
    )  # fmt: skip
