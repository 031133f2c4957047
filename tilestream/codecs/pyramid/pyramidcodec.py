"""The pyramid codec: tiles as grids of whole numbers and small networks that turn them into pixels.

Three costs of encoding: with `shared` networks and `steps=0` a pass of a network; with shared ones and some steps the
grids are refined; without, networks of the tile's own are fitted too. Decoding needs no torch, and gives the same bits
on every device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from sys import float_info
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.constanttile import KIND as CONSTANT
from tilestream.codecs.constanttile import ConstantTile
from tilestream.codecs.container import unpack
from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.pyramid.encoding import TileEncoding
from tilestream.codecs.pyramid.file import KIND
from tilestream.codecs.pyramid.nets import MOST_SCALES, MOST_WIDTH
from tilestream.codecs.pyramid.price import LMBDA_OF_BASE, lmbda_of_quality, quality_of_lmbda
from tilestream.codecs.pyramid.pyramidtile import PyramidTile
from tilestream.codecs.pyramid.residual import MOST_ERROR
from tilestream.codecs.pyramid.shared import SharedPyramid, nets_of, nets_text
from tilestream.codecs.pyramid.sharednets import keep_nets
from tilestream.codecs.settings import require_settings
from tilestream.errors import ConfigError
from tilestream.kernels.checks import need_kind
from tilestream.types import Array, Box

LEVELS = 4
"""Most levels with networks of their own; coarser ones are means."""
STEPS = 2000
"""Steps of a fit when nothing is said."""
_TINY = float_info.min
"""What is above 0 is at least this."""
_DEFAULT_QUALITY = 50.0
_SIZES = "scales", "hidden", "context"
"""Of networks of a tile's own."""


