"""Words and numbers on pictures, in the one font that Pillow brings along, so that nothing has to be installed."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Mask: TypeAlias = npt.NDArray[np.uint8]
RGB: TypeAlias = tuple[int, int, int]

MICRO = "µ"
_ASCII = str.maketrans({"×": "x", "–": "-", "−": "-", "…": "...", "’": "'", "·": "-", "μ": MICRO})


def draw_text(pixels: npt.NDArray[np.uint8], text: str, yx: tuple[float, float], *, size_px: int, ink: RGB) -> None:
    """Write a line of text into a picture; what does not fit on it is cut off.

    Parameters
    ----------
    pixels : ndarray of uint8
        `(y, x, 3)`.
    text : str
        One line; letters that the font has not lose their accents, or come out as boxes.
    yx : tuple of float
        Where the line's upper left corner lies, px.
    size_px : int
        Size of the letters: from one line to the next it is a quarter more.
    ink : tuple of int
        Colour.
    """
    mask = text_mask(text, size_px)
    y, x = round(yx[0]), round(yx[1])
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + mask.shape[0], pixels.shape[0]), min(x + mask.shape[1], pixels.shape[1])
    if top >= bottom or left >= right:
        return
    share = mask[top - y : bottom - y, left - x : right - x, None] / 255.0
    under = pixels[top:bottom, left:right]
    under[...] = np.rint(under * (1 - share) + np.array(ink) * share).astype(np.uint8)


def text_px(text: str, size_px: int) -> int:
    """Return the width of a line of text, px."""
    return int(text_mask(text, size_px).shape[1])


@lru_cache(maxsize=512)
def text_mask(text: str, size_px: int) -> Mask:
    """Return the ink of a line of text.

    Parameters
    ----------
    text : str
        One line.
    size_px : int
        Size of the letters.

    Returns
    -------
    ndarray of uint8
        `(y, x)`, 255 where the ink is full; read only.
    """
    font = _font(size_px)
    pieces = plain(text).split(MICRO)
    parts = [_ink(pieces[0], font, size_px)]
    for piece in pieces[1:]:
        parts += [_micro(font, size_px), _ink(piece, font, size_px)]
    mask = np.concatenate(parts, axis=1)
    mask.setflags(write=False)
    return mask


def plain(text: str) -> str:
    """Return a text on one line, with the signs that the font has in place of those that it has not."""
    kept = "".join(sign if sign.isprintable() else " " for sign in text).translate(_ASCII)
    return "".join(
        sign
        if sign == MICRO
        else "".join(part for part in unicodedata.normalize("NFKD", sign) if not unicodedata.combining(part))
        for sign in kept
    )


@lru_cache(maxsize=16)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size_px)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType: install the wheel from PyPI")
    return font


def _ink(text: str, font: ImageFont.FreeTypeFont, size_px: int) -> Mask:
    width, height = round(font.getlength(text)), round(1.25 * size_px)
    image = Image.new("L", (width, height), 0)
    ImageDraw.Draw(image).text((0, 0), text, fill=255, font=font)
    return np.asarray(image)


def _micro(font: ImageFont.FreeTypeFont, size_px: int) -> Mask:
    """Return a micro sign, which the font has not: the letter u, its left stem drawn down below the line."""
    mask = _ink("u", font, size_px).copy()
    rows = np.flatnonzero(mask.max(axis=1) > 127)
    first, last = int(rows[0]), int(rows[-1])
    stem = mask[(first + last) // 2].copy()
    inked = np.flatnonzero(stem)
    gap = np.flatnonzero(np.diff(inked) > 1)
    stem[inked[gap[0]] + 1 if gap.size else stem.size :] = 0
    end = min(last + round(0.22 * size_px), mask.shape[0] - 1)
    mask[(first + last) // 2 : end + 1] = np.maximum(mask[(first + last) // 2 : end + 1], stem)
    return mask
