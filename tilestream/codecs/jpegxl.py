"""JPEG streams as JPEG XL, from which the same bytes come back: about a quarter smaller, and nothing is lost.

JPEG XL keeps the quantised coefficients of a JPEG under a better entropy code, and in a box named `jbrd` what else an
encoder of JPEG was free to choose. That box is the same for all tiles that one scanner has written, and of 240 px tiles
it is a twentieth: where a tile has the box that its array states, only the codestream is stored.

References
----------
ISO 18181-2, annex on JPEG bitstream reconstruction.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import imagecodecs

from tilestream.codecs.imagechunks import JPEG
from tilestream.codecs.jpegxlboxes import CODESTREAM, SIGNATURE, boxes, declared_shape
from tilestream.errors import ConfigError, DamagedError

NAME = "tilestream.jpegxl"
"""Name of the codec in the metadata of arrays."""
_JPEG_START = b"\xff\xd8"
_OPTION = "reconstruction"
_FILE_TYPE = b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
_PLAIN = frozenset({b"JXL ", b"ftyp", b"jxlc", b"jxlp", b"jbrd"})
"""A file with other boxes (Exif, XMP) is stored whole."""
_DECODER_ERRORS = (RuntimeError, ValueError, OverflowError)


@dataclass(frozen=True, kw_only=True)
class JpegXl:
    """Turns JPEG streams into JPEG XL and back; picklable and small.

    A stored stream is one of three, which its first bytes tell apart: a codestream (the reconstruction data stand in
    the metadata), a file of boxes (they stand in the file), or the JPEG stream itself, where JPEG XL has no form for
    it (lossless, CMYK, 4:1:1) or a larger one.
    """

    reconstruction: bytes = field(default=b"", repr=False)
    """Content of the box `jbrd` that most streams have in common; empty for none."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Return the codec that the configuration in metadata describes.

        Parameters
        ----------
        options : Mapping
            JSON values; `reconstruction` in base64, or nothing.

        Returns
        -------
        JpegXl
            The codec.

        Raises
        ------
        ConfigError
            When it holds something else.
        """
        text = options.get(_OPTION, "")
        try:
            if not set(options) <= {_OPTION} or not isinstance(text, str):
                raise ValueError
            return cls(reconstruction=base64.b64decode(text, validate=True))
        except (ValueError, binascii.Error) as error:
            raise ConfigError.of(
                f"codec `{NAME}`",
                got=f"configuration {dict(options)!r:.200}",
                expected=f"nothing but `{_OPTION}`, in base64",
                do="Install the version of tilestream that wrote the store, or a newer one.",
            ) from error

    @classmethod
    def common(cls, streams: Sequence[bytes]) -> Self:
        """Return the codec for streams like some.

        Parameters
        ----------
        streams : sequence of bytes
            JPEG streams.

        Returns
        -------
        JpegXl
            With the reconstruction data of most of them; without where no two have the same.
        """
        found = [_reconstruction(file) for file in map(_transcoded, streams) if file]
        counts = {one: found.count(one) for one in found if one}
        best = max(counts, key=lambda one: counts[one], default=b"")
        return cls(reconstruction=best if counts.get(best, 0) > 1 or len(found) == 1 else b"")

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the codec as Zarr metadata."""
        if not self.reconstruction:
            return {"name": NAME}
        return {"name": NAME, "configuration": {_OPTION: base64.b64encode(self.reconstruction).decode()}}

    def behind_jpeg(self, codecs: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
        """Return the codecs of a chunk with this one behind that of JPEG, which is among them."""
        at = 1 + [codec["name"] for codec in codecs].index(JPEG)
        return (*codecs[:at], self.metadata, *codecs[at:])

    def encode(self, stream: bytes) -> bytes:
        """Return a JPEG stream in the smallest form that gives it back; every form is decoded before it is trusted.

        Parameters
        ----------
        stream : bytes
            A JPEG stream that stands for itself.

        Returns
        -------
        bytes
            What `decode` makes exactly `stream` of.

        Raises
        ------
        ConfigError
            When it is no JPEG stream.
        """
        if stream[:2] != _JPEG_START:
            raise ConfigError.of(
                f"codec `{NAME}`",
                got=f"bytes that start with {stream[:2].hex(' ') or 'nothing'}",
                expected="a JPEG stream (FF D8)",
                do=f"Put it behind the codec `{JPEG}`.",
            )
        file = _transcoded(stream)
        forms = [file]
        if self.reconstruction and file and _reconstruction(file) == self.reconstruction:
            forms.insert(0, _codestream(file))
        for form in forms:
            if form and len(form) < len(stream) and self._gives(form, stream):
                return form
        return stream

    def _gives(self, form: bytes, stream: bytes) -> bool:
        try:
            return bytes(imagecodecs.jpegxl_decode_jpeg(self._file(form), numthreads=1)) == stream
        except (*_DECODER_ERRORS, DamagedError):
            return False

    def decode(self, data: bytes, *, most_px: int) -> bytes:
        """Return the JPEG stream that a stored stream stands for.

        Parameters
        ----------
        data : bytes
            What `encode` gave.
        most_px : int
            Most pixels that the picture may have: those of a chunk.

        Returns
        -------
        bytes
            The stream, not decoded: whether it is whole its decoder has to see.

        Raises
        ------
        DamagedError
            When it is none of the three forms, claims a larger picture, or holds no JPEG.
        """
        if data[:2] == _JPEG_START:
            return data
        file = self._file(data)
        shape = declared_shape(data)
        if shape.area > most_px:
            raise DamagedError(f"JPEG XL stream declares {shape.y} x {shape.x} pixels, a chunk has {most_px:,}")
        try:
            return bytes(imagecodecs.jpegxl_decode_jpeg(file, numthreads=1))
        except _DECODER_ERRORS as error:
            raise DamagedError(f"JPEG XL stream gives no JPEG back: {error}") from error

    def _file(self, data: bytes) -> bytes:
        """Return a stored stream as a whole file."""
        if data[: len(SIGNATURE)] == SIGNATURE:
            return data
        if data[:2] != CODESTREAM:
            raise DamagedError(f"neither JPEG nor JPEG XL, but bytes that start with {data[:2].hex(' ') or 'nothing'}")
        if not self.reconstruction:
            raise DamagedError("JPEG XL codestream without what a JPEG is made of, in an array that does not state it")
        return b"".join((SIGNATURE, _FILE_TYPE, _box(b"jbrd", self.reconstruction), _box(b"jxlc", data)))


def _box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def _transcoded(stream: bytes) -> bytes:
    """Return a JPEG stream as a JPEG XL file, empty where it has no such form."""
    try:
        return bytes(imagecodecs.jpegxl_encode_jpeg(stream, numthreads=1))
    except _DECODER_ERRORS:
        return b""


def _reconstruction(file: bytes) -> bytes:
    """Return the reconstruction data of a file, empty where it has other boxes besides that count."""
    found = [(kind, file[start:stop]) for kind, start, stop in boxes(file)]
    parts = [content for kind, content in found if kind == b"jbrd"]
    return parts[0] if len(parts) == 1 and {kind for kind, _ in found} <= _PLAIN else b""


def _codestream(file: bytes) -> bytes:
    """Return the codestream of a file in one piece; a part has a number of four bytes in front."""
    return b"".join(
        file[start + 4 * (kind == b"jxlp") : stop] for kind, start, stop in boxes(file) if kind in (b"jxlc", b"jxlp")
    )
