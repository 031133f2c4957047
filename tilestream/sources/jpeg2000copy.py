"""JPEG 2000 streams that stand for themselves: which do already, and how the others are coded anew without loss."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np

from tilestream.sources.streamcheck import Jpeg2000Head
from tilestream.types import Array, Shape


def stands_alone(head: Jpeg2000Head, tile: Shape, dtype: np.dtype[Any]) -> bool:
    """Return whether a stream decodes to a whole tile of an array's type.

    Parameters
    ----------
    head : Jpeg2000Head
        What the stream declares.
    tile : Shape
        Size of a tile, px.
    dtype : dtype
        Type of the array.

    Returns
    -------
    bool
        False for a smaller picture, and for samples of another size or sign.
    """
    kinds = {
        ("i" if depth & 0x80 else "u", 1 if depth & 0x7F < 8 else 2 if depth & 0x7F < 16 else 4)
        for depth in head.depths
    }
    return head.shape == tile and kinds == {(dtype.kind, dtype.itemsize)}


def lossless_jpeg2000(pixels: Array, *, height: int) -> bytes:
    """Return a stream that holds pixels exactly, the last row repeated up to `height`.

    Parameters
    ----------
    pixels : ndarray
        `(y, x, c)`.
    height : int
        Rows of the result.

    Returns
    -------
    bytes
        A codestream.
    """
    full = np.pad(pixels, ((0, height - pixels.shape[0]), (0, 0), (0, 0)), mode="edge")
    plain = np.ascontiguousarray(full[:, :, 0] if pixels.shape[2] == 1 else full)
    return bytes(imagecodecs.jpeg2k_encode(plain, level=0, codecformat="j2k", reversible=True))
