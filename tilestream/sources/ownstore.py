"""What a store of ours says of itself beside what any OME-Zarr does: format, shards written, validity, facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, get_args

from tilestream.errors import SourceError
from tilestream.sources.ngff import Node, read_node
from tilestream.sources.recognise import inside
from tilestream.sources.scene import iso_time
from tilestream.sources.storelayers import layers_of
from tilestream.sources.technical import KNOWN
from tilestream.types import Channel, ImageInfo, Modality

OWNER = "tilestream"
"""Attribute of the root of each store of ours."""
FORMAT = 1
"""Newest format of a store of an image that is known here."""
FIELD = "field"
"""Kind of a store whose chunks are fields that answer several levels."""
VALID = "labels/valid"
"""Mask of a store, 1 where something was measured."""
MOST_DAMAGE = 3
"""Damaged blocks of the image that was stored that a note names."""
HALF_UPDATED = "an update of this store has not come to its end: run it again, or wait for it"


def _own(node: Node) -> Mapping[str, Any]:
    own = node.attrs.get(OWNER)
    return own if isinstance(own, Mapping) else {}


def _is_image(node: Node) -> bool:
    return _own(node).get("store") in ("pyramid", FIELD)


def field_record(node: Node) -> Mapping[str, Any] | None:
    """Return our own record of a store whose tiles are fields, None for all other groups.

    Parameters
    ----------
    node : Node
        Group of an image.

    Returns
    -------
    Mapping or None
        As `tilestream.sinks.fieldstore` writes it; nothing of it was checked.
    """
    own = _own(node)
    return own if own.get("store") == FIELD else None


def level_step(node: Node) -> int:
    """Return how many levels of the image lie from one array of a group to the next: 1 but in a store of fields."""
    step = (field_record(node) or {}).get("level_step")
    return step if type(step) is int else 1


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
    maps = _own(node).get("shards") if _is_image(node) else None
    found = [maps.get(path.partition("/")[0]) if isinstance(maps, Mapping) else None for path in paths]
    return tuple(text if isinstance(text, str) else None for text in found)


def with_record(info: ImageInfo, node: Node, paths: Sequence[str]) -> ImageInfo:
    """Return a description with what a store of ours says besides: class layers, date, and what a choice has made.

    Parameters
    ----------
    info : ImageInfo
        Description by what any Zarr says.
    node : Node
        Group of an image.
    paths : sequence of str
        Array of each level.

    Returns
    -------
    ImageInfo
        The same for stores of others, whose labels are cells as often as classes.
    """
    if not _is_image(node):
        return info
    image = _own(node).get("image")
    record = image if isinstance(image, Mapping) else {}
    derived = record.get("derived")
    return replace(
        info,
        classes=layers_of(node, image=paths[0]),
        datetime=iso_time(record.get("datetime")),
        derived=tuple(word for word in derived if isinstance(word, str)) if isinstance(derived, list) else (),
    )


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
    labels = read_node(inside(node.file, "labels")) if _is_image(node) else None
    ome = labels.attrs.get("ome") if labels is not None else None
    names = ome.get("labels") if isinstance(ome, Mapping) else None
    return VALID if isinstance(names, list) and "valid" in names else None


def with_own_facts(info: ImageInfo, node: Node) -> ImageInfo:
    """Return the description of an image of our own store with what OME-Zarr, GeoZarr and CF have no words for.

    Parameters
    ----------
    info : ImageInfo
        What the standards say; it goes before our own record.
    node : Node
        Group of the image.

    Returns
    -------
    ImageInfo
        With modality, control points, date, and a factor and offset for each channel, and with a note when an update
        of the store was never completed; unchanged for other stores.
    """
    image = _own(node).get("image")
    if not isinstance(image, Mapping):
        return info
    modality, moment, gcps = image.get("modality"), image.get("datetime"), _points(image.get("gcps"))
    known, crs = get_args(Modality), image.get("crs") if gcps else None
    return replace(
        info,
        modality=cast("Modality", modality) if info.modality == "unknown" and modality in known else info.modality,
        gcps=info.gcps or gcps,
        crs=info.crs or (crs if isinstance(crs, str) else None),  # that of the points: GeoZarr has none without affine
        datetime=info.datetime or KNOWN["acquired"](moment),
        channels=_scaled(info.channels, image.get("channels")),
        notes=(*info.notes, *([HALF_UPDATED] if "updating" in _own(node) else []), *_damage_notes(_own(node))),
    )


def _damage_notes(own: Mapping[str, Any]) -> Iterator[str]:
    """Yield what of the image could not be decoded when it was stored."""
    reasons = [str(reason) for reason in own.get("damage") or () if isinstance(reason, str)]
    if reasons:
        rest = f", and {len(reasons) - MOST_DAMAGE} more" if len(reasons) > MOST_DAMAGE else ""
        words = "; ".join(reasons[:MOST_DAMAGE])
        yield f"not valid here, since it could not be decoded when it was stored: {words}{rest}"


def _points(entries: Any) -> tuple[tuple[float, float, float, float, float], ...]:
    """Return control points, none where any of them is not five numbers."""
    try:
        return tuple((float(r), float(c), float(x), float(y), float(z)) for r, c, x, y, z in entries or ())
    except (TypeError, ValueError):
        return ()


def _scaled(channels: tuple[Channel, ...], described: Any) -> tuple[Channel, ...]:
    """Return the channels with their own factors and offsets, where ours are described in the same order."""
    facts = [one for one in described if isinstance(one, Mapping)] if isinstance(described, list) else []
    if [one.get("name") for one in facts] != [channel.name for channel in channels]:
        return channels
    return tuple(
        replace(channel, scale=float(one["scale"]), offset=float(one["offset"]))
        if all(isinstance(one.get(name), int | float) for name in ("scale", "offset"))
        else channel
        for channel, one in zip(channels, facts, strict=True)
    )
