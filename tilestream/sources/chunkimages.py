"""Zarr chunks that are pictures: JPEG, JPEG 2000, JPEG XL, WebP and PNG under the names that imagecodecs writes.

Each stream is looked at before it is decoded: it must be whole, and of the size and the channels of a chunk. Decoders
fill what is missing with grey and stay silent, and a few bytes can claim a picture of gigabytes.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import imagecodecs
import numpy as np

from tilestream.errors import DamagedError
from tilestream.sources.jpegcheck import EOI, JpegHead, check_scan, read_head
from tilestream.sources.streamcheck import check_jpeg2000, check_jpegxl, check_size, check_webp
from tilestream.types import Array, Shape

DECODER_ERRORS = (RuntimeError, ValueError, OverflowError)
"""What the decoders of imagecodecs raise for streams that they cannot read."""
PREFIX = "imagecodecs_"
_PNG_MAGIC, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
_COLOURS = frozenset({"GRAYSCALE", "RGB", "YCBCR", "CMYK", "YCCK"})

# What the options of imagecodecs' classes say: of the encoder alone (its result is the same to decode), or of both.
_ENCODING = {
    "jpeg": frozenset(
        {"level", "bitspersample", "subsampling", "optimize", "smoothing", "lossless", "predictor", "squeeze"}
    ),
    "jpeg2k": frozenset(
        {"level", "codecformat", "colorspace", "tile", "bitspersample", "resolutions", "reversible", "mct"}
        | {"planar", "verbose", "numthreads", "squeeze"}
    ),
    "jpegxl": frozenset(
        {"level", "effort", "distance", "lossless", "decodingspeed", "photometric", "bitspersample", "planar"}
        | {"usecontainer", "numthreads", "squeeze"}
    ),
    "webp": frozenset({"level", "lossless", "method", "numthreads", "squeeze"}),
    "png": frozenset({"level", "strategy", "filter", "squeeze"}),
}
_DECODING = {
    "jpeg": frozenset({"tables", "header", "colorspace_data", "colorspace_jpeg"}),
    "webp": frozenset({"index", "hasalpha"}),
    "jpegxl": frozenset({"index", "keeporientation"}),
}
_MOST_ITEMSIZE = {"jpeg": 1, "jpeg2k": 2, "jpegxl": 2, "webp": 1, "png": 2}
# Values of these that are not the usual ones mean something that is not known here.
_USUAL = {"planar": (None, False), "index": (None, 0), "keeporientation": (None,)}


@dataclass(frozen=True, kw_only=True)
class ImageCodec:
    """A picture codec and what of its configuration matters for reading."""

    name: str
    """`jpeg`, `jpeg2k`, `jpegxl`, `webp` or `png`."""
    colours: tuple[Any, Any] = (None, None)
    """JPEG: colour space in the stream and of the samples, as imagecodecs takes them."""
    tables: bytes | None = field(default=None, repr=False)
    """JPEG: tables that all chunks share."""
    header: bytes | None = field(default=None, repr=False)
    """JPEG: what stands before each chunk; an end marker then comes behind it."""


def parse_image_codec(name: str, options: Mapping[str, Any], dtype: np.dtype[Any]) -> ImageCodec | None:
    """Return a picture codec of the metadata, None when it is not one that is known here.

    Parameters
    ----------
    name : str
        Name of the codec.
    options : Mapping
        Its configuration.
    dtype : dtype
        Type of the array.

    Returns
    -------
    ImageCodec or None
        None for another codec and for options whose meaning is not known.
    """
    kind = name.removeprefix(PREFIX)
    if kind == name or kind not in _ENCODING or not set(options) <= _ENCODING[kind] | _DECODING.get(kind, frozenset()):
        return None
    if dtype.kind != "u" or dtype.itemsize > _MOST_ITEMSIZE[kind]:
        return None
    for key, usual in _USUAL.items():
        if key in options and options[key] not in usual:
            return None
    colours = options.get("colorspace_jpeg"), options.get("colorspace_data")
    if any(not (value is None or str(value).upper() in _COLOURS) for value in colours):
        return None
    try:
        tables, header = (_bytes(options.get(key)) for key in ("tables", "header"))
    except (ValueError, binascii.Error):
        return None
    return ImageCodec(name=kind, colours=colours, tables=tables, header=header)


def _bytes(value: Any) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("no text")
    return base64.b64decode(value, validate=True)


def picture_size(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """Return rows, columns and channels of the picture that a chunk is, None when it has too many axes.

    The codecs write arrays without their axes of length 1.
    """
    sizes = [size for size in shape if size != 1]
    sizes = [1] * (2 - len(sizes)) + sizes
    if len(sizes) > 3:
        return None
    return sizes[0], sizes[1], sizes[2] if len(sizes) == 3 else 1


class ChunkImages:
    """Decodes the picture chunks of one array; remembers the last good JPEG head, which hardly ever changes.

    Parameters
    ----------
    codec : ImageCodec
        The codec.
    shape : sequence of int
        Shape of a chunk in stored order.
    dtype : dtype
        Native type of the samples.
    """

    def __init__(self, codec: ImageCodec, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        self._codec, self._shape, self._dtype = codec, tuple(shape), dtype
        size = picture_size(shape)
        if size is None:
            raise ValueError(f"chunks of shape {shape} cannot be pictures")
        self._size = size
        # a row of pixels (1, n, 3) is kept as it is by who copies streams, as (n, 3) by the codecs: the stream tells
        is_row = len(self._shape) == 3 and self._shape[2] in (3, 4)
        self._sizes = {size, self._shape if is_row else size}
        self._most = Shape(y=max(one[0] for one in self._sizes), x=max(one[1] for one in self._sizes))
        self._known: tuple[bytes, JpegHead] | None = None  # replaced whole, so safe under threads

    def decode(self, data: bytes, out: Array | None = None) -> Array:
        """Return the samples of a chunk.

        Parameters
        ----------
        data : bytes
            The stream.
        out : ndarray, optional
            C-contiguous memory of a chunk in stored order that may be decoded into.

        Returns
        -------
        ndarray
            Samples in stored order, `out` itself where it was used.

        Raises
        ------
        DamagedError
            When the stream cannot become exactly these samples.
        """
        target = (
            None
            if out is None or len(self._sizes) > 1
            else out.reshape(self._size if self._size[2] > 1 else self._size[:2])
        )
        try:
            pixels = np.asarray(self._decode(data, target))
        except DECODER_ERRORS as error:
            if isinstance(error, DamagedError):
                raise
            raise DamagedError(f"{self._codec.name} stream does not decode: {error}") from error
        if (*pixels.shape, 1)[:3] not in self._sizes or pixels.ndim > 3 or pixels.dtype != self._dtype:
            raise DamagedError(
                f"{self._codec.name} stream of {pixels.shape} {pixels.dtype}, a chunk is {self._size} {self._dtype}"
            )
        if out is not None and pixels is target:
            return out
        return pixels.reshape(self._shape)

    def _decode(self, data: bytes, out: Array | None) -> Any:  # Any: imagecodecs' arrays
        name, samples = self._codec.name, self._size[2]
        if name == "jpeg":
            return self._jpeg(data, out)
        if name == "jpeg2k":
            check_jpeg2000(data, most=self._most, samples=samples if len(self._sizes) == 1 else None)
            return imagecodecs.jpeg2k_decode(data, out=out)
        if name == "jpegxl":
            check_jpegxl(data, self._most)
            return imagecodecs.jpegxl_decode(data, out=out)
        if name == "webp":
            check_webp(data, most=self._most)
            # libwebp leaves an all-opaque alpha channel out; the chunk's shape says whether there is one
            return imagecodecs.webp_decode(data, hasalpha=samples == 4, out=out)
        _check_png(data, self._size)
        return imagecodecs.png_decode(data, out=out)

    def _jpeg(self, data: bytes, out: Array | None) -> Any:
        codec = self._codec
        if codec.header is not None:
            data = codec.header + data + EOI
        known = self._known
        if known is None or not data.startswith(known[0]):
            head = read_head(data, lossless=True)
            if (head.height, head.width, head.components) not in self._sizes:
                raise DamagedError(
                    f"JPEG frame of {head.height} x {head.width} pixels and {head.components} components, "
                    f"a chunk is {self._size}"
                )
            self._known = known = (data[: head.size], head)
        check_scan(data, known[1])
        return imagecodecs.jpeg8_decode(
            data, tables=codec.tables, colorspace=codec.colours[0], outcolorspace=codec.colours[1], out=out
        )


def _check_png(data: bytes, size: tuple[int, ...]) -> None:
    if data[:8] != _PNG_MAGIC or data[12:16] != b"IHDR" or len(data) < 33:
        raise DamagedError("PNG stream does not start with its header")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    check_size("PNG", Shape(y=height, x=width), Shape(y=size[0], x=size[1]))
    if _PNG_CHANNELS.get(data[25], size[2]) != size[2]:
        raise DamagedError(f"PNG stream of colour type {data[25]}, a chunk has {size[2]} channels")
    if not data.endswith(_PNG_END):
        raise DamagedError(f"PNG stream of {len(data)} bytes has no end (IEND): it is cut")
