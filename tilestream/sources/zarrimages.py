"""Every image of a Zarr store with the arrays that its metadata name, opened for a check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import zarr

from tilestream.errors import SourceError
from tilestream.sources.files import File
from tilestream.sources.ngff import Multiscale, Node, checked_path, collection_of, read_node
from tilestream.sources.recognise import inside
from tilestream.sources.zarrinfo import levels_of
from tilestream.sources.zarrpython import open_array


@dataclass(kw_only=True)
class Findings:
    """What a check has found so far."""

    problems: list[str] = field(default_factory=list)
    """What breaks the format, or stands in the way of the pixels."""
    notes: list[str] = field(default_factory=list)
    """What a user should know, and what cannot be told."""


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """One multiscale image of a store."""

    node: Node
    """Its group, or the only array."""
    name: str
    """Path in the store with a colon and a space behind it, for messages; empty for the image at the root."""
    levels: Multiscale
    """What its metadata say."""
    arrays: tuple[zarr.Array[Any], ...]
    """Array of each level."""

    @property
    def is_ours(self) -> bool:
        """Return whether this library wrote it, so that it must keep rules that others may leave out."""
        return "tilestream" in self.node.attrs

    @property
    def ome(self) -> Mapping[str, Any]:
        """Return the first multiscale image of the OME metadata as written, empty where there is none."""
        ome = self.node.attrs.get("ome", self.node.attrs)
        found = ome.get("multiscales") if isinstance(ome, Mapping) else None
        return found[0] if isinstance(found, list) and found and isinstance(found[0], Mapping) else {}


def stored_images(root: File, findings: Findings) -> list[StoredImage]:
    """Return all images of a store: of plates and series, and the labels of each.

    Parameters
    ----------
    root : File
        Folder of the store.
    findings : Findings
        Told of groups that cannot be read, and of levels that are not there.

    Returns
    -------
    list of StoredImage
        Those whose levels can be opened.
    """
    images: list[StoredImage] = []
    waiting = [("", root)]
    while waiting:
        path, file = waiting.pop(0)
        name = f"{path}: " if path else ""
        try:
            node = read_node(file)
            if node is None:
                findings.problems.append(f"{name}no Zarr group or array")
                continue
            collection = None if node.is_array else collection_of(node)
            if collection is not None:
                inner = [checked_path(file, one) for one in collection[1]]
                waiting += [(f"{path}/{one}".strip("/"), inside(file, one)) for one in inner]
                continue
            images += _opened(node, name, findings)
            labels = None if node.is_array else read_node(inside(file, "labels"))
        except SourceError as error:
            findings.problems.append(f"{name}{error}")
            continue
        if labels is not None:
            waiting.append((f"{path}/labels".strip("/"), inside(file, "labels")))
    return images


def _opened(node: Node, name: str, findings: Findings) -> list[StoredImage]:
    levels, arrays = levels_of(node), []
    for index, path in enumerate(levels.paths):
        try:
            arrays.append(open_array(node.file, checked_path(node.file, path)))
        except SourceError as error:
            findings.problems.append(f"{name}level {index}: {error}")
    if len(arrays) < len(levels.paths):
        return []
    return [StoredImage(node=node, name=name, levels=levels, arrays=tuple(arrays))]
