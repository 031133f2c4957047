"""Zarr v3 codecs of chunks that are JPEG or JPEG 2000 images, under the names that imagecodecs gives them.

The imagecodecs of Python 3.11 has none, so that plain zarr-python could not read an archive there. Zarr finds these by
entry point, without an import of tilestream. Where the installed imagecodecs has its own, the entry points lead to
those, since Zarr warns about two classes for one name.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, Self, cast

import numpy as np
from zarr.abc.codec import ArrayBytesCodec, Codec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.common import JSON

from tilestream.codecs.imagechunks import JPEG, JPEG2K, OPTIONS, decode_image, encode_image
from tilestream.errors import ConfigError

_BINARY = frozenset({"tables", "header"})


@dataclass(frozen=True)
class _ImageCodec(ArrayBytesCodec):
    """What both codecs have in common, which is all but the name."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Configuration as imagecodecs spells it; binary values as bytes."""

    is_fixed_size = False
    name: ClassVar[str]

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        options = dict(cast("Mapping[str, Any]", data.get("configuration") or {}))
        unknown = sorted(options.keys() - OPTIONS[cls.name])
        if data.get("name") != cls.name or unknown:
            raise ConfigError.of(
                f"codec `{data.get('name')}`",
                got=f"options {', '.join(unknown) or 'none'}",
                expected=f"`{cls.name}` with options among {', '.join(sorted(OPTIONS[cls.name]))}",
                do="Install the version of imagecodecs that wrote the store, together with imagecodecs-zarr.",
            )
        for key in options.keys() & _BINARY:
            options[key] = base64.b64decode(options[key])
        return cls(options=options)

    def to_dict(self) -> dict[str, JSON]:
        plain = {
            key: base64.b64encode(value).decode() if key in _BINARY else value for key, value in self.options.items()
        }
        return {"name": self.name, "configuration": plain} if plain else {"name": self.name}

    def __hash__(self) -> int:  # the configuration is a dict
        return hash((self.name, repr(sorted(self.options.items()))))

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        pixels = decode_image(
            self.name,
            np.asarray(chunk_data.as_numpy_array()),
            shape=chunk_spec.shape,
            dtype=chunk_spec.dtype.to_native_dtype(),
            options=self.options,
        )
        return chunk_spec.prototype.nd_buffer.from_numpy_array(pixels)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        stream = encode_image(self.name, np.asarray(chunk_data.as_numpy_array()), options=self.options)
        return chunk_spec.prototype.buffer.from_bytes(stream)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        raise NotImplementedError(f"`{self.name}` has no fixed size")


class JpegCodec(_ImageCodec):
    """A chunk as a JPEG stream; the option `lossless` writes it exactly."""

    name = JPEG


class Jpeg2kCodec(_ImageCodec):
    """A chunk as a JPEG 2000 stream; exact unless a `level` above 0 asks for less."""

    name = JPEG2K


def _registered(name: str, own: type[Codec]) -> type[Codec]:
    """Return the class of imagecodecs where it has one, else ours."""
    try:
        theirs = import_module("imagecodecs.zarr")
    except ImportError:
        return own
    return cast("type[Codec]", getattr(theirs, name, own))


ZARR_JPEG = _registered("Jpeg", JpegCodec)
"""What Zarr uses for `imagecodecs_jpeg`."""
ZARR_JPEG2K = _registered("Jpeg2k", Jpeg2kCodec)
"""What Zarr uses for `imagecodecs_jpeg2k`."""
