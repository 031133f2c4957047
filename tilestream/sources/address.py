"""Where an image is and what of it is wanted: a path or URL with a selection behind `#`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl

from tilestream.errors import ConfigError
from tilestream.sources.encoded import encoded_level, read_encoded
from tilestream.sources.extras import Extras, read_associated, read_extras
from tilestream.sources.layers import class_layer
from tilestream.sources.warming import warm
from tilestream.types import Array, Block, Box, Cell, Encoded, EncodedLevel, ImageInfo, Kind, Source


@dataclass(frozen=True, kw_only=True)
class Address:
    """A path or URL and the selection that stood behind it."""

    url: str
    """Path or URL without the selection."""
    index: Mapping[str, int] = field(default_factory=dict)
    """Index by axis name."""
    kind: Kind | None = None
    """What the samples are, where the user says so."""
    layer: str | None = None
    """Name of a class layer that is wanted instead of the channels."""
    invalid: tuple[str, ...] = ()
    """Classes whose pixels are not valid, as `LAYER=CLASS,CLASS`."""
    decibels: str | None = None
    """What radar values are (`power`, `amplitude`) that are wanted in decibels."""
    decode: str | None = None
    """Where a store of fields is decoded (`cpu`, `cuda`)."""


def parse_address(text: str) -> Address:
    """Return a path or URL split from its selection.

    Parameters
    ----------
    text : str
        `image.zarr#t=3&z=1`, `cells.zarr#kind=labels`, `scene#classes=SCL`, `scene#invalid=SCL=3,8,9,10`,
        `radar#db=power`, `fields.zarr#decode=cuda`, or no `#` at all. A local file whose name really holds a `#` is
        taken as it is.

    Returns
    -------
    Address
        Path and selection.

    Raises
    ------
    ConfigError
        When what stands behind `#` is none of these.
    """
    url, mark, fragment = text.rpartition("#")
    if not mark or Path(text).exists():
        return Address(url=text)
    address = Address(url=url)
    for name, value in parse_qsl(fragment, keep_blank_values=True) or [(fragment, "")]:
        known = _with(address, name, value)
        if known is None:
            raise ConfigError.of(
                f"`{text}`",
                got=f"`#{fragment}`",
                expected="`#axis=number`, `#kind=labels`, `#classes=SCL`, `#invalid=SCL=3,8`, `#db=power` or "
                "`#decode=cuda`, joined by `&`",
                do="Correct the selection, or rename the file if the `#` belongs to its name.",
            )
        address = known
    return address


def _with(address: Address, name: str, value: str) -> Address | None:
    """Return an address with one more word of its selection, None when it is not understood."""
    if name == "kind" and value in ("labels", "intensity"):
        return replace(address, kind="labels" if value == "labels" else "intensity")
    if name == "classes" and value:
        return replace(address, layer=value)
    if name == "invalid" and value:
        return replace(address, invalid=(*address.invalid, value))
    if name == "db" and value:
        return replace(address, decibels=value)
    if name == "decode" and value:
        return replace(address, decode=value)
    if value.isascii() and value.isdigit():
        return replace(address, index={**address.index, name: int(value)})
    return None


def checked_index(index: Mapping[str, int], axes: Mapping[str, int]) -> dict[str, int]:
    """Return the index when each of its axes can be chosen on and each number is in range.

    Parameters
    ----------
    index : Mapping
        Wanted index by axis name.
    axes : Mapping
        Sizes of the axes that can be chosen on.

    Returns
    -------
    dict
        The same index.

    Raises
    ------
    ConfigError
        When an axis does not exist or the number is out of range.
    """
    for name, value in index.items():
        if name not in axes:
            raise ConfigError.of(
                f"axis `{name}`",
                got="an axis that the image does not have",
                expected=f"one of {sorted(axes)}" if axes else "no selection: the image has y, x and channels only",
                do="Look at the axes that `tilestream info` lists.",
            )
        if not 0 <= value < axes[name]:
            raise ConfigError.of(
                f"axis `{name}`", got=value, expected=f"0 to {axes[name] - 1}", do="Choose an index in that range."
            )
    return dict(index)


def default_notes(axes: Mapping[str, int], chosen: Mapping[str, int]) -> tuple[str, ...]:
    """Return a note for each axis longer than 1 of which nothing was chosen, so that the first was taken.

    Parameters
    ----------
    axes : Mapping
        Sizes of the axes that can be chosen on.
    chosen : Mapping
        Index that the user gave.

    Returns
    -------
    tuple of str
        Notes for users.
    """
    return tuple(
        f"axis {name} has {size} entries: the first is used (choose with #{name}=0…{size - 1})"
        for name, size in axes.items()
        if size > 1 and name not in chosen
    )


@dataclass(frozen=True, kw_only=True)
class KindView:
    """A source whose samples are labels, or not, because the user says so."""

    source: Source
    """What reads the pixels."""
    kind: Kind
    """The user's word."""

    @property
    def info(self) -> ImageInfo:
        """Return the description with the user's kind."""
        info = self.source.info
        return info if info.kind == self.kind else replace(info, kind=self.kind)

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block | None:
        """Return one decoded block."""
        return self.source.read_block(level, iy, ix, out)

    def warm(self, box: Box) -> None:
        """Fetch what a box is stored in."""
        warm(self.source, box)

    def encoded(self, level: int) -> EncodedLevel:
        """Return how the tiles of a level decode by themselves, or why they cannot be copied."""
        return encoded_level(self.source, level)

    def read_encoded(self, level: int, cells: Sequence[Cell]) -> list[Encoded]:
        """Return tiles as they are stored."""
        return read_encoded(self.source, level, cells)

    def isel(self, **index: int) -> KindView:
        """Return the source with another choice on its extra axes."""
        return replace(self, source=self.source.isel(**index))

    def read_associated(self, name: str) -> Array:
        """Return an associated image `(y, x, c)`."""
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
