"""What fields of coordinates have in common: everything but their inputs and the settings that a quality chooses."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Self

import numpy as np

from tilestream.codecs.fields.coordinatefile import read_coordinates, write_coordinates
from tilestream.codecs.fields.coordinateparts import CoordinateParts
from tilestream.codecs.fields.coordinatesettings import CoordinateSettings
from tilestream.codecs.fields.encoding import Encoding
from tilestream.codecs.fields.field import FitReport, Stop
from tilestream.codecs.fields.picture import Levels, Picture
from tilestream.codecs.fields.query import Query
from tilestream.errors import ConfigError
from tilestream.kernels.raster_mlp import raster_mlp
from tilestream.types import Array, Box

BACKENDS = ("cpu", "cuda", "torch")


class CoordinateField(ABC):
    """A network that is asked with coordinates.

    Parameters
    ----------
    settings : CoordinateSettings
        Sizes, and how it is fitted.
    """

    name: ClassVar[str]

    def __init__(self, settings: CoordinateSettings) -> None:
        self.settings = settings
        self.picture: Picture | None = None
        self.parts: CoordinateParts | None = None

    @abstractmethod
    def encoding(self, picture: Picture) -> Encoding:
        """Return what the network of a picture is asked with."""

    @classmethod
    @abstractmethod
    def of_parts(cls, parts: CoordinateParts) -> Self:
        """Return a field with the settings that a network has."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return how many parameters each part has; none before a fit."""
        return {} if self.parts is None else self.parts.sizes

    def fit(
        self,
        source: Array | Sequence[Array] | Levels,
        *,
        steps: int | None = None,
        target_psnr: float | None = None,
        seconds: float | None = None,
        level_weights: Mapping[int, float] | None = None,
        backend: str | None = None,
    ) -> FitReport:
        """Fit it to all levels of a picture at once, from where it stands.

        Parameters
        ----------
        source : ndarray, sequence of ndarray, or Levels
            `(c, y, x)`; or its levels, finest first. See `Levels.of`.
        steps, target_psnr, seconds
            When it ends, see `Stop`. Where steps or seconds are given, the last fifth knows of `bits`.
        level_weights : mapping of int to float, optional
            Shares of a step's pixels by level, see `PixelSampler`.
        backend : {"cpu", "cuda", "torch"}, optional
            Our kernels on the CPU, the default, or on a CUDA device, or the reference in plain torch.

        Returns
        -------
        FitReport
            PSNR is of the parameters before `quantize`.

        Raises
        ------
        ConfigError
            When there is no end, or the picture is another one than before.
        """
        from tilestream.codecs.fields.coordinatefit import ROUNDED_SHARE, CoordinateFit, first_parts
        from tilestream.codecs.fields.fitting import fit_loop
        from tilestream.codecs.fields.sampler import PixelSampler

        stop = Stop(steps=steps, target_psnr=target_psnr, seconds=seconds)
        levels = source if isinstance(source, Levels) else Levels.of(source)
        where, picture = _backend("fit", backend), levels.picture
        parts = self._again(picture) or first_parts(self.settings, self.encoding(picture), picture.channels)
        sampler = PixelSampler(levels, level_weights=level_weights, seed=self.settings.seed)
        fitted = CoordinateFit(parts, self.settings, backend=where)

        def measure(level: int) -> float:
            self.picture, self.parts = picture, fitted.parts()
            return levels.psnr(level, self.decode(level=level))

        return fit_loop(
            fitted.learned(),
            sampler,
            fitted.loss_of,
            stop=stop,
            measure=measure,
            batch_px=self.settings.batch_px,
            settled_share=ROUNDED_SHARE,
        )

    def _again(self, picture: Picture) -> CoordinateParts | None:
        """Return what a fit before has left; None where there was none."""
        if self.picture is None:
            return None
        if replace(self.picture, low=picture.low, high=picture.high) != picture:
            raise ConfigError.of(
                "`fit` of a field that was fitted before",
                got=f"{picture.shape}, {picture.channels} channels of {picture.dtype}, {picture.levels} levels",
                expected="a picture of the same size and type",
                do="Make a new field.",
            )
        return self.parts

    def decode(
        self,
        box: Box | None = None,
        *,
        level: float | None = None,
        out: Array | None = None,
        backend: str | None = None,
        threads: int | None = None,
    ) -> Array:
        """Return the samples of a box.

        Parameters
        ----------
        box : Box, optional
            In pixels of `level`; by default all of it.
        level : float, optional
            At least 0, also between two; by default that of the box, or 0.
        out : ndarray, optional
            `(c, y, x)` of the type of the picture, any strides; overwritten.
        backend : {"cpu", "cuda", "torch"}, optional
            Our kernels on the CPU, the default, or on a CUDA device, or the reference in plain torch.
        threads : int, optional
            Most CPU threads of our kernels, by default all cores.

        Returns
        -------
        ndarray
            `out`, or a view of new interleaved memory.

        Raises
        ------
        ConfigError
            When it was never fitted, or box, level or `out` do not fit.
        """
        query, where = Query.of(self.picture, box=box, level=level), _backend("decode", backend)
        found = query.room(out)
        if not found.size:
            return found
        parts = self.parts
        assert parts is not None
        if where == "torch":
            from tilestream.codecs.fields.coordinatetorch import reference_decode

            return query.picture.from_unit(reference_decode(parts, query), found)
        *arrays, layers = parts.rasters(query)
        if where == "cuda":
            import torch

            moved = [torch.from_numpy(np.ascontiguousarray(array)).cuda() for array in arrays]
            values = raster_mlp(*moved, layers=layers, dtype=np.float32).cpu().numpy()
            return query.picture.from_unit(values, found)
        if query.picture.dtype == "uint8":  # codes are what the kernel writes: a pass less
            raster_mlp(*arrays, layers=layers, out=found, threads=threads)
            return found
        return query.picture.from_unit(raster_mlp(*arrays, layers=layers, dtype=np.float32, threads=threads), found)

    def quantize(self, bits: int | None = None) -> Self:
        """Return a copy whose matrices are whole numbers times a scale a row, and all else float16.

        Parameters
        ----------
        bits : int, optional
            Of a code; by default those that it was fitted for.

        Returns
        -------
        CoordinateField
            Of the same class.

        Raises
        ------
        ConfigError
            When it was never fitted, or `bits` are none.
        """
        parts = self._fitted("quantize")[0]
        wanted = bits or self.settings.bits
        found = copy.copy(self)
        if parts.coded is None or parts.coded.bits != wanted:
            found.parts = parts.quantised(wanted)
        return found

    def to_bytes(self) -> bytes:
        """Return it as a container of the kind `name`: as codes once it was quantised, else as float16."""
        return write_coordinates(self.name, *self._fitted("to_bytes"))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the field that bytes hold.

        Parameters
        ----------
        data : bytes
            What `to_bytes` gave.

        Returns
        -------
        CoordinateField
            To be decoded, or fitted on.

        Raises
        ------
        DamagedError
            When the bytes are not whole.
        SourceError
            When they are of another kind, or were written by a newer version.
        """
        parts, picture = read_coordinates(cls.name, data)
        found = cls.of_parts(parts)
        found.parts, found.picture = parts, picture
        return found

    def _fitted(self, call: str) -> tuple[CoordinateParts, Picture]:
        if self.parts is None or self.picture is None:
            raise ConfigError.of(
                f"`{call}`", got="a field that was never fitted", expected="a fitted one", do="Fit it."
            )
        return self.parts, self.picture


def _backend(call: str, backend: str | None) -> str:
    if backend is not None and backend not in BACKENDS:
        raise ConfigError.of(
            f"`backend` of `{call}`", got=backend, expected=", ".join(BACKENDS), do="Leave it out for the CPU."
        )
    return backend or "cpu"
