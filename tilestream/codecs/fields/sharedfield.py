"""A picture as a few hundred bytes that a decoder of its cohort turns into pixels: `SharedField`.

    bytes of a picture = container, name of the decoder, size: about 50, and its latents, entropy-coded

The decoder (`shareddecoder`, trained once by `sharedtraining`) stays as it is when a picture is fitted: only latents
move, from zero, to the least of error + λ · bits a pixel. λ is that of the decoder times `price`, near 1 best.

Auto-decoding: Park et al., "DeepSDF", doi:10.1109/CVPR.2019.00025; one network and small latents an image: Dupont et
al., "COIN++", arXiv:2201.12904.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from tilestream.codecs.container import pack, unpack
from tilestream.codecs.fields.decoders import find_decoder
from tilestream.codecs.fields.field import FitReport, Stop
from tilestream.codecs.fields.picture import Levels, Picture
from tilestream.codecs.fields.pictureheader import picture_header, picture_of
from tilestream.codecs.fields.shareddecoder import DIGEST_BYTES, SharedDecoder
from tilestream.codecs.quality import psnr
from tilestream.errors import ConfigError, DamagedError, SourceError
from tilestream.types import Array, Box

if TYPE_CHECKING:
    from tilestream.codecs.fields.sharedfit import LatentFit

MOST_LATENTS = 1 << 20
"""Of a picture; a larger one is cut into tiles."""
DEFAULT_STEPS = 120
LEAST_BITS = 6
"""That latents need."""
NEAR = 0.9
"""Share of `most_bytes` that a picture has at least once its price was raised."""
STEEPNESS, LEAST_RISE, MOST_RISE = 1.5, 1.2, 8.0
"""Exponent of bytes in what a price is raised by, the least of that (its n-th power in round n) and the most."""
MOST_ROUNDS = 10
VERSION = 1
USUAL_QUALITY = 50.0
DOUBLING = 12.5
"""Steps of quality that halve the price."""


class SharedField:
    """A picture under a decoder that it shares with others.

    Parameters
    ----------
    decoder : SharedDecoder
        Of the cohort.
    price : float
        Times the λ of the decoder: above 1 fewer bytes, below 1 more.
    most_bytes : int, optional
        What `to_bytes` may have at most. A picture that has more is fitted on, for half the steps each time, at other
        prices until it has that many or up to 10 % fewer.
    seed : int
        Of the noise that a fit sees.
    """

    name: ClassVar[str] = "shared"

    def __init__(
        self, decoder: SharedDecoder, *, price: float = 1.0, most_bytes: int | None = None, seed: int = 0
    ) -> None:
        if not 0 < price < float("inf"):
            raise ConfigError.of("`price` of a shared field", got=price, expected="above 0", do="Choose another.")
        self.decoder, self.price, self.most_bytes, self.seed = decoder, price, most_bytes, seed
        self.picture: Picture | None = None
        self._codes = np.zeros((decoder.shape.latents, 1, 1), np.int64)
        self._features: npt.NDArray[np.float32] | None = None

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return how many latents it has; the decoder is not its own."""
        return {"latents": self._codes.size}

    def fit(
        self,
        source: Array | Sequence[Array] | Levels,
        *,
        steps: int | None = None,
        target_psnr: float | None = None,
        seconds: float | None = None,
        level_weights: Mapping[int, float] | None = None,
    ) -> FitReport:
        """Fit the latents to all levels of a picture at once, from zero or from where they stand.

        Parameters
        ----------
        source : ndarray, sequence of ndarray or Levels
            `(c, y, x)`, or its levels; of as many channels as the decoder has.
        steps, target_psnr, seconds : optional
            When it ends, at whichever comes first; 120 steps unless one is given.
        level_weights : mapping of int to float, optional
            How much the error of each level counts; by default 2^-l.

        Returns
        -------
        FitReport
            dB of the levels as they decode.

        Raises
        ------
        ConfigError
            When the picture has other channels or too many pixels, or `most_bytes` cannot be met.
        """
        started = time.perf_counter()
        levels = source if isinstance(source, Levels) else Levels.of(source)
        self._require(levels.picture)
        if steps is None and target_psnr is None and seconds is None:
            steps = DEFAULT_STEPS
        stop = Stop(steps=steps, target_psnr=target_psnr, seconds=seconds)
        from tilestream.codecs.fields.sharedfit import LatentFit

        fresh = self.picture is None or self.picture.shape != levels.picture.shape
        self.picture = levels.picture
        if fresh:
            self._take(np.zeros((self.decoder.shape.latents, *self.decoder.shape.cells(self.picture)), np.int64))
        loop = LatentFit(self.decoder, levels, self._codes, level_weights=level_weights, seed=self.seed)
        self._take(loop.run(stop, price=self.price, measure=lambda codes: self._measured(codes, levels)))
        if self.most_bytes is not None and len(self.to_bytes()) > self.most_bytes:
            self._find_price(loop, _half(stop), levels, self.most_bytes)
        found = tuple(self._psnr(levels, number) for number in range(levels.picture.levels))
        return FitReport(steps=loop.steps, seconds=time.perf_counter() - started, psnr=found)

    def decode(
        self,
        box: Box | None = None,
        *,
        level: float | None = None,
        out: Array | None = None,
        backend: str | None = None,
        threads: int | None = None,
    ) -> Array:
        """Return samples of a box of a level.

        Parameters
        ----------
        box : Box, optional
            In pixels of `level`, within it; by default all of it.
        level : float, optional
            At least 0; by default that of the box, or 0.
        out : ndarray, optional
            Memory of the result.
        backend : {"cpu"}, optional
            Where; there is no other.
        threads : int, optional
            Most threads.

        Returns
        -------
        ndarray
            `(c, y, x)`.

        Raises
        ------
        ConfigError
            When it was not fitted, the box is not within the level, or the backend is another.
        """
        picture = self._fitted()
        if backend not in (None, "cpu"):
            raise ConfigError.of("`backend` of a shared field", got=backend, expected="`cpu`", do="Leave it out.")
        level = float(box.level if box is not None else 0) if level is None else float(level)
        if not 0 <= level <= 32:
            raise ConfigError.of("`level` of a shared field", got=level, expected="0 to 32", do="Choose another.")
        whole = picture.box_at(level)
        box = whole if box is None else box
        if min(box.y, box.x) < 0 or box.y + box.height > whole.height or box.x + box.width > whole.width:
            raise ConfigError.of(
                "`box` of a shared field", got=box, expected=f"within {whole.height} x {whole.width}", do="Cut it."
            )
        if self._features is None:
            self._features = self.decoder.features(self._codes, threads=threads)
        values = self.decoder.values(self._features, picture, box, level=level, threads=threads)
        return picture.from_unit(values, out)

    def quantize(self, bits: int | None = None) -> Self:
        """Return a copy: latents are whole numbers of 6 bits from the start; fewer are refused."""
        if bits is not None and bits < LEAST_BITS:
            raise ConfigError.of(
                "`bits` of a shared field", got=bits, expected=f"at least {LEAST_BITS}", do="Raise `price` instead."
            )
        found = type(self)(self.decoder, price=self.price, most_bytes=self.most_bytes, seed=self.seed)
        found.picture = self.picture
        found._take(self._codes.copy())
        return found

    def to_bytes(self) -> bytes:
        """Return it as a container that names its decoder."""
        header = {**picture_header(self._fitted()), "d": self.decoder.digest}
        return pack(self.name, version=VERSION, header=header, sections=(self.decoder.prior.encode(self._codes),))

    @classmethod
    def from_bytes(cls, data: bytes, *, decoder: SharedDecoder | None = None) -> Self:
        """Return the field that bytes hold.

        Parameters
        ----------
        data : bytes
            Result of `to_bytes`.
        decoder : SharedDecoder, optional
            That it names; by default it is looked for among those that are known.

        Returns
        -------
        SharedField
            Ready to decode.

        Raises
        ------
        DamagedError
            When the bytes are not whole.
        SourceError
            When its decoder is not known, or the one given is another; or it is of a newer version.
        """
        packed = unpack(data, kinds={cls.name: VERSION})
        picture = picture_of(packed)
        digest = packed.header.get("d")
        if type(digest) is not bytes or len(digest) != DIGEST_BYTES:
            raise DamagedError(f"a container of kind `shared`: `d` is no digest of {DIGEST_BYTES} bytes")
        (section,) = packed.section_bytes(1)
        if decoder is None:
            decoder = find_decoder(digest)
        elif decoder.digest != digest:
            raise SourceError.of(
                "decoder of a `shared` picture",
                got=f"`{decoder.name}`",
                expected=f"`{digest.hex()}`, which the file names",
                do="Give the decoder that it was fitted with.",
            )
        found = cls(decoder)
        try:
            found._require(picture)
        except ConfigError as error:
            raise DamagedError(f"a container of kind `shared`: {error}") from error
        found.picture = picture
        y, x = decoder.shape.cells(picture)
        found._take(decoder.prior.decode(section, height=y, width=x))
        return found

    @classmethod
    def of_quality(cls, quality: float, picture: Picture) -> Self:
        """Raise `ConfigError`: a shared field needs a decoder, and so the codec `SharedCodec`."""
        raise ConfigError.of(
            "the codec `shared`",
            got=f"a quality of {quality:g} and no decoder",
            expected="a decoder that was trained on pictures like these",
            do="Train one (`tilestream train codec`) and name its file (`--weights`).",
        )

    def _fitted(self) -> Picture:
        if self.picture is None:
            raise ConfigError.of(
                "a shared field", got="one that was never fitted", expected="a picture", do="Call `fit`."
            )
        return self.picture

    def _require(self, picture: Picture) -> None:
        """Raise unless the decoder can stand for a picture of this size."""
        shape = self.decoder.shape
        y, x = shape.cells(picture)
        for got, most, what, do in (
            (picture.channels, (shape.channels, shape.channels), "channels", "Choose them, or train another decoder."),
            (y * x * shape.latents, (1, MOST_LATENTS), "latents", "Cut it into tiles."),
        ):
            if not most[0] <= got <= most[1]:
                limit = f"{most[1]:,}" if most[0] == most[1] else f"at most {most[1]:,}"
                raise ConfigError.of(f"{what} of a picture", got=got, expected=f"{limit} for this decoder", do=do)

    def _find_price(self, loop: LatentFit, stop: Stop, levels: Levels, most_bytes: int) -> None:
        """Fit on at other prices until the bytes are met: up by what is too much, then between too low and high."""
        price, low, high, best = self.price, self.price, float("inf"), None
        for number in range(1, MOST_ROUNDS + 1):
            rise = (2 * len(self.to_bytes()) / ((1 + NEAR) * most_bytes)) ** STEEPNESS
            rise = max(min(rise, MOST_RISE), LEAST_RISE**number)
            price = (low * high) ** 0.5 if high < float("inf") else price * rise
            self._take(loop.run(stop, price=price, measure=lambda codes: self._measured(codes, levels)))
            nbytes = len(self.to_bytes())
            if nbytes <= most_bytes:
                high, best = price, (nbytes, self._codes) if best is None or nbytes > best[0] else best
                if nbytes >= NEAR * most_bytes:
                    break
            elif self._codes.any():
                low = price
            else:
                break
        if best is None:
            raise ConfigError.of(
                "`most_bytes` of a shared field",
                got=most_bytes,
                expected=f"at least {len(self.to_bytes())}, which are left after {loop.steps} steps",
                do="Allow more.",
            )
        self._take(best[1])

    def _take(self, codes: npt.NDArray[np.int64]) -> None:
        self._codes, self._features = codes, None

    def _measured(self, codes: npt.NDArray[np.int64], levels: Levels) -> float:
        self._take(codes)
        return self._psnr(levels, 0)

    def _psnr(self, levels: Levels, level: int) -> float:
        """Return the dB of a level as it decodes."""
        picture, pixels = levels.picture, levels.pixels[level]
        found = self.decode(level=level, threads=1)
        valid: Any = levels.valid[level]
        if picture.dtype in ("uint8", "int8"):
            return psnr(pixels, found, valid=valid)
        one, other = picture.to_unit(pixels), picture.to_unit(found)
        if valid is not None:
            one, other = (np.where(valid, part, 0) for part in (one, other))
        return psnr(one, other, high=1.0, valid=valid)


def _half(stop: Stop) -> Stop:
    """Return an end of half the steps and seconds."""
    steps, seconds = stop.steps, stop.seconds
    return replace(
        stop, steps=None if steps is None else -(-steps // 2), seconds=None if seconds is None else seconds / 2
    )


def price_of(quality: float) -> float:
    """Return the price of a quality of 1 to 100: 1 at 50, half of it for every 12.5 more."""
    return float(2 ** ((USUAL_QUALITY - quality) / DOUBLING))
