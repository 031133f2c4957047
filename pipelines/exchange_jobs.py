"""Which files a feature store becomes in the job folders of TRIDENT and of CLAM."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tilestream.codecs.tensorfile import word_of, write_tensor
from tilestream.pipelines.exchange_form import (
    ExchangeOptions,
    Product,
    Products,
    left_out,
    recipe_digest,
    vector_bytes,
)
from tilestream.sinks import clam, trident
from tilestream.sinks.featureread import StoredFeatures
from tilestream.sinks.hdf5 import RECIPE
from tilestream.sinks.jobfiles import require_one_size, stem_of


def trident_products(tiles: StoredFeatures, options: ExchangeOptions) -> Products:
    """Return the files of TRIDENT's job folder: patches, and vectors of tiles and of the slide by encoder."""
    require_one_size(tiles, options.to)
    encoders = options.chosen(tiles)
    attributes = trident.patch_attributes(tiles)
    folder, stem = trident.trident_folder(attributes), stem_of(tiles.key)
    recipe = partial(recipe_digest, tiles, options, stem)

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
        size_bytes=vector_bytes(tiles, encoders) + 16 * len(tiles) * (1 + 2 * len(encoders)),
        notes=(*left_out(tiles, encoders), *_not_square(tiles)),
    )


def clam_products(tiles: StoredFeatures, options: ExchangeOptions) -> Products:
    """Return the files of CLAM's folders: patches, and vectors by encoder, once in HDF5 and once as a tensor."""
    require_one_size(tiles, options.to)
    encoders = options.chosen(tiles)
    stem, recipe = stem_of(tiles.key), partial(recipe_digest, tiles, options, stem_of(tiles.key))
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
        size_bytes=2 * vector_bytes(tiles, encoders) + len(tiles) * (16 + 8 * len(encoders)),
        notes=(*left_out(tiles, encoders), *((rounded,) if patch_px != exact_px else ()), *_not_square(tiles)),
    )


def _write_tensor(path: Path, tiles: StoredFeatures, encoder: str, recipe: str) -> None:
    write_tensor(path, clam.all_vectors(tiles, encoder), f"{RECIPE} {recipe}")


def _tensor_recipe(path: Path) -> str | None:
    name, _, recipe = (word_of(path) or "").partition(" ")
    return recipe if name == RECIPE else None


def _not_square(tiles: StoredFeatures) -> tuple[str, ...]:
    y, x = tiles.size_yx
    return (
        () if abs(y / x - 1) < 0.01 else (f"tiles are {y:g} x {x:g} px of level 0, written as squares of their mean",)
    )
