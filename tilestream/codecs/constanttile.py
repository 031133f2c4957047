"""A tile all of whose valid pixels are equal: glass, water, nodata. A container of some thirty bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.codecs.container import pack, unpack
from tilestream.codecs.fields.picture import DTYPES, MOST_CHANNELS, Picture
from tilestream.errors import ConfigError, DamagedError
from tilestream.types import Array, Box, Shape

KIND = "constant"
VERSION = 1
MOST_PX = 1 << 24
"""Longest edge of a tile."""


@dataclass(frozen=True, kw_only=True)
class ConstantTile:
    """Pixels that are all the same."""

    shape: Shape
    """Of level 0, px."""
    dtype: str
    """Type of the samples."""
    values: tuple[float, ...]
    """Sample of each channel."""

    @classmethod
    def of(cls, pixels: Array, valid: npt.NDArray[np.bool_] | None = None) -> ConstantTile | None:
        """Return pixels as a constant, None where they are none.

        Parameters
        ----------
        pixels : ndarray
            `(c, y, x)`.
        valid : ndarray of bool, optional
            `(y, x)`; floats that are not finite are not valid either.

        Returns
        -------
        ConstantTile or None
            Zeros where nothing is valid.

        Raises
        ------
        ConfigError
            When the array is no tile.
        """
        if pixels.ndim != 3 or not 1 <= len(pixels) <= MOST_CHANNELS or pixels.dtype.name not in DTYPES:
            raise ConfigError.of(
                "`pixels` of a tile",
                got=f"{pixels.shape} {pixels.dtype}",
                expected=f"(c, y, x) of 1 to {MOST_CHANNELS} channels and {', '.join(DTYPES)}",
                do="Choose channels, or convert the samples.",
            )
        seen = pixels.reshape(len(pixels), -1) if valid is None else pixels[:, valid]
        if pixels.dtype.kind == "f":
            seen = seen[:, np.isfinite(seen).all(axis=0)]
        values = seen[:, :1] if seen.shape[1] else np.zeros((len(pixels), 1), pixels.dtype)
        if not (seen == values).all():
            return None
        shape = Shape(y=pixels.shape[1], x=pixels.shape[2])
        return cls(shape=shape, dtype=pixels.dtype.name, values=tuple(values[:, 0].tolist()))

    @classmethod
    def nearest(
        cls,
        pixels: Array,
        valid: npt.NDArray[np.bool_] | None = None,
        *,
        weights: npt.NDArray[np.float32] | None = None,
    ) -> ConstantTile:
        """Return the constant that is nearest to pixels by squared error: their mean.

        Parameters
        ----------
        pixels : ndarray
            `(c, y, x)`; floats must be finite where valid.
        valid : ndarray of bool, optional
            `(y, x)`.
        weights : ndarray of float32, optional
            `(y, x)`, how much the error of each pixel counts.

        Returns
        -------
        ConstantTile
            Integers are rounded to the nearest, ties to even; zeros where nothing is valid or has weight.
        """
        counts = np.ones(pixels.shape[1:]) if weights is None else weights.astype(np.float64)
        counts = counts if valid is None else np.where(valid, counts, 0)
        seen = pixels if valid is None else np.where(valid, pixels, 0)
        total = counts.sum()
        means = (seen * counts).sum(axis=(1, 2)) / total if total else np.zeros(len(pixels))
        values = (means if pixels.dtype.kind == "f" else np.rint(means)).astype(pixels.dtype)
        shape = Shape(y=pixels.shape[1], x=pixels.shape[2])
        return cls(shape=shape, dtype=pixels.dtype.name, values=tuple(values.tolist()))

    def to_bytes(self) -> bytes:
        """Return it as a container."""
        header = {"s": list(self.shape.yx), "d": self.dtype, "v": list(self.values)}
        return pack(KIND, version=VERSION, header=header)

    @classmethod
    def from_bytes(cls, data: bytes) -> ConstantTile:
        """Return the constant that bytes hold.

        Parameters
        ----------
        data : bytes
            What `to_bytes` gave.

        Returns
        -------
        ConstantTile
            The same.

        Raises
        ------
        DamagedError
            When the bytes are not whole.
        SourceError
            When they are of a version that is not known here.
        """
        packed = unpack(data, kinds={KIND: VERSION})
        packed.section_bytes(0)
        dtype = packed.text("d", choices=DTYPES)
        height, width = packed.numbers("s", least=1, most=MOST_PX, count=2)
        limits = np.finfo(np.float32) if dtype == "float32" else np.iinfo(dtype)
        values = packed.numbers("v", least=float(limits.min), most=float(limits.max))
        if not 1 <= len(values) <= MOST_CHANNELS or (height, width) != (int(height), int(width)):
            raise DamagedError(f"a constant tile of {height} x {width} pixels and {len(values)} channels")
        return cls(shape=Shape(y=int(height), x=int(width)), dtype=dtype, values=values)

    @property
    def kind(self) -> str:
        """Return the codec's name."""
        return KIND

    @property
    def picture(self) -> Picture:
        """Return size and samples."""
        spans = [max(1.0, abs(value)) for value in self.values]
        return Picture(
            shape=self.shape,
            channels=len(self.values),
            dtype=self.dtype,
            low=self.values,
            high=tuple(value + span for value, span in zip(self.values, spans, strict=True)),
        )

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return how many parameters each part has."""
        return {"values": len(self.values)}

    @property
    def nbytes(self) -> int:
        """Return the memory of its parameters."""
        return 8 * len(self.values)

    def decode(
        self, box: Box | None = None, *, level: float = 0.0, out: Array | None = None, backend: str | None = None
    ) -> Array:
        """Return samples of a box.

        Parameters
        ----------
        box : Box, optional
            In pixels of the level; by default all of it.
        level : float
            At least 0.
        out : ndarray, optional
            Memory of the result.
        backend : str, optional
            Where other tiles are decoded; here it makes no difference.

        Returns
        -------
        ndarray
            `(c, y, x)`.
        """
        del backend
        box = self.picture.box_at(level) if box is None else box
        out = np.empty((len(self.values), *box.shape.yx), self.dtype) if out is None else out
        out[...] = np.array(self.values).reshape(-1, 1, 1).astype(out.dtype)
        return out
