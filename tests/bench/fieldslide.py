"""A slide whose nuclei-rich parts are known: real labelled tiles on tissue that was made by code.

Tissue, glass, and at known places pieces of ten labelled tiles, each copy turned or mirrored. The tile of many nuclei
is cut in two: its left part, placed once, is what an example box may lie on; its right part, placed eight times, is
what has to be found. No pixel is on both sides.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from tilestream.testing.noise import value_noise
from tilestream.testing.slide import aperio_description, reduce_mean
from tilestream.testing.tissue import GLASS, Tissue
from tilestream.types import Box, Shape

REPO = Path(__file__).resolve().parents[2]
TILE_PX = 256
"""Edge of the stored tiles, which are those of plans: what is chosen is what is decoded."""
FACTOR = 4
"""Ratio of one level to the next."""
CELL_PX = 16
"""Edge of a cell of the map of kinds."""
MPP = 0.5
KINDS = ("glass", "tissue", "example", "nuclei", "medium", "few", "fewest", "blank", "pen", "pen on tissue")
"""What a place holds, by number in `FieldSlide.kinds`. `nuclei` is to be found, `glass`, `blank` and `pen` never."""
_TILES = (
    ("medium", "medium-nuclei-score-level1.png", 4),
    ("few", "low-nuclei-score-level0.png", 4),
    ("fewest", "very-low-nuclei-score-level0.png", 4),
    ("blank", "no-tissue.png", 2),
    ("blank", "no-tissue2.png", 2),
    ("blank", "almost-white-1.png", 2),
    ("pen", "no-tissue-red-pen.png", 6),
    ("pen on tissue", "tcga-red-pen.png", 2),
    ("pen on tissue", "diagnostic-slide-thumb-rgb.png", 2),
)
"""Kind, file and number of copies."""
_COPIES = 8
"""Of the tile of many nuclei: one a turn and mirror image."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class FieldSlide:
    """A slide and what lies where."""

    path: Path
    """Aperio-like pyramid: JPEG tiles of 256 px, levels at 1, 1/4, 1/16, …"""
    kinds: npt.NDArray[np.uint8]
    """`(y, x)` in cells of 16 px of level 0: number of the kind in `KINDS`."""
    example: Box
    """A box of level 0 inside the one piece of many nuclei that need not be found."""
    tile_bytes: npt.NDArray[np.int64]
    """`(y, x)` compressed bytes of each tile of level 0."""
    bytes: int
    """Compressed bytes of all tiles of all levels."""

    def shares(self, kind: str) -> npt.NDArray[np.float64]:
        """Return how much of each tile of level 0 is of a kind, `(y, x)`."""
        edge = TILE_PX // CELL_PX
        rows, columns = (size // edge for size in self.kinds.shape)
        cells = (self.kinds == KINDS.index(kind)).reshape(rows, edge, columns, edge)
        return cells.mean(axis=(1, 3))


def labelled_tiles() -> Path | None:
    """Return the folder of labelled tiles; None where it is not there."""
    data = Path(os.environ.get("TILESTREAM_DATA") or REPO.parent / "shared" / "data")
    folder = data / "slides" / "labelled-tiles"
    return folder if folder.is_dir() else None


def write_field_slide(
    path: Path, folder: Path, *, edge_px: int = 16_384, seed: int = 0, most: int = _COPIES
) -> FieldSlide:
    """Return the slide that was written.

    Parameters
    ----------
    path : Path
        File to write.
    folder : Path
        Of the labelled tiles.
    edge_px : int
        Of level 0; a multiple of 1,024.
    seed : int
        Another seed, another section and other places.
    most : int
        Most copies of a tile, for small slides.

    Returns
    -------
    FieldSlide
        The same for the same arguments.
    """
    placed, kinds, example = _arrange(folder, edge_px, seed, most)
    coarse = np.zeros((edge_px // FACTOR, edge_px // FACTOR, 3), np.uint8)
    shape = Shape(y=edge_px, x=edge_px)
    with tifffile.TiffWriter(path) as tiff:
        _write(tiff, _tiles(_strips(placed, kinds, seed, coarse)), shape, aperio_description(shape, mpp=MPP))
        while max(coarse.shape[:2]) >= TILE_PX:
            size = Shape(y=coarse.shape[0], x=coarse.shape[1])
            _write(tiff, _tiles([coarse]), size, aperio_description(shape, mpp=MPP, reduced=size))
            coarse = reduce_mean(coarse, FACTOR)
    with tifffile.TiffFile(path) as tiff:
        counts = [np.asarray(page.databytecounts, np.int64) for page in tiff.pages]  # type: ignore[union-attr]
    tile_bytes = counts[0].reshape(edge_px // TILE_PX, -1)
    return FieldSlide(
        path=path, kinds=kinds, example=example, tile_bytes=tile_bytes, bytes=sum(int(c.sum()) for c in counts)
    )


@lru_cache(maxsize=16)
def _read(path: Path) -> Pixels:
    pixels: Pixels = imagecodecs.imread(path)[..., :3]
    return pixels


def _arrange(
    folder: Path, edge_px: int, seed: int, most: int
) -> tuple[list[tuple[int, int, Pixels]], npt.NDArray[np.uint8], Box]:
    """Return pieces with their places, the map of kinds, and the example box."""
    cells = edge_px // CELL_PX
    inside = _section(edge_px, seed)
    kinds = inside.astype(np.uint8)
    rng = np.random.default_rng(seed)
    plots = rng.permutation([(y, x) for y in range(0, edge_px, 1024) for x in range(0, edge_px, 1024)])
    filled = [inside[y // CELL_PX : y // CELL_PX + 64, x // CELL_PX : x // CELL_PX + 64].mean() for y, x in plots]
    on = iter([plot for plot, share in zip(plots, filled, strict=True) if share == 1])
    off = iter([plot for plot, share in zip(plots, filled, strict=True) if share == 0])
    many = _read(folder / "high-nuclei-score-level0.png")
    pieces = [("example", many[:, : many.shape[1] // 2])]
    pieces += [("nuclei", _turned(many[:, many.shape[1] // 2 :], turn)) for turn in range(min(_COPIES, most))]
    for kind, name, copies in _TILES:
        piece = _stroke(_read(folder / name)) if kind == "pen" else _read(folder / name)
        pieces += [(kind, _turned(piece, turn)) for turn in range(min(copies, most))]
    placed, example = [], Box(y=0, x=0, height=0, width=0)
    for kind, piece in pieces:
        plot = next(off if kind in ("blank", "pen") else on, None)
        if plot is None:
            raise ValueError(f"a slide of {edge_px} px has no room for {len(pieces)} pieces: make it larger")
        # a whole number of cells, anywhere in its plot: on no grid of tiles
        height, width = (side // CELL_PX * CELL_PX for side in piece.shape[:2])
        room_yx = ((1024 - height) // CELL_PX + 1, (1024 - width) // CELL_PX + 1)
        y, x = (int(corner + CELL_PX * rng.integers(room)) for corner, room in zip(plot, room_yx, strict=True))
        placed.append((y, x, piece[:height, :width]))
        kinds[y // CELL_PX : (y + height) // CELL_PX, x // CELL_PX : (x + width) // CELL_PX] = KINDS.index(kind)
        if kind == "example":
            example = Box(y=y, x=x, height=height, width=width)
    assert kinds.shape == (cells, cells)
    return placed, kinds, example


def _turned(pixels: Pixels, turn: int) -> Pixels:
    """Return one of the eight turns and mirror images of a square."""
    turned = np.rot90(pixels, turn % 4)
    return turned[:, ::-1] if turn >= 4 else turned


def _stroke(ink: Pixels) -> Pixels:
    """Return a piece of a pen's stroke at twice its size, half a millimetre, as strokes are; it is out of focus."""
    return ink.repeat(2, axis=0).repeat(2, axis=1)


def _section(edge_px: int, seed: int) -> npt.NDArray[np.bool_]:
    """Return where tissue lies, in cells: one ragged piece on glass."""
    cells = edge_px // CELL_PX
    place = (np.arange(cells, dtype=np.float32) + 0.5) / cells * 2 - 1
    distance = np.hypot(place[:, None] / 0.95, place[None, :] / 0.85)
    ragged = value_noise(Box(y=0, x=0, height=cells, width=cells), cell_px=cells / 3, seed=seed + 11, octaves=5)
    return distance + 0.8 * (ragged - 0.5) < 0.92


def _strips(
    placed: list[tuple[int, int, Pixels]], kinds: npt.NDArray[np.uint8], seed: int, coarse: Pixels
) -> Iterator[Pixels]:
    """Yield rows of tiles of level 0 and fill `coarse` with their means."""
    edge_px = len(kinds) * CELL_PX
    whole = Tissue(shape=Shape(y=8 * edge_px, x=8 * edge_px), seed=seed, mpp=MPP)
    block = edge_px // 8
    tissue = whole.paint(Box(y=4 * edge_px, x=4 * edge_px, height=block, width=block))
    # mirrored, so that copies meet without a seam
    wide = np.pad(tissue, ((0, 0), (0, max(0, edge_px - block)), (0, 0)), mode="symmetric")
    grain = np.random.default_rng(seed + 1).integers(-2, 3, (TILE_PX, edge_px, 1), np.int16)
    glass = (GLASS + grain).clip(0, 255).astype(np.uint8)
    for y in range(0, edge_px, TILE_PX):
        at = np.arange(y, y + TILE_PX) % (2 * block)
        rows = wide[np.where(at < block, at, 2 * block - 1 - at)]
        is_glass = kinds[y // CELL_PX : (y + TILE_PX) // CELL_PX] == 0
        strip = np.where(is_glass.repeat(CELL_PX, 0).repeat(CELL_PX, 1)[..., None], glass, rows)
        for top, left, piece in placed:
            first, last = max(top, y), min(top + len(piece), y + TILE_PX)
            if first < last:
                strip[first - y : last - y, left : left + piece.shape[1]] = piece[first - top : last - top]
        coarse[y // FACTOR : (y + TILE_PX) // FACTOR] = reduce_mean(strip, FACTOR)
        yield strip


def _tiles(strips: Any) -> Iterator[Pixels]:
    for strip in strips:
        for y in range(0, len(strip), TILE_PX):
            for x in range(0, strip.shape[1], TILE_PX):
                tile = strip[y : y + TILE_PX, x : x + TILE_PX]
                missing = ((0, TILE_PX - tile.shape[0]), (0, TILE_PX - tile.shape[1]), (0, 0))
                yield np.pad(tile, missing, mode="edge") if any(part[1] for part in missing) else tile


def _write(tiff: tifffile.TiffWriter, tiles: Iterator[Pixels], shape: Shape, text: str) -> None:
    tiff.write(
        tiles, shape=(shape.y, shape.x, 3), dtype=np.uint8, photometric="rgb", tile=(TILE_PX, TILE_PX),
        compression="jpeg", compressionargs={"level": 90}, description=text, metadata=None, subfiletype=0,
    )  # fmt: skip
