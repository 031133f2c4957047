"""Chunks of a Zarr image that are JPEG streams, taken out as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tilestream.codecs.imagechunks import JPEG, with_checksum
from tilestream.errors import DamagedError
from tilestream.sources.chunkcodecs import ChunkDecoder
from tilestream.sources.encoded import image_level
from tilestream.sources.extras import Extras
from tilestream.sources.zarr import ZarrSource
from tilestream.types import Array, Block, Box, Cell, Encoded, EncodedLevel, ImageInfo, Shape, Source

_SIZED = 16
"""Chunks of a level, over all of it, that tell about how many bytes it has."""


def with_chunks(source: Source) -> Source:
    """Return a source that gives its tiles as they are stored, where it is a Zarr image; else the source itself."""
    return ZarrCopy(source=source) if isinstance(source, ZarrSource) else source


@dataclass(frozen=True, kw_only=True)
class ZarrCopy:
    """A Zarr image, such as an archive of ours, that gives its chunks too."""

    source: ZarrSource
    """The image."""

    @property
    def info(self) -> ImageInfo:
        """Return the description of the image."""
        return self.source.info

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block:
        """Return one decoded block."""
        return self.source.read_block(level, iy, ix, out)

    def warm(self, box: Box) -> None:
        """Fetch what a box is stored in."""
        self.source.warm(box)

    def isel(self, **index: int) -> ZarrCopy:
        """Return the source with another choice on its extra axes."""
        return replace(self, source=self.source.isel(**index))

    def read_associated(self, name: str) -> Array:
        """Return an associated image `(y, x, c)`."""
        return self.source.read_associated(name)

    def class_layer(self, name: str) -> ZarrSource:
        """Return a class layer as it is stored."""
        return self.source.class_layer(name)

    def read_extras(self) -> Extras:
        """Return what the attributes say besides the pixels."""
        return self.source.read_extras()

    def read_identifying(self, name: str) -> Array:
        """Return a picture that may identify somebody."""
        return self.source.read_identifying(name)

    def encoded(self, level: int) -> EncodedLevel:
        """Return how the chunks of a level decode by themselves, or why they cannot be copied."""
        layout, dims = self.source.layouts[level], self.source.dims
        if layout is None or dims not in (("c", "y", "x"), ("y", "x")):
            return EncodedLevel(reason=f"axes {', '.join(dims)}, or codecs that are not known here")
        codec, chunks = layout.codec, (1,) * (3 - len(dims)) + layout.chunks
        image = codec.image
        if image is None or image.name != "jpeg" or codec.packing:
            return EncodedLevel(reason=f"chunks of {'samples' if image is None else image.name}: only JPEG is copied")
        if image.tables or image.header or image.colours != (None, None) or codec.crc_inside + codec.crc_outside > 1:
            return EncodedLevel(reason="JPEG chunks that do not stand for themselves")
        if chunks[0] > 1 and codec.order != (1, 2, 0):
            return EncodedLevel(reason="JPEG chunks whose pixels are turned")
        return image_level(
            JPEG, channels=chunks[0], tile=Shape(y=chunks[1], x=chunks[2]), stored_bytes=self._stored_bytes[level]
        )

    @cached_property
    def _stored_bytes(self) -> tuple[int, ...]:
        """Return about what the chunks of each level take, by some of them; 0 where there are none to be copied."""
        return tuple(
            0 if layout is None else self._sized(level.index, level.blocks)
            for level, layout in zip(self.info.levels, self.source.layouts, strict=True)
        )

    def _sized(self, level: int, blocks: Shape) -> int:
        count = min(_SIZED, blocks.area)
        places = sorted({(2 * number + 1) * blocks.area // (2 * count) for number in range(count)})
        found = self.read_encoded(level, [(0, *divmod(place, blocks.x)) for place in places])
        return sum(len(chunk) for chunk in found if isinstance(chunk, bytes)) * blocks.area // count

    def read_encoded(self, level: int, cells: Sequence[Cell]) -> list[Encoded]:
        """Return one chunk a cell with its checksum, why it cannot be read or is damaged, or None where none is stored.

        A checksum that stands in the store is compared: it would be lost with the bytes that it is for.
        """
        layout = self.source.layouts[level]
        if layout is None:
            raise TypeError(f"level {level} has no chunks that can be copied")
        decoder = ChunkDecoder(layout.codec, layout.chunks)
        found: list[Encoded] = []
        for cell in cells:
            try:
                data = self.source.stored_chunk(level, cell if "c" in self.source.dims else cell[1:])
                found.append(data if data is None else with_checksum(decoder.picture(data)))
            except DamagedError as error:
                found.append(error)
        return found
