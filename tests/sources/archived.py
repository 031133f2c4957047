"""Archives of single levels, as plain as can be, to compare what other readers get with the source's own decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr

from tilestream.codecs.metadata import Layout, array_metadata, encode_json
from tilestream.codecs.shards import ShardWriter
from tilestream.errors import DamagedError
from tilestream.sources.encoded import encoded_level, read_encoded
from tilestream.types import Source

FILL = 7


def archive(source: Source, level: int, folder: Path) -> tuple[zarr.Array, list[tuple[tuple[int, int, int], str]]]:
    """Write a level as one shard of copied chunks; return the array as zarr-python reads it, and what is damaged."""
    spec, info = encoded_level(source, level), source.info
    assert not spec.reason
    channels, (rows, columns) = len(info.channels), info.levels[level].blocks.yx
    counts = (channels // spec.chunk_shape[0], rows, columns)
    cells = [(c, y, x) for c, y, x in np.ndindex(*counts)]
    damaged = []
    with ShardWriter(folder / "c/0/0/0", chunk_shape=spec.chunk_shape, dtype=info.dtype) as shard:
        for cell, chunk in zip(cells, read_encoded(source, level, cells), strict=True):
            if isinstance(chunk, bytes):
                shard.append_encoded(chunk)
            else:
                shard.append_missing()
            if isinstance(chunk, DamagedError):
                damaged.append((cell, str(chunk)))
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    sharding = {"chunk_shape": spec.chunk_shape, "codecs": spec.codecs, "index_codecs": index, "index_location": "end"}
    layout = Layout(
        grid_shape=tuple(chunk * count for chunk, count in zip(spec.chunk_shape, counts, strict=True)),
        codecs=({"name": "sharding_indexed", "configuration": sharding},),
    )
    shape = (channels, *info.levels[level].shape.yx)
    document = array_metadata(shape, info.dtype, layout=layout, dimension_names="cyx", fill_value=FILL)
    (folder / "zarr.json").write_bytes(encode_json(document))
    return zarr.open_array(folder, mode="r"), damaged


def decoded(source: Source, level: int) -> np.ndarray:
    """Return what `read_block` gives of a level `(c, y, x)`, missing and damaged tiles as the fill value."""
    shape, block = source.info.levels[level].shape, source.info.levels[level].block
    out = np.full((len(source.info.channels), *shape.yx), FILL, source.info.dtype)
    for iy, ix in np.ndindex(*source.info.levels[level].blocks.yx):
        try:
            found = source.read_block(level, iy, ix)
        except DamagedError:
            continue
        if found is not None:
            part = out[:, iy * block.y : (iy + 1) * block.y, ix * block.x : (ix + 1) * block.x]
            part[:] = found.pixels.transpose(2, 0, 1)[:, : part.shape[1], : part.shape[2]]
    return out


def check(source: Source, folder: Path) -> list[tuple[tuple[int, int, int], str]]:
    """Compare every level of an archive with the source; return what is damaged in level 0."""
    damaged = []
    for level in source.info.levels:
        array, found = archive(source, level.index, folder / str(level.index))
        np.testing.assert_array_equal(array[:], decoded(source, level.index))
        damaged = found if level.index == 0 else damaged
    return damaged