@dataclass(frozen=True, kw_only=True)
class PyramidCodec:
    """Fits a pyramid of grids to each tile."""

    quality: float | None = None
    """1 to 100, see `price.lmbda_of_quality`; 50 where neither this nor one of the next four is given, nor `shared`."""
    lmbda: float | None = None
    """What a bit a pixel costs against the mean squared error of samples of 0 to 1."""
    target_psnr: float | None = None
    """dB of level 0 that each tile is to have at least; several fits a tile."""
    target_bytes: int | None = None
    """Bytes that each tile is to have at most; several fits a tile."""
    max_error: int | None = None
    """Largest error of any valid sample of level 0, for whole numbers; 0 is lossless. Of the others `lmbda` alone goes
    with it, and says what the base costs."""
    steps: int = STEPS
    """Of the fit of each tile. Never a time: equal pixels are to give equal bytes. 0 needs `shared`, or
    `max_error`, and then gives the fewest bytes, without a coarser picture to look at first."""
    scales: int = 7
    """Grids, each half of the one before."""
    hidden: int = 16
    """Features of the synthesis of level 0; coarser levels have fewer."""
    context: int = 4
    """Features of the networks that foretell numbers."""
    levels: int = LEVELS
    """Levels with networks of their own, at most 4 and as many as grids; coarser ones are means of the last."""
    shared: SharedPyramid | None = None
    """Networks that all tiles share (`train_shared`): the sizes before, and a price where none is given, are theirs."""
    decoder: str = ""
    """The part of `shared` that decodes, as text, so that whoever has the settings can read tiles."""

    def __post_init__(self) -> None:
        for name, good, expected in self._checks():
            if not good:
                raise ConfigError.of(
                    f"`{name}` of a codec", got=repr(getattr(self, name)), expected=expected, do="Choose another."
                )
        if len(self._asked) > 1 and self._asked != ("lmbda", "max_error"):
            raise ConfigError.of(
                f"`{'` and `'.join(self._asked)}` of a codec",
                got="all of them",
                expected="one of them",
                do="Choose one.",
            )
        if self.shared is not None and self.quality is not None:
            raise ConfigError.of(
                "`quality` of a codec",
                got=f"{self.quality:g} with `shared` networks",
                expected=f"none: they are trained for about {quality_of_lmbda(self.shared.lmbda):.3g}",
                do="Leave it out, or give `lmbda`.",
            )
        targets = [name for name in self._asked if name.startswith("target_")]
        if targets and not self.steps:
            raise ConfigError.of(
                f"`{targets[0]}` of a codec",
                got="it with `steps` of 0",
                expected="steps, by which one tile becomes larger or smaller",
                do="Give some, or leave it out.",
            )
        self._know()

    @property
    def _asked(self) -> tuple[str, ...]:
        """Return which of the settings are given that say what a tile is to be."""
        names = ("quality", "lmbda", "target_psnr", "target_bytes", "max_error")
        return tuple(name for name in names if getattr(self, name) is not None)

    def _checks(self) -> tuple[tuple[str, bool, str], ...]:
        """Return each setting with what it may be, and whether it is."""
        lmbda, psnr, nbytes, error = self.lmbda, self.target_psnr, self.target_bytes, self.max_error
        return (
            ("quality", self.quality is None or _is_number(self.quality, 1, 100), "a number of 1 to 100"),
            ("lmbda", lmbda is None or _is_number(lmbda, _TINY, 1e3), "a number above 0"),
            ("target_psnr", psnr is None or _is_number(psnr, _TINY, 100), "decibels above 0, at most 100"),
            ("target_bytes", nbytes is None or _is_whole(nbytes, 1), "a whole number of at least 1"),
            ("max_error", error is None or _is_whole(error, 0, MOST_ERROR), f"a whole number of 0 to {MOST_ERROR:,}"),
            ("steps", _is_whole(self.steps, 0), "a whole number of at least 0"),
            ("scales", _is_whole(self.scales, 1, MOST_SCALES), f"a whole number of 1 to {MOST_SCALES}"),
            ("hidden", _is_whole(self.hidden, 1, MOST_WIDTH), f"a whole number of 1 to {MOST_WIDTH}"),
            ("context", _is_whole(self.context, 1, MOST_WIDTH), f"a whole number of 1 to {MOST_WIDTH}"),
            ("levels", _is_whole(self.levels, 1, 16), "a whole number of 1 to 16"),
        )

    @property
    def name(self) -> str:
        """Return what `--codec` calls it."""
        return KIND

    @property
    def weighs(self) -> bool:
        """Return whether `encode` takes a `roi`: as squared errors are all that a fit looks at."""
        return True

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return what its bytes are a function of besides the pixels, as JSON values; what is usual is left out.

        They say what is done: `levels` as many as have networks, `quality` or `lmbda` where one of them has a say.
        """
        found: dict[str, Any] = {"codec": KIND, "steps": self.steps, "levels": self._levels}
        if not (self._asked or self.shared or self.decoder):
            found["quality"] = _DEFAULT_QUALITY
        unsaid = ("shared", *found) if self.shared is None else ("shared", *found, *_SIZES)
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name not in unsaid and value != one.default:
                found[one.name] = value
        if self.shared is not None:
            found["decoder"] = nets_text(self.shared.nets)
            if self.target_psnr is None and self.target_bytes is None:
                found["lmbda"] = self.price
        return found

    @property
    def _levels(self) -> int:
        """Return how many levels are asked for that have networks of their own."""
        return min(self.levels, min(self.scales, LEVELS) if self.shared is None else len(self.shared.nets.synth))

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> PyramidCodec:
        """Return the codec of some settings.

        Parameters
        ----------
        settings : Mapping
            `settings` of a codec; what is left out is as usual.

        Returns
        -------
        PyramidCodec
            The same. One of shared networks reads tiles, and refuses to encode: what encodes stands in no settings.

        Raises
        ------
        ConfigError
            When there is a setting that it has not, or one of another type.
        DamagedError
            When `decoder` is no text of networks.
        """
        whole, number = (int,), (int, float)
        types: dict[str, tuple[type, ...]] = {
            "codec": (str,), "decoder": (str,), "quality": number, "lmbda": number, "target_psnr": number,
            "target_bytes": whole, "max_error": whole, "steps": whole, "scales": whole, "hidden": whole,
            "context": whole, "levels": whole,
        }  # fmt: skip
        require_settings(settings, types)
        return cls(**{name: value for name, value in settings.items() if name != "codec"})

    def encode(
        self, pixels: Array, valid: npt.NDArray[np.bool_] | None = None, *, roi: npt.NDArray[np.float32] | None = None
    ) -> bytes:  # fmt: skip
        """Return a tile as bytes.

        Parameters
        ----------
        pixels : ndarray
            `(c, y, x)`; floats that are not finite are not valid.
        valid : ndarray of bool, optional
            `(y, x)`; what is not valid may decode to anything.
        roi : ndarray of float32, optional
            `(y, x)` of 0 or more, by which squared errors are multiplied: 1 as usual, less where a pixel matters less.

        Returns
        -------
        bytes
            A container: the fitted pyramid; or a constant, where all that is valid is equal, or nothing is gained by
            more.

        Raises
        ------
        ConfigError
            When the pixels are no picture, a target is out of reach, the error of floats is to be bounded, `steps` is 0
            without shared networks, or fitting needs a package that is not installed.
        """
        self._require_encoder(pixels, roi)
        constant = ConstantTile.of(pixels, valid)
        if constant is not None:
            return constant.to_bytes()
        task, price = self._task(pixels, valid, roi), self.price
        if self.target_psnr is not None:
            return task.of_psnr(self.target_psnr, price)
        if self.target_bytes is not None:
            return task.of_bytes(self.target_bytes, price)
        return task.at_price(price) if self.max_error is None else task.bounded(price, self.max_error)

    def is_plain(
        self, pixels: Array, valid: npt.NDArray[np.bool_] | None = None, *, roi: npt.NDArray[np.float32] | None = None
    ) -> bool:  # fmt: skip
        """Return whether `encode` takes one colour for a tile without a fit; parameters and errors as of that."""
        self._require_encoder(pixels, roi)
        if ConstantTile.of(pixels, valid) is not None:
            return True
        task = self._task(pixels, valid, roi)
        if self.target_psnr is not None:
            return task.plain_of_psnr(self.target_psnr) is not None
        if self.max_error is not None:
            return task.plain_within(self.max_error) is not None
        return self.target_bytes is None and task.plain_at(self.price) is not None

    def _task(
        self, pixels: Array, valid: npt.NDArray[np.bool_] | None, roi: npt.NDArray[np.float32] | None
    ) -> TileEncoding:  # fmt: skip
        sizes = {**{name: getattr(self, name) for name in _SIZES}, "levels": self._levels}
        levels = Levels.of(pixels, valid, levels=self._levels)
        return TileEncoding(levels=levels, weights=roi, steps=self.steps, sizes=sizes, shared=self.shared)

    @property
    def price(self) -> float:
        """Return λ: what a bit a pixel costs, to begin with where something else is asked for."""
        if self.lmbda is not None:
            return self.lmbda
        if self.shared is not None:
            return self.shared.lmbda
        if self.max_error is not None:
            return LMBDA_OF_BASE
        return lmbda_of_quality(_DEFAULT_QUALITY if self.quality is None else self.quality)

    def decode(
        self,
        data: bytes,
        *,
        level: float = 0.0,
        box: Box | None = None,
        out: Array | None = None,
        stages: int | None = None,
    ) -> Array:
        """Return samples of a tile.

        Parameters
        ----------
        data : bytes
            A container that this codec has made.
        level : float
            At least 0; 1 is half the size.
        box : Box, optional
            In pixels of the level; by default all of it.
        out : ndarray, optional
            Memory of the result.
        stages : int, optional
            How many of the coarsest grids to use; by default all. With fewer, `data` may be the front of a file that
            has them.

        Returns
        -------
        ndarray
            `(c, y, x)`.

        Raises
        ------
        DamagedError
            When the bytes are not whole.
        SourceError
            When they are of a kind or version that is not known here.
        """
        need_kind("decode", "data", data, (bytes, bytearray, memoryview), do="Read the file first.")
        self._know()
        if unpack(data, cut=stages is not None).kind == CONSTANT:
            return ConstantTile.from_bytes(data).decode(box, level=level, out=out)
        tile = PyramidTile.from_bytes(data, cut=stages is not None)
        return tile.decode(box, level=level, out=out, stages=stages)

    def _know(self) -> None:
        """Make the networks known that tiles name, also in a process that was sent this codec."""
        if self.shared is not None:
            keep_nets(self.shared.nets)
        if self.decoder:
            keep_nets(nets_of(self.decoder))

    def _require_encoder(self, pixels: Array, roi: npt.NDArray[np.float32] | None) -> None:
        """Raise `ConfigError` where a tile cannot be encoded."""
        need_kind("encode", "pixels", pixels, np.ndarray, do="Read them as an array (c, y, x): `pyramid.read(box)`.")
        self._know()
        is_flat = self.max_error is not None and not self.decoder
        if self.shared is None and (self.decoder or not (self.steps or is_flat)):
            raise ConfigError.of(
                f"a codec `{KIND}`",
                got="shared networks that only decode" if self.decoder else "`steps` of 0",
                expected="`shared`, which also encodes" + ("" if self.decoder else ", or steps"),
                do="Give what `train_shared` has made (`--weights`).",
            )
        if self.max_error is not None and pixels.dtype.kind == "f":
            raise ConfigError.of(
                "`max_error` of a codec", got=f"{pixels.dtype} samples", expected="whole numbers", do="Leave it out."
            )
        if roi is not None and (roi.shape != pixels.shape[1:] or not (np.isfinite(roi).all() and roi.min() >= 0)):
            raise ConfigError.of(
                "`roi` of a tile",
                got=f"{roi.shape}, {roi.min():g} to {roi.max():g}",
                expected=f"{pixels.shape[1:]}, finite numbers of 0 or more",
                do="Give a weight a pixel.",
            )


def _is_whole(value: object, least: int, most: int = 2**62) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral) and least <= int(value) <= most


def _is_number(value: object, least: float, most: float) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and least <= float(value) <= most
