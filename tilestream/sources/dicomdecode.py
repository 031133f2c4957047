"""Bytes of one DICOM frame into samples; the stream's own words on colour count more than the header's.

Headers lie: converters wrote RGB over frames that are JFIF, hence YCbCr. A JPEG stream with a JFIF or Adobe marker says
what its components are, so it decides; only a stream without either is read as the header says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import imagecodecs
import numpy as np

from tilestream.errors import DamagedError
from tilestream.metrics import count, timed
from tilestream.sources.dicomfile import Instance
from tilestream.sources.dicomframes import refuse
from tilestream.sources.jpegcheck import JpegHead, check_scan, declared_size, read_head
from tilestream.sources.streamcheck import check_jpeg2000
from tilestream.types import Array

RAW = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})
JPEG = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
JPEG2000 = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"})
OTHERS: Mapping[str, Callable[..., Any]] = {
    "1.2.840.10008.1.2.4.57": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.70": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.81": imagecodecs.jpegls_decode,
}
RLE = "1.2.840.10008.1.2.5"


def sample_dtype(instance: Instance) -> np.dtype[Any]:
    """Return the type of the samples of an instance.

    Parameters
    ----------
    instance : Instance
        The instance.

    Returns
    -------
    dtype
        8 or 16 bits, with or without sign.

    Raises
    ------
    SourceError
        When samples, colours or compression are none that can be read.
    """
    bits, samples = int(instance.get("BitsAllocated", 0)), int(instance.get("SamplesPerPixel", 1))
    colour = str(instance.get("PhotometricInterpretation", ""))
    known = instance.syntax in RAW | JPEG | JPEG2000 | {RLE} or instance.syntax in OTHERS
    plain = colour in ("RGB", "MONOCHROME1", "MONOCHROME2")
    # colour transforms are undone by the JPEG and JPEG 2000 decoders only
    coded = colour in ("YBR_FULL", "YBR_FULL_422") and instance.syntax in JPEG
    coded |= colour in ("YBR_ICT", "YBR_RCT") and instance.syntax in JPEG2000
    if bits not in (8, 16) or samples not in (1, 3) or not known or not (plain or coded):
        raise refuse(
            instance.identity.file,
            got=f"{samples} samples of {bits} bits, {colour or 'no colour'}, transfer syntax {instance.syntax}",
            expected="grey or RGB of 8 or 16 bits: raw, RLE, JPEG, JPEG-LS or JPEG 2000",
            do="Convert it with a DICOM toolkit.",
        )
    signed = int(instance.get("PixelRepresentation", 0)) == 1
    return np.dtype(f"{'i' if signed else 'u'}{bits // 8}")


def colour_note(instance: Instance) -> str | None:
    """Return what is wrong with the colour that the header states, None when it agrees with the first frame.

    Parameters
    ----------
    instance : Instance
        The instance.

    Returns
    -------
    str or None
        A note for users.
    """
    stated = str(instance.get("PhotometricInterpretation", ""))
    if instance.syntax not in JPEG or int(instance.get("SamplesPerPixel", 1)) != 3:
        return None
    try:
        actual = _marked_colour(instance.frame(0))
    except DamagedError:
        return None  # reading the frame will say what is wrong with it
    if actual is None or (actual == "RGB") == (stated == "RGB"):
        return None
    return f"the header says {stated}, the JPEG frames say {actual}: they are read as {actual}"


def _marked_colour(data: bytes) -> str | None:
    head = read_head(data)
    if not head.has_colour_mark:
        return None
    adobe = data.find(b"Adobe", 0, head.size)
    if adobe >= 0 and adobe + 11 < head.size:
        return "YCbCr" if data[adobe + 11] else "RGB"
    return "YCbCr"


def decode_frame(instance: Instance, number: int) -> Array:
    """Return one decoded frame.

    Parameters
    ----------
    instance : Instance
        The instance.
    number : int
        Frame, from 0.

    Returns
    -------
    ndarray
        `(y, x, samples)`, the whole tile.

    Raises
    ------
    DamagedError
        When the frame is cut, broken, or decodes to another shape or type than the header states.
    """
    data = instance.frame(number)
    dtype, samples = sample_dtype(instance), int(instance.get("SamplesPerPixel", 1))
    shape = (*instance.tile.yx, samples)
    try:
        with timed("decode"):
            pixels = _decoded(instance, data, dtype, shape)
    except DamagedError as error:
        raise DamagedError(f"frame {number + 1}: {error}") from error
    except (RuntimeError, ValueError, TypeError) as error:
        raise DamagedError(f"frame {number + 1} does not decode: {error}") from error
    count("blocks_decoded")
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.shape != shape or pixels.dtype.itemsize != dtype.itemsize:
        raise DamagedError(f"frame {number + 1} decodes to {pixels.shape} {pixels.dtype}, not {shape} {dtype}")
    return pixels.view(dtype)


def _decoded(instance: Instance, data: bytes, dtype: np.dtype[Any], shape: tuple[int, int, int]) -> Array:
    if instance.syntax in JPEG:
        return _jpeg(instance, data, shape)
    if instance.syntax in JPEG2000:
        check_jpeg2000(data, most=instance.tile, samples=shape[2])
        return np.asarray(imagecodecs.jpeg2k_decode(data))
    if instance.syntax in OTHERS:
        if (declared := declared_size(data)) != shape:
            raise DamagedError(f"JPEG frame of {declared}, the header states {shape}")
        return np.asarray(OTHERS[instance.syntax](data))
    is_planar = int(instance.get("PlanarConfiguration", 0)) == 1 and shape[2] > 1
    if instance.syntax == RLE:
        data, is_planar = bytes(imagecodecs.dicomrle_decode(data, dtype.newbyteorder("<").str)), shape[2] > 1
    flat = np.frombuffer(data, dtype.newbyteorder("<"))
    if flat.size != shape[0] * shape[1] * shape[2]:
        raise DamagedError(f"{len(data)} bytes for {shape} samples of {dtype}")
    pixels = flat.reshape(shape[2], shape[0], shape[1]).transpose(1, 2, 0) if is_planar else flat.reshape(shape)
    return pixels.astype(dtype.newbyteorder("="), copy=False)


def _jpeg(instance: Instance, data: bytes, shape: tuple[int, int, int]) -> Array:
    data, head = checked_jpeg(instance, data)
    if shape[2] == 1:
        return np.asarray(imagecodecs.jpeg8_decode(data, outcolorspace="GRAYSCALE"))
    stored = "RGB" if is_raw_rgb(instance, head) else None
    return np.asarray(imagecodecs.jpeg8_decode(data, colorspace=stored, outcolorspace="RGB"))


def checked_jpeg(instance: Instance, data: bytes) -> tuple[bytes, JpegHead]:
    """Return the JPEG stream of a frame without padding, and its head.

    Parameters
    ----------
    instance : Instance
        The instance.
    data : bytes
        Content of the frame's fragments.

    Returns
    -------
    bytes, JpegHead
        Stream and head.

    Raises
    ------
    DamagedError
        When it is cut, malformed, or of another size than the header states.
    """
    data = data[:-1] if data.endswith(b"\xff\xd9\0") else data  # fragments have an even length
    head = read_head(data)
    shape = (*instance.tile.yx, int(instance.get("SamplesPerPixel", 1)))
    if (head.height, head.width, head.components) != shape:
        raise DamagedError(f"JPEG frame of {(head.height, head.width, head.components)}, the header states {shape}")
    check_scan(data, head)
    return data, head


def is_raw_rgb(instance: Instance, head: JpegHead) -> bool:
    """Return whether the components of a frame are RGB, which nothing in its stream says.

    Parameters
    ----------
    instance : Instance
        The instance.
    head : JpegHead
        Head of the stream.

    Returns
    -------
    bool
        False where the stream says what they are, or the header says YCbCr or grey.
    """
    return instance.get("PhotometricInterpretation") == "RGB" and head.components == 3 and not head.has_colour_mark
