"""Pixels of one tile into the bytes that a TIFF holds, by codec.

    deflate, zstd, lzw   differences along rows, of whole numbers or of byte planes of floats (predictors 2, 3), packed
    jpeg                 8 bits, grey or RGB; RGB becomes YCbCr, with colour at half resolution below quality 90

Labels are packed without predictor: differences of class numbers mean nothing.

References
----------
TIFF 6.0, Adobe 1992, sections 13, 14 and 22; TIFF Technical Notes 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import imagecodecs
import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.sinks.jpegform import JpegForm
from tilestream.sinks.tiffdirectory import Value, short
from tilestream.types import Array, Kind

Codec: TypeAlias = Literal["deflate", "zstd", "lzw", "jpeg", "none"]
CODECS: tuple[Codec, ...] = get_args(Codec)
"""All of them, the default first."""
QUALITY = 90
"""Of JPEG, unless the caller says otherwise."""
FULL_COLOUR_QUALITY = 90
"""From this quality on JPEG keeps colour at full resolution, which is the rule of libvips."""
_NUMBERS: Mapping[Codec, int] = {"none": 1, "lzw": 5, "jpeg": 7, "deflate": 8, "zstd": 50000}
_DEFLATE_LEVEL, _ZSTD_LEVEL = 6, 3  # what GDAL and zstd take when nobody chooses
_PACK: Mapping[str, Callable[[Any], Any]] = {
    "none": bytes,
    "lzw": imagecodecs.lzw_encode,
    "deflate": lambda data: imagecodecs.deflate_encode(data, _DEFLATE_LEVEL),
    "zstd": lambda data: imagecodecs.zstd_encode(data, _ZSTD_LEVEL),
}
_MINISBLACK, _RGB, _YCBCR = 1, 2, 6
_SUBSAMPLINGS = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411"}


@dataclass(frozen=True, kw_only=True)
class TileCodec:
    """How the tiles of one image are coded; made by `tile_codec`, which checks that it fits."""

    name: Codec
    """One of `CODECS`."""
    quality: int = QUALITY
    """Of JPEG."""
    predictor: int = 1
    """1 none, 2 horizontal differences, 3 floating point."""
    is_rgb: bool = False
    """Whether the three samples of a pixel are red, green and blue."""
    form: JpegForm | None = None
    """That of tiles which are copied, so that those which are not have it too; None where all are coded here."""

    @property
    def is_lossless(self) -> bool:
        """Return whether decoded samples are those that were coded."""
        return self.name != "jpeg"

    @property
    def tags(self) -> dict[int, Value]:
        """Return the tags that say how tiles are coded."""
        tags = {
            259: short(_NUMBERS[self.name]),
            262: short(_YCBCR if self._is_ycbcr else _RGB if self.is_rgb else _MINISBLACK),
        }
        if self.predictor != 1:
            tags[317] = short(self.predictor)
        if self._is_ycbcr:
            tags[530] = short(*self._subsampling)
        return tags

    @property
    def _is_ycbcr(self) -> bool:
        is_jpeg_of_colour = self.is_rgb and not self.is_lossless
        return is_jpeg_of_colour if self.form is None else self.form.is_ycbcr

    @property
    def _subsampling(self) -> tuple[int, int]:
        if self.form is not None:
            return self.form.subsampling
        return (1, 1) if self.quality >= FULL_COLOUR_QUALITY else (2, 2)

    def encode(self, pixels: Array) -> bytes:
        """Return the bytes of a tile.

        Parameters
        ----------
        pixels : ndarray
            `(y, x, samples)` of a whole tile, of any strides.

        Returns
        -------
        bytes
            What the file holds.
        """
        pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
        if not self.is_lossless:
            return self._jpeg(pixels)
        if self.predictor == 2:
            whole = pixels.view(f"<u{pixels.dtype.itemsize}")
            pixels = np.asarray(imagecodecs.delta_encode(whole, axis=-2, out=np.empty_like(whole)))
        elif self.predictor == 3:
            pixels = _byte_planes(pixels)
        return bytes(_PACK[self.name](pixels.tobytes()))

    def _jpeg(self, pixels: Array) -> bytes:
        if pixels.shape[2] == 1:
            return bytes(imagecodecs.jpeg8_encode(pixels[..., 0], level=self.quality, colorspace="GRAYSCALE"))
        return bytes(
            imagecodecs.jpeg8_encode(
                pixels,
                level=self.quality,
                colorspace="RGB",
                outcolorspace="YCBCR" if self._is_ycbcr else "RGB",
                subsampling=_SUBSAMPLINGS[self._subsampling],
            )
        )


def _byte_planes(pixels: Array) -> npt.NDArray[np.uint8]:
    """Return floats as differences along rows of byte planes, the most significant first."""
    height, width, samples = pixels.shape
    size = pixels.dtype.itemsize
    swapped = pixels.astype(pixels.dtype.newbyteorder(">")).view("u1").reshape(height, width * samples, size)
    planes = np.ascontiguousarray(swapped.transpose(0, 2, 1)).reshape(height, size * width, samples)
    return np.asarray(imagecodecs.delta_encode(planes, axis=-2, out=np.empty_like(planes)))


def tile_codec(
    name: str, *, dtype: np.dtype[Any], samples: int, kind: Kind = "intensity", is_rgb: bool = False, quality: int
) -> TileCodec:
    """Return the codec of that name for such tiles.

    Parameters
    ----------
    name : str
        One of `CODECS`.
    dtype : dtype
        Type of the samples.
    samples : int
        Samples a pixel.
    kind : {"intensity", "labels"}
        What samples mean.
    is_rgb : bool
        Whether they are red, green and blue.
    quality : int
        Of JPEG, 1 to 100.

    Returns
    -------
    TileCodec
        With the predictor that such samples profit from.

    Raises
    ------
    ConfigError
        When there is no such codec, or it cannot hold such samples.
    """
    if name not in CODECS:
        raise ConfigError.of("`codec`", got=repr(name), expected=f"one of {', '.join(CODECS)}", do="Choose one.")
    if not 1 <= quality <= 100:
        raise ConfigError.of("`quality`", got=quality, expected="1 to 100", do="Correct it.")
    if name == "jpeg" and (dtype != np.uint8 or kind == "labels" or (samples != 1 and not is_rgb)):
        raise ConfigError.of(
            "codec `jpeg`",
            got=f"{samples} channels of {dtype}" + (" that are class numbers" if kind == "labels" else ""),
            expected="grey or RGB of 8 bits",
            do="Choose deflate, zstd or lzw, which change no value.",
        )
    predictor = 1
    if name in ("deflate", "zstd", "lzw") and kind == "intensity":
        # floats of 16 bits and whole numbers of 64 are left as they are: not every reader knows predictors for them
        predictor = {"f4": 3, "f8": 3, "u1": 2, "i1": 2, "u2": 2, "i2": 2, "u4": 2, "i4": 2}.get(dtype.str[1:], 1)
    return TileCodec(name=name, quality=quality, predictor=predictor, is_rgb=is_rgb)


def encode_mask(valid: npt.NDArray[np.bool_]) -> bytes:
    """Return the bytes of a tile of a validity mask: one bit a pixel, deflate.

    Parameters
    ----------
    valid : ndarray of bool
        `(y, x)` of a whole tile, a multiple of 8 wide.

    Returns
    -------
    bytes
        What the file holds.
    """
    return bytes(imagecodecs.deflate_encode(np.packbits(valid, axis=1).tobytes(), _DEFLATE_LEVEL))


def copied_codec(form: JpegForm, *, quality: int) -> TileCodec:
    """Return the codec of a file whose tiles are copied JPEG streams, for the tiles that cannot be copied.

    Parameters
    ----------
    form : JpegForm
        That of the streams.
    quality : int
        Of what is coded here, 1 to 100.

    Returns
    -------
    TileCodec
        Says of all tiles how they are coded.

    Raises
    ------
    ConfigError
        When nothing here codes colour at such a resolution.
    """
    if form.subsampling not in _SUBSAMPLINGS or (
        form.components == 3 and not form.is_ycbcr and form.subsampling != (1, 1)
    ):
        x, y = form.subsampling
        raise ConfigError.of(
            "codec `copy`", got=f"one colour for {x} x {y} pixels", expected="1 x 1 to 2 x 2", do="Choose jpeg."
        )
    return TileCodec(name="jpeg", quality=quality, is_rgb=form.components == 3, form=form)
