"""A picture as one network of sines that a few numbers a level modulate: COIN++, with levels for its images.

Level l shifts the sums of all hidden layers by mixing · latent_l, so that one network serves all levels and a level
between two is one between their latents. `--quality Q` sets the size as for `tilestream.codecs.fields.sirenfield`.

Source: Dupont et al., COIN++, arXiv:2201.12904, §3 (shifts, one linear map from latents to them).
"""

from __future__ import annotations

from typing import Self

from tilestream.codecs.fields.coordinatefield import CoordinateField
from tilestream.codecs.fields.coordinateparts import CoordinateParts
from tilestream.codecs.fields.coordinatesettings import BATCH_PX, CoordinateSettings, sizes_of_quality
from tilestream.codecs.fields.encoding import Encoding
from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.fields.sirenfield import OMEGA, RATE
from tilestream.errors import ConfigError

KIND = "modulated"
LATENT = 8


class ModulatedField(CoordinateField):
    """A perceptron of sines with a latent for each level of a picture.

    Parameters
    ----------
    latent : int
        Numbers of a latent.
    hidden, layers : int
        Units of a hidden layer, and how many such layers.
    omega : float
        ω0: frequency of the sines of every hidden layer.
    rate : float
        Of Adam; latents learn slower.
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
        latent: int = LATENT,
        hidden: int = 64,
        layers: int = 3,
        omega: float = OMEGA,
        rate: float = RATE,
        bits: int = 8,
        batch: int = BATCH_PX,
        seed: int = 0,
    ) -> None:
        if latent < 1:
            raise ConfigError.of(
                "`latent` of a field", got=latent, expected="at least 1", do="A field without latents is `SirenField`."
            )
        super().__init__(
            CoordinateSettings(
                hidden=hidden, layers=layers, omega=omega, latent=latent, rate=rate, bits=bits, batch_px=batch,
                seed=seed,
            )
        )  # fmt: skip

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
        ModulatedField
            8 to 128 units wide.

        Raises
        ------
        ConfigError
            When `quality` is out of range.
        """
        hidden, layers = sizes_of_quality(quality, picture, Encoding.of(picture, takes_level=False), latent=LATENT)
        return cls(hidden=hidden, layers=layers)

    @classmethod
    def of_parts(cls, parts: CoordinateParts) -> Self:
        """Return a field with the settings that a network has; ω0 is in its weights, and `OMEGA` for a further fit."""
        return cls(
            latent=parts.latent,
            hidden=parts.layers.widths[1],
            layers=len(parts.layers.widths) - 2,
            bits=8 if parts.coded is None else parts.coded.bits,
        )

    def encoding(self, picture: Picture) -> Encoding:
        """Return plain coordinates; the level is in the latents."""
        return Encoding.of(picture, takes_level=False)
