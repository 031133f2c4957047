"""How the JPEG tiles of a source become JPEG XL, as some of them tell."""

from __future__ import annotations

from dataclasses import dataclass

from tilestream.codecs.imagechunks import CHECKSUM_BYTES, JPEG, with_checksum
from tilestream.codecs.jpegxl import JpegXl
from tilestream.metrics import count
from tilestream.sources.encoded import encoded_level, read_encoded
from tilestream.types import Source

PROBED = 16
"""Tiles of a level that are looked at, over all of it."""


@dataclass(frozen=True, kw_only=True)
class Transcoding:
    """How the tiles of one level become smaller; picklable and small."""

    codec: JpegXl
    """Turns one stream into another and back."""
    share: float
    """About what is left of its bytes."""

    def stored(self, chunk: bytes) -> bytes:
        """Return a chunk of a JPEG level as it is stored.

        Parameters
        ----------
        chunk : bytes
            A JPEG stream with its checksum.

        Returns
        -------
        bytes
            The smaller stream with a checksum of its own. Tiles and bytes are counted, before and after.
        """
        stream = chunk[:-CHECKSUM_BYTES]
        packed = self.codec.encode(stream)
        count("jpegxl.tiles")
        count("jpegxl.kept", int(packed == stream))
        count("jpegxl.bytes_before", len(stream))
        count("jpegxl.bytes", len(packed))
        return with_checksum(packed)


def find_transcoding(source: Source, level: int) -> Transcoding | None:
    """Return how the tiles of a level become JPEG XL, None where they are not JPEG.

    Parameters
    ----------
    source : Source
        Any source.
    level : int
        Level.

    Returns
    -------
    Transcoding or None
        The same whoever asks, as long as the image stays the same.

    Raises
    ------
    SourceError
        When the file cannot be read.
    """
    if JPEG not in [codec["name"] for codec in encoded_level(source, level).codecs]:
        return None
    blocks = source.info.levels[level].blocks
    probed = min(PROBED, blocks.area)
    places = sorted({(2 * number + 1) * blocks.area // (2 * probed) for number in range(probed)})
    found = read_encoded(source, level, [(0, *divmod(place, blocks.x)) for place in places])
    streams = [chunk[:-CHECKSUM_BYTES] for chunk in found if isinstance(chunk, bytes)]
    codec = JpegXl.common(streams)
    before = sum(map(len, streams))
    after = sum(len(codec.encode(stream)) for stream in streams)
    return Transcoding(codec=codec, share=after / before if before else 1.0)
