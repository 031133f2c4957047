"""Zarr images: OME-Zarr, GeoZarr, plain groups of levels and single arrays, of Zarr 2 and 3, local or remote.

A chunk that is not stored reads as the array's fill value, which is Zarr's own rule: writers leave out chunks that
hold nothing else, so its absence is no damage. Pixels are not valid where they hold the value that an attribute calls
missing (`_FillValue`, `missing_value`, `nodata`) or are not finite.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore
from zict import LRU

from tilestream.errors import ConfigError, DamagedError, SourceError
from tilestream.metrics import count, timed
from tilestream.sources.address import checked_index, default_notes
from tilestream.sources.extras import Extras
from tilestream.sources.files import File
from tilestream.sources.ngff import Node, checked_path, collection_of, read_node
from tilestream.sources.recognise import LFS_MAGIC, inside
from tilestream.sources.samples import canonical_dims, extra_axes, guess_dims, masked
from tilestream.sources.zarrextras import FOLDER, zarr_extras
from tilestream.sources.zarrinfo import describe, levels_of
from tilestream.types import Array, Block, ImageInfo

OPEN_ARRAYS = 256
"""Zarr arrays whose metadata stay parsed in one process."""


class _MeteredStore(WrapperStore[Any]):
    """A store that counts the bytes it gives, for the figures of the task that asked."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        buffer = await super().get(key, prototype, byte_range)
        if buffer is not None:
            count("bytes_read", len(buffer))
        return buffer


class _Arrays:
    """Open arrays of this process by fingerprint and path; a forked child opens its own."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: LRU[tuple[int, str, str], zarr.Array[Any]] = LRU(OPEN_ARRAYS, {})

    def get(self, root: File, path: str, fingerprint: str) -> zarr.Array[Any]:
        key = (os.getpid(), fingerprint, f"{root.url}/{path}")
        with self._lock:
            if key in self._open:
                return self._open[key]
        array = open_array(root, path)
        with self._lock:
            self._open[key] = array
        return array

    def renew(self) -> None:
        self.__init__()  # type: ignore[misc]  # the parent may have held the lock when it forked


_arrays = _Arrays()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_arrays.renew)


def open_array(root: File, path: str) -> zarr.Array[Any]:
    """Return one array of a store, opened for reading.

    Parameters
    ----------
    root : File
        Folder of the store.
    path : str
        Path of the array in it; empty for the root itself.

    Returns
    -------
    zarr.Array
        The array; nothing but its metadata has been read.

    Raises
    ------
    SourceError
        When it is missing or zarr cannot make sense of its metadata.
    """
    try:
        if root.is_local:
            store: Any = LocalStore(root.path, read_only=True)
        else:
            store = FsspecStore.from_url(root.url, storage_options=dict(root.options), read_only=True)
        return zarr.open_array(_MeteredStore(store), path=path, mode="r")
    except Exception as error:  # codecs and stores raise what they like
        raise SourceError.of(
            f"`{root.url}`",
            got=f"array `{path or '/'}`: {type(error).__name__}: {error}",
            expected="a Zarr array whose metadata and codecs are known",
            do="Check that the store is complete and its codecs are installed.",
        ) from error


@dataclass(frozen=True, kw_only=True)
class ZarrSource:
    """One image of a Zarr store."""

    root: File
    """Folder that the user named."""
    group: File
    """Folder of the image in it."""
    paths: tuple[str, ...]
    """Array of each level, relative to `group`, finest first."""
    dims: tuple[str, ...]
    """Axes of the arrays."""
    info: ImageInfo
    """Description of the selected 2-D image."""
    collections: Mapping[str, int] = field(default_factory=dict)
    """Sizes of the axes that choose among images of the store (`series`, `well`, `field`, `label`)."""

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block:
        """Return one block with all channels.

        Parameters
        ----------
        level, iy, ix : int
            Level, and row and column in its grid of blocks.
        out : ndarray, optional
            Not used: what is decoded here does not fit into a caller's buffer as it is.

        Returns
        -------
        Block
            Pixels `(y, x, c)`.

        Raises
        ------
        DamagedError
            When a chunk cannot be read or decoded.
        """
        stored = self.info.levels[level]
        bounds = {
            "y": slice(iy * stored.block.y, min((iy + 1) * stored.block.y, stored.shape.y)),
            "x": slice(ix * stored.block.x, min((ix + 1) * stored.block.x, stored.shape.x)),
            "c": slice(None),
        }
        index: list[Any] = [bounds.get(name, self.info.selection.get(name, 0)) for name in self.dims]
        array = _arrays.get(self.group, self.paths[level], self.info.fingerprint)
        try:
            with timed("decode"):
                pixels = np.asarray(array[tuple(index)])
        except Exception as error:  # each codec has its own errors, some of them plain RuntimeError
            raise DamagedError(self._reason(array, index, error)) from error
        count("blocks_decoded")
        left = [name for name in self.dims if name in bounds]
        if "c" not in left:
            pixels, left = pixels[..., None], [*left, "c"]
        return masked(pixels.transpose([left.index(name) for name in ("y", "x", "c")]), self.info.nodata)

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

    def read_extras(self) -> Extras:
        """Return what the attributes say besides the pixels."""
        node = read_node(self.group)
        return zarr_extras({} if node is None else node.attrs)

    def read_identifying(self, name: str) -> Array:
        """Return a picture `(y, x, c)` that may show a label; only for users who said that they want it."""
        array = open_array(self.group, f"{FOLDER}/{name}")
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

    def _reason(self, array: zarr.Array[Any], index: list[Any], error: Exception) -> str:
        if self.root.is_local:
            chunk = [
                (part.start or 0 if isinstance(part, slice) else part) // size
                for part, size in zip(index, array.chunks, strict=True)
            ]
            key = array.metadata.encode_chunk_key(tuple(chunk))
            file = File(url=f"{self.group.path}/{array.path}/{key}")
            if file.exists and file.size < 512 and file.read(0, file.size).startswith(LFS_MAGIC):
                return "a Git LFS pointer stands in place of the chunk: run `git lfs pull`"
        return f"Zarr chunk: {type(error).__name__}: {error}"


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
    while (collection := collection_of(node)) is not None and not node.is_array:
        axis, paths = collection
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
    arrays = [open_array(node.file, path) for path in image.paths]
    described = describe(node, image, arrays)
    info = replace(
        described.info,
        axes={**described.info.axes, **sizes},
        selection={**described.info.selection, **{name: chosen.get(name, 0) for name in sizes}},
        notes=(*described.info.notes, *default_notes(sizes, chosen)),
    )
    return ZarrSource(root=root, group=node.file, paths=image.paths, dims=described.dims, info=info, collections=sizes)


def _child(node: Node, path: str) -> Node:
    child = read_node(inside(node.file, checked_path(node.file, path)))
    if child is None:
        raise SourceError.of(
            f"`{node.file.url}`", got=f"no group `{path}`", expected="the image that the metadata list", do="Copy it."
        )
    return child
