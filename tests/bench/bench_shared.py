"""One decoder for many tiles: PSNR at about 1 kB a tile on what it never saw, and what 1,000 tiles take.

The decoder learns from most of one slide and from labelled tiles; it is measured on rows of that slide that it never
saw and on two other slides, tile by tile beside conventional codecs of as many bytes or fewer. No file that holds the
same slide once more (the DICOM pyramid of CMU-1) is read on either side. Rivals are also tried on tiles reduced by 2
and 4 (box, back by Lanczos): that is what people do where a codec cannot go so low, and a stronger rival.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.bench.rd_pictures import FEW, MANY, OS1, OS2, SVS, TILES, data_folder
from tests.bench.table import make_row
from tilestream.codecs import CONVENTIONAL, psnr
from tilestream.codecs.fields.shareddecoder import SharedDecoder
from tilestream.codecs.fields.sharedfield import SharedField
from tilestream.codecs.tilecodec import FieldCodec
from tilestream.pyramid import open_pyramid
from tilestream.types import Array

TILE_PX = 256
TRAIN_STEPS = 1500
BYTES = 1000
FIT_STEPS = 120
TILES_A_GROUP = 4
LEAST_DEVIATION = 12.0
"""Of a tile that counts as tissue: glass takes next to nothing from any codec."""
COHORT = 1000
REDUCTIONS = (1, 2, 4)
RIVALS = ("jpeg420", "jpegxl", "webp", "avif")
HASH_QUALITIES = (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0)
"""From the fewest bytes on; tried until one is good enough."""
HASH_STEPS = 300
HASH_TILES = 2
LEARNED = (
    (SVS, slice(0, 2176)),
    (MANY, slice(None)),
    (FEW, slice(None)),
    (f"{TILES}/medium-nuclei-score-level1.png", slice(None)),
    (f"{TILES}/low-nuclei-score-level0.png", slice(None)),
)
"""Images, and the rows of each that are learned from."""
HELD_OUT = {
    "other rows of its slide": ((SVS, slice(2200, None)),),
    "other slides": ((OS1, slice(None)), (OS2, slice(None))),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Coded:
    """A tile as a shared field."""

    pixels: Array
    """`(c, y, x)`."""
    nbytes: int
    """Of its file."""
    psnr: float
    """dB of level 0."""


def pixels_of(path: str, rows: slice, data: Path) -> Array:
    """Return rows of an image `(c, y, x)`."""
    pyramid = open_pyramid(str(data / path))
    return np.ascontiguousarray(pyramid.read(pyramid.levels[0].box)[:3, rows])


def tiles_of(image: Array) -> Iterator[Array]:
    """Yield the tiles of an image that are tissue."""
    for y in range(0, image.shape[1] - TILE_PX + 1, TILE_PX):
        for x in range(0, image.shape[2] - TILE_PX + 1, TILE_PX):
            tile = np.ascontiguousarray(image[:, y : y + TILE_PX, x : x + TILE_PX])
            if tile.std() > LEAST_DEVIATION:
                yield tile


def held_out(data: Path) -> dict[str, list[Array]]:
    """Return some tiles of each group, as many of each image."""
    chance, found = np.random.default_rng(0), {}
    for name, images in HELD_OUT.items():
        each = -(-TILES_A_GROUP // len(images))
        found[name] = []
        for path, rows in images:
            tiles = list(tiles_of(pixels_of(path, rows, data)))
            found[name] += [tiles[number] for number in chance.permutation(len(tiles))[:each]]
    return found


def trained(data: Path) -> SharedDecoder:
    """Return the decoder of the bench."""
    from tilestream.codecs.fields.sharedtraining import SharedTraining, train_shared

    images = [pixels_of(path, rows, data) for path, rows in LEARNED]
    settings = SharedTraining(steps=TRAIN_STEPS, bytes_a_picture=BYTES, picture_px=TILE_PX, lr=3e-3)
    return train_shared(images, settings, hear=lambda step: print(f"shared: {step}", flush=True), every=500)


def coded(decoder: SharedDecoder, tile: Array) -> Coded:
    """Return a tile, fitted to `BYTES` or up to 10 % fewer where it would have more."""
    field = SharedField(decoder, most_bytes=BYTES)
    field.fit(tile, steps=FIT_STEPS)
    data = field.to_bytes()
    back = SharedField.from_bytes(data, decoder=decoder).decode()
    return Coded(pixels=tile, nbytes=len(data), psnr=psnr(tile, back))


def resized(tile: Array, edge_px: int, how: Image.Resampling) -> Array:
    """Return a tile of another size."""
    image = Image.fromarray(np.ascontiguousarray(tile.transpose(1, 2, 0))).resize((edge_px, edge_px), how)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def points(codec: str, tile: Array) -> list[tuple[int, float]]:
    """Return bytes and dB of a conventional codec at all its settings."""
    rival = CONVENTIONAL[codec]
    files = [rival.encode(tile, setting) for setting in rival.settings]
    return [(len(data), psnr(tile, rival.decode(data))) for data in files]


def best_within(codec: str, tile: Array, nbytes: int, reductions: tuple[int, ...]) -> float:
    """Return dB of a conventional codec at the setting that fills so many bytes, of the tile at its best reduction."""
    rival, found = CONVENTIONAL[codec], []
    for by in reductions:
        small = tile if by == 1 else resized(tile, TILE_PX // by, Image.Resampling.BOX)
        data = rival.within(small, nbytes)
        if data is not None:
            back = rival.decode(data)
            found.append(psnr(tile, back if by == 1 else resized(back, TILE_PX, Image.Resampling.LANCZOS)))
    return max(found, default=math.nan)


def rival_row(group: str, codec: str, tiles: list[Coded], reductions: tuple[int, ...]) -> Any:
    """Return how far shared fields are above a codec of as many bytes, over the tiles that it can make so small."""
    rivals = [best_within(codec, one.pixels, one.nbytes, reductions) for one in tiles]
    gains = [one.psnr - rival for one, rival in zip(tiles, rivals, strict=True) if math.isfinite(rival)]
    note = f"{len(gains)} of {len(tiles)} tiles that {CONVENTIONAL[codec].title} can make so small"
    how = ", reduced where that is better," if len(reductions) > 1 else ""
    name = f"shared field over {CONVENTIONAL[codec].title}{how} of as many bytes, {group}"
    return make_row(name, float(np.mean(gains)) if gains else math.nan, "dB", note=note)


def least_bytes(curve: list[tuple[int, float]], wanted: float) -> float:
    """Return the bytes that a PSNR takes, linear between settings in their logarithm; nan where none reaches it."""
    decibels, sizes = zip(*sorted((decibels, nbytes) for nbytes, decibels in curve), strict=True)
    return float(np.exp(np.interp(wanted, decibels, np.log(sizes), right=math.nan)))


def hash_points(tile: Array, wanted: float) -> list[tuple[int, float]]:
    """Return bytes and dB of single hash fields, up to the first that reaches a PSNR."""
    found = []
    for quality in HASH_QUALITIES:
        codec = FieldCodec(field="hash", quality=quality, steps=HASH_STEPS, levels=1)
        data = codec.encode(tile)
        found.append((len(data), psnr(tile, codec.decode(data))))
        if found[-1][1] >= wanted:
            break
    return found


def storage_rows(decoder: SharedDecoder, tiles: list[Coded], jpeg: list[list[tuple[int, float]]]) -> list[Any]:
    """Return what 1,000 tiles take, each rival at the PSNR of the shared field, above where it cannot be so bad."""
    own = len(decoder.to_bytes()) + COHORT * float(np.mean([one.nbytes for one in tiles]))
    rivals = {
        "JPEG 4:2:0": [least_bytes(curve, one.psnr) for one, curve in zip(tiles, jpeg, strict=True)],
        "single hash fields": [least_bytes(hash_points(one.pixels, one.psnr), one.psnr) for one in tiles[:HASH_TILES]],
    }
    note = f"decoder {len(decoder.to_bytes()):,} bytes; {np.mean([one.psnr for one in tiles]):.2f} dB on held-out tiles"
    found = []
    for name, sizes in rivals.items():
        known = [size for size in sizes if math.isfinite(size)]
        rival = COHORT * float(np.mean(known)) / 1e6 if known else math.nan
        more = f"; extrapolated from {len(known)} of {len(sizes)} tiles on which the rival has that PSNR or more"
        found.append(
            make_row(
                f"{COHORT:,} tiles as shared fields, beside {name}",
                own / 1e6,
                "MB",
                rival=(name, rival),
                note=note + more,
            )
        )
    return found


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark; none where real images are not there."""
    data = data_folder()
    if data is None:
        print("shared: made of real images that are not here: set TILESTREAM_DATA")
        return []
    return rows_of(trained(data), data)


def rows_of(decoder: SharedDecoder, data: Path) -> list[dict[str, Any]]:
    """Return the rows of a decoder."""
    found, everything, jpegs = [], [], []
    for group, tiles in held_out(data).items():
        fields = [coded(decoder, tile) for tile in tiles]
        nbytes = [one.nbytes for one in fields]
        note = f"{np.mean(nbytes):,.0f} bytes a tile ({min(nbytes):,} to {max(nbytes):,}), {len(fields)} of {TILE_PX}²"
        found.append(
            make_row(
                f"shared field, PSNR on {group}", float(np.mean([one.psnr for one in fields])), "dB",
                note=f"{note}; {TRAIN_STEPS} steps of training, {FIT_STEPS} of fitting",
            )
        )  # fmt: skip
        rivals = [rival_row(group, codec, fields, by) for codec in RIVALS for by in ((1,), REDUCTIONS)]
        found += [row for row in rivals if math.isfinite(row["value"])]  # else it cannot make any tile so small
        jpegs += [points("jpeg420", tile) for tile in tiles]
        everything += fields
    return [*found, *storage_rows(decoder, everything, jpegs)]
