"""A picture as a perceptron behind sines and cosines of its coordinates: NeRF's encoding, or Mip-NeRF's.

With the integrated encoding the footprint of a pixel is all that a level is: what it cannot resolve fades from the
inputs. With the positional one the level is an input of its own. `--quality Q` sets the size as for
`tilestream.codecs.fields.sirenfield`: about 2^(Q/25 − 3) bits a pixel.

Source: `tilestream.codecs.fields.encoding`.
"""

from __future__ import annotations

import math
from typing import Literal, Self

from tilestream.codecs.fields.coordinatefield import CoordinateField
from tilestream.codecs.fields.coordinateparts import CoordinateParts
from tilestream.codecs.fields.coordinatesettings import BATCH_PX, CoordinateSettings, sizes_of_quality
from tilestream.codecs.fields.encoding import Encoding
from tilestream.codecs.fields.picture import Picture
from tilestream.errors import ConfigError

KIND = "fourier"
RATE = 1e-2
ENCODINGS = ("integrated", "positional")


class FourierField(CoordinateField):
    """A perceptron of ReLU behind waves of many octaves, fitted to all levels of a picture.

    Parameters
    ----------
    encoding : {"integrated", "positional"}
        Mip-NeRF's or NeRF's.
    octaves : int, optional
        Of the waves; by default up to two pixels a period.
    hidden, layers : int
        Units of a hidden layer, and how many such layers.
    rate : float
        Of Adam.
    bits : int
        Of a weight once `quantize` was called, known to the fit.
    batch : int
        Pixels of a step.
    seed : int
        Two fits of one seed and number of steps are equal.

    Raises
    ------
    ConfigError
        When a setting is none.
    """

    name = KIND

    def __init__(  # noqa: PLR0913  the settings of the published model, and how it is fitted
        self,
        *,
        encoding: Literal["integrated", "positional"] = "integrated",
        octaves: int | None = None,
        hidden: int = 64,
        layers: int = 3,
        rate: float = RATE,
        bits: int = 8,
        batch: int = BATCH_PX,
        seed: int = 0,
    ) -> None:
        super().__init__(
            CoordinateSettings(
                hidden=hidden, layers=layers, omega=None, latent=0, rate=rate, bits=bits, batch_px=batch, seed=seed
            )
        )
        for name, got, good, expected in (
            ("encoding", encoding, encoding in ENCODINGS, " or ".join(ENCODINGS)),
            ("octaves", octaves, octaves is None or octaves >= 1, "at least 1, or None"),
        ):
            if not good:
                raise ConfigError.of(f"`{name}` of a field", got=got, expected=expected, do="Choose another.")
        self.is_integrated, self.octaves = encoding == "integrated", octaves

    @classmethod
    def of_quality(cls, quality: float, picture: Picture) -> Self:
        """Return a field with the integrated encoding, of the size for a quality, not fitted yet.

        Parameters
        ----------
        quality : float
            1 to 100, see the top of this module.
        picture : Picture
            Of which size.

        Returns
        -------
        FourierField
            8 to 128 units wide.

        Raises
        ------
        ConfigError
            When `quality` is out of range.
        """
        hidden, layers = sizes_of_quality(quality, picture, cls().encoding(picture))
        return cls(hidden=hidden, layers=layers)

    @classmethod
    def of_parts(cls, parts: CoordinateParts) -> Self:
        """Return a field with the settings that a network has."""
        return cls(
            encoding="integrated" if parts.encoding.integrated else "positional",
            octaves=parts.encoding.octaves,
            hidden=parts.layers.widths[1],
            layers=len(parts.layers.widths) - 2,
            bits=8 if parts.coded is None else parts.coded.bits,
        )

    def encoding(self, picture: Picture) -> Encoding:
        """Return waves; with the level where they do not fade."""
        octaves = resolved_octaves(picture) if self.octaves is None else self.octaves
        return Encoding.of(picture, octaves=octaves, integrated=self.is_integrated, takes_level=not self.is_integrated)


def resolved_octaves(picture: Picture) -> int:
    """Return how many octaves the pixels of a picture resolve: the last has about two a period."""
    return max(1, round(math.log2(picture.extent_px)))
