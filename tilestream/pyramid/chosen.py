"""A source seen through a user's choices: fewer channels, classes that do not count, decibels, resolution, light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, cast, runtime_checkable

from tilestream.errors import ConfigError
from tilestream.sources.classes import Rules
from tilestream.sources.decibels import in_decibels
from tilestream.sources.encoded import encoded_level, read_encoded
from tilestream.sources.extras import Extras, read_associated, read_extras
from tilestream.sources.layers import class_layer, without_classes
from tilestream.sources.samples import masked
from tilestream.sources.warming import warm
from tilestream.types import Array, Block, Box, Cell, Encoded, EncodedLevel, ImageInfo, Modality, Source

LIGHTS = ("brightfield", "fluorescence")
"""What a user may say of the light of an image."""


@runtime_checkable
class PicksChannels(Protocol):
    """A source that can leave channels unread."""

    def pick(self, channels: tuple[int, ...]) -> Source:
        """Return the source with some of its channels, in that order."""


@dataclass(frozen=True, kw_only=True)
class ChosenSource:
    """Another source with some of its channels and, where given, another resolution or light."""

    source: Source
    """What is really read."""
    channels: tuple[int, ...] | None = None
    """Indices of the channels that are kept, in order; None = all."""
    mpp: float | None = None
    """Micrometres per pixel of level 0 that a user states; goes before the file's."""
    light: Modality | None = None
    """What lights the image by a user; goes before what the file says."""

    @cached_property
    def info(self) -> ImageInfo:
        """Return the description as chosen."""
        found = self.source.info
        if self.channels is not None:
            # a pixel is not valid where any channel is not finite, also one that is left out
            hides = found.validity == "nodata" and found.dtype.kind == "f"
            found = replace(
                found,
                channels=tuple(found.channels[index] for index in self.channels),
                validity="mask" if hides else found.validity,
            )
        if self.mpp is not None:
            stated = "none" if found.mpp is None else f"{found.mpp:.4g}"
            note = f"{self.mpp:g} um/px as given by the user; the file states {stated}"
            found = replace(found, mpp_yx=(self.mpp, self.mpp), notes=(*found.notes, note))
        if self.light is not None:
            note = f"{self.light} as given by the user; the file states {found.modality}"
            found = replace(found, modality=self.light, notes=(*found.notes, note))
        return found

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block | None:
        """Return the chosen channels of a block."""
        if self.channels is None:
            return self.source.read_block(level, iy, ix, out)
        block = self.source.read_block(level, iy, ix)
        if block is None:
            return None
        pixels = block.pixels[..., list(self.channels)]
        if self.info.nodata is None:
            return Block(pixels=pixels, valid=block.valid)
        # a pixel is measured where any channel is; here only the chosen ones count
        measured = masked(pixels, self.info.nodata)
        both = measured.valid if measured.valid is None or block.valid is None else measured.valid & block.valid
        return Block(pixels=measured.pixels, valid=block.valid if both is None else both)

    def warm(self, box: Box) -> None:
        """Fetch what a box is stored in."""
        warm(self.source, box)

    def encoded(self, level: int) -> EncodedLevel:
        """Return how the tiles of a level decode by themselves, or why they cannot be copied."""
        if self.channels is not None:
            return EncodedLevel(reason="some channels are chosen, and tiles hold all of them")
        return encoded_level(self.source, level)

    def read_encoded(self, level: int, cells: Sequence[Cell]) -> list[Encoded]:
        """Return tiles as they are stored, with all channels."""
        return read_encoded(self.source, level, cells)

    def isel(self, **index: int) -> ChosenSource:
        """Return the same choices on another selection."""
        return replace(self, source=self.source.isel(**index))

    def read_associated(self, name: str) -> Array:
        """Return an associated image as it is."""
        return self.source.read_associated(name)

    def read_extras(self) -> Extras:
        """Return what the headers say besides the pixels; facts of channels only of the chosen ones."""
        found = read_extras(self.source)
        facts = found.technical.get("channels", ())
        if self.channels is None or len(facts) != len(self.source.info.channels):
            return found
        technical = {**found.technical, "channels": [facts[index] for index in self.channels]}
        return replace(found, technical=technical)

    def read_identifying(self, name: str) -> Array:
        """Return a picture that may identify somebody."""
        return read_associated(self.source, name, keep_identifying=True)

    def class_layer(self, name: str) -> Source:
        """Return a class layer as it is stored."""
        return class_layer(self.source, name)

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source, "channels": self.channels, "mpp": self.mpp, "light": self.light}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def choose(
    source: Source,
    *,
    bands: Sequence[str] = (),
    mpp: float | None = None,
    light: str | None = None,
    invalid: Rules | None = None,
    decibels: str | None = None,
) -> Source:
    """Return the source with the named channels, without some classes, in decibels, at a resolution, in a light.

    Parameters
    ----------
    source : Source
        What is read.
    bands : sequence of str
        Names of the channels to keep, in order; empty = all.
    mpp : float, optional
        Micrometres per pixel of level 0.
    light : str, optional
        `brightfield` or `fluorescence`.
    invalid : Mapping, optional
        Class layer → classes whose pixels are not valid.
    decibels : str, optional
        `power` or `amplitude`: what the values are that are wanted in decibels.

    Returns
    -------
    Source
        The source itself when nothing is chosen.

    Raises
    ------
    ConfigError
        When a channel, layer or class is not there, the resolution is not above 0, or there is no such light.
    """
    if mpp is not None and not 0 < mpp < float("inf"):
        raise ConfigError.of("`mpp`", got=mpp, expected="micrometres per pixel above 0", do="Correct the number.")
    if light is not None and light not in LIGHTS:
        raise ConfigError.of("`light`", got=light, expected=f"one of {', '.join(LIGHTS)}", do="Correct it.")
    found = _with_channels(source, _positions(source.info, bands)) if bands else source
    if mpp is not None or light is not None:
        found = ChosenSource(source=found, mpp=mpp, light=cast("Modality | None", light))
    found = without_classes(found, invalid or {})
    return found if decibels is None else in_decibels(found, decibels)


def _positions(info: ImageInfo, bands: Sequence[str]) -> tuple[int, ...]:
    names = [channel.name for channel in info.channels]
    missing = [name for name in bands if name not in names]
    if missing:
        reasons = [f"{name}, {info.absent[name]}" if name in info.absent else name for name in missing]
        raise ConfigError.of(
            "`bands`", got="; ".join(reasons), expected=f"names among {', '.join(names)}", do="Check the spelling."
        )
    return tuple(map(names.index, bands))


def _with_channels(source: Source, channels: tuple[int, ...]) -> Source:
    if isinstance(source, PicksChannels):
        return source.pick(channels)
    return ChosenSource(source=source, channels=channels)
