"""What a Zarr store says besides its pixels: facts that our own writer keeps in it, and attributes of others.

Our stores hold in the root attribute `tilestream`: `technical` and `identifying` (JSON objects), `icc` (base64) and
`associated` (names of pictures, arrays under `associated/`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from tilestream.sources.extras import Extras
from tilestream.sources.icc import checked_icc
from tilestream.sources.technical import KNOWN, kept
from tilestream.types import Channel, ImageInfo, Modality

OWN = "tilestream"
FOLDER = "associated"
"""Group of the pictures."""
SAFE = "thumbnail"
"""The one picture that shows no more than the image itself."""
_STRUCTURE = frozenset({
    OWN, "ome", "multiscales", "omero", "plate", "well", "labels", "image-label", "bioformats2raw.layout",
    "zarr_conventions", "_ARRAY_DIMENSIONS",
})  # fmt: skip


def zarr_extras(attrs: Mapping[str, Any]) -> Extras:
    """Return what the attributes of an image group say besides the pixels.

    Parameters
    ----------
    attrs : Mapping
        Attributes of the group.

    Returns
    -------
    Extras
        Technical facts pass the whitelist again: anybody can write an attribute of that name.
    """
    own = _own(attrs)
    technical, identifying = own.get("technical"), own.get("identifying")
    others = {
        name: value
        for name, value in attrs.items()
        if name not in _STRUCTURE and not name.startswith(("spatial:", "proj:"))
    }
    icc, notes = checked_icc(_decoded(own.get("icc")))
    return Extras(
        icc=icc,
        technical=kept(technical, KNOWN) if isinstance(technical, Mapping) else {},
        identifying={**others, **(identifying if isinstance(identifying, Mapping) else {})},
        identifying_images=tuple(name for name in pictures(attrs) if name != SAFE),
        notes=notes,
    )


def with_own_facts(info: ImageInfo, attrs: Mapping[str, Any]) -> ImageInfo:
    """Return the description of an image of our own store with what OME-Zarr, GeoZarr and CF have no words for.

    Parameters
    ----------
    info : ImageInfo
        What the standards say; it goes before our own record.
    attrs : Mapping
        Attributes of the image group.

    Returns
    -------
    ImageInfo
        With modality, control points, date, and a factor and offset for each channel; unchanged for other stores.
    """
    image = _own(attrs).get("image")
    if not isinstance(image, Mapping):
        return info
    modality, moment = image.get("modality"), image.get("datetime")
    points = image.get("gcps") if isinstance(image.get("gcps"), list) else []
    gcps = tuple((float(r), float(c), float(x), float(y), float(z)) for r, c, x, y, z in filter(_is_point, points))
    return replace(
        info,
        modality=modality if info.modality == "unknown" and modality in get_args(Modality) else info.modality,
        gcps=info.gcps or gcps,
        datetime=info.datetime or (moment if KNOWN["acquired"](moment) else None),
        channels=_scaled(info.channels, image.get("channels")),
    )


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 5 and all(isinstance(n, int | float) for n in point)


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


def pictures(attrs: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the pictures of a store of ours.

    Parameters
    ----------
    attrs : Mapping
        Attributes of the group.

    Returns
    -------
    tuple of str
        Names without any slash, since they become paths.
    """
    listed = _own(attrs).get("associated")
    names = listed if isinstance(listed, list) else []
    return tuple(name for name in names if isinstance(name, str) and name.strip(".") and "/" not in name)


def _own(attrs: Mapping[str, Any]) -> Mapping[str, Any]:
    own = attrs.get(OWN)
    return own if isinstance(own, Mapping) else {}


def _decoded(text: Any) -> bytes:
    """Return the bytes of a base64 text, the text itself where it is none, so that it is found to be no profile."""
    if not isinstance(text, str):
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return text.encode()
