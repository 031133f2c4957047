"""Stores of fields written tile by tile, as `compress` lays them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.codecs.exactfield import NAME
from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.metadata import encode_json, group_metadata
from tilestream.codecs.pixelcodecs import encode_pixels
from tilestream.codecs.tilecodec import LEVELS, FieldCodec, unpack_tile
from tilestream.codecs.tilequality import add_errors, level_errors
from tilestream.sinks.fieldstore import (
    VALID_PREFIX,
    chunk_maps,
    field_layout,
    field_nodes,
    field_record,
    field_root,
    quality_record,
    valid_layout,
    valid_nodes,
)
from tilestream.sinks.store import display_windows
from tilestream.sinks.tiling import STEP, Tiling
from tilestream.types import Channel, ImageInfo, Level, Shape


def info_of(image, **facts):
    """What a source says of an array `(c, y, x)`."""
    shape = Shape(y=image.shape[1], x=image.shape[2])
    names = "RGB" if len(image) == 3 and image.dtype == np.uint8 else [f"c{n}" for n in range(len(image))]
    given = {
        "format": "array",
        "levels": (Level(index=0, shape=shape, block=shape),),
        "dtype": image.dtype,
        "channels": tuple(Channel(name=name) for name in names),
        "fingerprint": "f" * 32,
        "axes": {"c": len(image), "y": shape.y, "x": shape.x},
        "mpp_yx": (0.5, 0.5),
    }
    return ImageInfo(**{**given, **facts})


def tiling_of(image, *, tile_px, step=STEP):
    """How an array `(c, y, x)` falls into tiles."""
    return Tiling.of(Shape(y=image.shape[1], x=image.shape[2]), tile_px=tile_px, step=step)


def save_fields(path: Path, image, valid=None, *, tile_px=32, step=STEP, codec=None, more=None, **facts):
    """Write an array `(c, y, x)` as a store of fields and return its levels."""
    info, tiling = info_of(image, **facts), tiling_of(image, tile_px=tile_px, step=step)
    codec = codec or FieldCodec(field=NAME, levels=max(LEVELS, tiling.step))
    levels = Levels.of(image, valid, levels=tiling.levels)
    layout, mask = field_layout(info, codec, tiling=tiling), valid_layout(info, tiling=tiling)
    files, errors = {}, {}
    for level in layout.levels:
        pixels, seen = levels.pixels[level.index], levels.valid[level.index]
        for iy, ix in np.ndindex(level.shards.yx):
            place = np.s_[iy * tile_px : (iy + 1) * tile_px, ix * tile_px : (ix + 1) * tile_px]
            tile, own = pixels[:, *place], None if seen is None else seen[place]
            is_glass = (tile == layout.fill_value).all() and (own is None or own.all())
            if is_glass or (own is not None and not own.any()):
                continue
            data = files[f"{level.index}/image/c/0/{iy}/{ix}"] = codec.encode(tile, own)
            deep = tiling.answered(level.index)
            errors = add_errors(errors, level.index, level_errors(unpack_tile(data), Levels.of(tile, own, levels=deep)))
    documents = field_nodes(info, layout)
    if valid is not None:
        for level in mask.levels:
            seen = levels.valid[level.index]
            for iy, ix in np.ndindex(level.shards.yx):
                edge = level.chunk.y
                part = seen[iy * edge : (iy + 1) * edge, ix * edge : (ix + 1) * edge]
                if not part.all():
                    chunk = np.ones((edge, edge, 1), np.uint8)
                    chunk[: part.shape[0], : part.shape[1], 0] = part
                    name = f"{VALID_PREFIX}{level.index}/image/c/{iy}/{ix}"
                    files[name] = encode_pixels(chunk, level.codecs)
        documents |= valid_nodes(info, mask)
    quality = quality_record(
        psnr=[errors[n].psnr(image.dtype) if n in errors else None for n in range(len(levels.pixels))],
        stored_bytes=sum(len(data) for name, data in files.items() if not name.startswith("labels")),
        pixels=image[0].size,
    )
    record = field_record(
        info,
        codec,
        tiling=tiling,
        recipe_digest="0" * 32,
        more={"quality": quality, "shards": chunk_maps(layout, files.keys()), **(more or {})},
    )
    root = field_root(info, layout, record=record, windows=display_windows(info, image.transpose(1, 2, 0)))
    for name, document in documents.items():
        files[f"{name}/zarr.json"] = encode_json(document)
    files["zarr.json"] = encode_json(group_metadata(root, consolidated=documents))
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return levels
