"""A coarse look at a whole image: read once, for every term that needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import log2
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.companding import (
    FLOAT_PER_OCTAVE,
    FLOAT_UNIT,
    SIGNED_PER_OCTAVE,
    UNSIGNED_PER_OCTAVE,
    compand,
)
from tilestream.pyramid import Pyramid
from tilestream.pyramid.coarse import Coarse, mask_level, read_coarse
from tilestream.types import Array, ImageInfo, ScoreMap, Shape, cells_of

Mask = npt.NDArray[np.bool_]

CELL_PX = 8
"""Edge of a cell in pixels of the coarse picture: 64 um or more on a slide, a 256th of the long edge of others.
Fewer than 8² values are too few for a histogram."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """An image at the level at which it is looked at as a whole."""

    info: ImageInfo
    """The image."""
    coarse: Coarse
    """Picture, validity and damage."""

    @classmethod
    def of(cls, pyr: Pyramid) -> Look:
        """Return a look at an image, at the level of `tilestream.pyramid.coarse.mask_level`.

        Parameters
        ----------
        pyr : Pyramid
            The image.

        Returns
        -------
        Look
            At most 64 MB of picture; nothing finer than its level is read.
        """
        return cls(info=pyr.info, coarse=read_coarse(pyr, mask_level(pyr.info)))

    @property
    def is_labels(self) -> bool:
        """Return whether values are class numbers, of which differences mean nothing."""
        return self.info.kind == "labels"

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was damaged."""
        return tuple(f"coarse picture: {reason}" for reason in self.coarse.damage)

    def codes(self, value_range: tuple[float, float] | None = None) -> tuple[Array, Mask]:
        """Return the picture in 8-bit codes by a mapping that is the same for every image of its type.

        Parameters
        ----------
        value_range : (low, high), optional
            Values that become the first and last code of a linear mapping; by default the fixed mapping of the type,
            `tilestream.kernels.companding`: 8-bit samples as they are, others by their logarithm, so that a difference
            of codes is a contrast. Classes are taken modulo 256 in any case.

        Returns
        -------
        codes : ndarray of uint8
            `(c, y, x)`, a view of interleaved memory.
        valid : ndarray of bool
            `(y, x)`; False also where a channel is NaN.
        """
        return self._mapped if value_range is None or self.is_labels else self._mapping(value_range)

    @cached_property
    def _mapped(self) -> tuple[Array, Mask]:
        if not self.is_labels:
            return self._mapping(None)
        numbers = self._channels
        if numbers.dtype.kind == "f":
            numbers = np.nan_to_num(numbers).astype(np.int64)
        return numbers.astype(np.uint8), self.coarse.valid  # integers are cut to their last byte

    @property
    def _channels(self) -> Array:
        assert self.coarse.pixels is not None
        return np.moveaxis(self.coarse.pixels, 2, 0)

    def _mapping(self, value_range: tuple[float, float] | None) -> tuple[Array, Mask]:
        codes, valid = compand(self._channels[None], self.coarse.valid[None], value_range=value_range)
        return codes[0], self.coarse.valid if valid is None else np.asarray(valid[0])

    def need_intensity(self, term: str) -> None:
        """Raise `ConfigError` for an image of classes, of which a term cannot say anything."""
        if self.is_labels:
            raise ConfigError.of(
                f"term `{term}`", got="an image of classes", expected="an image of intensities",
                do="Of classes there are `entropy` and `gradient`.",
            )  # fmt: skip

    @property
    def codes_per_octave(self) -> int | None:
        """Return the codes from a value to twice that value; None where codes are the samples."""
        dtype = self.info.dtype
        if dtype.itemsize == 1 or self.is_labels:
            return None
        by_size = {"u": UNSIGNED_PER_OCTAVE, "i": SIGNED_PER_OCTAVE}.get(dtype.kind, {})
        return by_size.get(dtype.itemsize, FLOAT_PER_OCTAVE)

    @property
    def unit(self) -> float:
        """Return the difference of codes that is a contrast of 1 in 128: one code in the middle of 8 bits."""
        return 1.0 if self.codes_per_octave is None else self.codes_per_octave * log2(129 / 128)

    def plane(self, channel: int) -> npt.NDArray[np.float32]:
        """Return the codes of a channel before they are rounded, which would cost faint contrasts of other types.

        Parameters
        ----------
        channel : int
            Its index.

        Returns
        -------
        ndarray of float32
            `(y, x)`, 0 to 255.
        """
        codes, _ = self.codes()
        if self.codes_per_octave is None:
            return np.asarray(codes[channel], np.float32)
        samples = self._channels[channel]
        if samples.dtype.itemsize <= 2:
            table, lowest = _table(samples.dtype.str, self.codes_per_octave)
            return np.asarray(table[samples.astype(np.int32) - lowest])
        return _unrounded(samples, self.codes_per_octave)

    @cached_property
    def intensity(self) -> npt.NDArray[np.float32]:
        """Return the mean of the unrounded codes over all channels, `(y, x)`."""
        codes, _ = self.codes()
        if self.codes_per_octave is None:
            return np.asarray(codes.mean(axis=0, dtype=np.float32))
        total = self.plane(0)
        for channel in range(1, len(codes)):
            total += self.plane(channel)
        return total / np.float32(len(codes))

    def score_map(
        self,
        name: str,
        values: npt.NDArray[Any],
        valid: Mask,
        *,
        cell_px: int,
        floor: float | None = None,
        notes: Sequence[str] = (),
    ) -> ScoreMap:
        """Return scores of cells of the coarse picture as a map of the image.

        Parameters
        ----------
        name : str
            Of the map.
        values : ndarray
            `(y, x)`, a number for each cell; what it is where `valid` is False does not matter.
        valid : ndarray of bool
            `(y, x)`.
        cell_px : int
            Edge of a cell in pixels of the coarse picture.
        floor : float, optional
            Value up to which there is nothing to see.
        notes : sequence of str
            What a user should know.

        Returns
        -------
        ScoreMap
            In cells of level 0.
        """
        scale_y, scale_x = self.coarse.level.scale_yx
        cell_yx = scale_y * cell_px, scale_x * cell_px
        cells = fitted(values, self.info.shape, cell_yx), fitted(valid, self.info.shape, cell_yx)
        return ScoreMap(
            name=name, values=np.where(cells[1], cells[0], 0).astype(np.float32), valid=cells[1], cell_yx=cell_yx,
            shape=self.info.shape, floor=floor, notes=(*self.notes, *notes),
        )  # fmt: skip


