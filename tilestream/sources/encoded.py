"""Stored tiles as Zarr chunks: what all formats have in common, and whether a source can be archived.

Behind each stream stands its CRC-32C (the Zarr codec `crc32c`): an image codec does not see a flipped bit, so that an
archive would otherwise be as blind to rot as the file that it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np

from tilestream.codecs.imagechunks import CHECKSUM_BYTES, decode_image, with_checksum
from tilestream.errors import ConfigError, DamagedError
from tilestream.types import Array, Cell, Encoded, EncodedLevel, EncodedSource, Shape, Source

Where = TypeVar("Where")
_TRIED = 64
"""Tiles that are looked at to find a good one, before a level is taken on trust."""


def image_level(name: str, *, channels: int, tile: Shape, stored_bytes: int) -> EncodedLevel:
    """Return how chunks decode that are one image each.

    Parameters
    ----------
    name : str
        `imagecodecs_jpeg` or `imagecodecs_jpeg2k`.
    channels : int
        Channels in one chunk.
    tile : Shape
        Size of a tile, px.
    stored_bytes : int
        What all chunks of the level take.

    Returns
    -------
    EncodedLevel
        Codecs for an array `(c, y, x)`.
    """
    order = [{"name": "transpose", "configuration": {"order": [1, 2, 0]}}] if channels > 1 else []
    return EncodedLevel(
        codecs=(*order, {"name": name}, {"name": "crc32c"}),
        chunk_shape=(channels, *tile.yx),
        stored_bytes=stored_bytes,
    )


def copied(stored: Encoded, copy: Callable[[bytes, Where], bytes], where: Where) -> Encoded:
    """Return stored bytes as a chunk, or the reason why they are damaged.

    Parameters
    ----------
    stored : bytes, DamagedError or None
        What was read.
    copy : callable
        Makes stored bytes a stream that stands for itself, or raises `DamagedError`.
    where : object
        What `copy` must know besides.

    Returns
    -------
    bytes, DamagedError or None
        The result for one cell.
    """
    if not isinstance(stored, bytes):
        return stored
    try:
        return with_checksum(copy(stored, where))
    except DamagedError as error:
        return error


def encoded_level(source: Source, level: int) -> EncodedLevel:
    """Return how the chunks of a level of any source decode, or why they cannot be copied.

    Parameters
    ----------
    source : Source
        Any source.
    level : int
        Level.

    Returns
    -------
    EncodedLevel
        With a reason for a source that does not give its tiles as they are stored.
    """
    if isinstance(source, EncodedSource):
        return source.encoded(level)
    return EncodedLevel(reason=f"tiles of {source.info.format} cannot be taken out as they are stored")


def read_encoded(source: Source, level: int, cells: Sequence[Cell]) -> list[Encoded]:
    """Return chunks of a source; see `EncodedSource.read_encoded`.

    Parameters
    ----------
    source : Source
        A source whose `encoded_level` gives no reason against it.
    level : int
        Level.
    cells : sequence of tuple
        Indices `(c, y, x)` of chunks.

    Returns
    -------
    list of bytes, DamagedError or None
        One a cell.

    Raises
    ------
    ConfigError
        When the tiles cannot be copied.
    """
    if isinstance(source, EncodedSource):
        return source.read_encoded(level, cells)
    raise ConfigError.of(
        f"level {level}",
        got=encoded_level(source, level).reason,
        expected="tiles that can be copied",
        do="Use the profile `portable`.",
    )


def archive_reason(source: Source) -> str | None:
    """Return why a source cannot be archived without decoding, None when it can.

    Parameters
    ----------
    source : Source
        Any source.

    Returns
    -------
    str or None
        The first reason found. On each level one tile is decoded both ways and must give the same pixels, so that an
        oddity of a file is found before thousands of tiles are copied.

    Raises
    ------
    SourceError
        When the file cannot be read.
    """
    for level in source.info.levels:
        reason = _reason(source, level.index)
        if reason:
            return f"level {level.index}: {reason}" if len(source.info.levels) > 1 else reason
    return None


def _reason(source: Source, level: int) -> str:
    spec = encoded_level(source, level)
    if not spec.reason and spec.chunk_shape[0] < len(source.info.channels):
        return "channels are stored apart"  # the layout of stores has all channels of a place in one chunk
    return spec.reason or _difference(source, level)


def _difference(source: Source, level: int) -> str:
    """Return what is wrong with the first good tile of a level when it is decoded from its copy."""
    blocks = source.info.levels[level].blocks
    cells = [(blocks.y // 2, blocks.x // 2), *islice(np.ndindex(*blocks.yx), _TRIED)]
    for iy, ix in cells:
        chunk = read_encoded(source, level, [(0, iy, ix)])[0]
        if not isinstance(chunk, bytes):
            continue
        try:
            block = source.read_block(level, iy, ix)
        except DamagedError:
            continue
        if block is not None:
            return _compared(chunk, encoded_level(source, level), block.pixels, name=f"tile {iy}, {ix}")
    return ""


def _compared(chunk: bytes, spec: EncodedLevel, pixels: Array, *, name: str) -> str:
    channels, height, width = spec.chunk_shape
    codec, stream = str(spec.codecs[-2]["name"]), chunk[:-CHECKSUM_BYTES]
    try:
        copy = decode_image(codec, stream, shape=(height, width, channels), dtype=pixels.dtype)
    except DamagedError as error:
        return f"{name} by itself is no image ({error})"
    if np.array_equal(copy[: pixels.shape[0], : pixels.shape[1]], pixels):
        return ""
    return f"{name} decodes to other pixels by itself than within its file"
