"""Bytes of one Zarr chunk into samples, for the codec chains that are known; all others are left to zarr-python.

Every decoder fills memory of exactly the size that the metadata declare, so that a chunk that would unpack to more
cannot make anybody allocate it. Names and options are those of Zarr 3, of numcodecs (Zarr 2) and of imagecodecs.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import google_crc32c
import imagecodecs
import numpy as np
import numpy.typing as npt

from tilestream.codecs.imagechunks import JPEG
from tilestream.codecs.jpegxl import NAME as JPEGXL
from tilestream.codecs.jpegxl import JpegXl
from tilestream.codecs.neuralchunks import NAME as NEURAL
from tilestream.codecs.neuralchunks import decode_chunk
from tilestream.errors import ConfigError, DamagedError
from tilestream.sources.chunkimages import DECODER_ERRORS, ChunkImages, ImageCodec, parse_image_codec
from tilestream.types import Array

_CRC_BYTES = 4
_BLOSC_HEAD = struct.Struct("<4x3I")  # nbytes, blocksize, cbytes: c-blosc's README_CHUNK_FORMAT

_UNPACK: dict[str, Callable[..., Any]] = {  # Any: imagecodecs takes and returns several buffer types
    "zstd": imagecodecs.zstd_decode,
    "blosc": imagecodecs.blosc_decode,
    "gzip": imagecodecs.gzip_decode,
    "zlib": imagecodecs.deflate_decode,  # libdeflate reads the same format in half the time
    "lz4": partial(imagecodecs.lz4_decode, header=True),
}
_PACK_OPTIONS = {
    "zstd": frozenset({"level", "checksum"}),
    "blosc": frozenset({"typesize", "cname", "clevel", "shuffle", "blocksize"}),
    "gzip": frozenset({"level"}),
    "zlib": frozenset({"level"}),
    "lz4": frozenset({"acceleration"}),
}
_ZARR_3_NAMES = {"zstd": "zstd", "blosc": "blosc", "gzip": "gzip"} | {f"numcodecs.{name}": name for name in _UNPACK}


@dataclass(frozen=True, kw_only=True)
class ChunkCodec:
    """How a chunk became bytes: axes turned, samples or a picture, packed, with checksums around the packing."""

    order: tuple[int, ...]
    """Axes of the array in the order of the stored bytes."""
    dtype: np.dtype[Any]
    """Type of the samples as stored, with its byte order."""
    image: ImageCodec | None = None
    """The picture codec that stands in place of plain samples."""
    transcoder: JpegXl | None = None
    """Gives back the JPEG streams that are stored as JPEG XL."""
    neural: bool = False
    """Whether a chunk is a tile of a neural codec, which says itself of which one."""
    packing: str = ""
    """General compressor: `zstd`, `blosc`, `gzip`, `zlib` or `lz4`; empty for none."""
    crc_inside: int = 0
    """CRC-32C sums added before packing."""
    crc_outside: int = 0
    """CRC-32C sums added after packing."""


def parse_codecs(codecs: Any, dtype: np.dtype[Any], ndim: int) -> ChunkCodec | None:
    """Return the chain of a Zarr 3 array or shard, None when it is not one that is known here.

    Parameters
    ----------
    codecs : object
        `codecs` of the metadata, in encoding order.
    dtype : dtype
        Type of the array.
    ndim : int
        Number of its axes.

    Returns
    -------
    ChunkCodec or None
        None for an unknown codec, an unknown option, or a known codec where it is not expected.
    """
    named = [named_configuration(codec) for codec in codecs] if isinstance(codecs, list) else []
    chain = [codec for codec in named if codec is not None]
    if len(chain) < len(named):
        return None
    order = plain = tuple(range(ndim))
    while chain and chain[0][0] == "transpose":
        turn = chain.pop(0)[1]
        if set(turn) != {"order"} or not _is_order(turn["order"], ndim):
            return None
        order = tuple(order[axis] for axis in turn["order"])
    try:
        transcoder = _transcoder(chain)
    except ConfigError:
        return None
    packed = _packed(chain[1:] if transcoder is None else chain[2:])
    if not chain or packed is None:
        return None
    (name, options), (packing, crc_inside, crc_outside) = chain[0], packed
    if name == NEURAL:  # what its options say matters for writing only
        return ChunkCodec(order=order, dtype=dtype, neural=True) if len(chain) == 1 and order == plain else None
    image = None if name == "bytes" or packing else parse_image_codec(name, options, dtype)
    stored = _stored_type(dtype, options) if name == "bytes" else dtype
    if stored is None or (image is None and name != "bytes"):
        return None
    return ChunkCodec(
        order=order,
        dtype=stored,
        image=image,
        transcoder=transcoder,
        packing=packing,
        crc_inside=crc_inside,
        crc_outside=crc_outside,
    )


def _transcoder(chain: Sequence[tuple[str, Mapping[str, Any]]]) -> JpegXl | None:
    """Return what stands behind a JPEG codec and gives its streams back, None where nothing does."""
    if [name for name, _ in chain[:2]] != [JPEG, JPEGXL]:
        return None
    return JpegXl.of(chain[1][1])


def parse_compressor(compressor: Any, dtype: np.dtype[Any], order: tuple[int, ...]) -> ChunkCodec | None:
    """Return the chain of a Zarr 2 array without filters, None when its compressor is not known here.

    Parameters
    ----------
    compressor : object
        `compressor` of the metadata.
    dtype : dtype
        Type of the array with its byte order.
    order : tuple of int
        Axes in the order of the stored bytes.

    Returns
    -------
    ChunkCodec or None
        The chain.
    """
    if compressor is None:
        return ChunkCodec(order=order, dtype=dtype)
    if not isinstance(compressor, Mapping) or not isinstance(compressor.get("id"), str):
        return None
    name, options = compressor["id"], {key: value for key, value in compressor.items() if key != "id"}
    if name in _UNPACK:
        return ChunkCodec(order=order, dtype=dtype, packing=name) if _PACK_OPTIONS[name] >= set(options) else None
    image = parse_image_codec(name, options, dtype)
    if image is None or not dtype.isnative or list(order) != sorted(order):  # what is meant then is for zarr to say
        return None
    return ChunkCodec(order=order, dtype=dtype, image=image)


def named_configuration(entry: Any) -> tuple[str, Mapping[str, Any]] | None:
    """Return name and configuration of an extension point of Zarr 3, None when it has another form."""
    if isinstance(entry, str):
        return entry, {}
    if not isinstance(entry, Mapping) or not {"name"} <= set(entry) <= {"name", "configuration"}:
        return None
    name, options = entry["name"], entry.get("configuration")
    if not isinstance(name, str) or not isinstance(options, Mapping | None):
        return None
    return name, options or {}


def _is_order(value: Any, ndim: int) -> bool:
    return isinstance(value, list) and all(type(n) is int for n in value) and sorted(value) == list(range(ndim))


def _packed(chain: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[str, int, int] | None:
    """Return compressor and numbers of checksums inside and outside of it."""
    packing, inside, outside = "", 0, 0
    for name, options in chain:
        if name == "crc32c" and not options:
            inside, outside = (inside, outside + 1) if packing else (inside + 1, outside)
        elif not packing and name in _ZARR_3_NAMES and _PACK_OPTIONS[_ZARR_3_NAMES[name]] >= set(options):
            packing = _ZARR_3_NAMES[name]
        else:
            return None
    return packing, inside, outside


def _stored_type(dtype: np.dtype[Any], options: Mapping[str, Any]) -> np.dtype[Any] | None:
    if not set(options) <= {"endian"} or options.get("endian") not in (None, "little", "big"):
        return None
    if dtype.itemsize == 1:
        return dtype
    # without a word on the order of bytes it is for zarr-python to say what is meant
    return dtype.newbyteorder(options["endian"]) if options.get("endian") else None


class ChunkDecoder:
    """Decodes the chunks of one array; remembers what it saw last, so one process makes one for each array.

    Parameters
    ----------
    codec : ChunkCodec
        The chain.
    chunks : sequence of int
        Shape of a chunk.
    """

    def __init__(self, codec: ChunkCodec, chunks: Sequence[int]) -> None:
        self.shape = tuple(chunks[axis] for axis in codec.order)
        """Shape of a chunk in stored order."""
        self.nbytes = math.prod(chunks) * codec.dtype.itemsize
        """Bytes of a decoded chunk."""
        self.most_bytes = 2 * self.nbytes + (1 << 20)
        """More than any known codec makes of a chunk: a larger one is damaged, and is not read."""
        self._codec = codec
        self._native = codec.dtype.newbyteorder("=")
        self._back = tuple(int(axis) for axis in np.argsort(codec.order))
        self._images = None if codec.image is None else ChunkImages(codec.image, self.shape, self._native)

    def decode(self, data: bytes, out: Array | None = None) -> Array:
        """Return the samples of a chunk.

        Parameters
        ----------
        data : bytes
            The chunk as it is stored.
        out : ndarray, optional
            C-contiguous memory of `shape` and native type that may be decoded into.

        Returns
        -------
        ndarray
            Samples in stored order, `out` itself where it was used; may be read-only.

        Raises
        ------
        DamagedError
            When the bytes cannot become exactly one chunk.
        """
        codec = self._codec
        if codec.neural:
            return decode_chunk(data, shape=self.shape, dtype=self._native)
        if self._images is not None:
            return self._images.decode(self.picture(data), out)
        data = _checked(data, codec.crc_outside)
        if codec.packing and not codec.crc_inside:
            out = np.empty(self.shape, self._native) if out is None else out
            _unpack(codec.packing, data, out.reshape(-1).view(np.uint8))
            return out if codec.dtype.isnative else out.byteswap(inplace=True)
        if codec.packing:
            raw = np.empty(self.nbytes + _CRC_BYTES * codec.crc_inside, np.uint8)
            _unpack(codec.packing, data, raw)
            data = raw.tobytes()
        data = _checked(data, codec.crc_inside)
        if len(data) != self.nbytes:
            raise DamagedError(f"chunk of {len(data):,} bytes, its samples take {self.nbytes:,}")
        return np.frombuffer(data, codec.dtype).reshape(self.shape).astype(self._native, copy=False)

    def picture(self, data: bytes) -> bytes:
        """Return the stream of a chunk that is a picture, its checksums compared, as its codec takes it.

        Parameters
        ----------
        data : bytes
            The chunk as it is stored.

        Returns
        -------
        bytes
            What the picture codec decodes.

        Raises
        ------
        DamagedError
            When a checksum does not match, or no JPEG comes back.
        """
        data = _checked(data, self._codec.crc_outside + self._codec.crc_inside)
        transcoder = self._codec.transcoder
        return data if transcoder is None else transcoder.decode(data, most_px=math.prod(self.shape))

    def require_plausible(self, nbytes: int) -> None:
        """Raise `DamagedError` when so many bytes cannot be one chunk, before they are read."""
        if nbytes > self.most_bytes:
            raise DamagedError(f"{nbytes:,} bytes cannot be a chunk that holds {self.nbytes:,}")

    def in_array_order(self, stored: Array) -> Array:
        """Return samples in stored order as a view in the order of the array's axes."""
        return stored.transpose(self._back)


