"""Opens Zarr stores: those of fields as images with every level, whatever their writer has put into arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tilestream.codecs.tilecodec import known_codecs
from tilestream.errors import SourceError
from tilestream.sources.field import FORMAT, FieldSource
from tilestream.sources.files import File
from tilestream.sources.fingerprint import digest
from tilestream.sources.ngff import Node, read_node
from tilestream.sources.ownstore import field_record, valid_path
from tilestream.sources.recognise import inside
from tilestream.sources.zarr import ZarrSource, open_zarr
from tilestream.types import Level, Shape, Source

MOST_STEP = 16
"""Most levels that a tile answers."""


def open_stored(file: File) -> Source:
    """Return the first image of a Zarr store: one of fields with all its levels, any other as it is stored.

    Parameters
    ----------
    file : File
        Folder of the store, of one image in it, or of one array.

    Returns
    -------
    Source
        Ready to read; only metadata documents were read.

    Raises
    ------
    SourceError
        When it is no Zarr, its metadata are broken, it holds nothing that is an image, or it is a store of fields of
        a codec that is not known here.
    """
    stored = open_zarr(file)
    first = stored.layouts[0]
    if first is None or not first.codec.neural or stored.collections:
        return stored
    node = read_node(stored.group)
    record = None if node is None else field_record(node)
    return stored if node is None or record is None else _opened(stored, node, record)


def _opened(stored: ZarrSource, node: Node, record: Mapping[str, Any]) -> FieldSource:
    _require_codec(stored, record)
    step, levels = _levels(stored, record)
    path = valid_path(node)
    valid = None if path is None else open_zarr(inside(stored.group, path))
    shapes = [level.shape for level in levels]
    if valid is not None and [level.shape for level in valid.info.levels] not in _masks(shapes, stored):
        raise _broken(stored, f"a mask of levels {[one.shape.yx for one in valid.info.levels]}", f"that of {shapes}")
    info = replace(stored.info, levels=levels, classes=(), format=FORMAT)
    if valid is not None:
        info = replace(info, fingerprint=digest(info.fingerprint, valid.info.fingerprint), validity="mask")
    return FieldSource(stored=stored, info=info, step=step, valid=valid)


def _levels(stored: ZarrSource, record: Mapping[str, Any]) -> tuple[int, tuple[Level, ...]]:
    """Return how many levels a tile answers, and every level of the image."""
    step, total = record.get("level_step"), record.get("levels")
    arrays = stored.info.levels
    if type(step) is not int or type(total) is not int or not 1 <= step <= MOST_STEP:
        raise _broken(stored, f"level_step {step} and levels {total}", f"whole numbers, the first of 1 to {MOST_STEP}")
    if stored.dims != ("c", "y", "x"):
        raise _broken(stored, f"arrays on axes {', '.join(stored.dims)}", "c, y, x")
    if not step * (len(arrays) - 1) < total <= step * len(arrays):
        raise _broken(stored, f"{total} levels in {len(arrays)} arrays", f"an array for each {step}")
    whole, levels = stored.info.shape, []
    for index in range(total):
        array, deeper = divmod(index, step)
        layout = stored.layouts[array]
        edge = 0 if layout is None or not layout.codec.neural else layout.chunks[1]
        shape = _halved(whole, index)
        chunks = (len(stored.info.channels), edge, edge)
        good = layout is not None and layout.chunks == chunks and edge and edge % 2 ** (step - 1) == 0
        if not good or arrays[array].shape != _halved(whole, array * step):
            raise _broken(
                stored,
                f"array `{stored.paths[array]}` of {arrays[array].shape.yx} in other chunks or of another size",
                f"{_halved(whole, array * step).yx} in square tiles that halve {step - 1} times",
            )
        block = Shape(y=min(edge >> deeper, shape.y), x=min(edge >> deeper, shape.x))
        levels.append(Level(index=index, shape=shape, block=block, scale_yx=(2.0**index, 2.0**index)))
    return step, tuple(levels)


def _halved(shape: Shape, times: int) -> Shape:
    return Shape(y=-(-shape.y // 2**times), x=-(-shape.x // 2**times))


def _require_codec(stored: ZarrSource, record: Mapping[str, Any]) -> None:
    """Raise unless the codec of a store is known; it is imported when the first tile is read."""
    codec, known = record.get("codec"), known_codecs()
    if codec not in known:
        raise SourceError.of(
            f"`{stored.root.url}`",
            got=f"tiles of the codec `{codec}`, written by tilestream {record.get('version', 'unknown')}",
            expected=f"one of {', '.join(known)}",
            do="Install the version of tilestream, or the package, that wrote it.",
        )


def _broken(stored: ZarrSource, got: str, expected: str) -> SourceError:
    return SourceError.of(f"`{stored.root.url}`", got=got, expected=expected, do="The store is damaged: make it again.")


def _masks(shapes: Sequence[Shape], stored: ZarrSource) -> list[list[Shape]]:
    """Return the sizes of the levels that a mask may have: all, or where level 0 is the one array that of level 0."""
    return [list(shapes), *([list(shapes[:1])] if len(stored.info.levels) == 1 else [])]
