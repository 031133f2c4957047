"""Fronts of files and regions that matter: what a part of a tile's bytes shows, and what weights move.

The front of a file is cut at every byte count at which one more grid is whole, and decoded from these bytes alone. A
region is the middle quarter of a tile, and errors outside of it count less by some decibels, as `compress --relevance`
has it; it is compared with tiles without weights, between those of more and of fewer bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tests.bench.rd_pictures import CROPS, data_folder, read_crop
from tests.bench.table import at_least, make_row
from tilestream.codecs import Curve, Point, psnr
from tilestream.codecs.pyramid.pyramidtile import PyramidTile
from tilestream.codecs.tilecodec import tile_codec
from tilestream.errors import DamagedError
from tilestream.types import Array

STAGES_BAR = 4
"""Fronts of a file at least, each better than the one before."""
REGION_BAR = 3.0
"""dB in the region at equal bytes."""
PICTURE = "os1-half-small"
LEVELS = 4
"""Of files whose fronts are to show something, as those of `compress --single-level`."""
OUTSIDE_DB = 20.0
"""How much less the rest of a tile counts."""
PLAIN_QUALITIES, WEIGHTED_QUALITY = (30.0, 50.0, 70.0), 75.0


def fronts(data: bytes) -> list[int]:
    """Return for each grid of a file how many of its first bytes hold it, the coarsest first."""
    found, low = [], 1
    for stage in range(1, PyramidTile.from_bytes(data).stages + 1):
        high = len(data)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if stages_of(data[:middle]) >= stage else (middle + 1, high)
        found.append(low)
    return found


def stages_of(front: bytes) -> int:
    """Return how many grids the front of a file holds, none where it does not even hold the networks."""
    try:
        return PyramidTile.from_bytes(front, cut=True).stages
    except DamagedError:
        return 0


def progressive_row(pixels: Array, data: bytes, *, bar: float = STAGES_BAR) -> dict[str, Any]:
    """Return how many fronts of a file there are of which each is better than the one before.

    Parameters
    ----------
    pixels : ndarray
        `(c, y, x)` uint8.
    data : bytes
        Their file.
    bar : float
        Least number.

    Returns
    -------
    dict
        0 where one is worse than that before it.
    """
    sizes = fronts(data)
    quality = [psnr(pixels, PyramidTile.from_bytes(data[:size], cut=True).decode()) for size in sizes]
    rises = all(b > a for a, b in itertools.pairwise(quality))
    told = ", ".join(f"{size:,} B {value:.2f} dB" for size, value in zip(sizes, quality, strict=True))
    name = "fronts of a file of the pyramid codec, each better than the one before"
    return make_row(name, len(sizes) if rises else 0, "stages", bar=at_least(bar), note=f"{told}; {len(data):,} B")


class RegionCodec(Protocol):
    """Encodes a tile with weights."""

    def encode(self, pixels: Array, valid: Any = None, *, roi: Array | None = None) -> bytes:
        """Return a tile as bytes."""

    def decode(self, data: bytes) -> Array:
        """Return its samples."""


def region_row(
    pixels: Array, weighted: RegionCodec, plain: Sequence[RegionCodec], *, bar: float = REGION_BAR
) -> dict[str, Any]:
    """Return how much better the region is with weights, at equal bytes.

    Parameters
    ----------
    pixels : ndarray
        `(c, y, x)` uint8.
    weighted : RegionCodec
        What encodes with weights.
    plain : sequence of RegionCodec
        What encodes without, at several rates: two at least, with fewer bytes and with more.
    bar : float
        Least gain, dB.

    Returns
    -------
    dict
        NaN where the tiles without weights are all larger or all smaller.
    """
    inside = middle_of(pixels)
    weights = np.where(inside, 1, 10 ** (-OUTSIDE_DB / 10)).astype(np.float32)
    data = weighted.encode(pixels, roi=weights)
    rate = _point(pixels, data, weighted.decode(data), inside)
    files = [(codec, codec.encode(pixels)) for codec in plain]
    others = Curve(
        codec="plain", picture="", points=tuple(_point(pixels, one, codec.decode(one), inside) for codec, one in files)
    )
    gains = {where: rate.scores[where] - others.at(rate.bpp, score=where) for where in rate.scores}
    sizes = ", ".join(f"{len(one):,}" for _, one in files)
    return make_row(
        "the middle quarter of a tile of the pyramid codec with weights, over one without at equal bytes",
        gains["inside"],
        "dB",
        bar=at_least(bar),
        note=f"{len(data):,} B, outside {OUTSIDE_DB:g} dB less weight: inside {rate.scores['inside']:.2f} dB, outside "
        f"{rate.scores['outside']:.2f} dB, {gains['outside']:+.2f} dB; between tiles without weights of {sizes} B",
    )


def middle_of(pixels: Array) -> npt.NDArray[np.bool_]:
    """Return which pixels are the middle quarter of a tile, `(y, x)`."""
    height, width = pixels.shape[1:]
    found = np.zeros((height, width), np.bool_)
    found[height // 4 : height // 4 + height // 2, width // 4 : width // 4 + width // 2] = True
    return found


def _point(pixels: Array, data: bytes, decoded: Array, inside: npt.NDArray[np.bool_]) -> Point:
    scores = {
        "inside": psnr(pixels, decoded, valid=inside),
        "outside": psnr(pixels, decoded, valid=~inside),
    }
    return Point(setting=0, size_bytes=len(data), bpp=8 * len(data) / inside.size, scores=scores, seconds=0)


def codec(quality: float, settings: Mapping[str, Any] | None = None) -> Any:
    """Return the pyramid codec at a quality."""
    return tile_codec({"codec": "pyramid", "levels": 1, "quality": quality, **(settings or {})})


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark; none where real images are not there."""
    data = data_folder()
    if data is None:
        print("pyramid_uses: made of real images that are not here: set TILESTREAM_DATA")
        return []
    pixels = next(read_crop(crop, data).pixels for crop in CROPS if crop.name == PICTURE)
    return [
        progressive_row(pixels, codec(PLAIN_QUALITIES[1], {"levels": LEVELS}).encode(pixels)),
        region_row(pixels, codec(WEIGHTED_QUALITY), [codec(quality) for quality in PLAIN_QUALITIES]),
    ]
