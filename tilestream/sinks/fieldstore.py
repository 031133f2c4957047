"""How an image lies in a store of fields: which arrays, one chunk a tile, and what stands in its root.

    0/image         level 0, in chunks (c, tile, tile), each one container of the Zarr codec `tilestream.neural`
    4/image         level 4, in tiles of as many pixels; then 8/image … while there are levels
    labels/valid    on every level, only where something was not measured; a tile of level l has its own chunk

So it is where tiles answer 4 levels, as those of most codecs do (`step` of `tilestream.sinks.tiling`): level l is read
from array 4·(l // 4), each of its tiles asked at level l % 4. With a step of 1, as of the pyramid codec, every level is
an array of its own, which any Zarr client sees; where level 0 is the one array, its tiles answer all levels, and the
mask is that of level 0 alone. Levels go on until one tile, and at most 256 pixels, hold the whole image. Tiles at the
right and lower edge hold what lies in the image; nothing is padded. A tile of nothing but the fill value, or of which
nothing was measured, is not stored; `shards` in the record says which were, so that one that is lost is no glass.

The root is that of any store of ours, OME-Zarr and GeoZarr at once, in which the arrays are the levels: other readers
see levels 0, 4, 8 … . Our own record there (`attributes.tilestream`) has `store` = `field`, `codec`, `settings` of
the codec, `tile_px`, `level_step`, `levels`, `quality`: what the fits have reached; and `requires`: what a reader
without this package is told by the name of the codec alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np

from tilestream.codecs.metadata import group_metadata
from tilestream.codecs.neuralchunks import NAME
from tilestream.codecs.pixelcodecs import pixel_codecs
from tilestream.codecs.shardmap import encode_shard_map
from tilestream.codecs.tilecodec import TileCodec
from tilestream.errors import ConfigError
from tilestream.sinks.layout import StoreLayout, StoreLevel, fill_value, halved, storable
from tilestream.sinks.omelabels import VALID, labels_attributes
from tilestream.sinks.store import label_attributes, nodes, owner_record, root_attributes
from tilestream.sinks.tiling import Tiling
from tilestream.types import ImageInfo, Shape

STORE = "field"
"""What kind of store of ours it is."""
REQUIRES = "the Python package tilestream, which has the Zarr codec tilestream.neural of the chunks"
"""What the record tells whoever opens the store without it."""
VALID_PREFIX = f"labels/{VALID.name}/"
"""Path of the mask in the store."""


def field_layout(info: ImageInfo, codec: TileCodec, *, tiling: Tiling) -> StoreLayout:
    """Return the arrays of an image as fields.

    Parameters
    ----------
    info : ImageInfo
        The image.
    codec : TileCodec
        What its tiles are encoded by.
    tiling : Tiling
        Of the image.

    Returns
    -------
    StoreLayout
        The levels that are stored; a chunk is a file.

    Raises
    ------
    ConfigError
        When the image is one of class numbers.
    """
    if info.kind == "labels":
        raise ConfigError.of(
            "an image as fields",
            got="class numbers",
            expected="intensities, which may come back a little changed",
            do="Store it with `tilestream ingest`.",
        )
    codecs = ({"name": NAME, "configuration": dict(codec.settings)},)
    return StoreLayout(
        levels=tuple(_level(n, info.shape, tile_px=tiling.tile_px, codecs=codecs) for n in tiling.arrays),
        dims=("c", "y", "x"),
        channels=len(info.channels),
        dtype=storable(info.dtype),
        fill_value=fill_value(info),
        unit_px=tiling.tile_px,
        has_shards=False,
    )


def valid_layout(info: ImageInfo, *, tiling: Tiling) -> StoreLayout:
    """Return the arrays of the mask of an image as fields.

    Parameters
    ----------
    info : ImageInfo
        The image.
    tiling : Tiling
        Of the image.

    Returns
    -------
    StoreLayout
        Its `masks`; the chunk of level l at `(iy, ix)` lies under the tile there of the array that level is read from.
        Absent chunks are valid.
    """
    dtype = np.dtype("uint8")
    codecs = pixel_codecs(dtype, 1, is_plain=True)
    levels = tuple(
        _level(n, info.shape, tile_px=tiling.tile_px >> n % tiling.step, codecs=codecs) for n in tiling.masks
    )
    return StoreLayout(
        levels=levels, dims=("y", "x"), channels=1, dtype=dtype, fill_value=1, unit_px=tiling.tile_px, has_shards=False
    )


def _level(index: int, shape: Shape, *, tile_px: int, codecs: Sequence[Mapping[str, Any]]) -> StoreLevel:
    return StoreLevel(
        index=index,
        shape=halved(shape, index),
        scale_yx=(float(2**index), float(2**index)),
        chunk=Shape(y=tile_px, x=tile_px),
        chunks=1,
        codecs=tuple(codecs),
        halvings=index,
    )


def field_nodes(info: ImageInfo, layout: StoreLayout) -> dict[str, Any]:
    """Return the `zarr.json` of the groups and arrays of the image, its root left out, by path.

    Parameters
    ----------
    info : ImageInfo
        The image.
    layout : StoreLayout
        From `field_layout`.

    Returns
    -------
    dict
        Without the value that means "not measured": a field gives it back a little changed, the mask exactly.
    """
    return nodes(replace(info, nodata=None), layout)


def valid_nodes(info: ImageInfo, layout: StoreLayout) -> dict[str, Any]:
    """Return the `zarr.json` of the groups and arrays of the mask, that of `labels` among them, by path.

    Parameters
    ----------
    info : ImageInfo
        The image.
    layout : StoreLayout
        From `valid_layout`.

    Returns
    -------
    dict
        To be written only where something is not valid.
    """
    return {
        "labels": group_metadata(labels_attributes([VALID.name])),
        VALID_PREFIX.rstrip("/"): group_metadata(label_attributes(info, layout, VALID)),
        **nodes(info, layout, prefix=VALID_PREFIX, band=VALID),
    }


def field_record(
    info: ImageInfo, codec: TileCodec, *, tiling: Tiling, recipe_digest: str, more: Mapping[str, Any]
) -> dict[str, Any]:
    """Return our own record of a store of fields.

    Parameters
    ----------
    info : ImageInfo
        The image.
    codec : TileCodec
        What its tiles are encoded by.
    tiling : Tiling
        Of the image.
    recipe_digest : str
        Digest of all that the store is a function of.
    more : Mapping
        What is known when all is written: `quality` from `quality_record`, `shards` from `chunk_maps`, `damage`.

    Returns
    -------
    dict
        JSON values.
    """
    own = {
        "store": STORE,
        "codec": codec.name,
        "settings": dict(codec.settings),
        "tile_px": tiling.tile_px,
        "level_step": tiling.step,
        "levels": tiling.levels,
        "requires": REQUIRES,
    }
    return owner_record(info, profile=STORE, recipe_digest=recipe_digest, more={**own, **more})


def field_root(
    info: ImageInfo, layout: StoreLayout, *, record: Mapping[str, Any], windows: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    """Return the attributes of the root, the last thing that is written.

    Parameters
    ----------
    info : ImageInfo
        The image.
    layout : StoreLayout
        From `field_layout`.
    record : Mapping
        From `field_record`.
    windows : sequence of tuple
        Values shown as darkest and brightest, for each channel (`display_windows`).

    Returns
    -------
    dict
        OME, GeoZarr and our own keys.
    """
    return root_attributes(info, layout, owner=record, windows=windows)


def quality_record(*, psnr: Sequence[float | None], stored_bytes: int, pixels: int) -> dict[str, Any]:
    """Return what the fits of an image have reached.

    Parameters
    ----------
    psnr : sequence of float or None
        dB of each level over its valid pixels, as `LevelError.psnr` gives it.
    stored_bytes : int
        Of all chunks of all arrays.
    pixels : int
        Of level 0.

    Returns
    -------
    dict
        `psnr`, with None for a level that is exact or of which nothing is valid; `bytes`; and `bpp`, bits of these for
        a pixel of level 0. Masks of validity and metadata are not among them.
    """
    return {
        "psnr": [None if one is None or math.isinf(one) else round(one, 3) for one in psnr],
        "bytes": stored_bytes,
        "bpp": round(8 * stored_bytes / max(1, pixels), 4),
    }


def chunk_maps(layout: StoreLayout, written: Set[str], *, prefix: str = "") -> dict[str, str]:
    """Return which tiles of each array are stored, so that one that is lost is not taken for glass.

    Parameters
    ----------
    layout : StoreLayout
        The arrays.
    written : set of str
        Paths of all objects in the store.
    prefix : str
        Path of the image in it, with a slash at its end.

    Returns
    -------
    dict
        Text of the map by level.
    """
    first = "0/" if "c" in layout.dims else ""
    maps = {}
    for level in layout.levels:
        grid = np.zeros(level.shards.yx, np.bool_)
        for iy, ix in np.ndindex(grid.shape):
            grid[iy, ix] = f"{prefix}{level.index}/image/c/{first}{iy}/{ix}" in written
        maps[str(level.index)] = encode_shard_map(grid)
    return maps
