"""Zarr images: OME-Zarr, GeoZarr, plain groups of levels and single arrays, of Zarr 2 and 3, local or remote.

A chunk that is not stored reads as the array's fill value, which is Zarr's own rule: writers leave out chunks that
hold nothing else, so its absence is no damage, unless the store says which files were written. Pixels are not valid
where they hold the value that an attribute calls missing (`_FillValue`, `missing_value`, `nodata`), where they are not
finite, and where a store of ours says so in `labels/valid`.

Chunks are read by `chunkread` where layout and codecs are known to the last word, by zarr-python elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.shardmap import decode_shard_map
from tilestream.errors import ConfigError, DamagedError, SourceError
from tilestream.metrics import count
from tilestream.sources.address import checked_index, default_notes
from tilestream.sources.bioformats import split_series, with_scan_facts
from tilestream.sources.chunkread import ChunkReader, Span
from tilestream.sources.extras import Extras
from tilestream.sources.files import File
from tilestream.sources.fingerprint import digest
from tilestream.sources.ngff import Multiscale, Node, checked_path, collection_of, read_node
from tilestream.sources.ownstore import check_format, field_record, level_step, shard_maps, valid_path, with_record
from tilestream.sources.recognise import inside
from tilestream.sources.samples import canonical_dims, extra_axes, guess_dims, masked
from tilestream.sources.shardindex import indexes
from tilestream.sources.zarrextras import FOLDER, zarr_extras
from tilestream.sources.zarrinfo import describe, levels_of
from tilestream.sources.zarrlayout import ChunkLayout, layout_of
from tilestream.sources.zarrlevels import ArrayForm
from tilestream.sources.zarrstored import stored_notes
from tilestream.types import Array, Block, Box, ImageInfo


@dataclass(frozen=True, kw_only=True)
class ZarrSource:
    """One image of a Zarr store."""

    root: File
    """Folder that the user named."""
    group: File
    """Folder of the image in it."""
    paths: tuple[str, ...]
    """Array of each level, relative to `group`, finest first."""
    layouts: tuple[ChunkLayout | None, ...]
    """Where the chunks of each level lie; None where zarr-python has to know."""
    dims: tuple[str, ...]
    """Axes of the arrays."""
    info: ImageInfo
    """Description of the selected 2-D image."""
    collections: Mapping[str, int] = field(default_factory=dict)
    """Sizes of the axes that choose among images of the store (`series`, `well`, `field`, `label`)."""
    written: tuple[str | None, ...] = ()
    """Map of the files that were written of each level, as the store has it."""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Paths of series that may show a label, by name; never read unless the user asks for them."""
    valid: ZarrSource | None = None
    """Mask of a store of ours: what is not 0 was measured."""

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block:
        """Return one block with all channels.

        Parameters
        ----------
        level, iy, ix : int
            Level, and row and column in its grid of blocks.
        out : ndarray, optional
            Memory of a block `(y, x, c)`: filled, and returned as the pixels, where a chunk holds whole pixels or a
            block is made of several chunks.

        Returns
        -------
        Block
            Pixels `(y, x, c)`.

        Raises
        ------
        DamagedError
            When a chunk cannot be read or decoded, or is gone although it was written.
        IndexError
            When there is no such level or block.
        """
        stored = self.info.levels[level]
        y, x = iy * stored.block.y, ix * stored.block.x
        height, width = min(stored.block.y, stored.shape.y - y), min(stored.block.x, stored.shape.x - x)
        if min(level, iy, ix) < 0 or min(height, width) <= 0:
            raise IndexError(f"level {level}, block {iy}, {ix}: there is none")
        box = Box(level=level, y=y, x=x, height=height, width=width)
        pixels = self.read_window(box, out)
        count("blocks_decoded")
        seen = None if self.valid is None else self.valid.read_window(box)[:, :, 0] != 0
        return masked(pixels, self.info.nodata, seen)

    def read_window(self, box: Box, out: Array | None = None) -> Array:
        """Return the samples of a box inside a level as they are stored.

        Parameters
        ----------
        box : Box
            What to read.
        out : ndarray, optional
            `(y, x, c)` memory of the size of the box or of a chunk that may be filled and returned.

        Returns
        -------
        ndarray
            Samples `(y, x, c)` of the box.

        Raises
        ------
        DamagedError
            When a chunk cannot be read or decoded.
        """
        reader = self._readers[box.level]
        return self._by_zarr(box) if reader is None else reader.read(box, self.info.selection, out)

    def stored_chunk(self, level: int, place: tuple[int, ...], span: Span | None = None) -> bytes | None:
        """Return the bytes of a chunk, or a span of them; None and errors as of `ChunkReader.stored`."""
        reader = self._readers[level]
        return None if reader is None else reader.stored(place, span)

    def warm(self, box: Box) -> None:
        """Fetch what a box of a level is stored in, where it lies in remote shards."""
        if self.root.is_local:
            return
        reader, whole = self._readers[box.level], self.info.levels[box.level].box
        inside_level = box.intersect(whole)
        if reader is not None and inside_level.height and inside_level.width:
            reader.warm(inside_level, self.info.selection)
            if self.valid is not None:
                self.valid.warm(box)

    @cached_property
    def _readers(self) -> tuple[ChunkReader | None, ...]:
        """Return what reads each level; made in each process."""
        written = self.written or (None,) * len(self.paths)
        return tuple(
            None
            if layout is None
            else ChunkReader(
                inside(self.group, path) if path else self.group,
                layout,
                dims=self.dims,
                fingerprint=self.info.fingerprint,
                written=None if text is None else written_files(text, layout, self.dims),
            )
            for path, layout, text in zip(self.paths, self.layouts, written, strict=True)
        )

    def _by_zarr(self, box: Box) -> Array:
        from tilestream.sources.zarrpython import read_with_zarr  # zarr takes 0.2 s to load

        bounds = {"y": slice(box.y, box.y_stop), "x": slice(box.x, box.x_stop), "c": slice(None)}
        index = tuple(bounds.get(name, self.info.selection.get(name, 0)) for name in self.dims)
        pixels = read_with_zarr(self.group, self.paths[box.level], self.info.fingerprint, index)
        left = [name for name in self.dims if name in bounds]
        if "c" not in left:
            pixels, left = pixels[..., None], [*left, "c"]
        return pixels.transpose([left.index(name) for name in ("y", "x", "c")])

    def isel(self, **index: int) -> ZarrSource:
        """Return the source with another choice on its extra axes."""
        chosen = {**self.info.selection, **checked_index(index, extra_axes(self.info.axes))}
        if any(name in self.collections for name in index):
            return _open(self.root, {name: chosen[name] for name in self.collections if name in chosen})._at(chosen)
        return self._at(chosen, index)

    def read_associated(self, name: str) -> Array:
        """Return the thumbnail `(y, x, c)` of a store that has one."""
        if name not in self.info.associated:
            raise ConfigError.of(
                f"associated image `{name}`",
                got=f"a Zarr store with {list(self.info.associated)}",
                expected="one of these",
                do="Choose one of them, or open the array itself.",
            )
        return self.read_identifying(name)

    def class_layer(self, name: str) -> ZarrSource:
        """Return the layer of a name that `info.classes` holds."""
        found = open_zarr(inside(self.group, f"labels/{name}"))
        band = next(band for band in self.info.classes if band.name == name)
        channels = (replace(found.info.channels[0], name=name),)
        return replace(found, info=replace(found.info, kind="labels", channels=channels, classes=(band,)))

    def read_extras(self) -> Extras:
        """Return what the attributes say besides the pixels."""
        node = read_node(self.group)
        extras = zarr_extras({} if node is None else node.attrs)
        if "series" not in self.collections:
            return extras
        series = self.info.selection.get("series", 0)
        return with_scan_facts(extras, self.root, pictures=self.pictures, series=series)

    def read_identifying(self, name: str) -> Array:
        """Return a picture `(y, x, c)` that may show a label; only for users who said that they want it."""
        from tilestream.sources.zarrpython import open_array

        if name in self.pictures:
            picture = open_zarr(inside(self.root, self.pictures[name]))
            return picture.read_window(picture.info.levels[0].box)
        array = open_array(self.group, f"{FOLDER}/{name}/image")
        try:
            pixels = np.asarray(array[...])
            node = read_node(inside(self.group, array.path))
            dims = canonical_dims((node.dims if node else ()) or guess_dims(pixels.shape))
        except Exception as error:  # each codec has its own errors
            raise DamagedError(f"associated image `{name}`: {type(error).__name__}: {error}") from error
        return pixels.transpose([dims.index(axis) for axis in "yxc"]) if "c" in dims else pixels[..., None]

    def _at(self, chosen: Mapping[str, int], asked: Mapping[str, int] | None = None) -> ZarrSource:
        axes = extra_axes(self.info.axes)
        index = checked_index({name: value for name, value in chosen.items() if name in axes}, axes)
        asked = index if asked is None else asked
        notes = tuple(note for note in self.info.notes if not any(note.startswith(f"axis {n} has") for n in asked))
        return replace(self, info=replace(self.info, selection=index, notes=notes))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_readers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def open_zarr(file: File) -> ZarrSource:
    """Return the first image of a Zarr store.

    Parameters
    ----------
    file : File
        Folder of the store, of one image in it, or of one array.

    Returns
    -------
    ZarrSource
        Ready to read; only metadata documents were read.

    Raises
    ------
    SourceError
        When it is no Zarr, its metadata are broken, or it holds nothing that is an image.
    """
    return _open(file, {})


