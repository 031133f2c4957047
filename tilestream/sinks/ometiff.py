"""A pyramid as one OME-TIFF: tiles as they come, coarse levels as SubIFDs of each plane, directories at the end.

References
----------
OME-TIFF specification 6.0, https://docs.openmicroscopy.org/ome-model/6.0.0/ome-tiff/specification.html#sub-resolutions
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tilestream.sinks.tiffdirectory import CLASSIC_BYTES, Value, encode_directories, header
from tilestream.sinks.tiffpyramid import EncodedTile, TiffPyramid, TilePositions

_WRITE_BYTES = 1 << 20
_EXPANSION = 1.02
"""Codecs make noise larger than it was by less than this; with it 2^32 bytes are never passed in classic TIFF."""
_HEADER_BYTES = 1 << 24
"""Room for directories and texts in the same reckoning, beside 12 bytes a tile."""


class OmeTiffWriter:
    """Takes tiles in any order and appends them to an OME-TIFF; a context manager.

    Parameters
    ----------
    path : Path
        File to write.
    pyramid : TiffPyramid
        What is written; one plane a channel, or one of RGB.
    """

    def __init__(self, path: Path, pyramid: TiffPyramid) -> None:
        self._pyramid = pyramid
        levels = range(len(pyramid.levels))
        self._positions = [[TilePositions(pyramid.tiles(level)) for level in levels] for _ in pyramid.planes]
        count = sum(pyramid.tiles(level).area for level in levels) * len(pyramid.planes)
        self._is_big = pyramid.raw_bytes * _EXPANSION + 12 * count + _HEADER_BYTES >= CLASSIC_BYTES
        self._file = path.open("wb", buffering=_WRITE_BYTES)
        self._size_bytes = self._file.write(header(0, is_big=self._is_big))

    def __enter__(self) -> OmeTiffWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # after an error only: what was not written then fails again
            self._file.close()

    def add(self, tile: EncodedTile) -> None:
        """Append one tile.

        Parameters
        ----------
        tile : EncodedTile
            The tile, each once.
        """
        if not tile.data:
            return
        positions = self._positions[tile.plane][tile.level]
        positions.put(positions.index(tile.iy, tile.ix), offset=self._size_bytes, nbytes=len(tile.data))
        self._size_bytes += self._file.write(tile.data)

    def finish(self, tags: Mapping[int, Value]) -> int:
        """Write the directories and name them in the header.

        Parameters
        ----------
        tags : Mapping
            Tags of the first directory, the OME-XML among them, by code.

        Returns
        -------
        int
            Size of the file, bytes.
        """
        self._size_bytes += self._file.write(b"\0" * (self._size_bytes % 2))
        chain = []
        for plane, levels in enumerate(self._positions):
            coarse = [self._pyramid.directory(level, plane, levels[level]) for level in range(1, len(levels))]
            first_only = {} if plane else tags
            chain.append(self._pyramid.directory(0, plane, levels[0], tags=first_only, children=coarse))
        first = self._size_bytes
        self._size_bytes += self._file.write(encode_directories(chain, at=first, is_big=self._is_big))
        self._file.seek(0)
        self._file.write(header(first, is_big=self._is_big))
        self._file.close()
        return self._size_bytes
