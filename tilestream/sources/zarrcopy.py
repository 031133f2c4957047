"""Chunks of a Zarr image that are JPEG streams, taken out as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilestream.codecs.imagechunks import JPEG, with_checksum
from tilestream.errors import DamagedError
from tilestream.sources.chunkcodecs import ChunkCodec, ChunkDecoder
from tilestream.sources.encoded import image_level
from tilestream.sources.zarr import ZarrSource
from tilestream.types import Cell, Encoded, EncodedLevel, Shape


@dataclass(frozen=True, kw_only=True)
class ZarrCopy:
    """Gives the chunks of a store, such as an archive of ours."""

    source: ZarrSource
    """The image."""

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
        return image_level(JPEG, channels=chunks[0], tile=Shape(y=chunks[1], x=chunks[2]), stored_bytes=0)

    def read_encoded(self, level: int, cells: Sequence[Cell]) -> list[Encoded]:
        """Return one chunk a cell with its checksum, the reason why it cannot be read, or None where none is stored."""
        layout = self.source.layouts[level]
        if layout is None:
            raise TypeError(f"level {level} has no chunks that can be copied")
        decoder = ChunkDecoder(layout.codec, layout.chunks)
        found: list[Encoded] = []
        for cell in cells:
            try:
                data = self.source.stored_chunk(level, cell if "c" in self.source.dims else cell[1:])
                found.append(data if data is None else self._stream(data, layout.codec, decoder))
            except DamagedError as error:
                found.append(error)
        return found

    @staticmethod
    def _stream(data: bytes, codec: ChunkCodec, decoder: ChunkDecoder) -> bytes:
        """Return a JPEG chunk with its checksum; one that stands in the store is left for its reader to compare."""
        if codec.transcoder is not None:
            return with_checksum(decoder.picture(data))
        return data if codec.crc_inside + codec.crc_outside else with_checksum(data)
