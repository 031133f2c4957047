"""TIFF files made byte by byte, so that tests can say anything in a header, true or not."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import imagecodecs
import numpy as np

from tilestream.sources.files import File
from tilestream.sources.tiff import TiffSource, open_tiff

_CODES = {"B": 1, "s": 2, "H": 3, "I": 4, "b": 6, "h": 8, "i": 9, "f": 11, "d": 12, "Q": 16}


@dataclass(frozen=True, kw_only=True)
class Page:
    """One directory and its pieces."""

    tags: Mapping[int, tuple[str, Sequence[float] | bytes]]
    """Type letter and values by code."""
    pieces: Sequence[bytes | None] = ()
    """Stored pieces; None is a sparse one."""
    tiled: bool = True
    """Whether the pieces are tiles."""
    children: Sequence[Page] = field(default=())
    """Directories of SubIFDs."""


def write_tiff(path: Path, *pages: Page, order: str = "<", big: bool = False) -> Path:
    """Write the pages and return the path."""
    size, head = ("Q", 16) if big else ("I", 8)
    out = bytearray(head)

    def put(data: bytes) -> int:
        out.extend(b"\0" * (len(out) % 2))
        out.extend(data)
        return len(out) - len(data)

    def directory(page: Page) -> tuple[int, int]:
        """Return the positions of a directory and of its link to the next."""
        tags = dict(page.tags)
        if page.pieces:
            where = [put(piece) if piece is not None else 0 for piece in page.pieces]
            tags.setdefault(324 if page.tiled else 273, (size, where))
            tags.setdefault(325 if page.tiled else 279, (size, [len(piece or b"") for piece in page.pieces]))
        if page.children:
            tags[330] = (size, [directory(child)[0] for child in page.children])
        entries = bytearray()
        for code, (letter, values) in sorted(tags.items()):
            data = bytes(values) if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}{letter}", *values)
            limit = struct.calcsize(f"{order}{size}")
            place = data.ljust(limit, b"\0") if len(data) <= limit else struct.pack(order + size, put(data))
            entries += struct.pack(f"{order}HH{size}", code, _CODES[letter], len(values)) + place
        start = put(
            struct.pack(order + ("Q" if big else "H"), len(tags)) + bytes(entries) + struct.pack(order + size, 0)
        )
        return start, len(out) - struct.calcsize(order + size)

    link = head - struct.calcsize(order + size)
    for page in pages:
        start, following = directory(page)
        struct.pack_into(order + size, out, link, start)
        link = following
    mark = b"II" if order == "<" else b"MM"
    out[:4] = mark + struct.pack(order + "H", 43 if big else 42)
    if big:
        out[4:8] = struct.pack(order + "HH", 8, 0)
    path.write_bytes(out)
    return path


def image_tags(
    height: int, width: int, *, piece: tuple[int, int] | None = None, samples: int = 1, **more: int
) -> dict[int, tuple[str, Sequence[float] | bytes]]:
    """Return the tags of an 8-bit image; `piece` are tiles, without it there is one strip."""
    tags: dict[int, tuple[str, Sequence[float] | bytes]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [more.get("bits", 8)] * samples),
        259: ("H", [more.get("compression", 1)]),
        262: ("H", [more.get("photometric", 1 if samples < 3 else 2)]),
        277: ("H", [samples]),
    }
    if piece is not None:
        tags |= {322: ("H", [piece[1]]), 323: ("H", [piece[0]])}
    else:
        tags[278] = ("I", [more.get("rows", height)])
    if "subfile" in more:
        tags[254] = ("I", [more["subfile"]])
    return tags


def tiles_of(pixels: np.ndarray, piece: tuple[int, int]) -> list[np.ndarray]:
    """Return the tiles of an image, edge tiles filled up by repeating the edge."""
    grow = [(0, -pixels.shape[axis] % piece[axis]) for axis in (0, 1)]
    full = np.pad(pixels, [*grow, *[(0, 0)] * (pixels.ndim - 2)], mode="edge")
    rows, columns = full.shape[0] // piece[0], full.shape[1] // piece[1]
    return [
        np.ascontiguousarray(full[y * piece[0] : (y + 1) * piece[0], x * piece[1] : (x + 1) * piece[1]])
        for y in range(rows)
        for x in range(columns)
    ]


def opened(path: Path) -> TiffSource:
    """Return the source of a path."""
    return open_tiff(File(url=str(path)))


def photo(height: int, width: int, *, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Return a smooth picture with texture `(y, x, c)` uint8, about as compressible as tissue."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(y / rng.uniform(5, 20)) + np.cos(x / rng.uniform(5, 20)) for _ in range(channels)]
    noise = rng.normal(0, 6, (height, width, channels))
    return np.clip(150 + 45 * np.stack(waves, -1) + noise, 0, 255).astype("u1")


def split_tables(stream: bytes) -> tuple[bytes, bytes]:
    """Return the tables of a JPEG stream on their own, and the stream without them."""
    tables, rest, position = b"", b"", 2
    while stream[position + 1] != 0xDA:
        stop = position + 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
        if stream[position + 1] in (0xC4, 0xDB):
            tables += stream[position:stop]
        else:
            rest += stream[position:stop]
        position = stop
    return b"\xff\xd8" + tables + b"\xff\xd9", b"\xff\xd8" + rest + stream[position:]


def subsampled_jpeg2000(planes: list[np.ndarray]) -> bytes:
    """Return a 4:2:2 codestream, put together from streams of one component each: encoders at hand make none."""
    segments, packets = {}, []
    for plane in planes:
        stream = imagecodecs.jpeg2k_encode(plane, codecformat="j2k", reversible=True, level=0, resolutions=1)
        position, own = 2, {}
        while stream[position + 1] != 0x90:
            stop = position + 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
            own[stream[position + 1]] = stream[position:stop]
            position = stop
        end = position + int.from_bytes(stream[position + 6 : position + 10], "big")
        packets.append(stream[stream.index(b"\xff\x93", position) + 2 : end])
        segments = segments or own
    size = segments[0x51][4:38] + struct.pack(">H", 3) + b"".join(bytes([7, dx, 1]) for dx in (1, 2, 2))
    data = b"".join(packets)
    start = struct.pack(">HHHIBB", 0xFF90, 10, 0, 14 + len(data), 0, 1)
    head = b"\xff\x4f\xff\x51" + struct.pack(">H", 2 + len(size)) + size + segments[0x52] + segments[0x5C]
    return head + start + b"\xff\x93" + data + b"\xff\xd9"
