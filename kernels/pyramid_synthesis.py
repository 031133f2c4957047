"""The channels of one level from the grids of the pyramid codec, in whole numbers: the same bits on every device.

Grids are raised to the size of the finest one needed (`tilestream.kernels.pyramid_raise`) and go through a network of
two layers and residual convolutions (`tilestream.kernels.pyramid_channels`). A box needs a few places around it;
nothing else is computed, and its values are those of the whole level.

Source: Cool-chic (Ladune et al. 2023, arXiv 2212.05458) and C3 (Kim et al. 2023, arXiv 2312.02753).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need, need_kind, whole
from tilestream.kernels.place import Array, Place, dtype_of, empty_like, place
from tilestream.kernels.pyramid_channels import WINDOW, convolve_cpu, mix_cpu, write_features, write_samples
from tilestream.kernels.pyramid_layers import need_halving, pack_layers, padded_to
from tilestream.kernels.pyramid_numbers import (
    FEATURE_MOST,
    MOST_SCALES,
    MOST_WIDTH,
    PIXEL_MOST,
    TAPS,
    WholePyramid,
    WholeSynthesis,
)
from tilestream.kernels.pyramid_raise import Window, raise_cpu, windows_of
from tilestream.kernels.pyramid_synthesis_cuda import synthesise_on_device
from tilestream.kernels.rows import flat_view
from tilestream.types import Box

BAND_ROWS = 32
"""That one thread takes at once: of 512 columns, all that lies between two steps fits into a second cache."""


def pixel_samples(low: npt.ArrayLike, high: npt.ArrayLike, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return what each pixel of 0 … 16,320 is as a sample: low + (p · (high − low) + 8,160) // 16,320.

    Parameters
    ----------
    low, high : array-like of int
        Samples of the channels that are 0 and 16,320; exact in 64 bits.
    dtype : dtype
        Of the samples, integers.

    Returns
    -------
    ndarray
        `(channels, 16321)`.
    """
    lows, highs = (np.asarray(ends).astype(np.int64).reshape(-1, 1) for ends in (low, high))
    pixels = np.arange(PIXEL_MOST + 1, dtype=np.int64)
    found: npt.NDArray[Any] = (lows + (pixels * (highs - lows) + PIXEL_MOST // 2) // PIXEL_MOST).astype(dtype)
    return found


def pyramid_synthesis(
    grids: Sequence[Array],
    nets: WholePyramid,
    level: int = 0,
    *,
    box: Box | None = None,
    samples: Array | None = None,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return the channels of a level, or of a box of it.

    Parameters
    ----------
    grids : sequence of array of int16
        `(y, x)` each, finest first, each half of the one before, rounded up; any strides. Magnitudes up to 255. Those
        finer than the level are not looked at and may be None.
    nets : WholePyramid
        Whose sums must stay within 32 bits, as `PyramidNets.check` makes sure.
    level : int
        One that the networks have a synthesis of.
    box : Box, optional
        Inside of the level, in its pixels; `box.level` does not matter. By default all of it.
    samples : array, optional
        `(c, 16321)`, contiguous: what is written for each pixel, such as `pixel_samples` gives. Without it the
        channels are given as they are, which may exceed pixels on both sides.
    out : array of the type of `samples`, or of int16
        `(c, y, x)`, any strides; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array
        `(c, y, x)`: `out`, or a new array of the kind of the grids.

    Raises
    ------
    ConfigError
        When types or shapes do not fit, the box is not inside, or the arrays are not in one place.
    """
    name = "pyramid_synthesis"
    net, level = _net_of(name, grids, nets, level)
    needed = list(grids[level:])
    named = {f"grids[{level + n}]": grid for n, grid in enumerate(needed)}
    here = place(name, backend=backend, stream=stream, threads=threads, samples=samples, out=out, **named)
    need_halving(name, needed, level)
    channels = len(net.second.bias)
    if samples is not None:
        need(
            name,
            "samples",
            samples,
            dtypes=(dtype_of(samples).name,),
            shape=(channels, PIXEL_MOST + 1),
            contiguous=True,
        )
    window = _window_of(name, box, tuple(int(n) for n in needed[0].shape))
    dtype, shape = np.dtype(np.int16) if samples is None else dtype_of(samples), (channels, *window[2:])
    need(name, "out", out, dtypes=(dtype.name,), shape=shape, empty=True)
    packed = _packed(name, net, len(needed))
    filters = _filters_of(name, nets, level, len(needed))
    found = empty_like(needed[0], shape, dtype) if out is None else out
    if 0 in shape:
        return found
    work = synthesise_on_device if here.backend == "cuda" else _on_host
    work(here, needed, filters, packed, channels, window, samples, found)
    return found


def _net_of(name: str, grids: object, nets: Any, level: object) -> tuple[WholeSynthesis, int]:
    """Return the synthesis of a level, and its number."""
    need_kind(name, "grids", grids, (list, tuple), do="Hand in the pyramid, finest first.")
    if not hasattr(nets, "synth"):
        need_kind(name, "nets", nets, (), do="Hand in `PyramidNets`.")
    count = min(len(nets.synth), len(grids))  # type: ignore[arg-type]
    number = whole(name, "level", level, least=0, most=count - 1)
    if len(grids) - number > MOST_SCALES:  # type: ignore[arg-type]
        raise ConfigError.of(
            f"`grids` of `{name}`", got=len(grids), expected=f"at most {MOST_SCALES}", do="Hand in one pyramid."  # type: ignore[arg-type]
        )  # fmt: skip
    return nets.synth[number], number


def _window_of(name: str, box: Box | None, shape: tuple[int, ...]) -> Window:
    if box is None:
        return 0, 0, shape[0], shape[1]
    need_kind(name, "box", box, Box, do="Make one, or leave it out for the whole level.")
    if min(box.y, box.x) < 0 or box.y_stop > shape[0] or box.x_stop > shape[1]:
        raise ConfigError.of(
            f"`box` of `{name}`",
            got=f"rows {box.y} to {box.y_stop}, columns {box.x} to {box.x_stop}",
            expected=f"a part of {shape[0]} × {shape[1]}",
            do="Clip it to the level first.",
        )
    return box.y, box.x, box.height, box.width


def _packed(name: str, net: WholeSynthesis, grids: int) -> tuple[Any, Any]:
    """Return all layers as a run and its layout; what is hidden is padded before the grids that follow it."""
    hidden, channels = len(net.first.bias), len(net.second.bias)
    if not 1 <= min(hidden, channels) <= max(hidden, channels) <= MOST_WIDTH:
        raise ConfigError.of(
            f"`nets` of `{name}`",
            got=f"{hidden} features, {channels} channels",
            expected=f"up to {MOST_WIDTH} of each",
            do="Hand in `PyramidNets`.",
        )
    taken = np.arange(grids)
    columns = [taken, np.concatenate([np.arange(hidden), padded_to(hidden) + taken])]
    columns += [np.arange(channels * WINDOW)] * len(net.convs)
    return pack_layers(name, (net.first, net.second, *net.convs), columns)


def _filters_of(name: str, nets: WholePyramid, level: int, grids: int) -> npt.NDArray[np.int32]:
    """Return the filters from a level on."""
    filters = np.asarray(nets.filters, np.int32)[level:]
    if filters.shape != (grids - 1, TAPS):
        raise ConfigError.of(
            f"`nets` of `{name}`",
            got=f"{len(filters) + level} filters",
            expected=f"{grids - 1 + level}, one less than grids",
            do="Hand in the networks of these grids.",
        )
    return filters


def _on_host(
    here: Place, grids: Sequence[Array], filters: Any, packed: tuple[Any, Any], channels: int, window: Window,
    samples: Array | None, out: Array,
) -> None:  # fmt: skip
    y, x, height, width = window

    def band(start: int, stop: int) -> None:
        for first in range(start, stop, BAND_ROWS):
            rows = min(BAND_ROWS, stop - first)
            part = (y + first, x, rows, width)
            _band_on_host(grids, filters, packed, channels, part, samples, out[:, first : first + rows])

    over_bands(band, height, threads=here.threads, least=BAND_ROWS, align=BAND_ROWS)


def _band_on_host(
    grids: Sequence[Array], filters: Any, packed: tuple[Any, Any], channels: int, window: Window,
    samples: Array | None, out: Array,
) -> None:  # fmt: skip
    """Write one band of a box."""
    run, layout = packed
    windows = windows_of(grids, window, len(layout) - 2)
    raised = np.empty((0, 1, 1), np.int16)
    coarse_yx = (0, 0)
    for number in range(len(grids) - 1, -1, -1):
        y, x, height, width = windows[number]
        found = np.empty((len(raised) + 1, height, width), np.int16)
        taps = tuple(int(tap) for tap in filters[number]) if len(raised) else (0, 0, 0, 0)
        raise_cpu(raised, *flat_view(grids[number]), taps, (*coarse_yx, y, x), found)
        raised, coarse_yx = found, (y, x)
    _, height, width = raised.shape
    framed = np.empty((channels, height + 2, width + 2), np.int16)
    mix_cpu(raised, run, layout, framed)
    if len(layout) > 2:
        other = np.empty_like(framed)
        for row in range(2, len(layout)):
            convolve_cpu(framed, run, layout[row], -FEATURE_MOST if row == len(layout) - 1 else 0, other)
            framed, other = other, framed
    skipped = (window[0] - coarse_yx[0] + 1, window[1] - coarse_yx[1] + 1)
    if samples is None:
        write_features(framed, skipped, window[2:], *flat_view(out, writable=True))
    else:
        write_samples(framed, skipped, window[2:], samples, *flat_view(out, writable=True))
