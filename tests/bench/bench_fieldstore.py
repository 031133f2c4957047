"""Reading stores of fields at random: a tile cold and warm, and each level, beside JPEG and zstd stores of the image.

Cold means that the network has to be read and unpacked; its file is in the memory of the system, as those of the others
are. Decoded blocks are not kept. One thread each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

import tilestream as ts
from tests.bench.rd_pictures import CROPS, data_folder, read_crop
from tests.bench.table import at_least, make_row, rates
from tests.sources.madefields import save_fields
from tilestream.cache.fields import forget_fields
from tilestream.codecs.tilecodec import FieldCodec
from tilestream.kernels.mip import mip

STEPS = 100
"""A fit of this length has the size and the cost of a long one, not its quality, which is not looked at here."""
REPEATS = 8
"""Tiles along an edge: one crop over and over, so that one fit is enough; each is a file of its own all the same."""
LEVEL_BAR = 0.25
"""Least rate in pixels of a coarser level of an unpacked tile, as a share of its finest: cost goes by pixels, but for
what one call costs."""
SEED = 3


@dataclass(frozen=True, kw_only=True)
class OneFit:
    """A codec that encodes equal tiles once."""

    codec: FieldCodec = field(default_factory=lambda: FieldCodec(steps=STEPS))
    known: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.codec.name

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.codec.settings

    def encode(self, pixels: Any, valid: Any = None) -> bytes:
        key = pixels.tobytes()
        if key not in self.known:
            self.known[key] = self.codec.encode(pixels, valid)
        return self.known[key]

    def decode(self, data: bytes, **asked: Any) -> Any:
        return self.codec.decode(data, **asked)


def tissue(edge_px: int) -> Any:
    """Return a crop `(c, y, x)` of a slide, or noise of a similar spectrum where there are no real images."""
    data = data_folder()
    if data is not None:
        return read_crop(next(crop for crop in CROPS if crop.name == "cmu-a"), data).pixels[:, :edge_px, :edge_px]
    noise = np.random.default_rng(SEED).normal(0, 60, (3, 2 * edge_px, 2 * edge_px)).astype(np.float32)
    return np.clip(mip(noise, levels=1, threads=1)[0] + 150, 0, 255).astype(np.uint8)


def save_field_store(path: Path, *, tile_px: int = 512, repeats: int = REPEATS, steps: int = STEPS) -> Any:
    """Write a crop over and over as a store of fields, and return the image `(c, y, x)`."""
    image = np.tile(tissue(tile_px), (1, repeats, repeats))
    save_fields(path, image, tile_px=tile_px, codec=OneFit(codec=FieldCodec(steps=steps)))
    return image


def save_stores(folder: Path, *, tile_px: int = 512, repeats: int = REPEATS, steps: int = STEPS) -> dict[str, Path]:
    """Write one image as a store of fields, of JPEG tiles and of zstd chunks."""
    image = save_field_store(folder / "fields.zarr", tile_px=tile_px, repeats=repeats, steps=steps)
    slide, tile = folder / "a.tif", (tile_px, tile_px)
    jpeg = {"compression": "jpeg", "compressionargs": {"level": 80}, "photometric": "ycbcr", "subsampling": (2, 2)}
    tifffile.imwrite(slide, image.transpose(1, 2, 0), tile=tile, **jpeg)
    for name, profile in (("jpeg", "archive"), ("zstd", "portable")):
        ts.build_pyramid(str(slide), str(folder / f"{name}.zarr"), profile=profile)
    return {name: folder / f"{name}.zarr" for name in ("fields", "jpeg", "zstd")}


def tile_rows(stores: Mapping[str, Path], *, tile_px: int, rounds: int = 3) -> list[dict[str, Any]]:
    """Return how many random tiles of level 0 a second are read."""
    pyramids = {name: ts.open_pyramid(path, cache_bytes=0) for name, path in stores.items()}
    blocks = pyramids["fields"].levels[0].blocks
    places = np.random.default_rng(SEED).permutation(blocks.area)

    def reader(name: str, *, is_cold: bool = False) -> Callable[[], float]:
        at = iter(())

        def read() -> float:
            nonlocal at
            number = next(at, None)
            if number is None:
                at = iter(places.tolist())
                number = next(at)
            if is_cold:
                forget_fields()
            y, x = divmod(number, blocks.x)
            pyramids[name].read(ts.Box(level=0, y=y * tile_px, x=x * tile_px, height=tile_px, width=tile_px))
            return 1.0

        return read

    def again() -> float:  # one tile: all of them may not fit into the cache of unpacked fields
        pyramids["fields"].read(ts.Box(level=0, y=0, x=0, height=tile_px, width=tile_px))
        return 1.0

    contestants = [reader("fields", is_cold=True), again, reader("jpeg"), reader("zstd")]
    for contestant in contestants:
        contestant()
    cold_rate, warm_rate, jpeg_rate, zstd_rate = rates(contestants, rounds=rounds)
    return [
        make_row(
            f"random {tile_px} px tile of a store of hash fields, {state}",
            rate,
            "tiles/s",
            rival=("JPEG archive, the same tiles", jpeg_rate),
            note=f"{1e3 / rate:.1f} ms; JPEG {1e3 / jpeg_rate:.1f} ms, zstd (256 px chunks) {1e3 / zstd_rate:.1f} ms",
        )
        for state, rate in (("cold", cold_rate), ("network unpacked", warm_rate))
    ]


def level_rows(path: Path, *, rounds: int = 3, bar: float | None = LEVEL_BAR) -> list[dict[str, Any]]:
    """Return the rate in pixels at which an unpacked tile gives each coarser level, beside that of its finest."""
    source = ts.open_pyramid(path, cache_bytes=0).source
    levels = [level for level in source.info.levels if level.index < 4]

    def reader(level: Any) -> Callable[[], float]:
        def read() -> float:
            source.read_block(level.index, 0, 0)
            return level.block.area / 1e6

        return read

    contestants = [reader(level) for level in levels]
    for contestant in contestants:
        contestant()
    finest, *coarser = rates(contestants, rounds=rounds)
    return [
        make_row(
            f"level {level.index} of an unpacked tile, straight",
            rate,
            "Mpx/s",
            rival=("level 0 of it", finest),
            bar=None if bar is None else at_least(bar),
            note=f"{level.block.y}² px of the level",
        )
        for level, rate in zip(levels[1:], coarser, strict=True)
    ]


def overview_row(stores: Mapping[str, Path], *, level: int = 4, rounds: int = 3) -> dict[str, Any]:
    """Return how often a second a whole coarse level is read, cold, beside the levels that a zstd store keeps."""

    def reader(name: str) -> Callable[[], float]:
        pyramid = ts.open_pyramid(stores[name], cache_bytes=0)

        def read() -> float:
            forget_fields()
            pyramid.read(pyramid.levels[level].box)
            return 1.0

        return read

    contestants = [reader("fields"), reader("zstd")]
    for contestant in contestants:
        contestant()
    ours, theirs = rates(contestants, rounds=rounds)
    shape = ts.open_pyramid(stores["fields"]).levels[level].shape
    return make_row(
        f"all of level {level} ({shape.x} x {shape.y} px) of a store of hash fields, cold",
        ours,
        "reads/s",
        rival=("zstd store, the same level", theirs),
        note=f"{1e3 / ours:.1f} ms, the network included; zstd {1e3 / theirs:.1f} ms",
    )


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        stores = save_stores(Path(folder))
        return [
            *tile_rows(stores, tile_px=512),
            overview_row(stores),
            overview_row(stores, level=3),
            *level_rows(stores["fields"]),
        ]
