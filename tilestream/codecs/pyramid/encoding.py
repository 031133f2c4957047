"""How a tile becomes a file of the pyramid codec: the cheaper of what was fitted and a constant, at a price of bits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tilestream.codecs.constanttile import ConstantTile
from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.pyramid.file import PyramidFile
from tilestream.codecs.pyramid.flatbase import flat_file
from tilestream.codecs.pyramid.nets import PyramidNets
from tilestream.codecs.pyramid.price import BYTES, PSNR, Attempt, search_lmbda
from tilestream.codecs.pyramid.pyramidtile import PyramidTile
from tilestream.codecs.pyramid.residual import encode_residual
from tilestream.codecs.pyramid.shared import SharedPyramid
from tilestream.errors import ConfigError
from tilestream.types import Array

LEAST_BYTES, LEAST_OWN_BYTES = 64, 512
"""Of a file worth fitting, with shared networks and with its own: a constant that costs no more than so many bytes is
taken without a fit. Glass is."""
_FLAT_PSNR = 200.0


@dataclass(frozen=True, kw_only=True)
class TileEncoding:
    """A tile that is to be encoded, and by what."""

    levels: Levels
    """Its pixels."""
    weights: npt.NDArray[np.float32] | None
    """`(y, x)`, by which squared errors are multiplied."""
    steps: int
    """Of the fit."""
    sizes: Mapping[str, int]
    """Of networks of its own: `scales`, `hidden`, `context`, `levels`."""
    shared: SharedPyramid | None
    """Networks that are not fitted."""

    def file(self, lmbda: float, start: PyramidNets | None = None) -> PyramidFile:
        """Return the tile at a price of a bit."""
        _require_torch()
        picture = self.levels.picture
        if self.shared is not None:
            from tilestream.codecs.pyramid.sharedencode import encode_shared

            (grids,) = encode_shared([self.levels], self.shared, steps=self.steps, lmbda=lmbda, weights=[self.weights])
            return PyramidFile.of(picture, self.shared.nets, grids, shared=True)
        from tilestream.codecs.pyramid.fit import fit_pyramid
        from tilestream.codecs.pyramid.model import PyramidShape

        shape = PyramidShape(channels=picture.channels, **self.sizes)
        nets, grids, _ = fit_pyramid(
            self.levels, lmbda=lmbda, steps=self.steps, shape=shape, start=start, weights=self.weights
        )
        return PyramidFile.of(picture, nets, grids)

    def at_price(self, lmbda: float) -> bytes:
        """Return the file of least D + λ·R: fitted, or the nearest constant; that alone where no fit can do better."""
        constant = self.plain_at(lmbda)
        if constant is not None:
            return constant.to_bytes()
        file, constant = self.file(lmbda), self.constant()
        flat = self.cost(constant.decode(), constant.to_bytes(), lmbda)
        data = file.to_bytes()
        return data if self.cost(PyramidTile(file).decode(), data, lmbda) < flat else constant.to_bytes()

    def bounded(self, lmbda: float, max_error: int) -> bytes:
        """Return the file of a fit, or of one colour without steps, with what keeps each sample within an error."""
        constant = self.plain_within(max_error)
        if constant is not None:
            return constant.to_bytes()
        pixels, valid = self.levels.pixels[0], self.levels.valid[0]
        is_flat = self.shared is None and not self.steps
        file = flat_file(self.levels) if is_flat else self.file(lmbda)
        residual = encode_residual(pixels, PyramidTile(file).decode(), max_error, valid=valid)
        return replace(file, residual=residual).to_bytes()

    def plain_at(self, lmbda: float) -> ConstantTile | None:
        """Return the nearest constant where no fit can do better at a price of a bit."""
        constant = self.constant()
        flat = self.cost(constant.decode(), constant.to_bytes(), lmbda)
        least = LEAST_OWN_BYTES if self.shared is None else LEAST_BYTES
        return constant if flat <= lmbda * 8 * least else None

    def plain_within(self, max_error: int) -> ConstantTile | None:
        """Return the nearest constant where each valid sample is within an error of it."""
        constant, valid = self.constant(), self.levels.valid[0]
        off = np.abs(constant.decode().astype(np.int64) - self.levels.pixels[0])
        return constant if int((off if valid is None else off[:, valid]).max()) <= max_error else None

    def plain_of_psnr(self, target: float) -> ConstantTile | None:
        """Return the nearest constant where it has at least so many decibels."""
        constant = self.constant()
        return constant if self.levels.psnr(0, constant.decode()) >= target else None

    def constant(self) -> ConstantTile:
        """Return the constant that is nearest."""
        return ConstantTile.nearest(self.levels.pixels[0], self.levels.valid[0], weights=self.weights)

    def cost(self, decoded: Array, data: bytes, lmbda: float) -> float:
        """Return D + λ·R times the pixels."""
        picture, valid = self.levels.picture, self.levels.valid[0]
        errors = (picture.to_unit(decoded) - picture.to_unit(self.levels.pixels[0])).astype(np.float64) ** 2
        a_pixel = errors.mean(axis=0) * (1 if self.weights is None else self.weights)
        return float(np.sum(a_pixel if valid is None else a_pixel[valid])) + lmbda * 8 * len(data)

    def of_psnr(self, target: float, first: float) -> bytes:
        """Return the file of least bytes that a few fits find with at least so many decibels at level 0."""
        constant = self.plain_of_psnr(target)
        if constant is not None:
            return constant.to_bytes()

        def attempt(lmbda: float, start: PyramidNets | None) -> Attempt:
            file = self.file(lmbda, start)
            found = min(_FLAT_PSNR, self.levels.psnr(0, PyramidTile(file).decode()))
            return Attempt(data=file.to_bytes(), gap=found - target, nets=file.nets)

        return search_lmbda(attempt, PSNR, first=first).data

    def of_bytes(self, target: int, first: float) -> bytes:
        """Return the best file that a few fits find with at most so many bytes."""

        def attempt(lmbda: float, start: PyramidNets | None) -> Attempt:
            file = self.file(lmbda, start)
            data = file.to_bytes()
            return Attempt(data=data, gap=math.log2(target / len(data)), nets=file.nets)

        return search_lmbda(attempt, BYTES, first=first).data


def _require_torch() -> None:
    """Raise `ConfigError` where the package that fits is not installed: reading needs none."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ConfigError.of(
            "encoding by the codec `pyramid`",
            got="no module `torch`",
            expected="it installed",
            do="Run `pip install -e '.[torch]'` in the clone.",
        ) from error
