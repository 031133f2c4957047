"""Which files a feature store becomes in each layout, and how each is known as ours again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from tilestream import __version__
from tilestream.codecs.tensorfile import word_of, write_tensor
from tilestream.errors import ConfigError
from tilestream.sinks import clam, trident
from tilestream.sinks.featureread import StoredFeatures
from tilestream.sinks.hdf5 import RECIPE, recipe_of
from tilestream.sinks.jobfiles import stem_of
from tilestream.sources.fingerprint import digest

Layout: TypeAlias = Literal["trident", "clam"]
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
    """One file of a layout."""

    name: str
    """Path in the folder of outputs, with `/`."""
    recipe: str
    """Digest of all that the file follows from."""
    write: Callable[[Path], None]
    """Writes it."""
    recipe_of: Callable[[Path], str | None] = recipe_of
    """Tells the digest of a file that is there, None for one that is not ours."""


@dataclass(frozen=True, kw_only=True)
class Products:
    """What one store becomes."""

    files: tuple[Product, ...]
    """In the order in which they are written."""
    size_bytes: int
    """About how large they are together."""
    notes: tuple[str, ...] = ()
    """What a user should know of them."""


def products(tiles: StoredFeatures, options: ExchangeOptions) -> Products:
    """Return what a store becomes.

    Parameters
    ----------
    tiles : StoredFeatures
        The store.
    options : ExchangeOptions
        Layout and encoders.

    Returns
    -------
    Products
        Files, none written yet.

    Raises
    ------
    ConfigError
        When the layout cannot hold such features.
    """
    made = {"trident": _trident, "clam": _clam}[options.to]
    return made(tiles, options.chosen(tiles), options)


def _recipe(tiles: StoredFeatures, options: ExchangeOptions, *parts: object) -> str:
    return digest("exchange", FORMAT, __version__, options.to, tiles.content, *parts)[:32]


def _trident(tiles: StoredFeatures, encoders: tuple[str, ...], options: ExchangeOptions) -> Products:
    attributes = trident.patch_attributes(tiles)
    folder, stem = trident.trident_folder(attributes), stem_of(tiles.key)
    recipe = partial(_recipe, tiles, options, stem)

    def files() -> Iterator[Product]:
        own = recipe("patches")
        write = partial(trident.write_trident_patches, tiles=tiles, recipe=own)
        yield Product(name=f"{folder}/patches/{stem}_patches.h5", recipe=own, write=write)
        for encoder in encoders:
            for kind, writer in (
                ("features", trident.write_trident_features),
                ("slide_features", trident.write_trident_slide),
            ):
                own = recipe(kind, encoder)
                write = partial(writer, tiles=tiles, encoder=encoder, recipe=own)
                yield Product(name=f"{folder}/{kind}_{encoder}/{stem}.h5", recipe=own, write=write)

    return Products(
        files=tuple(files()),
        size_bytes=_vector_bytes(tiles, encoders) + 16 * len(tiles) * (1 + 2 * len(encoders)),
        notes=(*_left_out(tiles, encoders), *_not_square(tiles)),
    )


def _clam(tiles: StoredFeatures, encoders: tuple[str, ...], options: ExchangeOptions) -> Products:
    stem, recipe = stem_of(tiles.key), partial(_recipe, tiles, options, stem_of(tiles.key))
    if not len(tiles):  # CLAM writes no file for a slide without patches, and its readers do not expect one
        return Products(files=(), size_bytes=0, notes=("no tiles: CLAM has no files for such a slide",))
    patch_px, exact_px = clam.clam_patch_px(tiles)

    def files() -> Iterator[Product]:
        own = recipe("patches")
        write = partial(clam.write_clam_patches, tiles=tiles, recipe=own)
        yield Product(name=f"patches/{stem}.h5", recipe=own, write=write)
        for encoder in encoders:
            own, folder = recipe("features", encoder), f"features_{encoder}"
            write = partial(clam.write_clam_features, tiles=tiles, encoder=encoder, recipe=own)
            yield Product(name=f"{folder}/h5_files/{stem}.h5", recipe=own, write=write)
            # last, since it is what CLAM takes for the proof that a slide is done
            write = partial(_write_tensor, tiles=tiles, encoder=encoder, recipe=own)
            yield Product(name=f"{folder}/pt_files/{stem}.pt", recipe=own, write=write, recipe_of=_tensor_recipe)

    rounded = (
        f"CLAM reads patches of {patch_px} px where tiles are of {exact_px:g}: coordinates are right, sizes rounded"
    )
    return Products(
        files=tuple(files()),
        size_bytes=2 * _vector_bytes(tiles, encoders) + len(tiles) * (16 + 8 * len(encoders)),
        notes=(*_left_out(tiles, encoders), *((rounded,) if patch_px != exact_px else ()), *_not_square(tiles)),
    )


def _write_tensor(path: Path, tiles: StoredFeatures, encoder: str, recipe: str) -> None:
    write_tensor(path, clam.all_vectors(tiles, encoder), f"{RECIPE} {recipe}")


def _tensor_recipe(path: Path) -> str | None:
    name, _, recipe = (word_of(path) or "").partition(" ")
    return recipe if name == RECIPE else None


def _vector_bytes(tiles: StoredFeatures, encoders: tuple[str, ...]) -> int:
    return sum(4 * tiles.dim(encoder) * len(tiles) for encoder in encoders)


def _left_out(tiles: StoredFeatures, encoders: tuple[str, ...]) -> tuple[str, ...]:
    """Return a note for each encoder that has no vector for some tiles."""
    counts = {encoder: len(tiles) - len(tiles.ok_rows(encoder)) for encoder in encoders}
    return tuple(
        f"{count:,} of {len(tiles):,} tiles have no vector of {encoder} and are in no file of features"
        for encoder, count in counts.items()
        if count
    )


def _not_square(tiles: StoredFeatures) -> tuple[str, ...]:
    y, x = tiles.size_yx
    return (
        () if abs(y / x - 1) < 0.01 else (f"tiles are {y:g} x {x:g} px of level 0, written as squares of their mean",)
    )
