"""Single tiles of a JPEG 2000 image: each is cut out as a codestream of its own.

A tile keeps its place on the reference grid: the new header (SIZ) declares an image that is this one tile, at the same
coordinates, so that the partition into subbands, precincts and code blocks stays what it was and samples are those of
the whole image to the bit. Where the tile-parts lie is said by TLM segments, or found by stepping from one to the next.

References
----------
ITU-T T.800, annexes A.4 to A.7 and B.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tilestream.errors import DamagedError
from tilestream.sources.files import File
from tilestream.types import Box, Shape

MOST_TILES = 65_535
_SOT, _EOC = b"\xff\x90", b"\xff\xd9"
_SIZ, _TLM, _PLM, _PPM = b"\xff\x51", b"\xff\x55", b"\xff\x57", b"\xff\x60"
_MOST_HEADER_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Jp2Tiles:
    """Where the tiles of an image lie in its file."""

    header: bytes
    """Main header from SOC on, without what it says of tile-parts."""
    size: tuple[int, ...]
    """Xsiz, Ysiz, XOsiz, YOsiz, XTsiz, YTsiz, XTOsiz, YTOsiz."""
    parts: Mapping[int, tuple[tuple[int, int], ...]]
    """Offset and length of each tile-part by tile."""

    @property
    def tile(self) -> Shape:
        """Return the size of a tile, px."""
        return Shape(y=self.size[5], x=self.size[4])

    def ranges(self, box: Box) -> list[tuple[int, int]]:
        """Return offset and length of each tile-part that a box inside the image needs."""
        columns = range(box.x // self.tile.x, -(-box.x_stop // self.tile.x))
        rows = range(box.y // self.tile.y, -(-box.y_stop // self.tile.y))
        numbers = (iy * self._columns + ix for iy in rows for ix in columns)
        return [part for number in numbers for part in self.parts.get(number, ())]

    @property
    def _columns(self) -> int:
        return -(-(self.size[0] - self.size[2]) // self.size[4])

    def stream(self, file: File, iy: int, ix: int) -> bytes:
        """Return one tile as a codestream.

        Parameters
        ----------
        file : File
            The image.
        iy, ix : int
            Row and column of the tile.

        Returns
        -------
        bytes
            A codestream of one tile.

        Raises
        ------
        DamagedError
            When the file does not hold it.
        """
        width, height, x0, y0, tile_x, tile_y, *_ = self.size
        number = iy * self._columns + ix
        if number not in self.parts:
            raise DamagedError(f"JPEG 2000 tile {number} is not in the file: it is cut")
        left, top = x0 + ix * tile_x, y0 + iy * tile_y
        size = (min(left + tile_x, width), min(top + tile_y, height), left, top, tile_x, tile_y, left, top)
        at = self.header.index(_SIZ) + 6
        pieces = [self.header[:at], struct.pack(">8I", *size), self.header[at + 32 :]]
        for part in file.read_ranges(self.parts[number]):
            pieces += [part[:4], b"\0\0", struct.pack(">I", len(part)), part[10:]]
        return b"".join([*pieces, _EOC])


def read_jp2_tiles(file: File, start: int, stop: int) -> Jp2Tiles | None:
    """Return where the tiles of a codestream lie, None where it has one only, or its tiles cannot be cut out.

    Parameters
    ----------
    file : File
        The image.
    start, stop : int
        Where the codestream begins and the last byte that can belong to it.

    Returns
    -------
    Jp2Tiles or None
        Tiles that the file does not hold are left out.

    Raises
    ------
    DamagedError
        When the main header is broken.
    """
    header, lengths, first = bytearray(b"\xff\x4f"), [], start + 2
    for marker, segment in _main_header(file, start + 2, stop):
        first += 2 + len(segment)
        if marker == _PPM:
            return None  # packet headers of all tiles in one place
        if marker == _TLM:
            lengths.append(segment)
        elif marker != _PLM:
            header += marker + segment
    at = header.find(_SIZ) + 6
    size = struct.unpack(">8I", header[at : at + 32])
    width, height, x0, y0, tile_x, tile_y, tile_x0, tile_y0 = size
    if (x0, y0) != (tile_x0, tile_y0) or not tile_x or not tile_y:
        return None  # the first tiles are smaller than the others
    count = -(-(width - x0) // tile_x) * -(-(height - y0) // tile_y)
    if not 1 < count <= MOST_TILES:
        return None
    parts = _by_tlm(lengths, first, stop) or _by_walk(file, first, stop)
    return Jp2Tiles(header=bytes(header), size=size, parts={n: found for n, found in parts.items() if n < count})


def _main_header(file: File, position: int, stop: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield marker and segment, its length included, up to the first tile-part."""
    end = min(stop, position + _MOST_HEADER_BYTES)
    while True:
        head = file.read(position, min(4, stop - position))
        marker, length = head[:2], int.from_bytes(head[2:4], "big")
        if marker == _SOT:
            return
        if len(head) < 4 or head[0] != 0xFF or length < 2 or position + 2 + length > end:
            raise DamagedError(f"JPEG 2000 marker expected at byte {position}, found {head[:2].hex(' ') or 'the end'}")
        yield marker, file.read(position + 2, length)
        position += 2 + length


def _by_tlm(segments: list[bytes], position: int, stop: int) -> dict[int, tuple[tuple[int, int], ...]]:
    """Return tile-parts by TLM segments; empty when there are none, or they do not add up."""
    parts: dict[int, tuple[tuple[int, int], ...]] = {}
    for segment in sorted(segments, key=lambda segment: segment[2]):
        number_bytes, long = segment[3] >> 4 & 3, segment[3] >> 6 & 1
        if not number_bytes:
            return {}  # one part a tile, in order: stepping through says the same
        entry = number_bytes + (4 if long else 2)
        for at in range(4, len(segment) - entry + 1, entry):
            number = int.from_bytes(segment[at : at + number_bytes], "big")
            length = int.from_bytes(segment[at + number_bytes : at + entry], "big")
            if length < 14 or position + length > stop:
                return {}
            parts[number] = (*parts.get(number, ()), (position, length))
            position += length
    return parts


def _by_walk(file: File, position: int, stop: int) -> dict[int, tuple[tuple[int, int], ...]]:
    """Return tile-parts by stepping from one to the next, as far as the file goes."""
    parts: dict[int, tuple[tuple[int, int], ...]] = {}
    while position + 12 <= stop:
        head = file.read(position, 12)
        if head[:2] != _SOT:
            break
        number, length = int.from_bytes(head[4:6], "big"), int.from_bytes(head[6:10], "big")
        if length == 0:  # the last one goes to the end marker
            length = stop - position - (2 if file.read(stop - 2, 2) == _EOC else 0)
        if length < 14 or position + length > stop:
            break
        parts[number] = (*parts.get(number, ()), (position, length))
        position += length
    return parts