def _checked(data: bytes, sums: int) -> bytes:
    """Return what a number of CRC-32C sums stand behind, after comparing each."""
    for _ in range(sums):
        body, told = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
        if len(told) < _CRC_BYTES or google_crc32c.value(body) != int.from_bytes(told, "little"):
            raise DamagedError(f"checksum (CRC-32C) of {len(data):,} bytes does not match: they are damaged")
        data = body
    return data


def _unpack(packing: str, data: bytes, out: npt.NDArray[np.uint8]) -> None:
    """Fill `out` with what the bytes unpack to; raise `DamagedError` unless that is as many."""
    if packing == "blosc":
        _check_blosc(data, len(out))
    try:
        size = len(_UNPACK[packing](data, out=out))
    except DECODER_ERRORS as error:
        reason = re.sub(r"^\w+ returned ", "", str(error))
        raise DamagedError(f"{packing} chunk of {len(out):,} bytes does not unpack: {reason}") from error
    if size < len(out) and packing == "gzip":
        size = _gunzip(data, out)
    if size != len(out):
        raise DamagedError(f"{packing} chunk unpacks to {size:,} bytes, expected {len(out):,}")


def _check_blosc(data: bytes, nbytes: int) -> None:
    """Raise unless the header is true: the decoder trusts it, and reads as far as it says."""
    if len(data) < 16:
        raise DamagedError(f"blosc chunk of {len(data)} bytes is cut")
    unpacked, _, packed = _BLOSC_HEAD.unpack_from(data)
    if unpacked != nbytes or packed != len(data):
        raise DamagedError(
            f"blosc chunk says {packed:,} bytes that unpack to {unpacked:,}, got {len(data):,} for {nbytes:,}"
        )


def _gunzip(data: bytes, out: npt.NDArray[np.uint8]) -> int:
    """Return how many bytes a gzip stream of several members fills; libdeflate reads the first one only."""
    filled = 0
    while data and filled <= len(out):
        member = zlib.decompressobj(wbits=31)
        try:
            part = member.decompress(data, len(out) - filled + 1)
        except zlib.error as error:
            raise DamagedError(f"gzip chunk does not unpack: {error}") from error
        if not member.eof or filled + len(part) > len(out):
            raise DamagedError(f"gzip chunk is cut, or unpacks to more than {len(out):,} bytes")
        out[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
        filled, data = filled + len(part), member.unused_data
    return filled