def _unrounded(samples: npt.NDArray[Any], per_octave: int) -> npt.NDArray[np.float32]:
    """Return codes by the formulas of `tilestream.kernels.companding`, without their last step."""
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and then the last code
        values = samples.astype(np.float32)
        if samples.dtype.kind == "f":
            values[np.isnan(values)] = 0
            values /= np.float32(FLOAT_UNIT)
    steps = np.abs(values)
    steps += 1
    np.log2(steps, out=steps)
    steps *= per_octave
    if samples.dtype.kind == "u":
        return np.minimum(steps, 255)
    return np.asarray(128 + np.copysign(np.minimum(steps, 127), values))


@lru_cache(maxsize=4)
def _table(dtype: str, per_octave: int) -> tuple[npt.NDArray[np.float32], int]:
    """Return the unrounded code of every value of a 16-bit type, and the lowest value."""
    limits = np.iinfo(dtype)
    return _unrounded(np.arange(limits.min, limits.max + 1, dtype=dtype), per_octave), int(limits.min)


def fitted(cells: npt.NDArray[Any], shape: Shape, cell_yx: tuple[float, float]) -> npt.NDArray[Any]:
    """Return cells of a level as many as those that cover the image.

    A format may say of its levels that they are a little larger or smaller than they are: then the last row of cells,
    of which less than a pixel was seen, is the one before it.

    Parameters
    ----------
    cells : ndarray
        `(y, x)`.
    shape : Shape
        Size of the image at level 0.
    cell_yx : tuple of float
        Edges of a cell in pixels of level 0.

    Returns
    -------
    ndarray
        `(y, x)` as a `ScoreMap` has it.
    """
    rows, columns = cells_of(shape, cell_yx).yx
    y, x = (np.minimum(np.arange(n), have - 1) for n, have in zip((rows, columns), cells.shape, strict=True))
    return cells[np.ix_(y, x)]


def seen(valid: Mask, cell_px: int) -> Mask:
    """Return which cells hold a valid pixel."""
    for axis in (0, 1):
        valid = np.logical_or.reduceat(valid, np.arange(0, valid.shape[axis], cell_px), axis=axis)
    return valid


def cell_means(values: npt.NDArray[Any], valid: Mask, cell_px: int) -> tuple[npt.NDArray[np.float64], Mask]:
    """Return the mean of the valid pixels of each cell, and which cells have any.

    Parameters
    ----------
    values : ndarray
        `(y, x)`, finite.
    valid : ndarray of bool
        `(y, x)`.
    cell_px : int
        Edge of a cell.

    Returns
    -------
    means : ndarray of float64
        `(⌈y / cell_px⌉, ⌈x / cell_px⌉)`, 0 where no pixel is valid.
    valid : ndarray of bool
        Of the same shape.
    """
    count = cell_sums(valid, cell_px)
    total = cell_sums(values if valid.all() else np.where(valid, values, 0), cell_px)
    return total / np.maximum(count, 1), count > 0


def cell_sums(values: npt.NDArray[Any], cell_px: int) -> npt.NDArray[np.float64]:
    """Return the sum over each cell of a plane, `(⌈y / cell_px⌉, ⌈x / cell_px⌉)`."""
    rows = np.zeros((-(-values.shape[0] // cell_px), values.shape[1]))
    for k in range(min(cell_px, values.shape[0])):
        part = values[k::cell_px]
        rows[: len(part)] += part
    sums = np.zeros((len(rows), -(-rows.shape[1] // cell_px)))
    for k in range(min(cell_px, rows.shape[1])):
        part = rows[:, k::cell_px]
        sums[:, : part.shape[1]] += part
    return sums
