"""Pyramids of tiles for the writers, and files of one tile."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from tilestream.sinks.tiffcodec import TileCodec
from tilestream.sinks.tiffdirectory import Directory, Value, encode_directories, header, long, short
from tilestream.types import Array

_FORMATS = {"u": 1, "i": 2, "f": 3}


def one_tile_file(codec: TileCodec, pixels: Array, more: Mapping[int, Value] = MappingProxyType({})) -> bytes:
    """Return a TIFF whose one tile holds the pixels `(y, x, samples)`, with more tags."""
    height, width, samples = pixels.shape
    tags = {
        256: long(width),
        257: long(height),
        258: short(*[8 * pixels.dtype.itemsize] * samples),
        277: short(samples),
        284: short(1),
        322: short(width),
        323: short(height),
        339: short(*[_FORMATS[pixels.dtype.kind]] * samples),
        **codec.tags,
        **more,
    }
    data = codec.encode(pixels)
    where = Directory(tags=tags, offsets=np.array([8], np.uint64), counts=np.array([len(data)], np.uint32))
    at = 8 + len(data) + len(data) % 2
    return (header(at, is_big=False) + data).ljust(at, b"\0") + encode_directories([where], at=at, is_big=False)
