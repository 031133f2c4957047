"""The Zarr v3 codec `tilestream.neural`: a chunk is one tile that a network stands for.

Zarr finds it by entry point wherever tilestream is installed, without an import of tilestream. Reading goes by what
each chunk says of itself, so that the configuration matters for writing only: `codec`, `quality`, `steps`, `levels`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, cast

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.common import JSON

from tilestream.codecs.neuralchunks import NAME, decode_chunk
from tilestream.codecs.tilecodec import tile_codec
from tilestream.errors import ConfigError


@dataclass(frozen=True)
class NeuralCodec(ArrayBytesCodec):
    """Chunks `(c, y, x)` or `(y, x)` as containers."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """As `tile_codec` takes them."""

    is_fixed_size = False

    def __post_init__(self) -> None:
        tile_codec(self.settings)  # a wrong setting is named where the array is made

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """Return the codec that metadata describe."""
        if data.get("name") != NAME:
            raise ConfigError.of(f"codec `{data.get('name')}`", got="another", expected=f"`{NAME}`", do="Correct it.")
        return cls(settings=dict(cast("Mapping[str, Any]", data.get("configuration") or {})))

    def to_dict(self) -> dict[str, JSON]:
        """Return it as metadata."""
        return {"name": NAME, "configuration": dict(self.settings)} if self.settings else {"name": NAME}

    def __hash__(self) -> int:  # the settings are a dict
        return hash((NAME, repr(sorted(self.settings.items()))))

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        pixels = decode_chunk(
            chunk_data.as_numpy_array().tobytes(),
            shape=chunk_spec.shape,
            dtype=chunk_spec.dtype.to_native_dtype(),
            fill=cast("float", chunk_spec.fill_value),
        )
        return chunk_spec.prototype.nd_buffer.from_numpy_array(pixels)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        pixels = np.asarray(chunk_data.as_numpy_array())
        tile = pixels[None] if pixels.ndim == 2 else pixels
        return chunk_spec.prototype.buffer.from_bytes(tile_codec(self.settings).encode(tile))

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise, as Zarr asks for where a size depends on the pixels."""
        raise NotImplementedError(f"`{NAME}` has no fixed size")
