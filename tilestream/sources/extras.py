"""What a source knows besides its pixels: colour profile, technical facts, and what may identify somebody.

Facts are sorted by a whitelist (`technical.py`): what is not known to be harmless is identifying. Nothing of this is
part of a source's record; headers are read again when somebody asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from tilestream.errors import ConfigError
from tilestream.types import Array, Source


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What a source knows besides its pixels; JSON values."""

    icc: bytes | None = None
    """ICC profile of the image's colours, as stored."""
    technical: Mapping[str, Any] = field(default_factory=dict)
    """Facts of scanner, optics, exposure, coding or product that are known to be harmless, by names of `KNOWN`."""
    identifying: Mapping[str, Any] = field(default_factory=dict)
    """Everything else that the headers say: names, dates, barcodes, serial numbers, free text."""
    identifying_images: tuple[str, ...] = ()
    """Names of pictures that may show a label (`label`, `macro`)."""
    notes: tuple[str, ...] = ()
    """What a user should know, such as a profile that is broken."""


@runtime_checkable
class HasExtras(Protocol):
    """A source that knows more than pixels."""

    def read_extras(self) -> Extras:
        """Return what the headers say."""


@runtime_checkable
class HasIdentifyingImages(Protocol):
    """A source that can give pictures which may identify somebody."""

    def read_identifying(self, name: str) -> Array:
        """Return a picture `(y, x, c)` named in `Extras.identifying_images`."""


def read_extras(source: Source) -> Extras:
    """Return what a source knows besides its pixels, empty for a source that knows nothing.

    Parameters
    ----------
    source : Source
        Any source.

    Returns
    -------
    Extras
        Headers are read, no pixels.

    Raises
    ------
    SourceError
        When the headers cannot be read any more.
    """
    return source.read_extras() if isinstance(source, HasExtras) else Extras()


def associated_names(source: Source, *, keep_identifying: bool = False) -> tuple[str, ...]:
    """Return the names of the associated images that may be read.

    Parameters
    ----------
    source : Source
        Any source.
    keep_identifying : bool
        Whether the user wants those too that can identify a patient.

    Returns
    -------
    tuple of str
        `thumbnail`, and with `keep_identifying` such as `label` and `macro`.
    """
    identifying = read_extras(source).identifying_images if keep_identifying else ()
    return (*source.info.associated, *identifying)


def read_associated(source: Source, name: str, *, keep_identifying: bool = False) -> Array:
    """Return an associated image.

    Parameters
    ----------
    source : Source
        Any source.
    name : str
        One of `associated_names`.
    keep_identifying : bool
        Whether the user wants what can identify a patient.

    Returns
    -------
    ndarray
        Pixels `(y, x, c)`.

    Raises
    ------
    ConfigError
        When there is none of that name, or the user has not said that identifying images may be read.
    DamagedError
        When it cannot be decoded.
    """
    if name in source.info.associated:
        return source.read_associated(name)
    known = associated_names(source, keep_identifying=keep_identifying)
    if name not in known or not isinstance(source, HasIdentifyingImages):
        raise ConfigError.of(
            f"associated image `{name}`",
            got="a name that is not offered",
            expected=f"one of {list(known)}",
            do="Choose one of them; label and macro images need `keep_identifying`.",
        )
    return source.read_identifying(name)


def associated_images(source: Source, keep_identifying: bool) -> dict[str, Array]:
    """Return all associated images that may be read.

    Parameters
    ----------
    source : Source
        Any source.
    keep_identifying : bool
        Whether the user wants those too that can identify a patient.

    Returns
    -------
    dict of ndarray
        Pixels `(y, x, c)` by name.

    Raises
    ------
    DamagedError
        When one of them cannot be decoded; `read_associated` gives the others.
    """
    return {
        name: read_associated(source, name, keep_identifying=keep_identifying)
        for name in associated_names(source, keep_identifying=keep_identifying)
    }