def _open(root: File, chosen: Mapping[str, int]) -> ZarrSource:
    node = read_node(root)
    if node is None:
        raise SourceError.of(
            f"`{root.url}`",
            got="a folder without `zarr.json`, `.zgroup` or `.zarray`",
            expected="a Zarr store",
            do="Give the folder that holds these files.",
        )
    sizes: dict[str, int] = {}
    pictures: dict[str, str] = {}
    while (collection := collection_of(node)) is not None and not node.is_array:
        axis, paths = collection
        if axis == "series":
            paths, pictures = split_series(node.file, paths)
        if axis in sizes or not paths:
            raise SourceError.of(
                f"`{node.file.url}`", got=f"{len(paths)} images on axis {axis}", expected="at least 1", do="Check it."
            )
        sizes[axis] = len(paths)
        index = checked_index({axis: chosen.get(axis, 0)}, sizes)[axis]
        node = _child(node, paths[index])
    image = levels_of(node)
    for path in image.paths:
        checked_path(node.file, path)
    source = _source(root, node, image)
    indexes.forget_store(source.info.fingerprint, root.url)
    info = replace(
        source.info,
        axes={**source.info.axes, **sizes},
        selection={**source.info.selection, **{name: chosen.get(name, 0) for name in sizes}},
        notes=(*source.info.notes, *default_notes(sizes, chosen)),
    )
    return replace(source, info=info, collections=sizes, pictures=pictures)


