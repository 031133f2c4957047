"""A picture as a perceptron of sines of its coordinates: SIREN, and COIN once it is quantised.

A level is a third coordinate. `--quality Q` sets its size: about 2^(Q/25 − 3) bits a pixel, a quarter of a bit at
Q 25 and one at 75, whatever the picture. The cost of a pixel is all parameters.

Sources: Sitzmann et al., SIREN, arXiv:2006.09661; Dupont et al., COIN, arXiv:2103.03123.
"""

from __future__ import annotations

from typing import Self

from tilestream.codecs.fields.coordinatefield import CoordinateField
from tilestream.codecs.fields.coordinateparts import CoordinateParts
from tilestream.codecs.fields.coordinatesettings import BATCH_PX, CoordinateSettings, sizes_of_quality
from tilestream.codecs.fields.encoding import Encoding
from tilestream.codecs.fields.picture import Picture

KIND = "siren"
OMEGA = 30.0
RATE = 3e-3
"""Thirty times SIREN's, for a few hundred or thousand steps: 1.7 dB over a rate of 5e-4 after 400 of them on tissue."""


class SirenField(CoordinateField):
    """A perceptron of sines, fitted to all levels of a picture.

    Parameters
    ----------
    hidden, layers : int
        Units of a hidden layer, and how many such layers.
    omega : float
        ω0: frequency of the sines of every hidden layer.
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
        hidden: int = 64,
        layers: int = 3,
        omega: float = OMEGA,
        rate: float = RATE,
        bits: int = 8,
        batch: int = BATCH_PX,
        seed: int = 0,
    ) -> None:
        super().__init__(
            CoordinateSettings(
                hidden=hidden, layers=layers, omega=omega, latent=0, rate=rate, bits=bits, batch_px=batch, seed=seed
            )
        )

    @classmethod
    def of_quality(cls, quality: float, picture: Picture) -> Self:
        """Return a field of the size for a quality, not fitted yet.

        Parameters
        ----------
        quality : float
            1 to 100, see the top of this module.
        picture : Picture
            Of which size.

        Returns
        -------
        SirenField
            8 to 128 units wide.

        Raises
        ------
        ConfigError
            When `quality` is out of range.
        """
        hidden, layers = sizes_of_quality(quality, picture, Encoding.of(picture))
        return cls(hidden=hidden, layers=layers)

    @classmethod
    def of_parts(cls, parts: CoordinateParts) -> Self:
        """Return a field with the settings that a network has; ω0 is in its weights, and `OMEGA` for a further fit."""
        bits = 8 if parts.coded is None else parts.coded.bits
        return cls(hidden=parts.layers.widths[1], layers=len(parts.layers.widths) - 2, bits=bits)

    def encoding(self, picture: Picture) -> Encoding:
        """Return plain coordinates and the level."""
        return Encoding.of(picture)
