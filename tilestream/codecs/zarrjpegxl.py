"""The Zarr v3 codec `tilestream.jpegxl`: chunks that are JPEG streams, stored as JPEG XL.

It stands behind `imagecodecs_jpeg` and turns bytes into bytes, so that pixels are to the bit those that the JPEG
decodes to. Zarr finds it by entry point wherever tilestream is installed, without an import of tilestream.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, cast

from zarr.abc.codec import BytesBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer
from zarr.core.common import JSON

from tilestream.codecs.jpegxl import NAME, JpegXl
from tilestream.errors import ConfigError


@dataclass(frozen=True)
class JpegXlCodec(BytesBytesCodec):
    """JPEG streams as JPEG XL."""

    transcoder: JpegXl = field(default_factory=JpegXl)
    """Does the work."""

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """Return the codec that metadata describe."""
        if data.get("name") != NAME:
            raise ConfigError.of(f"codec `{data.get('name')}`", got="another", expected=f"`{NAME}`", do="Correct it.")
        return cls(transcoder=JpegXl.of(cast("Mapping[str, Any]", data.get("configuration") or {})))

    def to_dict(self) -> dict[str, JSON]:
        """Return it as metadata."""
        return self.transcoder.metadata

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        stream = self.transcoder.decode(chunk_data.to_bytes(), most_px=math.prod(chunk_spec.shape))
        return chunk_spec.prototype.buffer.from_bytes(stream)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    def _encode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return chunk_spec.prototype.buffer.from_bytes(self.transcoder.encode(chunk_data.to_bytes()))

    async def _encode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer | None:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise, as Zarr asks for where a size depends on the content."""
        raise NotImplementedError(f"`{NAME}` has no fixed size")
