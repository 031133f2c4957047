"""Chunks of arrays as JPEG and JPEG 2000 images, with the options of imagecodecs' Zarr codecs; without Zarr."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import google_crc32c
import imagecodecs
import numpy as np

from tilestream.errors import ConfigError, DamagedError
from tilestream.types import Array

JPEG, JPEG2K = "imagecodecs_jpeg", "imagecodecs_jpeg2k"
"""Names of the codecs."""
OPTIONS: Mapping[str, frozenset[str]] = {
    JPEG: frozenset(
        {"level", "bitspersample", "tables", "header", "colorspace_data", "colorspace_jpeg", "subsampling"}
        | {"optimize", "smoothing", "lossless", "predictor", "fancyupsampling"}
    ),
    JPEG2K: frozenset(
        {"level", "codecformat", "colorspace", "planar", "tile", "bitspersample", "resolutions", "reversible", "mct"}
        | {"skipres", "verbose", "numthreads"}
    ),
}
"""Options of each codec, all of them optional."""
CHECKSUM_BYTES = 4
"""What the codec `crc32c` adds."""
_ERRORS = (RuntimeError, ValueError, TypeError, OverflowError)


def decode_image(
    name: str,
    data: bytes | Array,
    *,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    options: Mapping[str, Any] | None = None,
) -> Array:
    """Return the pixels of one chunk.

    Parameters
    ----------
    name : str
        `imagecodecs_jpeg` or `imagecodecs_jpeg2k`.
    data : bytes or ndarray
        The stream.
    shape : tuple of int
        Shape of the chunk at this codec, `(y, x, c)` or `(1, y, x)`.
    dtype : dtype
        Type of the array.
    options : Mapping, optional
        Options of the codec.

    Returns
    -------
    ndarray
        Pixels of that shape.

    Raises
    ------
    DamagedError
        When the stream does not decode, or holds another picture than the array declares.
    """
    decode = _decode_jpeg if name == JPEG else _decode_jpeg2k
    try:
        pixels = np.asarray(decode(data, options or {}))
    except _ERRORS as error:
        raise DamagedError(f"chunk (`{name}`) does not decode: {error}") from error
    wanted = [size for size in shape if size > 1]
    if [size for size in pixels.shape if size > 1] != wanted or pixels.dtype != dtype.newbyteorder("="):
        raise DamagedError(f"chunk (`{name}`) holds {pixels.shape} {pixels.dtype}, the array {shape} {dtype}")
    return pixels.reshape(shape)


def _decode_jpeg(data: Any, options: Mapping[str, Any]) -> Any:
    header = options.get("header")
    return imagecodecs.jpeg8_decode(
        data if header is None else b"".join((header, bytes(data), b"\xff\xd9")),
        tables=options.get("tables"),
        colorspace=options.get("colorspace_jpeg"),
        outcolorspace=options.get("colorspace_data"),
        **_given(options, "fancyupsampling"),
    )


def _decode_jpeg2k(data: Any, options: Mapping[str, Any]) -> Any:
    return imagecodecs.jpeg2k_decode(data, **_given(options, "planar", "skipres", "verbose", "numthreads"))


def _given(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return the options that are set; the others are left out, since older decoders do not know all of them."""
    return {name: options[name] for name in names if options.get(name) is not None}


def encode_image(name: str, chunk: Array, *, options: Mapping[str, Any] | None = None) -> bytes:
    """Return a chunk as a stream.

    Parameters
    ----------
    name : str
        `imagecodecs_jpeg` or `imagecodecs_jpeg2k`.
    chunk : ndarray
        Values of any strides; axes of length 1 are left out.
    options : Mapping, optional
        Options of the codec; JPEG is exact with `lossless`, JPEG 2000 without a `level`.

    Returns
    -------
    bytes
        The stream.

    Raises
    ------
    ConfigError
        When the chunk is no picture, or an option does not fit it.
    """
    encode = _encode_jpeg if name == JPEG else _encode_jpeg2k
    # a chunk behind `transpose` is a strided view, which the encoders refuse
    pixels = np.ascontiguousarray(np.atleast_2d(np.squeeze(chunk)))
    try:
        return bytes(encode(pixels, options or {}))
    except _ERRORS as error:
        raise ConfigError.of(
            f"codec `{name}`",
            got=f"a chunk of {chunk.shape} {chunk.dtype}: {error}",
            expected="a picture `(y, x)` or `(y, x, c)` that the codec can hold",
            do="Choose chunks of one picture, with a `transpose` codec that puts channels last, or another codec.",
        ) from error


def _encode_jpeg(pixels: Array, options: Mapping[str, Any]) -> Any:
    return imagecodecs.jpeg8_encode(
        pixels,
        colorspace=options.get("colorspace_data"),
        outcolorspace=options.get("colorspace_jpeg"),
        **_given(options, "level", "subsampling", "optimize", "smoothing", "lossless", "predictor"),
    )


def _encode_jpeg2k(pixels: Array, options: Mapping[str, Any]) -> Any:
    return imagecodecs.jpeg2k_encode(pixels, **_given(options, *OPTIONS[JPEG2K] - {"skipres"}))


def with_checksum(stream: bytes) -> bytes:
    """Return a stream as the codec `crc32c` stores it.

    Parameters
    ----------
    stream : bytes
        What the codecs before gave.

    Returns
    -------
    bytes
        The stream and its CRC-32C, little-endian.
    """
    return stream + struct.pack("<I", google_crc32c.value(stream))
