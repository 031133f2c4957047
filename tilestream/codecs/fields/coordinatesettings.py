"""How a network of coordinates is made and fitted, and the sizes that a quality asks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tilestream.codecs.fields.coordinateparts import CoordinateParts
from tilestream.codecs.fields.encoding import Encoding
from tilestream.codecs.fields.picture import Picture
from tilestream.errors import ConfigError
from tilestream.kernels.mlp_layers import MlpLayers

BATCH_PX = 1 << 13
"""Pixels of a step: a quarter of what a hash field takes, since a step costs all parameters for each of them."""
MOST_HIDDEN, MOST_LAYERS = 512, 16
"""Units of a hidden layer, which numbers of a latent are no more than either; and hidden layers."""
WIDEST = 128
"""Hidden layer that a quality chooses: what the fused decoder takes on CUDA."""
LEAST_WIDTH = 8
BITS_OF_CODE = 7.6
"""Of 8, after entropy coding: weights of a short fit still spread as evenly as they began."""
HEADER_BITS = 480


@dataclass(frozen=True, kw_only=True)
class CoordinateSettings:
    """How a network of coordinates is fitted."""

    hidden: int
    """Units of a hidden layer."""
    layers: int
    """Hidden layers."""
    omega: float | None
    """ω0 of a network of sines; None is ReLU."""
    latent: int
    """Numbers of a latent a level; 0 for none."""
    rate: float
    """Of Adam, for weights without ω."""
    bits: int
    """Of a code after `quantize`."""
    batch_px: int
    """Pixels of a step."""
    seed: int
    """Of all chance."""

    def __post_init__(self) -> None:
        checks = (
            ("hidden", self.hidden, 1 <= self.hidden <= MOST_HIDDEN, f"1 to {MOST_HIDDEN}"),
            ("layers", self.layers, 1 <= self.layers <= MOST_LAYERS, f"1 to {MOST_LAYERS}"),
            ("omega", self.omega, self.omega is None or 0 < self.omega <= 1000, "a number above 0, at most 1000"),
            ("latent", self.latent, 0 <= self.latent <= MOST_HIDDEN, f"0 to {MOST_HIDDEN}"),
            ("rate", self.rate, 0 < self.rate < 1, "a number between 0 and 1"),
            ("bits", self.bits, 2 <= self.bits <= 16, "2 to 16"),
            ("batch", self.batch_px, self.batch_px >= 1, "at least 1 pixel"),
        )
        for name, got, good, expected in checks:
            if not good:
                raise ConfigError.of(f"`{name}` of a field", got=got, expected=expected, do="Choose another.")


def sizes_of_quality(quality: float, picture: Picture, encoding: Encoding, *, latent: int = 0) -> tuple[int, int]:
    """Return hidden width and hidden layers that store a picture in about 2^(quality/25 − 3) bits a pixel.

    Parameters
    ----------
    quality : float
        1 to 100: an eighth of a bit a pixel to 2 bits.
    picture : Picture
        Of which size.
    encoding : Encoding
        Inputs of the network.
    latent : int
        Numbers of a latent.

    Returns
    -------
    tuple of int
        A width of 8 to `WIDEST`, and as many layers as are then needed, 3 to 8.

    Raises
    ------
    ConfigError
        When `quality` is out of range.
    """
    if not 1 <= quality <= 100:
        raise ConfigError.of("`quality`", got=quality, expected="a number of 1 to 100", do="50 is a middle one.")
    wanted = 2 ** (quality / 25 - 3) * picture.shape.y * picture.shape.x
    return sizes_of_bits(wanted, encoding, picture.channels, latent=latent)


def sizes_of_bits(wanted: float, encoding: Encoding, channels: int, *, latent: int = 0) -> tuple[int, int]:
    """Return hidden width and hidden layers of the largest network that takes so many bits in a file, or the least.

    Parameters
    ----------
    wanted : float
        Bits.
    encoding : Encoding
        Inputs of the network.
    channels : int
        Its outputs.
    latent : int
        Numbers of a latent.

    Returns
    -------
    tuple of int
        A width of 8 to `WIDEST`, and as many layers as are then needed, 3 to 8.
    """
    hidden, layers = LEAST_WIDTH, 3
    for layers in range(3, 9):
        fitting = [
            width
            for width in range(LEAST_WIDTH, WIDEST + 1)
            if stored_bits(encoding, (width,) * layers, channels, latent=latent) <= wanted
        ]
        hidden = max(fitting, default=LEAST_WIDTH)
        if hidden < WIDEST:
            break
    return hidden, layers


def stored_bits(encoding: Encoding, hidden: tuple[int, ...], channels: int, *, latent: int) -> float:
    """Return about how many bits a quantised network takes in a file: codes, a scale for each row, and the rest."""
    layers = MlpLayers(widths=(encoding.inputs, *hidden, channels), biases=True)
    parts = CoordinateParts(encoding=encoding, layers=layers, latent=latent, run=np.zeros(0, np.float32))
    codes = sum(rows * columns for _, rows, columns in parts.matrix_rows)
    halves = sum(parts.sizes.values()) - codes + sum(rows for _, rows, _ in parts.matrix_rows)
    return BITS_OF_CODE * codes + 16 * halves + HEADER_BITS
