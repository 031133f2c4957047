"""JPEG tiles of a source that go into a file as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, product

from tilestream.codecs.imagechunks import CHECKSUM_BYTES, JPEG
from tilestream.errors import ConfigError
from tilestream.pipelines.level_plan import LevelPlan
from tilestream.pipelines.level_tiles import MadeTiles, SquareReader
from tilestream.pyramid.pyramid import Pyramid
from tilestream.sinks.jpegform import JpegForm, jpeg_form
from tilestream.sinks.tiffpyramid import EncodedTile, TiffPyramid
from tilestream.sources.encoded import encoded_level
from tilestream.sources.zarrcopy import with_chunks
from tilestream.types import Cell, Encoded, EncodedSource, Level, Shape

_TRIED = 64
"""Tiles that are looked at to find one that is stored and whole."""


@dataclass(frozen=True, kw_only=True)
class StoredTiles:
    """Tiles of a source that can be copied into a TIFF."""

    source: EncodedSource
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
    source = with_chunks(pyramid.source)
    if not isinstance(source, EncodedSource):
        raise ConfigError.of(
            "codec `copy`",
            got=encoded_level(source, 0).reason,
            expected="square tiles of baseline JPEG",
            do="Choose jpeg, or one without loss.",
        )
    forms = {level.index: _form_of(source, level) for level in pyramid.levels}
    first = forms[0]
    if isinstance(first, str):
        raise ConfigError.of(
            "codec `copy`", got=first, expected="square tiles of baseline JPEG", do="Choose jpeg, or one without loss."
        )
    return StoredTiles(source=source, form=first, levels=frozenset(n for n, form in forms.items() if form == first))


def _form_of(source: EncodedSource, level: Level) -> JpegForm | str:
    """Return the form of the tiles of a level, or why they cannot be copied."""
    spec = source.encoded(level.index)
    if spec.reason:
        return spec.reason
    names = [codec["name"] for codec in spec.codecs]
    channels, height, width = spec.chunk_shape
    if JPEG not in names or names[-1] != "crc32c":
        return f"tiles coded by {', '.join(names)}"
    if height != width or width % 16:
        return f"tiles of {height} x {width} px"
    blocks = level.blocks
    middle = blocks.y // 2, blocks.x // 2
    for iy, ix in islice([middle, *islice(product(range(blocks.y), range(blocks.x)), _TRIED)], _TRIED):
        (data,) = source.read_encoded(level.index, [(0, iy, ix)])
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
    tiff: TiffPyramid
    """The file; codes the tiles that cannot be copied."""
    read: SquareReader
    """Reads the pixels of these."""
    is_measured: bool
    """Whether nothing can say that pixels were not measured, so that pixels need not be looked at."""

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
        planes = len(self.tiff.planes)
        cells: list[Cell] = [(plane, iy, ix) for iy, ix in places for plane in range(planes)]
        found = self.stored.source.read_encoded(stored_level, cells)
        made = [
            self._tile(level, iy, ix, found[number * planes : (number + 1) * planes])
            for number, (iy, ix) in enumerate(places)
        ]
        return MadeTiles(
            tiles=[tile for each in made for tile in each.tiles],
            damage=tuple(reason for each in made for reason in each.damage),
            is_measured=all(each.is_measured for each in made),
            recoded=sum(each.recoded for each in made),
        )

    def _tile(self, level: int, iy: int, ix: int, streams: list[Encoded]) -> MadeTiles:
        """Return one place of the file: copied as it is, with a mask where one is needed, or coded anew."""
        copies = [data for stream in streams if (data := self._copied(stream)) is not None]
        is_copied, where = len(copies) == len(streams), {"level": level, "iy": iy, "ix": ix}
        if is_copied and self.is_measured:
            return MadeTiles(tiles=self._put(copies, None, **where))
        tile_px = self.stored.tile_px
        square = self.read(level=level, y=iy * tile_px, x=ix * tile_px, shape=self._inside(level, iy, ix))
        if is_copied and (square.valid is None or self.tiff.masks):
            mask = self.tiff.encode_validity(square.valid)
            return MadeTiles(tiles=self._put(copies, mask, **where), is_measured=square.valid is None)
        return MadeTiles(
            tiles=list(self.tiff.encode(square.pixels, square.valid, **where)),
            damage=square.damage,
            is_measured=square.valid is None,
            recoded=int(all(isinstance(stream, bytes) for stream in streams)),
        )

    @staticmethod
    def _put(copies: list[bytes], mask: bytes | None, *, level: int, iy: int, ix: int) -> list[EncodedTile]:
        return [
            EncodedTile(plane=plane, level=level, iy=iy, ix=ix, data=data, mask=mask)
            for plane, data in enumerate(copies)
        ]

    def _copied(self, stream: Encoded) -> bytes | None:
        """Return the bytes of a tile that the file can hold; one that is damaged is left to be read."""
        if not isinstance(stream, bytes) or jpeg_form(stream) != self.stored.form:
            return None
        return stream[:-CHECKSUM_BYTES]

    def _inside(self, level: int, iy: int, ix: int) -> Shape:
        whole, tile_px = self.plan.shapes[level], self.stored.tile_px
        return Shape(y=min(tile_px, whole.y - iy * tile_px), x=min(tile_px, whole.x - ix * tile_px))
