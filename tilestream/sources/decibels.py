"""Radar values in decibels: a fixed scaling that knows nothing of the other pixels.

Formula: 10 log10(p) for power, 20 log10(a) for amplitude, where p or a is the physical value (stored value times the
channel's scale plus its offset); float64 inside, float32 out. Values of 0 and below have no logarithm: those pixels are
not valid. Coarse levels are means of what is stored, so that speckle is averaged before the logarithm, as it should be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

from tilestream.errors import ConfigError
from tilestream.sources.extras import Extras, read_associated, read_extras
from tilestream.sources.fingerprint import digest
from tilestream.sources.layers import class_layer
from tilestream.sources.warming import warm
from tilestream.types import Array, Block, Box, ImageInfo, Source

Quantity: TypeAlias = Literal["power", "amplitude"]
FACTORS: dict[str, float] = {"power": 10.0, "amplitude": 20.0}
"""Factor before the logarithm by what the values are."""


@dataclass(frozen=True, kw_only=True)
class DecibelSource:
    """Another source with its values in decibels."""

    source: Source
    """What reads the pixels."""
    quantity: Quantity
    """What the stored values are."""

    @cached_property
    def info(self) -> ImageInfo:
        """Return the description: float32, no scale, offset and nodata; the fingerprint is another one."""
        found = self.source.info
        word = f"decibels of {self.quantity}"
        return replace(
            found,
            dtype=np.dtype(np.float32),
            channels=tuple(replace(channel, scale=1.0, offset=0.0) for channel in found.channels),
            nodata=None,
            validity="nodata",
            fingerprint=digest(found.fingerprint, word),
            derived=(*found.derived, word),
        )

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block | None:
        """Return one block in decibels.

        Parameters
        ----------
        level, iy, ix : int
            Level, and row and column in its grid of blocks.
        out : ndarray, optional
            Not used: its type is not that of what is stored.

        Returns
        -------
        Block or None
            Pixels of float32, 0 where not valid.
        """
        block = self.source.read_block(level, iy, ix)
        if block is None:
            return None
        channels = self.source.info.channels
        values = block.pixels * np.array([channel.scale for channel in channels], np.float64)
        values += np.array([channel.offset for channel in channels], np.float64)
        valid = (np.isfinite(values) & (values > 0)).all(axis=2)
        if block.valid is not None:
            valid &= block.valid
        values[~valid] = 1.0
        pixels = (FACTORS[self.quantity] * np.log10(values)).astype(np.float32)
        return Block(pixels=pixels, valid=None if valid.all() else valid)

    def warm(self, box: Box) -> None:
        """Fetch what a box is stored in."""
        warm(self.source, box)

    def isel(self, **index: int) -> DecibelSource:
        """Return the same scaling on another selection."""
        return replace(self, source=self.source.isel(**index))

    def read_associated(self, name: str) -> Array:
        """Return an associated image as it is."""
        return self.source.read_associated(name)

    def read_extras(self) -> Extras:
        """Return what the headers say besides the pixels."""
        return read_extras(self.source)

    def read_identifying(self, name: str) -> Array:
        """Return a picture that may identify somebody."""
        return read_associated(self.source, name, keep_identifying=True)

    def class_layer(self, name: str) -> Source:
        """Return a class layer as it is stored."""
        return class_layer(self.source, name)

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source, "quantity": self.quantity}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def in_decibels(source: Source, quantity: str) -> Source:
    """Return a source with its values in decibels.

    Parameters
    ----------
    source : Source
        A radar image; any image of measured values.
    quantity : str
        `power` (10 log10: calibrated backscatter) or `amplitude` (20 log10: digital numbers of GRD products).

    Returns
    -------
    Source
        The scaled source.

    Raises
    ------
    ConfigError
        When it is neither, or the image holds classes or is in decibels already.
    """
    known = require_quantity(quantity)
    info = source.info
    if info.kind == "labels" or any(word.startswith("decibels") for word in info.derived):
        got = "class numbers" if info.kind == "labels" else "an image that is in decibels already"
        raise ConfigError.of("`db` (`--db`)", got=got, expected="measured values", do="Leave it out.")
    return DecibelSource(source=source, quantity=known)


def require_quantity(word: str) -> Quantity:
    """Return what stored values are, by the user's word.

    Parameters
    ----------
    word : str
        `power` or `amplitude`.

    Returns
    -------
    str
        The same.

    Raises
    ------
    ConfigError
        When it is another word.
    """
    if word not in FACTORS:
        raise ConfigError.of(
            "`db` (`--db`)",
            got=word,
            expected="power or amplitude",
            do="Say what the stored values are; it is not guessed.",
        )
    return "power" if word == "power" else "amplitude"
