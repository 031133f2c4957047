"""What a store of ours says of itself beside what any OME-Zarr does: format, shards that were written, validity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tilestream.errors import SourceError
from tilestream.sources.ngff import Node, read_node
from tilestream.sources.recognise import inside

OWNER = "tilestream"
"""Attribute of the root of each store of ours."""
FORMAT = 1
"""Newest format of a pyramid that is known here."""
VALID = "labels/valid"
"""Mask of a store, 1 where something was measured."""


def _own(node: Node) -> Mapping[str, Any]:
    own = node.attrs.get(OWNER)
    return own if isinstance(own, Mapping) else {}


def _is_pyramid(node: Node) -> bool:
    return _own(node).get("store") == "pyramid"


def check_format(node: Node) -> None:
    """Raise `SourceError` for a store of ours whose format is newer than what is known here.

    Parameters
    ----------
    node : Node
        Group of an image.
    """
    found = _own(node).get("format", FORMAT)
    if isinstance(found, int) and found > FORMAT:
        raise SourceError.of(
            f"`{node.file.url}`",
            got=f"format {found} of tilestream's stores, written by tilestream {_own(node).get('version', 'unknown')}",
            expected=f"format {FORMAT} at most",
            do="Install that version of tilestream or a newer one.",
        )


def shard_maps(node: Node, paths: Sequence[str]) -> tuple[str | None, ...]:
    """Return the map of the shards that were written of each level, None where the store has none.

    Parameters
    ----------
    node : Node
        Group of an image.
    paths : sequence of str
        Array of each level; the first part of each names the level.

    Returns
    -------
    tuple of str or None
        As `codecs.shardmap` encodes them.
    """
    maps = _own(node).get("shards") if _is_pyramid(node) else None
    found = [maps.get(path.partition("/")[0]) if isinstance(maps, Mapping) else None for path in paths]
    return tuple(text if isinstance(text, str) else None for text in found)


def valid_path(node: Node) -> str | None:
    """Return the path of the mask of a store of ours, None where everything is valid.

    Parameters
    ----------
    node : Node
        Group of an image.

    Returns
    -------
    str or None
        `labels/valid`, where the store names it.
    """
    labels = read_node(inside(node.file, "labels")) if _is_pyramid(node) else None
    ome = labels.attrs.get("ome") if labels is not None else None
    names = ome.get("labels") if isinstance(ome, Mapping) else None
    return VALID if isinstance(names, list) and "valid" in names else None
