"""What exports of feature stores have in common: options, and the files of a store before they are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from tilestream import __version__
from tilestream.errors import ConfigError
from tilestream.sinks.featureread import StoredFeatures
from tilestream.sinks.hdf5 import recipe_of
from tilestream.sources.fingerprint import digest

Layout: TypeAlias = Literal["trident", "clam", "anndata", "spatialdata", "geojson", "parquet", "geoparquet"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
FORMAT = 1
"""Version of what the files look like; part of their recipe."""
STEMS: tuple[Layout, ...] = ("trident", "clam")
"""Layouts that know a slide by its file name without folder and ending."""


@dataclass(frozen=True, kw_only=True)
class ExchangeOptions:
    """What is made of feature stores."""

    to: Layout
    """The layout."""
    encoders: tuple[str, ...] = ()
    """Whose vectors; empty = all that a store has."""
    value: str | None = None
    """One number a tile that is shown in colours, where the layout has colours."""

    def chosen(self, tiles: StoredFeatures) -> tuple[str, ...]:
        """Return the encoders of a store that are wanted.

        Parameters
        ----------
        tiles : StoredFeatures
            The store.

        Returns
        -------
        tuple of str
            At least one.

        Raises
        ------
        ConfigError
            When the store lacks one.
        """
        missing = [name for name in self.encoders if name not in tiles.encoders]
        if missing or not tiles.encoders:
            raise ConfigError.of(
                f"encoders of `{tiles.key}`",
                got=", ".join(tiles.encoders) or "none",
                expected=", ".join(missing) or "at least one",
                do="Choose among those with --encoder, or embed with the others too.",
            )
        return self.encoders or tiles.encoders


@dataclass(frozen=True, kw_only=True)
class Product:
    """One file, or one store, of a layout."""

    name: str
    """Path in the folder of outputs, with `/`."""
    recipe: str
    """Digest of all that the file follows from."""
    write: Callable[..., None]
    """Writes it."""
    recipe_of: Callable[[Path], str | None] = recipe_of
    """Tells the digest of a file that is there, None for one that is not ours."""
    is_store: bool = False
    """Whether it is a folder that `write` itself puts into its place whole; it then takes `replace` too."""


@dataclass(frozen=True, kw_only=True)
class Products:
    """What one store becomes."""

    files: tuple[Product, ...]
    """In the order in which they are written."""
    size_bytes: int
    """About how large they are together."""
    notes: tuple[str, ...] = ()
    """What a user should know of them."""


def recipe_digest(tiles: StoredFeatures, options: ExchangeOptions, *parts: object) -> str:
    """Return the digest of all that a file follows from.

    Parameters
    ----------
    tiles : StoredFeatures
        The store.
    options : ExchangeOptions
        The layout.
    *parts : object
        What else decides it.

    Returns
    -------
    str
        32 hex digits.
    """
    return digest("exchange", FORMAT, __version__, options.to, tiles.content, *parts)[:32]


def vector_bytes(tiles: StoredFeatures, encoders: tuple[str, ...]) -> int:
    """Return the bytes of the vectors of some encoders."""
    return sum(4 * tiles.dim(encoder) * len(tiles) for encoder in encoders)


def left_out(tiles: StoredFeatures, encoders: tuple[str, ...]) -> tuple[str, ...]:
    """Return a note for each encoder that has no vector for some tiles, and one on tiles that lie under finer ones."""
    opened = int(tiles.opened().sum())
    leaves = len(tiles) - opened
    counts = {encoder: leaves - len(tiles.ok_rows(encoder)) for encoder in encoders}
    covered = f"{opened:,} of {len(tiles):,} tiles, in whose place finer ones were read, are in no file of features"
    return tuple(
        f"{count:,} of {leaves:,} tiles have no vector of {encoder} and are in no file of features"
        for encoder, count in counts.items()
        if count
    ) + ((covered,) if opened else ())
