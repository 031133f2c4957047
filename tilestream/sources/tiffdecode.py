"""Bytes of one stored tile or strip into samples, by compression; anything but exact pixels raises `DamagedError`."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from tilestream.errors import DamagedError
from tilestream.sources import tifftable as tt
from tilestream.sources.streamcheck import check_jpeg2000, check_jpegxl, check_webp
from tilestream.sources.tiffjpeg import JpegDecoder
from tilestream.sources.tifftable import TileTable
from tilestream.types import Array

Decode = Callable[[bytes, int], Array]
"""`(data, rows) -> (rows or more, columns, samples)`: `rows` are those that the image needs of the piece."""

_BYTE_CODECS: dict[int, Callable[..., Any]] = {  # Any: imagecodecs takes and returns several buffer types
    tt.LZW: imagecodecs.lzw_decode,
    tt.ADOBE_DEFLATE: imagecodecs.deflate_decode,
    tt.DEFLATE: imagecodecs.deflate_decode,
    tt.PACKBITS: imagecodecs.packbits_decode,
    tt.LZMA: imagecodecs.lzma_decode,
    tt.ZSTD: imagecodecs.zstd_decode,
    tt.ZSTD_OLD: imagecodecs.zstd_decode,
}
_BOUNDED = frozenset({tt.LZW, tt.ADOBE_DEFLATE, tt.DEFLATE, tt.PACKBITS})
MOST_PACKED = 4096
"""Above any factor by which LZW (2,560), deflate (1,032) or PackBits (64) can shrink: nothing is allocated for more."""
_DECODER_ERRORS = (RuntimeError, ValueError, OverflowError)


def decoder(table: TileTable) -> Decode:
    """Return the function that turns one stored piece of a table into samples.

    Parameters
    ----------
    table : TileTable
        The image.

    Returns
    -------
    callable
        `(data, rows) -> samples` of shape `(rows or more, columns, samples)`, native byte order. It raises
        `DamagedError` for bytes that cannot become exactly these pixels.
    """
    code = table.compression
    if code == tt.JPEG:
        return JpegDecoder(table)
    if code in (tt.APERIO_YCBCR, tt.APERIO_RGB, tt.JPEG2000):
        return partial(_jpeg2000, table)
    if code in (tt.WEBP, tt.WEBP_OLD):
        return partial(_webp, table)
    if code in (tt.JPEGXL, tt.JPEGXL_DNG):
        return partial(_jpegxl, table)
    if code in (tt.FAX_RLE, tt.FAX3, tt.FAX4):
        return partial(_fax, table)
    return partial(_packed, table)


def _jpeg2000(table: TileTable, data: bytes, rows: int) -> Array:
    head = check_jpeg2000(data, most=table.piece, samples=table.piece_samples)
    pixels = _image(imagecodecs.jpeg2k_decode, table, data, rows)
    # the decoder takes subsampled components for YCbCr and has converted them already
    return _ycbcr_to_rgb(pixels) if table.compression == tt.APERIO_YCBCR and not head.is_subsampled else pixels


def _ycbcr_to_rgb(pixels: Array) -> Array:
    """Return RGB of full-range BT.601 YCbCr `(y, x, 3)` uint8, rounded to nearest (JFIF 1.02)."""
    luma, blue, red = (pixels[..., index].astype("f4") for index in range(3))
    blue, red = blue - 128, red - 128
    out = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], -1)
    return np.clip(np.rint(out), 0, 255).astype("u1")


def _webp(table: TileTable, data: bytes, rows: int) -> Array:
    check_webp(data, most=table.piece)
    # libwebp leaves an all-opaque alpha channel out; the image's samples say whether there is one
    return _image(partial(imagecodecs.webp_decode, hasalpha=table.piece_samples == 4), table, data, rows)


def _jpegxl(table: TileTable, data: bytes, rows: int) -> Array:
    check_jpegxl(data, table.piece)
    return _image(imagecodecs.jpegxl_decode, table, data, rows)


def _fax(table: TileTable, data: bytes, rows: int) -> Array:
    raw = imagecodecs.bitorder_decode(data) if table.fill_order == 2 else data
    decode: Callable[..., Any] = imagecodecs.ccittfax4_decode
    if table.compression == tt.FAX_RLE:
        decode = imagecodecs.ccittrle_decode
    elif table.compression == tt.FAX3:
        decode = partial(imagecodecs.ccittfax3_decode, t4options=table.t4_options)
    height = table.piece.y if table.tiled else rows
    return _image(lambda piece: decode(piece, height, table.piece.x), table, bytes(raw), rows)


def _image(decode: Callable[[bytes], Any], table: TileTable, data: bytes, rows: int) -> Array:
    name = tt.COMPRESSIONS[table.compression]
    try:
        pixels = np.asarray(decode(data))
    except _DECODER_ERRORS as error:
        raise DamagedError(f"{name} stream does not decode: {error}") from error
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    wanted = (table.piece.x, table.piece_samples)
    if pixels.ndim != 3 or pixels.shape[1:] != wanted or not rows <= pixels.shape[0] <= table.piece.y:
        raise DamagedError(
            f"{name} stream decodes to {pixels.shape}, the image is stored in {table.piece.y} x {wanted}"
        )
    if pixels.dtype != table.dtype:
        if pixels.dtype != np.bool_:
            raise DamagedError(f"{name} stream decodes to {pixels.dtype}, the image is {table.dtype}")
        pixels = pixels.view("u1")
    return pixels


def _packed(table: TileTable, data: bytes, rows: int) -> Array:
    """Return the samples of bytes that a general codec packed, or none."""
    row_bytes = -(-table.piece.x * table.piece_samples * table.bits // 8)
    full = table.piece.y * row_bytes
    raw: Any = imagecodecs.bitorder_decode(data) if table.fill_order == 2 else data
    if table.compression != tt.NONE:
        if table.compression in _BOUNDED and rows * row_bytes > len(raw) * MOST_PACKED:
            raise DamagedError(f"{len(raw)} bytes cannot hold the {rows * row_bytes} that the image needs")
        raw = _unpack(table.compression, raw, full)
    height = min(len(raw), full) // row_bytes
    if height < rows:
        name = tt.COMPRESSIONS[table.compression]
        raise DamagedError(f"{len(raw)} bytes of pixels ({name}), expected {rows * row_bytes}: the data is cut")
    return _samples(table, memoryview(raw)[: height * row_bytes], height)


def _unpack(compression: int, data: bytes, full: int) -> Any:  # Any: bytearray or memoryview
    try:
        return _BYTE_CODECS[compression](data, out=bytearray(full))
    except _DECODER_ERRORS as error:
        reason = re.sub(r"^\w+ returned ", "", str(error))
        raise DamagedError(f"{tt.COMPRESSIONS[compression]} stream does not decode: {reason}") from error


def _samples(table: TileTable, raw: memoryview, height: int) -> Array:
    shape = (height, table.piece.x, table.piece_samples)
    if table.bits == 1:
        bits = np.unpackbits(np.frombuffer(raw, "u1").reshape(height, -1), axis=1)
        return bits[:, : shape[1] * shape[2]].reshape(shape)
    if table.bits != 8 * table.dtype.itemsize:
        packed = imagecodecs.packints_decode(bytes(raw), table.dtype.char, table.bits, runlen=shape[1] * shape[2])
        return np.asarray(packed).reshape(shape)
    if table.predictor == 3:
        return _float_predicted(table, raw, height).reshape(shape)
    pixels: npt.NDArray[Any] = np.frombuffer(raw, np.dtype(table.order + table.dtype.str[1:])).reshape(shape)
    pixels = pixels.astype(table.dtype, copy=False)
    if table.predictor == 2:
        whole = pixels.view(f"u{table.dtype.itemsize}")  # differences of the bits, also for floats and signed
        pixels = np.asarray(imagecodecs.delta_decode(whole, axis=-2, out=np.empty(shape, whole.dtype))).view(
            table.dtype
        )
    return pixels


def _float_predicted(table: TileTable, raw: memoryview, height: int) -> Array:
    """Return floats from byte planes, most significant first in either byte order, stored as differences.

    Sums and shifts of whole planes take a quarter of the time of `imagecodecs.floatpred_decode` and give the same bits
    (TIFF Technical Note 3).
    """
    size = table.dtype.itemsize
    stored = np.frombuffer(raw, "u1").reshape(height, -1, table.piece_samples)
    summed = imagecodecs.delta_decode(stored, axis=-2, out=np.empty_like(stored))
    planes = np.asarray(summed).reshape(height, size, -1)
    whole = planes[:, 0].astype(f"u{size}")
    for index in range(1, size):
        whole <<= 8
        whole |= planes[:, index]
    return whole.view(table.dtype)
