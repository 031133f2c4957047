"""Whether features survive the pyramid codec: vectors of decoded tiles beside those of the originals, and of JPEG's.

Tissue of 256 px at the quality that a store has when nothing is said, its networks in its bytes. Cosines of vectors as
the encoders give them are high for any two tiles, since all have a common part; so the cosine of tiles that have
nothing to do with each other is told beside, and which share of the way from there to 1 is lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.bench.rd_pictures import CROPS, SMALL, data_folder, read_crop
from tests.bench.table import at_least, make_row
from tilestream.codecs import CONVENTIONAL
from tilestream.codecs.tilecodec import TileCodec, tile_codec
from tilestream.types import Array, Batch

COSINE_BAR = 0.99
RIVALS = ("jpeg420", "jpegxl")
Encoder = Callable[[Array], npt.NDArray[np.float64]]
"""From tiles `(n, c, y, x)` to vectors."""


def encoders() -> dict[str, Encoder]:
    """Return encoders by name: statistics, and a transformer with the weights of a seed."""
    from tests.bench.bench_encoders import Narrow
    from tilestream.models.handcrafted import HandcraftedStage
    from tilestream.pipelines.encoder import encoder_spec
    from tilestream.stream.work import make_stage

    stages: dict[str, Callable[[Batch], Any]] = {
        "`handcrafted`": HandcraftedStage(rgb=True, brightfield=True),
        "a transformer of random weights": make_stage(encoder_spec(f"{Narrow.__module__}:{Narrow.__name__}", {})),
    }

    def encoder(stage: Callable[[Batch], Any]) -> Encoder:
        return lambda tiles: np.asarray(stage(_batch(tiles)), np.float64)

    return {name: encoder(stage) for name, stage in stages.items()}


def _batch(tiles: Array) -> Batch:
    count = len(tiles)
    return Batch(
        pixels=tiles,
        valid=None,
        valid_share=np.ones(count, np.float32),
        rows=np.arange(count),
        tile_yx=np.zeros((count, 2), np.int64),
    )


def cosines(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the cosine of each vector `(n, d)` with that of the same place."""
    found: npt.NDArray[np.float64] = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return found


def decoded(tiles: Sequence[Array], codec: TileCodec) -> tuple[list[Array], list[int]]:
    """Return tiles as the codec gives them back, and the bytes of each."""
    files = [codec.encode(tile) for tile in tiles]
    return [codec.decode(data) for data in files], [len(data) for data in files]


def within(tiles: Sequence[Array], rival: str, sizes: Sequence[int]) -> list[Array]:
    """Return tiles as a conventional codec gives them back from as many bytes each, or fewer."""
    codec, found = CONVENTIONAL[rival], []
    for tile, size in zip(tiles, sizes, strict=True):
        data = codec.within(tile, size)
        if data is None:
            raise ValueError(f"{codec.title} has no file of {size} bytes for a tile of {tile.shape}")
        found.append(codec.decode(data))
    return found


def feature_rows(tiles: Sequence[Array], codec: TileCodec, *, bar: float = COSINE_BAR) -> list[dict[str, Any]]:
    """Return the cosine of each encoder's vectors with those of the originals: the least of the tiles.

    Parameters
    ----------
    tiles : sequence of ndarray
        `(3, y, x)` uint8 of one size, of different places.
    codec : TileCodec
        What stores them.
    bar : float
        Least cosine.

    Returns
    -------
    list of dict
        For each encoder a row of ours, and one of each rival at as many bytes.
    """
    ours, sizes = decoded(tiles, codec)
    others = {CONVENTIONAL[name].title: within(tiles, name, sizes) for name in RIVALS}
    bits = 8 * sum(sizes) / sum(tile[0].size for tile in tiles)
    images = {"pyramid": ours} | {f"{title} of as many bytes": them for title, them in others.items()}
    return [
        cosine_row(
            f"{name} of decoded tiles with that of the originals, {who}", encode, (tiles, seen), bits=bits, bar=asked
        )
        for name, encode in encoders().items()
        for (who, seen), asked in zip(images.items(), (bar, *(None for _ in others)), strict=True)
    ]


def cosine_row(
    what: str, encode: Encoder, sides: tuple[Sequence[Array], Sequence[Array]], *, bits: float, bar: float | None
) -> dict[str, Any]:
    """Return the least cosine of the vectors of tiles with those of what was decoded, beside that of two tiles."""
    first, second = (encode(np.stack(side)) for side in sides)
    each = cosines(first, second)
    pairs = zip(*itertools.combinations(first, 2), strict=True)
    strange = float(cosines(*(np.stack(side) for side in pairs)).mean())
    return make_row(
        f"cosine of {what}, the least of {len(first)}",
        float(each.min()),
        "",
        bar=None if bar is None else at_least(bar),
        note=f"mean {each.mean():.5f}, two tiles of different places {strange:.4f}: "
        f"{100 * (1 - each.mean()) / (1 - strange):.2f} % of what is between those is lost; {bits:.2f} bits/px",
    )


def tissue(settings: Mapping[str, Any] | None = None) -> tuple[list[Array], TileCodec] | None:
    """Return the tissue of the panel of 256 px and the codec at its own quality; None without real images."""
    data = data_folder()
    if data is None:
        return None
    tiles = [read_crop(crop, data).pixels for crop in CROPS if crop.group == SMALL]
    return tiles, tile_codec({"codec": "pyramid", "levels": 1, **(settings or {})})


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark; none where real images are not there."""
    found = tissue()
    if found is None:
        print("pyramid_features: made of real images that are not here: set TILESTREAM_DATA")
        return []
    return feature_rows(*found)
