"""JPEG tiles of a source that go into a file as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, product

from tilestream.errors import ConfigError
from tilestream.pipelines.level_plan import LevelPlan
from tilestream.pipelines.level_tiles import MadeTiles, SquareReader, TileEncoder
from tilestream.pyramid.pyramid import Pyramid
from tilestream.sinks.jpegform import JpegForm, jpeg_form
from tilestream.sinks.tiffpyramid import EncodedTile
from tilestream.sources.encoded import encoded_level, read_encoded
from tilestream.types import Cell, Encoded, Shape, Source

_JPEG = "imagecodecs_jpeg"
_CHECKSUM_BYTES = 4
_TRIED = 64
"""Tiles that are looked at to find one that is stored and whole."""


@dataclass(frozen=True, kw_only=True)
class StoredTiles:
    """Tiles of a source that can be copied into a TIFF."""

    source: Source
    """Gives them."""
    form: JpegForm
    """What nearly all of them have in common; others are coded anew."""
    levels: frozenset[int]
    """Levels of the source whose tiles are of that form and size."""

    @property
    def tile_px(self) -> int:
        """Return the edge of a tile."""
        return self.form.width


def find_stored_tiles(pyramid: Pyramid) -> StoredTiles:
    """Return the tiles of a pyramid that can be copied.

    Parameters
    ----------
    pyramid : Pyramid
        The image.

    Returns
    -------
    StoredTiles
        Those of level 0, and of other levels that are stored in the same way.

    Raises
    ------
    ConfigError
        When the tiles of level 0 cannot be copied; the message says why.
    """
    source = pyramid.source
    forms = {level.index: _form_of(source, level.index) for level in pyramid.levels}
    first = forms[0]
    if isinstance(first, str):
        raise ConfigError.of(
            "codec `copy`", got=first, expected="square tiles of baseline JPEG", do="Choose jpeg, or one without loss."
        )
    return StoredTiles(source=source, form=first, levels=frozenset(n for n, form in forms.items() if form == first))


def _form_of(source: Source, level: int) -> JpegForm | str:
    """Return the form of the tiles of a level, or why they cannot be copied."""
    spec = encoded_level(source, level)
    if spec.reason:
        return spec.reason
    names = [codec["name"] for codec in spec.codecs]
    channels, height, width = spec.chunk_shape
    if _JPEG not in names or names[-1] != "crc32c":
        return f"tiles coded by {', '.join(names)}"
    if height != width or width % 16:
        return f"tiles of {height} x {width} px"
    blocks = source.info.levels[level].blocks
    middle = blocks.y // 2, blocks.x // 2
    for iy, ix in islice([middle, *islice(product(range(blocks.y), range(blocks.x)), _TRIED)], _TRIED):
        (data,) = read_encoded(source, level, [(0, iy, ix)])
        if isinstance(data, bytes):
            form = jpeg_form(data)
            if form is None or (form.components, form.height, form.width) != (channels, height, width):
                return "JPEG tiles that are progressive, lossless, or not of the size that is stated"
            return form
    return "no stored tile where tiles were looked for"


@dataclass(frozen=True, kw_only=True)
class TileCopier:
    """Gives the tiles of squares as the source stores them; safe under threads."""

    stored: StoredTiles
    """What is copied."""
    plan: LevelPlan
    """Levels of the file."""
    planes: int
    """Planes of the file, each with tiles of its own."""
    read: SquareReader
    """Reads the pixels of tiles that are not stored, damaged, or of another form."""
    encode: TileEncoder
    """Codes these."""

    def __call__(self, *, level: int, y: int, x: int, shape: Shape) -> MadeTiles | None:
        """Return the tiles of a square, None where its level is not copied.

        Parameters
        ----------
        level : int
            Level of the file that the source stores.
        y, x : int
            First row and column, at the corner of a tile.
        shape : Shape
            Rows and columns.

        Returns
        -------
        MadeTiles or None
            All tiles of the square.
        """
        stored_level, tile_px = self.plan.stored[level], self.stored.tile_px
        if stored_level not in self.stored.levels:
            return None
        rows = range(y // tile_px, -(-(y + shape.y) // tile_px))
        places = list(product(rows, range(x // tile_px, -(-(x + shape.x) // tile_px))))
        cells: list[Cell] = [(plane, iy, ix) for iy, ix in places for plane in range(self.planes)]
        found = read_encoded(self.stored.source, stored_level, cells)
        tiles, damage, is_measured, recoded = list[EncodedTile](), list[str](), True, 0
        for number, (iy, ix) in enumerate(places):
            streams = found[number * self.planes : (number + 1) * self.planes]
            copies = [self._copied(stream) for stream in streams]
            if all(copies):
                for plane, data in enumerate(copies):
                    tiles.append(EncodedTile(plane=plane, level=level, iy=iy, ix=ix, data=data or b""))
                continue
            square = self.read(level=level, y=iy * tile_px, x=ix * tile_px, shape=self._inside(level, iy, ix))
            tiles += self.encode(square.pixels, square.valid, level=level, iy=iy, ix=ix)
            damage += square.damage
            is_measured &= square.valid is None
            recoded += all(isinstance(stream, bytes) for stream in streams)
        return MadeTiles(tiles=tiles, damage=tuple(damage), is_measured=is_measured, recoded=recoded)

    def _copied(self, stream: Encoded) -> bytes | None:
        """Return the bytes of a tile that the file can hold."""
        if not isinstance(stream, bytes) or jpeg_form(stream) != self.stored.form:
            return None
        return stream[:-_CHECKSUM_BYTES]

    def _inside(self, level: int, iy: int, ix: int) -> Shape:
        whole, tile_px = self.plan.shapes[level], self.stored.tile_px
        return Shape(y=min(tile_px, whole.y - iy * tile_px), x=min(tile_px, whole.x - ix * tile_px))
