"""Levels of half size each: mean of what exists under each pixel, mode of labels, or a longer filter.

    level l, pixel (y, x) = mean of the valid level-0 pixels in [2^l·y, 2^l·(y+1)) × [2^l·x, 2^l·(x+1)),   l = 1 … 4

from exact integer sums, rounded once, ties to even, so that levels 1 to 4 hold no drift (at most half a grey level).
Each further `restart` levels come from the last one rounded: 5 to 8 from level 4, every valid pixel of which counts
once. Size ceil(s/2) a level; edge pixels average what exists. float16 and float32 are summed in float32, float64 in
float64, in the order of a quad tree: sums of finite samples must be finite. CPU and CUDA give the same bits for
integers. Tolerance of the tests: 0 for integers; 1e-6 (float32) and 1e-12 (float64), relative to the largest sample
under a pixel; float16 the rounding to float16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need, need_kind, whole
from tilestream.kernels.fir import FILTERS, LIGHTS, FilterName, Fir, Light, fir_of
from tilestream.kernels.mip_filter import reduce_filtered
from tilestream.kernels.mip_fused import MAX_LEVELS, reduce_on_cuda
from tilestream.kernels.mip_labels import reduce_labels
from tilestream.kernels.mip_layout import Reduction, boxes_in, boxes_under, empty_level, level_shape
from tilestream.kernels.mip_mean import reduce_on_cpu
from tilestream.kernels.place import Array, Place, dtype_of, empty_like, need_writable, place
from tilestream.types import Box, Kind

EXACT_LEVELS = 4
"""Levels that are summed from one another before anything is rounded, unless the caller says otherwise."""
MAX_CHANNELS = 16
MOST_LEVELS = 64
"""More than any array has until one pixel is left."""
_INTENSITIES = (
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64", "bool",
)  # fmt: skip
_LABELS = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")


@dataclass(frozen=True, kw_only=True)
class MipLevel:
    """One reduced level."""

    pixels: Array
    """Axes and dtype of the array that was reduced; 0, or `nodata` where that was given, where not valid."""
    valid: Array
    """`(y, x)` or `(n, y, x)` bool, False where no valid pixel lies under a pixel."""


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """How levels are made; see `mip`."""

    kind: Kind
    filter: FilterName | Fir
    light: Light
    restart: int
    nodata: float | None

    @property
    def fir(self) -> Fir | None:
        """The filter, None for the mean of what is stored."""
        if isinstance(self.filter, Fir):
            return self.filter
        return None if self.filter == "box" and self.light == "stored" else fir_of(self.filter)

    @property
    def group(self) -> int:
        """How many levels come from the same pixels."""
        return self.restart if self.fir is None else 1


def mip(
    a: Array,
    valid: Array | None = None,
    *,
    levels: int | None = None,
    kind: Kind = "intensity",
    filter: FilterName | Fir = "box",
    light: Light = "stored",
    restart: int = EXACT_LEVELS,
    nodata: float | None = None,
    out: Sequence[Array] | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> list[Array]:
    """Return the reduced levels of an array, level 1 first.

    Parameters
    ----------
    a : array
        `(y, x)`, `(c, y, x)` or `(n, c, y, x)` on the host or a device, any strides, up to 16 channels: integers of up
        to 32 bits or floats of 16 to 64; labels of any integer type.
    valid : array of bool, optional
        `(y, x)` or, for a batch, `(n, y, x)`; pixels that are False, and pixels with a sample that is not finite,
        enter no level.
    levels : int, optional
        How many; by default until one pixel is left.
    kind : {"intensity", "labels"}
        Mean, or the most frequent value (ties to the smaller) of each channel.
    filter : {"box", "binomial", "kaiser", "lanczos"} or Fir
        Mean of what lies under a pixel, or a longer filter of intensities around it; see `tilestream.kernels.fir`. Such
        levels are made one of the other and rounded one by one.
    light : {"stored", "linear", "density"}
        What is averaged: samples as they are, or the light or optical density that uint8 stands for; level by level.
    restart : int
        After how many levels sums begin anew from rounded pixels, 1 to 6.
    nodata : float, optional
        Pixels that have this value in every channel are not valid either; it is written where nothing is valid.
    out : sequence of array, optional
        The levels, to be overwritten, of any strides.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    list of array
        Axes and dtype as in `a`, sizes ceil(s/2) each: `out`, or new arrays of the kind of `a` with its channels
        together or apart as they are there; 0, or `nodata`, where nothing is valid.

    Raises
    ------
    ConfigError
        When the array cannot be reduced, or what was given does not belong together.

    Examples
    --------
    >>> [level.shape for level in mip(np.zeros((3, 100, 50), np.uint8), levels=2)]
    [(3, 50, 25), (3, 25, 13)]
    """
    rules = _Rules(kind=kind, filter=filter, light=light, restart=restart, nodata=nodata)
    here = place("mip", backend=backend, stream=stream, threads=threads, a=a, valid=valid, **_named("out", out))
    _check(a, valid, rules)
    outs = _outputs(a, levels, out)
    tracked = valid is not None or nodata is not None or dtype_of(a).kind == "f"
    # integers that are all valid stay so; where nobody asks, only the levels that others come from need to know
    valids = _validity(a, outs) if tracked and len(outs) > rules.group else []
    _build(here, a, valid, outs, valids, rules, None)
    return outs


def mip_levels(
    a: Array,
    valid: Array | None = None,
    *,
    levels: int | None = None,
    kind: Kind = "intensity",
    filter: FilterName | Fir = "box",
    light: Light = "stored",
    restart: int = EXACT_LEVELS,
    nodata: float | None = None,
    out: Sequence[MipLevel] | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> list[MipLevel]:
    """Return the reduced levels of an array with the validity of each, level 1 first.

    Parameters
    ----------
    a, valid, levels, kind, filter, light, restart, nodata
        As for `mip`.
    out : sequence of MipLevel, optional
        Levels to be overwritten.
    backend, stream, threads
        As for `mip`.

    Returns
    -------
    list of MipLevel
        Axes as in `a`.

    Raises
    ------
    ConfigError
        When the array cannot be reduced, or what was given does not belong together.
    """
    rules = _Rules(kind=kind, filter=filter, light=light, restart=restart, nodata=nodata)
    if out is not None:
        need_kind("mip_levels", "out", out, (list, tuple), do="One MipLevel a level.")
        for each in out:
            need_kind("mip_levels", "out", each, MipLevel, do="One a level.")
    pixels, seen = ([o.pixels for o in out], [o.valid for o in out]) if out is not None else (None, None)
    arrays = {**_named("out", pixels), **_named("out_valid", seen)}
    here = place("mip", backend=backend, stream=stream, threads=threads, a=a, valid=valid, **arrays)
    _check(a, valid, rules)
    outs = _outputs(a, levels, pixels)
    valids = _validity(a, outs, seen)
    _build(here, a, valid, outs, valids, rules, None)
    return [MipLevel(pixels=level, valid=ok) for level, ok in zip(outs, valids, strict=True)]


def update_mip(
    levels: Sequence[Array] | Sequence[MipLevel],
    a: Array,
    boxes: Sequence[Box],
    valid: Array | None = None,
    *,
    kind: Kind = "intensity",
    filter: FilterName | Fir = "box",
    light: Light = "stored",
    restart: int = EXACT_LEVELS,
    nodata: float | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> None:
    """Recompute in place what lies over changed boxes: the bits that a rebuild would give.

    Parameters
    ----------
    levels : sequence of array or of MipLevel
        What `mip` or `mip_levels` returned for the array before it changed, with the same parameters. Where pixels can
        be invalid (`valid`, `nodata`, floats) and more than `restart` levels are kept, it must be from `mip_levels`,
        since the further levels come from the validity of others.
    a : array
        As it is now.
    boxes : sequence of Box
        Where it changed, in pixels of level 0, in any image of a batch; they may overlap and reach over the edges.
    valid : array of bool, optional
        As it is now; where it changed belongs into `boxes` too.
    kind, filter, light, restart, nodata
        As they were for `mip`.
    backend, stream, threads
        As for `mip`.

    Raises
    ------
    ConfigError
        When the levels are not those of such an array.
    """
    rules = _Rules(kind=kind, filter=filter, light=light, restart=restart, nodata=nodata)
    for name, given in (("levels", levels), ("boxes", boxes)):
        need_kind("update_mip", name, given, (list, tuple), do="Put them in a list.")
    for box in boxes:
        need_kind("update_mip", "boxes", box, Box, do="Hand in a list of boxes.")
    outs = [level.pixels if isinstance(level, MipLevel) else level for level in levels]
    valids = [level.valid for level in levels if isinstance(level, MipLevel)]
    arrays = {**_named("levels", outs), **_named("levels_valid", valids)}
    here = place("update_mip", backend=backend, stream=stream, threads=threads, a=a, valid=valid, **arrays)
    for name, array in arrays.items():
        need_writable("update_mip", name, array)
    _check(a, valid, rules)
    tracked = valid is not None or nodata is not None or dtype_of(a).kind == "f"
    if tracked and len(outs) > rules.group and len(valids) != len(outs):
        raise ConfigError.of(
            "`levels` of `update_mip`",
            got="arrays without validity, of pixels that can be invalid",
            expected="what `mip_levels` returned",
            do="Keep the levels of mip_levels.",
        )
    if any(box.level != 0 for box in boxes):
        raise ConfigError.of(
            "`boxes` of `update_mip`", got="a box of another level", expected="boxes of level 0", do="Scale it first."
        )
    outs = _outputs(a, len(outs), outs)
    valids = _validity(a, outs, valids) if valids else []
    _build(here, a, valid, outs, valids, rules, boxes_in(boxes, tuple(a.shape)))


def _build(
    here: Place, a: Array, valid: Array | None, outs: list[Array], valids: list[Array], rules: _Rules,
    boxes: npt.NDArray[np.int64] | None,
) -> None:  # fmt: skip
    """Write levels in runs that come from the same pixels."""
    fill = 0 if rules.nodata is None else rules.nodata
    for first in range(0, len(outs), rules.group):
        last = first + rules.group
        reduction = Reduction(
            pixels=a, valid=valid, nodata=rules.nodata if first == 0 else None, fill=fill, outs=outs[first:last],
            valids=valids[first:last], boxes=boxes,
        )  # fmt: skip
        if boxes is None or len(boxes):
            _reduce(here, reduction, rules)
        if last >= len(outs):
            return
        a, valid = outs[last - 1], valids[last - 1] if valids else None
        reach = 0 if rules.fir is None else rules.fir.radius // 2
        boxes = boxes_under(boxes, len(reduction.outs), tuple(a.shape), reach=reach)


def _reduce(here: Place, reduction: Reduction, rules: _Rules) -> None:
    if rules.kind == "labels":
        reduce_labels(reduction, here)
    elif rules.fir is not None:
        grown = boxes_under(reduction.boxes, 0, tuple(reduction.pixels.shape), reach=rules.fir.radius)
        reduce_filtered(Reduction(**{**vars(reduction), "boxes": grown}), here, fir=rules.fir, light=rules.light)
    elif here.backend == "cuda":
        reduce_on_cuda(reduction, here)
    else:
        reduce_on_cpu(reduction, threads=here.threads)


def _named(name: str, arrays: Sequence[Array] | None) -> dict[str, Array]:
    if arrays is not None and not isinstance(arrays, (list, tuple)):
        _refuse(name, type(arrays).__name__, "a list of arrays", "Hand in one array a level.")
    for index, array in enumerate(arrays or ()):
        if array is None:
            _refuse(f"{name}[{index}]", "None", "an array", "Hand in one array a level.")
    return {f"{name}[{index}]": array for index, array in enumerate(arrays or ())}


def _check(a: Array, valid: Array | None, rules: _Rules) -> None:
    labels = rules.kind == "labels"
    need("mip", "a", a, dtypes=_LABELS if labels else _INTENSITIES, ndim=(2, 3, 4))
    shape = tuple(int(n) for n in a.shape)
    need("mip", "valid", valid, dtypes=("bool",), shape=shape[-2:] if len(shape) < 4 else (shape[0], *shape[-2:]))
    if len(shape) > 2 and shape[-3] > MAX_CHANNELS:
        _refuse("a", f"{shape[-3]} channels", f"at most {MAX_CHANNELS}", "Reduce them in parts.")
    if rules.kind not in ("intensity", "labels"):
        _refuse("kind", repr(rules.kind), "'intensity' or 'labels'", "Say what the samples are.")
    known = isinstance(rules.filter, Fir) or rules.filter in FILTERS
    if not known or (labels and rules.filter != "box"):
        _refuse("filter", repr(rules.filter), f"'box', or for intensities one of {', '.join(FILTERS)}", "Leave it out.")
    if rules.light not in LIGHTS or (rules.light != "stored" and (labels or dtype_of(a) != np.uint8)):
        got = f"{rules.light!r} of {dtype_of(a)}"
        _refuse("light", got, f"'stored', or for uint8 intensities one of {', '.join(LIGHTS)}", "Leave it out.")
    whole("mip", "restart", rules.restart)
    if not 1 <= rules.restart <= MAX_LEVELS:
        _refuse("restart", rules.restart, f"1 to {MAX_LEVELS} levels", "Leave it out for 4.")
    nodata: Any = rules.nodata
    if nodata is not None and not isinstance(nodata, (int, float, np.number, np.bool_)):
        _refuse("nodata", repr(nodata), "a number", "Give one value for all channels.")
    if rules.nodata is not None and not _fits(rules.nodata, dtype_of(a)):
        _refuse("nodata", rules.nodata, f"a value of {dtype_of(a)}", "Leave it out: no sample can have it.")


def _fits(value: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return not math.isfinite(value) or abs(value) <= float(np.finfo(dtype).max)
    if dtype.kind == "b":
        return value in (0, 1)
    return math.isfinite(value) and value == int(value) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


def _outputs(a: Array, levels: int | None, out: Sequence[Array] | None) -> list[Array]:
    shape = tuple(int(n) for n in a.shape)
    if levels is not None:
        levels = whole("mip", "levels", levels, least=0, most=MOST_LEVELS)
    until_one = max(int(n - 1).bit_length() for n in shape[-2:])
    wanted = (until_one if out is None else len(out)) if levels is None else levels
    shapes = [level_shape(shape, level) for level in range(1, wanted + 1)]
    if out is None:
        return [empty_level(a, each) for each in shapes]
    if len(out) != wanted:
        _refuse("out", f"{len(out)} arrays", f"{wanted} levels", "Hand in one array a level.")
    for index, (array, each) in enumerate(zip(out, shapes, strict=True)):
        need("mip", f"out[{index}]", array, dtypes=(dtype_of(a).name,), shape=each)
    return list(out)


def _validity(a: Array, outs: list[Array], given: Sequence[Array] | None = None) -> list[Array]:
    shapes = [tuple(int(n) for n in (*o.shape[: len(o.shape) - 3], *o.shape[-2:])) for o in outs]
    if given is None:
        return [empty_like(a, shape, np.bool_) for shape in shapes]
    for index, (array, shape) in enumerate(zip(given, shapes, strict=True)):
        need("mip", f"validity of level {index + 1}", array, dtypes=("bool",), shape=shape)
    return list(given)


def _refuse(name: str, got: object, expected: str, do: str) -> None:
    raise ConfigError.of(f"`{name}` of `mip`", got=got, expected=expected, do=do)