def _source(root: File, node: Node, image: Multiscale) -> ZarrSource:
    """Return the source of one image, at the first index of its further axes."""
    check_format(node)
    nodes = [read_node(inside(node.file, path) if path else node.file) for path in image.paths]
    layouts = tuple(None if level is None else layout_of(level) for level in nodes)
    forms: list[ArrayForm] = [
        _by_zarr_python(node.file, path) if layout is None else layout
        for path, layout in zip(image.paths, layouts, strict=True)
    ]
    described = describe(node, image, forms, nodes)
    maps = shard_maps(node, image.paths)
    written = [
        None if layout is None or text is None else written_files(text, layout, described.dims)
        for layout, text in zip(layouts, maps, strict=True)
    ]
    notes: tuple[str, ...] = ()
    if node.file.is_local:
        folders = [Path(node.file.path) / path for path in image.paths]
        notes = stored_notes(folders, layouts, written, step=level_step(node))
    told = with_record(described.info, node, image.paths)
    info = replace(told, notes=(*told.notes, *notes))
    source = ZarrSource(
        root=root,
        group=node.file,
        paths=image.paths,
        layouts=layouts,
        dims=described.dims,
        info=info,
        written=maps if any(maps) else (),
    )
    # a store of fields has fewer arrays than its mask, and all levels of it are read elsewhere
    path = None if field_record(node) is not None else valid_path(node)
    return source if path is None else _with_validity(source, open_zarr(inside(node.file, path)))


def _by_zarr_python(folder: File, path: str) -> ArrayForm:
    from tilestream.sources.zarrpython import open_array  # zarr takes 0.2 s to load

    return open_array(folder, path)


def _with_validity(source: ZarrSource, valid: ZarrSource) -> ZarrSource:
    """Return the source with its mask, which has to lie on the same grid."""
    shapes, own = ([level.shape.yx for level in one.info.levels] for one in (valid, source))
    if shapes != own or valid.dims.count("c") * valid.info.axes.get("c", 1) > 1:
        raise SourceError.of(
            f"`{valid.group.url}`",
            got=f"a mask of levels {shapes} (y, x) with axes {dict(valid.info.axes)}",
            expected=f"one channel on the levels of the image, {own}",
            do="The store is damaged: make it again.",
        )
    fingerprint = digest(source.info.fingerprint, valid.info.fingerprint)
    return replace(source, valid=valid, info=replace(source.info, fingerprint=fingerprint, validity="mask"))


def written_files(text: str, layout: ChunkLayout, dims: Sequence[str]) -> npt.NDArray[np.bool_] | None:
    """Return the map of the files that were written of a level.

    Parameters
    ----------
    text : str
        The map as the store has it.
    layout : ChunkLayout
        Layout of the level.
    dims : sequence of str
        Names of its axes.

    Returns
    -------
    ndarray of bool or None
        `(y, x)`; None where several files lie at one place of it, so that the map does not speak of each.

    Raises
    ------
    SourceError
        When it is no map of this level.
    """
    files = dict(zip(dims, layout.files, strict=True))
    shape = files.pop("y"), files.pop("x")
    if any(size != 1 for size in files.values()):
        return None
    try:
        return decode_shard_map(text, shape)
    except DamagedError as error:
        raise SourceError.of(
            "`tilestream.shards` of the store",
            got=str(error),
            expected=f"the {shape[0]} x {shape[1]} files of a level",
            do="Check that the store is whole.",
        ) from error


def _child(node: Node, path: str) -> Node:
    child = read_node(inside(node.file, checked_path(node.file, path)))
    if child is None:
        raise SourceError.of(
            f"`{node.file.url}`", got=f"no group `{path}`", expected="the image that the metadata list", do="Copy it."
        )
    return child
