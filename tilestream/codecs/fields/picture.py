"""What a field stands for: the levels of one image in memory, and how its samples become numbers of 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.codecs.quality import psnr
from tilestream.errors import ConfigError
from tilestream.kernels.mip import mip
from tilestream.types import Array, Box, Shape

DTYPES = ("uint8", "int8", "uint16", "int16", "float32")
"""Types of samples that a field can stand for; a network knows no more than 24 bits."""
MOST_CHANNELS = 16


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Size and samples of an image that a field stands for.

    Pixel (y, x) of level l covers [2^l·y, 2^l·(y+1)) × [2^l·x, 2^l·(x+1)) of level 0, also where l is no whole number,
    and a level has ceil(s / 2^l) pixels along an axis.
    """

    shape: Shape
    """Of level 0, pixels."""
    channels: int
    """How many."""
    dtype: str
    """Name of the type of the samples."""
    low: tuple[float, ...]
    """Sample of each channel that is 0 to the network."""
    high: tuple[float, ...]
    """Sample of each channel that is 1 to the network; more than `low`."""
    levels: int = 1
    """How many levels, level 0 included, the field was or will be fitted to."""

    def __post_init__(self) -> None:
        ranges = len(self.low) == len(self.high) == self.channels and all(
            math.isfinite(low) and math.isfinite(high) and low < high
            for low, high in zip(self.low, self.high, strict=True)
        )
        checks = (
            ("shape", self.shape, min(self.shape.yx) >= 1, "at least one pixel"),
            ("channels", self.channels, 1 <= self.channels <= MOST_CHANNELS, f"1 to {MOST_CHANNELS}"),
            ("dtype", self.dtype, self.dtype in DTYPES, f"one of {', '.join(DTYPES)}"),
            (
                "low` and `high",
                (self.low, self.high),
                ranges,
                "two finite numbers a channel, the second above the first",
            ),
            ("levels", self.levels, 1 <= self.levels <= 32, "1 to 32"),
        )
        for name, got, good, expected in checks:
            if not good:
                raise ConfigError.of(f"`{name}` of a picture", got=got, expected=expected, do="Choose another.")

    @classmethod
    def of(cls, pixels: Array, valid: npt.NDArray[np.bool_] | None = None, *, levels: int = 1) -> Picture:
        """Return the description of an array.

        Parameters
        ----------
        pixels : ndarray
            `(c, y, x)` of one of `DTYPES`; floats must be finite where valid.
        valid : ndarray of bool, optional
            `(y, x)`; what is not valid counts for no range.
        levels : int
            How many levels are to be fitted.

        Returns
        -------
        Picture
            8-bit samples over their whole type, so that codes are exact; others over what is there, at least 1 apart
            (floats: at least a millionth of the largest).

        Raises
        ------
        ConfigError
            When the array is no picture, or nothing of it is valid and finite.
        """
        _require_picture(pixels)
        if pixels.dtype.itemsize == 1:
            limits = np.iinfo(pixels.dtype)
            low, high = [float(limits.min)] * len(pixels), [float(limits.max)] * len(pixels)
        else:
            seen = pixels.reshape(len(pixels), -1) if valid is None else pixels[:, valid]
            if not seen.size or not np.isfinite(seen).all():
                raise ConfigError.of(
                    "`pixels` of a picture",
                    got="NaN or infinite samples" if seen.size else "no valid pixel",
                    expected="finite samples, at least one of them valid",
                    do="Say by `valid` which pixels were measured.",
                )
            low, high = seen.min(axis=1).astype(float).tolist(), seen.max(axis=1).astype(float).tolist()
            is_float = pixels.dtype.kind == "f"
            high = [
                max(b, a + (max(abs(a), abs(b), 1e-30) * 1e-6 if is_float else 1))
                for a, b in zip(low, high, strict=True)
            ]
        return cls(
            shape=Shape(y=pixels.shape[1], x=pixels.shape[2]),
            channels=len(pixels),
            dtype=pixels.dtype.name,
            low=tuple(low),
            high=tuple(high),
            levels=levels,
        )

    @property
    def extent_px(self) -> int:
        """Return the level-0 pixels that 0 to 1 span along both axes: the longer edge, so that cells are square."""
        return max(self.shape.yx)

    def shape_at(self, level: float) -> Shape:
        """Return the size of a level.

        Parameters
        ----------
        level : float
            At least 0; between two whole numbers what lies between them.

        Returns
        -------
        Shape
            ceil(s / 2^level) pixels.
        """
        scale = 2.0**level
        return Shape(y=max(1, math.ceil(self.shape.y / scale)), x=max(1, math.ceil(self.shape.x / scale)))

    def box_at(self, level: float) -> Box:
        """Return a whole level as a box; its `level` is the whole number below.

        Parameters
        ----------
        level : float
            At least 0.

        Returns
        -------
        Box
            All its pixels.
        """
        shape = self.shape_at(level)
        return Box(level=int(level), y=0, x=0, height=shape.y, width=shape.x)

    def to_unit(self, samples: Array) -> npt.NDArray[np.float32]:
        """Return samples as numbers of 0 to 1.

        Parameters
        ----------
        samples : ndarray
            `(c, …)`.

        Returns
        -------
        ndarray of float32
            Of the same shape.
        """
        low, high = (np.array(ends).reshape(-1, *[1] * (samples.ndim - 1)) for ends in (self.low, self.high))
        unit: npt.NDArray[np.float32] = ((samples - low) / (high - low)).astype(np.float32)
        return unit

    def from_unit(self, values: npt.NDArray[np.float32], out: Array | None = None) -> Array:
        """Return numbers of 0 to 1 as samples: integers rounded, ties to even, and clamped to `low` … `high`.

        Parameters
        ----------
        values : ndarray of float32
            `(c, …)`.
        out : ndarray, optional
            Memory of the same shape and of the type of the samples.

        Returns
        -------
        ndarray
            `out`, or a new array.
        """
        low, high = (np.array(ends).reshape(-1, *[1] * (values.ndim - 1)) for ends in (self.low, self.high))
        samples = np.clip(values, 0, 1).astype(np.float64) * (high - low) + low
        if self.dtype != "float32":
            np.rint(samples, out=samples)
        if out is None:
            out = np.empty(samples.shape, self.dtype)
        np.copyto(out, samples, casting="unsafe")
        return out


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The levels of a picture in memory, finest first."""

    picture: Picture
    """What they are of."""
    pixels: tuple[Array, ...]
    """`(c, y, x)` each."""
    valid: tuple[npt.NDArray[np.bool_] | None, ...]
    """`(y, x)` each, None where all of a level is valid."""

    @classmethod
    def of(
        cls,
        source: Array | Sequence[Array],
        valid: npt.NDArray[np.bool_] | None = None,
        *,
        levels: int | None = None,
    ) -> Levels:
        """Return the levels of an array, reduced as everywhere here, or those that are given.

        Parameters
        ----------
        source : ndarray or sequence of ndarray
            `(c, y, x)`, or each level of it, finest first, of sizes ceil(s/2).
        valid : ndarray of bool, optional
            `(y, x)` of level 0, for a single array; NaN is never valid.
        levels : int, optional
            How many, for a single array; by default until the longer edge has 16 pixels or less, at most 8.

        Returns
        -------
        Levels
            With their picture.

        Raises
        ------
        ConfigError
            When it is no picture, or sizes do not halve.
        """
        if not isinstance(source, np.ndarray):
            given = tuple(source)
            picture = Picture.of(given[0], levels=len(given))
            for number, level in enumerate(given):
                expected = picture.shape_at(number)
                if level.shape != (picture.channels, *expected.yx) or level.dtype != given[0].dtype:
                    raise ConfigError.of(
                        f"level {number} of a picture",
                        got=f"{level.shape} {level.dtype}",
                        expected=f"{(picture.channels, *expected.yx)} {given[0].dtype}",
                        do="Give levels of half the size each, rounded up.",
                    )
            return cls(picture=picture, pixels=given, valid=(None,) * len(given))
        _require_picture(source)
        if source.dtype.kind == "f" and not np.isfinite(source).all():
            finite = np.logical_and.reduce(np.isfinite(source), axis=0)
            valid = finite if valid is None else np.logical_and(valid, finite)
        if valid is not None and valid.all():
            valid = None
        edge = max(source.shape[1:])
        count = min(8, max(1, math.ceil(math.log2(edge / 16)) + 1)) if levels is None else levels
        picture = Picture.of(source, valid, levels=count)
        return cls(
            picture=picture,
            pixels=(source, *mip(source, valid, levels=count - 1, threads=1)) if count > 1 else (source,),
            valid=_valid_levels(valid, count),
        )

    def psnr(self, level: int, found: Array) -> float:
        """Return how well an array stands for a level.

        Parameters
        ----------
        level : int
            Which of them.
        found : ndarray
            `(c, y, x)` of the type of its pixels.

        Returns
        -------
        float
            dB over valid pixels, of what `Picture.low` to `Picture.high` spans; inf where they are equal.
        """
        pair = (self.pixels[level], found)
        if self.picture.dtype == "uint8":
            return psnr(*pair, valid=self.valid[level])
        return psnr(*(self.picture.to_unit(array) for array in pair), high=1.0, valid=self.valid[level])


def _valid_levels(valid: npt.NDArray[np.bool_] | None, count: int) -> tuple[npt.NDArray[np.bool_] | None, ...]:
    """Return what is valid of each level: a pixel that any valid one lies under."""
    if valid is None:
        return (None,) * count
    found: list[npt.NDArray[np.bool_]] = [valid]
    for _ in range(count - 1):
        last = found[-1]
        even = np.pad(last, [(0, size % 2) for size in last.shape])
        quads = even.reshape(even.shape[0] // 2, 2, -1, 2)
        found.append(np.logical_or.reduce(quads, axis=(1, 3)))
    return tuple(found)


def _require_picture(pixels: Array) -> None:
    if pixels.ndim != 3 or min(pixels.shape) < 1 or pixels.dtype.name not in DTYPES or len(pixels) > MOST_CHANNELS:
        raise ConfigError.of(
            "`pixels` of a picture",
            got=f"{pixels.shape} {pixels.dtype}",
            expected=f"(c, y, x) of 1 to {MOST_CHANNELS} channels and {', '.join(DTYPES)}",
            do="Choose channels, or convert the samples.",
        )
