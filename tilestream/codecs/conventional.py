"""The codecs that everybody has, through imagecodecs: what a new one is measured against, each with one knob of rate.

| name | is | knob | holds |
|---|---|---|---|
| jpeg420, jpeg444 | libjpeg-turbo, optimised Huffman tables, chroma halved or not | quality 1 to 100 | grey, colour |
| jpeg2000 | OpenJPEG, bare code stream, 9/7 wavelet, colours decorrelated (MCT) | PSNR in dB, whole | everything |
| jpegxl | libjxl, effort 7 | distance, 25 to 0 | everything |
| webp | libwebp, method 6 | quality 0 to 100 | colour |
| avif | libavif with libaom, speed 4, 4:4:4 | quality 0 to 100 | colour |

Grey and colour are one and three channels of 8 bits, stored as one plain file. "Everything" is any number of bands of
8, 16 or 32 bits too: each band from its least to its greatest sample in 16 bits, as a grey file, with these two numbers
beside it, in a frame of 2 + 20 bytes a band. Whole numbers come back exactly where the codec is exact. JPEG XL and AVIF
are tuned for the eye and not for PSNR; JPEG XL takes the codes of a band for light in sRGB.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import imagecodecs
import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError, DamagedError
from tilestream.types import Array

Codes = npt.NDArray[np.generic]
"""`(y, x)` or `(y, x, 3)`, contiguous, of 8 or 16 bits."""

DTYPES = ("uint8", "int8", "uint16", "int16", "float32")
FRAME_MAGIC = 0xBA
"""First byte of a frame of bands; no file of these codecs begins with it."""
_BAND = struct.Struct("<ddI")
_HALVINGS = 8
"""Of the span of a knob: steps of 0.4 of 100."""


@dataclass(frozen=True, kw_only=True)
class ConventionalCodec:
    """One way to make an image smaller, with a knob."""

    name: str
    """How it is called."""
    title: str
    """How tables call it."""
    settings: tuple[float, ...]
    """Values of the knob over the rates that people use, least bytes first."""
    ends: tuple[float, float]
    """Values of the knob between which `within` looks, least bytes first."""
    holds_bands: bool
    """Whether it holds more than colours of 8 bits."""
    holds_grey: bool
    """Whether it holds one band of 8 bits."""
    encode_codes: Callable[[Codes, float], bytes]
    """From codes and a setting to a file."""
    decode_codes: Callable[[bytes], Codes]
    """From a file to codes."""

    def holds(self, pixels: Array) -> bool:
        """Return whether it can hold an image.

        Parameters
        ----------
        pixels : ndarray
            `(c, y, x)`.

        Returns
        -------
        bool
            By type and number of bands.
        """
        if pixels.ndim != 3 or not pixels.size or pixels.dtype.name not in DTYPES:
            return False
        return self.holds_bands or (pixels.dtype == np.uint8 and len(pixels) in ((1, 3) if self.holds_grey else (3,)))

    def encode(self, pixels: Array, setting: float) -> bytes:
        """Return an image as a file.

        Parameters
        ----------
        pixels : ndarray
            `(c, y, x)` of uint8, int8, uint16, int16 or finite float32.
        setting : float
            Of its knob.

        Returns
        -------
        bytes
            A file of the format, or a frame of one file a band.

        Raises
        ------
        ConfigError
            When it cannot hold them.
        """
        if not self.holds(pixels) or not np.isfinite(pixels).all():
            raise ConfigError.of(
                f"`pixels` for {self.title}",
                got=f"{pixels.shape} {pixels.dtype}" if not self.holds(pixels) else "NaN or infinite samples",
                expected="(c, y, x) of 8, 16 or 32 bits, finite"
                if self.holds_bands
                else f"(3, y, x) uint8{', or one such band' if self.holds_grey else ''}",
                do="Choose JPEG 2000 or JPEG XL for bands, and fill what was not measured.",
            )
        if pixels.dtype == np.uint8 and len(pixels) == 3:
            return self.encode_codes(np.ascontiguousarray(pixels.transpose(1, 2, 0)), setting)
        if pixels.dtype == np.uint8 and len(pixels) == 1:
            return self.encode_codes(np.ascontiguousarray(pixels[0]), setting)
        heads, files = [], []
        for band in pixels:
            low, high = float(band.min()), float(band.max())
            scale = 65535 / (high - low) if high > low else 0.0
            codes = np.rint((band.astype(np.float64) - low) * scale).astype(np.uint16)
            files.append(self.encode_codes(codes, setting))
            heads.append(_BAND.pack(low, high, len(files[-1])))
        return bytes((FRAME_MAGIC, DTYPES.index(pixels.dtype.name))) + b"".join(heads) + b"".join(files)

    def within(self, pixels: Array, size_bytes: int) -> bytes | None:
        """Return the best file of at most so many bytes: what a codec with a knob is fairly compared by.

        Parameters
        ----------
        pixels : ndarray
            As for `encode`.
        size_bytes : int
            Most bytes.

        Returns
        -------
        bytes or None
            The one of most bytes that halving the span of the knob finds; None where the fewest that it can are more.

        Raises
        ------
        ConfigError
            When it cannot hold them.
        """
        (low, high), found = self.ends, None
        for tried in self.ends:
            data = self.encode(pixels, tried)
            if len(data) > size_bytes:
                break
            found = data
        else:
            return found
        for _ in range(_HALVINGS if found is not None else 0):
            data = self.encode(pixels, middle := (low + high) / 2)
            if len(data) <= size_bytes:
                low, found = middle, max(found or b"", data, key=len)
            else:
                high = middle
        return found

    def decode(self, data: bytes) -> Array:
        """Return the image in a file.

        Parameters
        ----------
        data : bytes
            As `encode` gives them.

        Returns
        -------
        ndarray
            `(c, y, x)` of the type that was encoded.

        Raises
        ------
        DamagedError
            When they are no such file.
        """
        if data[:1] == bytes((FRAME_MAGIC,)):
            return self._decode_bands(data)
        codes = self._decode_file(data)
        return codes.transpose(2, 0, 1) if codes.ndim == 3 else codes[None]

    def _decode_bands(self, data: bytes) -> Array:
        count, start = _count_bands(data)
        dtype, bands = DTYPES[data[1]], []
        for index in range(count):
            low, high, size = _BAND.unpack_from(data, 2 + index * _BAND.size)
            codes = self._decode_file(data[start : start + size])
            start += size
            band = low + codes.astype(np.float64) * ((high - low) / 65535)
            bands.append((band if dtype == "float32" else np.rint(band)).astype(dtype))
        return np.stack(bands)

    def _decode_file(self, data: bytes) -> Codes:
        try:
            return self.decode_codes(data)
        except (RuntimeError, ValueError) as error:  # the roots of imagecodecs' errors
            raise DamagedError.of(
                f"a file of {self.title}",
                got=str(error) or type(error).__name__,
                expected="what `encode` gave",
                do="Encode the image again.",
            ) from error


def _count_bands(data: bytes) -> tuple[int, int]:
    """Return how many bands a frame holds and where their files begin: heads and files must fill it exactly."""
    files, count = 0, 0
    while len(data) > 1 and data[1] < len(DTYPES) and 2 + (count + 1) * _BAND.size <= len(data):
        low, high, size = _BAND.unpack_from(data, 2 + count * _BAND.size)
        if not (math.isfinite(low) and math.isfinite(high)):
            break
        files, count = files + size, count + 1
        start = 2 + count * _BAND.size
        if start + files == len(data):
            return count, start
    raise DamagedError.of(
        "a frame of bands", got=f"{len(data)} bytes", expected="heads and files that fill it", do="Encode it again."
    )


def _jpeg(subsampling: str) -> Callable[[Codes, float], bytes]:
    def encode(codes: Codes, setting: float) -> bytes:
        return bytes(imagecodecs.jpeg8_encode(codes, level=round(setting), subsampling=subsampling, optimize=True))

    return encode


def _jpeg2000(codes: Codes, setting: float) -> bytes:
    found = imagecodecs.jpeg2k_encode(
        codes, level=round(setting), codecformat="j2k", reversible=False, mct=codes.ndim == 3, numthreads=1
    )
    return bytes(found)


def _jpegxl(codes: Codes, setting: float) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(codes, distance=setting, effort=7, numthreads=1))


def _webp(codes: Codes, setting: float) -> bytes:
    return bytes(imagecodecs.webp_encode(codes, level=setting, lossless=False, method=6, numthreads=1))


def _avif(codes: Codes, setting: float) -> bytes:
    found = imagecodecs.avif_encode(
        codes, level=round(setting), speed=4, pixelformat="yuv444", codec="aom", numthreads=1
    )
    return bytes(found)


def _decoder(name: str) -> Callable[[bytes], Codes]:
    def decode(data: bytes) -> Codes:
        codes: Codes = getattr(imagecodecs, name)(data)  # here, since imagecodecs loads a library when it is first used
        return codes

    return decode


_QUALITIES = (5.0, 12.0, 25.0, 45.0, 65.0, 82.0, 92.0, 97.0)

CONVENTIONAL: Mapping[str, ConventionalCodec] = {
    codec.name: codec
    for codec in (
        ConventionalCodec(
            name="jpeg420",
            title="JPEG 4:2:0",
            settings=_QUALITIES,
            ends=(1.0, 100.0),
            holds_bands=False,
            holds_grey=True,
            encode_codes=_jpeg("420"),
            decode_codes=_decoder("jpeg8_decode"),
        ),
        ConventionalCodec(
            name="jpeg444",
            title="JPEG 4:4:4",
            settings=_QUALITIES,
            ends=(1.0, 100.0),
            holds_bands=False,
            holds_grey=True,
            encode_codes=_jpeg("444"),
            decode_codes=_decoder("jpeg8_decode"),
        ),
        ConventionalCodec(
            name="jpeg2000",
            title="JPEG 2000",
            settings=(20.0, 23.0, 26.0, 29.0, 32.0, 35.0, 39.0, 44.0, 52.0, 62.0),
            ends=(5.0, 62.0),
            holds_bands=True,
            holds_grey=True,
            encode_codes=_jpeg2000,
            decode_codes=_decoder("jpeg2k_decode"),
        ),
        ConventionalCodec(
            name="jpegxl",
            title="JPEG XL",
            settings=(15.0, 9.0, 6.0, 4.0, 2.6, 1.7, 1.0, 0.5, 0.1),
            ends=(25.0, 0.0),
            holds_bands=True,
            holds_grey=True,
            encode_codes=_jpegxl,
            decode_codes=_decoder("jpegxl_decode"),
        ),
        ConventionalCodec(
            name="webp",
            title="WebP",
            settings=_QUALITIES,
            ends=(0.0, 100.0),
            holds_bands=False,
            holds_grey=False,
            encode_codes=_webp,
            decode_codes=_decoder("webp_decode"),
        ),
        ConventionalCodec(
            name="avif",
            title="AVIF 4:4:4",
            settings=(12.0, 32.0, 50.0, 65.0, 80.0, 92.0),
            ends=(0.0, 100.0),
            holds_bands=False,
            holds_grey=False,
            encode_codes=_avif,
            decode_codes=_decoder("avif_decode"),
        ),
    )
}
"""By name, in the order in which tables list them."""
