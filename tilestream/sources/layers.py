"""A source without the pixels of some classes, and how a class layer of any source is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tilestream.errors import DamagedError, SourceError
from tilestream.sources.classes import ClassRule, Rules, class_rule, find_band
from tilestream.sources.extras import Extras, read_associated, read_extras
from tilestream.sources.fingerprint import digest
from tilestream.sources.warming import warm
from tilestream.sources.window import Mask, read_window
from tilestream.types import Array, Block, Box, ImageInfo, Source, Validity


@runtime_checkable
class HasLayers(Protocol):
    """A source with class layers, or a view of one."""

    def class_layer(self, name: str) -> Source:
        """Return the layer that `info.classes` names, as labels on the same levels and blocks."""


def class_layer(source: Source, name: str) -> Source:
    """Return a class layer of a source as a source of its own.

    Parameters
    ----------
    source : Source
        The image.
    name : str
        Name of the layer.

    Returns
    -------
    Source
        Labels on the levels and blocks of the image.

    Raises
    ------
    ConfigError
        When there is no such layer.
    """
    band = find_band(name, source.info.classes, source.info.absent)
    if not isinstance(source, HasLayers):
        raise TypeError(f"{type(source).__name__} names class layers in its info and cannot give them")
    return source.class_layer(band.name)


@dataclass(frozen=True, kw_only=True)
class RuledLayer:
    """Some classes, and the layer that they are looked for in."""

    rule: ClassRule
    """The classes."""
    source: Source
    """The layer."""
    levels: tuple[int, ...]
    """Level of the layer for each level of the image."""

    def own(self, box: Box) -> Box:
        """Return a box of one of the image's levels on the layer's."""
        return replace(box, level=self.levels[box.level])

    def matches(self, box: Box) -> Mask:
        """Return where the classes are in a box of one of the image's levels."""
        numbers, seen = read_window(self.source, self.own(box))
        # "no data" is a class like others: 0 of SCL, 1 (fill) of QA_PIXEL
        fill = numbers.dtype.type(self.source.info.nodata or 0)
        return self.rule.matches(np.where(seen, numbers[..., 0], fill))


@dataclass(frozen=True, kw_only=True)
class InvalidSource:
    """Another source in which the pixels of some classes are not valid."""

    source: Source
    """What reads the pixels."""
    layers: tuple[RuledLayer, ...]
    """Classes and where each is looked for."""

    @cached_property
    def info(self) -> ImageInfo:
        """Return the description; the fingerprint is another one, since validity is."""
        found = self.source.info
        words = tuple(f"invalid {layer.rule.text}" for layer in self.layers)
        mark = digest(found.fingerprint, *words, *(layer.source.info.fingerprint for layer in self.layers))
        by_value = found.validity == "nodata"  # which can stand for these pixels too
        validity: Validity = "nodata" if by_value else "mask"
        return replace(found, fingerprint=mark, validity=validity, derived=(*found.derived, *words))

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block | None:
        """Return one block without the pixels of the classes.

        Parameters
        ----------
        level, iy, ix : int
            Level, and row and column in its grid of blocks.
        out : ndarray, optional
            Memory that the source may decode into.

        Returns
        -------
        Block or None
            Pixels, 0 where not valid.

        Raises
        ------
        DamagedError
            When a layer cannot be decoded there: what its pixels are is not known then.
        """
        block = self.source.read_block(level, iy, ix, out)
        if block is None:
            return None
        stored = self.info.levels[level]
        y, x = iy * stored.block.y, ix * stored.block.x
        height, width = min(stored.block.y, stored.shape.y - y), min(stored.block.x, stored.shape.x - x)
        valid = np.ones(block.pixels.shape[:2], np.bool_) if block.valid is None else block.valid.copy()
        for layer in self.layers:
            try:
                found = layer.matches(Box(level=level, y=y, x=x, height=height, width=width))
            except DamagedError as error:
                raise DamagedError(f"class layer {layer.rule.band}: {error}") from error
            valid[:height, :width] &= ~found
        if valid.all():
            return block
        return Block(pixels=np.where(valid[..., None], block.pixels, block.pixels.dtype.type(0)), valid=valid)

    def warm(self, box: Box) -> None:
        """Fetch what a box is stored in, layers included."""
        warm(self.source, box)
        for layer in self.layers:
            warm(layer.source, layer.own(box))

    def isel(self, **index: int) -> InvalidSource:
        """Return the same rules on another selection."""
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
        return {"source": self.source, "layers": self.layers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def without_classes(source: Source, rules: Rules) -> Source:
    """Return a source in which the pixels of some classes are not valid.

    Parameters
    ----------
    source : Source
        The image, with the class layers that the rules name.
    rules : Mapping
        Layer → classes: numbers, names, `bit3`, or `bits8-9:3`.

    Returns
    -------
    Source
        The source itself when no rule is given.

    Raises
    ------
    ConfigError
        When a layer or a class does not exist; the message lists those that do.
    """
    made = [_ruled(source, name, words) for name, words in rules.items()]
    made.sort(key=lambda layer: layer.rule.text)
    return InvalidSource(source=source, layers=tuple(made)) if made else source


def _ruled(source: Source, name: str, words: Sequence[int | str]) -> RuledLayer:
    layer = class_layer(source, name)
    rule = class_rule(layer.info.classes[0], words, layer.info.dtype)
    at = {level.shape: level.index for level in layer.info.levels}
    missing = [level.shape for level in source.info.levels if level.shape not in at]
    if missing:
        raise SourceError.of(
            f"class layer `{name}`",
            got=f"no level of {missing[0].y} x {missing[0].x} pixels",
            expected="the levels of the image",
            do="The store is damaged or from elsewhere: make it again.",
        )
    return RuledLayer(rule=rule, source=layer, levels=tuple(at[level.shape] for level in source.info.levels))
