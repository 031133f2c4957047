"""What a Zarr store says besides its pixels: facts that our own writer keeps in it, and attributes of others.

Our stores hold in the root attribute `tilestream`: `technical` and `identifying` (JSON objects), `icc` (base64) and
`associated` (names of pictures, arrays `associated/<name>/image`), with `associated_damaged` for those that are lost.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from tilestream.sources.extras import Extras
from tilestream.sources.icc import checked_icc
from tilestream.sources.ownstore import OWNER
from tilestream.sources.technical import KNOWN, kept

FOLDER = "associated"
"""Group of the pictures."""
SAFE = "thumbnail"
"""The one picture that shows no more than the image itself."""
_STRUCTURE = frozenset({
    OWNER, "ome", "multiscales", "omero", "plate", "well", "labels", "image-label", "bioformats2raw.layout",
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
    lost = own.get("associated_damaged")
    if isinstance(lost, Mapping) and lost:
        notes += (f"could not be decoded when the store was made: {', '.join(map(str, lost))}",)
    return Extras(
        icc=icc,
        technical=kept(technical, KNOWN) if isinstance(technical, Mapping) else {},
        identifying={**others, **(identifying if isinstance(identifying, Mapping) else {})},
        identifying_images=tuple(name for name in pictures(attrs) if name != SAFE),
        notes=notes,
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
    own = attrs.get(OWNER)
    return own if isinstance(own, Mapping) else {}


def _decoded(text: Any) -> bytes:
    """Return the bytes of a base64 text, the text itself where it is none, so that it is found to be no profile."""
    if not isinstance(text, str):
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return text.encode()
