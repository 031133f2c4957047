"""Zarr stores written file by file: shards with chosen chunks, and stores as our pyramids are."""

from __future__ import annotations

import struct
from pathlib import Path

import google_crc32c
import numpy as np

from tilestream.codecs.metadata import Layout, array_metadata, encode_json, group_metadata, inner_codecs
from tilestream.codecs.shards import MISSING

INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


def sharded(codecs, chunk_shape, counts):
    """Layout of shards of `counts` chunks with these codecs."""
    configuration = {
        "chunk_shape": list(chunk_shape),
        "codecs": list(codecs),
        "index_codecs": INDEX_CODECS,
        "index_location": "end",
    }
    grid = tuple(chunk * count for chunk, count in zip(chunk_shape, counts, strict=True))
    return Layout(grid_shape=grid, codecs=({"name": "sharding_indexed", "configuration": configuration},))


def shard_bytes(chunks):
    """Content of a shard from its chunks in C order, None for those that are not stored."""
    body, index = b"", []
    for chunk in chunks:
        index.append(MISSING if chunk is None else (len(body), len(chunk)))
        body += chunk or b""
    table = np.asarray(index, "<u8").tobytes()
    return body + table + struct.pack("<I", google_crc32c.value(table))


def save_array(path: Path, shape, dtype, *, layout, files, fill_value=0, names="cyx"):
    """Write an array whose files are given by their key."""
    path.mkdir(parents=True, exist_ok=True)
    document = array_metadata(
        shape, np.dtype(dtype), layout=layout, dimension_names=tuple(names)[-len(shape) :], fill_value=fill_value
    )
    (path / "zarr.json").write_bytes(encode_json(document))
    for key, data in files.items():
        (path / key).parent.mkdir(parents=True, exist_ok=True)
        (path / key).write_bytes(data)
    return path


def save_pictures(path: Path, streams, codec, shape, dtype="uint8"):
    """Write one shard of pictures `(y, x, c)`, side by side, as an array `(c, y, x)`."""
    chunk = (shape[2], shape[0], shape[1])
    codecs = [{"name": "transpose", "configuration": {"order": [1, 2, 0]}}, codec]
    layout = sharded(codecs, chunk, (1, 1, len(streams)))
    whole = (shape[2], shape[0], shape[1] * len(streams))
    return save_array(path, whole, dtype, layout=layout, files={"c/0/0/0": shard_bytes(streams)})


def save_pyramid(path: Path, levels, *, chunk_px=16, counts=2, fill_value=255, shards=None, valid=None, **own):
    """Write a store as `build_pyramid` does, of levels `(c, y, x)`; `own` goes into the attribute `tilestream`."""
    from numcodecs import Zstd

    def image(folder, values, fill):
        channels = values.shape[0]
        chunk = (channels, chunk_px, chunk_px)
        layout = sharded(inner_codecs(values.dtype, (1, 2, 0)), chunk, (1, counts, counts))
        edge, files = chunk_px * counts, {}
        padded = np.pad(values, [(0, 0), *((0, -size % edge) for size in values.shape[1:])], constant_values=fill)
        for iy in range(padded.shape[1] // edge):
            for ix in range(padded.shape[2] // edge):
                part = padded[:, iy * edge : (iy + 1) * edge, ix * edge : (ix + 1) * edge]
                if (part == fill).all():
                    continue
                tiles = [
                    part[:, y : y + chunk_px, x : x + chunk_px]
                    for y in range(0, edge, chunk_px)
                    for x in range(0, edge, chunk_px)
                ]
                coded = [
                    None
                    if (tile == fill).all()
                    else Zstd(3, checksum=True).encode(np.ascontiguousarray(tile.transpose(1, 2, 0)))
                    for tile in tiles
                ]
                files[f"c/0/{iy}/{ix}"] = shard_bytes(coded)
        save_array(folder, values.shape, values.dtype, layout=layout, files=files, fill_value=fill)

    def group(folder, arrays, fill, name, **attributes):
        axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
        datasets = []
        for number, values in enumerate(arrays):
            image(folder / str(number) / "image", values, fill)
            (folder / str(number) / "zarr.json").write_bytes(encode_json(group_metadata()))
            scale = [{"type": "scale", "scale": [1.0, 2.0**number, 2.0**number]}]
            datasets.append({"path": f"{number}/image", "coordinateTransformations": scale})
        ome = {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": datasets}]}
        (folder / "zarr.json").write_bytes(encode_json(group_metadata({"ome": ome, **attributes})))

    own = {"store": "pyramid", "format": 1, "version": "0", **own}
    group(path, levels, fill_value, "image", tilestream={**own, **({"shards": shards} if shards else {})})
    if valid is not None:
        group(path / "labels" / "valid", valid, 0, "valid")
        labels = group_metadata({"ome": {"version": "0.5", "labels": ["valid"]}})
        (path / "labels" / "zarr.json").write_bytes(encode_json(labels))
    return path
